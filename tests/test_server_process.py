"""The server as a process: its socket, its signals, its silence."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from joulebox.clock import SystemClock
from joulebox.errors import JouleboxError
from joulebox.protocol import to_json
from joulebox.server.app import listen, serve
from joulebox.settings import Settings
from joulebox.units import nanoseconds
from server_stage import offer, stage

SERVE = """
import sys
from pathlib import Path
from joulebox.server.app import serve
from joulebox.settings import Settings
serve(Settings(data_dir=Path(sys.argv[1]), port=0, node="n"), lambda url: print(url, flush=True))
print("ended by itself")
"""
CLOCK = SystemClock()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@contextmanager
def process(folder: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    server = subprocess.Popen([sys.executable, "-c", SERVE, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield server, server.stdout.readline().strip()
    finally:
        server.kill()
        server.communicate()


def switches(pid: int) -> int:
    """How often the process's threads have woken up so far."""
    count = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        count += sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))
    return count


def test_it_stops_at_once_and_sleeps_before(tmp_path: Path) -> None:
    """With a node waiting and a prompt watched it does not wake up, and SIGTERM ends it and every stream, exit 0."""
    with process(tmp_path) as (server, url), httpx2.Client(base_url=url, timeout=10) as http:
        http.post("/node/v1/lease", content=to_json(offer(wait_s=0.0)))
        prompt_id = http.post("/api/v1/prompts", json={"model": "m", "prompt": "hi"}).json()["id"]
        with http.stream("GET", f"/api/v1/prompts/{prompt_id}/events") as events:
            lines = events.iter_lines()
            assert next(lines) == "event: queued"
            CLOCK.sleep_until(CLOCK.now_ns() + nanoseconds(0.3))
            before = switches(server.pid)
            CLOCK.sleep_until(CLOCK.now_ns() + nanoseconds(1.0))
            assert switches(server.pid) - before <= 2
            server.send_signal(signal.SIGTERM)
            assert [line for line in lines if line.startswith("event")] == []
        assert server.wait(30) == 0
        assert server.stdout is not None
        assert server.stdout.read() == "ended by itself\n", "what does not end within STOP_S is cut off"


@pytest.mark.anyio
async def test_a_killed_server_keeps_every_prompt_it_took(tmp_path: Path) -> None:
    """What was answered 202 is there after SIGKILL, and the next server may use the file at once."""
    with process(tmp_path) as (server, url), httpx2.Client(base_url=url, timeout=10) as http:
        http.post("/node/v1/lease", content=to_json(offer(wait_s=0.0)))
        asked = [http.post("/api/v1/prompts", json={"model": "m", "prompt": str(n)}).json()["id"] for n in range(5)]
        server.kill()
        server.wait(30)
    async with stage(tmp_path) as scene:
        listed = (await scene.http.get("/api/v1/prompts")).json()["prompts"]
        assert [entry["id"] for entry in listed] == asked[::-1]


def test_a_taken_port(tmp_path: Path) -> None:
    """A port that somebody else serves is refused in one sentence that names it and `--port`."""
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(JouleboxError, match=f"Port {port} on 127.0.0.1 .*--port") as refused:
            serve(Settings(data_dir=tmp_path, port=port))
    assert refused.value.code == "port_in_use"
    assert not list(tmp_path.iterdir()), "nothing was made before the port was there"


def test_an_address_that_is_none(tmp_path: Path) -> None:
    """A host that cannot be resolved is refused as a setting."""
    with pytest.raises(JouleboxError, match="host") as refused:
        listen("no.such.host.invalid", 0)
    assert refused.value.code == "bad_setting"


@pytest.mark.anyio
async def test_connections_keep_alive_by_themselves(tmp_path: Path) -> None:
    """The kernel probes every accepted connection after 6 s of silence, every 2 s, three times."""
    async with stage(tmp_path) as scene:
        host, port = scene.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as mine:
            mine.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await scene.http.get("/healthz")).status_code == 200
            with accepted(mine.getsockname()) as theirs:
                assert theirs.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
                assert [theirs.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [6, 2, 3, 12_000]
                assert theirs.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def accepted(peer: tuple[str, int]) -> socket.socket:
    """The other end of a connection of this process, found among its descriptors."""
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if not entry.readlink().name.startswith("socket:"):
                continue
            found = socket.socket(fileno=os.dup(int(entry.name)))
        except OSError:
            continue
        try:
            if found.family == socket.AF_INET and found.getpeername() == peer:
                return found
        except OSError:
            pass
        found.close()
    raise AssertionError("the accepted connection is not there")
