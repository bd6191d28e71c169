"""Gateways before the same engine, each a process of its own: the engine itself, the least that Python can do, LiteLLM
as a bare proxy, and Joulebox, which queues every prompt durably, accounts it and keeps its receipt."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from accuracy_peers import environment
from joulebox.clock import SystemClock
from joulebox.supervisor import Supervisor
from joulebox.units import seconds
from scale_nodes import Wire
from stage import wait

CLOCK = SystemClock()
TESTS = Path(__file__).parent
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
CHAT = "/v1/chat/completions"
READY_S = 60.0
WORD = b" word"
"""Each token of the engine."""
LITELLM = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_MASTER_KEY": "sk-bench"}
DIRECT, FLOOR, PROXY, OURS = "the engine itself", "bare ASGI + aiohttp", "LiteLLM proxy", "**Joulebox**"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """Something that answers OpenAI's form at `port`. `pids` are the processes whose work is its own."""

    name: str
    port: int
    pids: tuple[int, ...]
    headers: Mapping[str, str] = field(default_factory=dict)
    start_s: float = 0.0
    folder: Path | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def cpu_s(self) -> float:
        """Processor seconds of it and of all that it started."""
        return sum(tree_cpu_s(pid) for pid in self.pids)

    def rss_mb(self) -> float:
        """Resident megabytes (10^6 bytes) of the same."""
        return sum(tree_rss_mb(pid) for pid in self.pids)


def family(pid: int) -> Iterator[int]:
    """A process and all below it."""
    yield pid
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from family(int(child))


def tree_cpu_s(pid: int) -> float:
    """Processor seconds of a process and all below it, ended ones included."""
    total = 0
    for one in family(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15]))
    return total / TICKS_PER_S


def tree_rss_mb(pid: int) -> float:
    """Resident megabytes of a process and all below it; what they share is counted once for each."""
    total = 0
    for one in family(pid):
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return total / 1e6


# --- starting them ----------------------------------------------------------------------------------------------------


def free_port() -> int:
    """One that nobody uses at this moment."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def process(command: Sequence[str], settings: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A process in a session of its own, ended with all that it started."""
    started = subprocess.Popen(
        list(command), env=os.environ | dict(settings or {}), stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGTERM)
        try:
            started.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()


@contextmanager
def upstream(tokens: int, gap_ms: float) -> Iterator[Gateway]:
    """The engine."""
    with process([sys.executable, str(TESTS / "bench_upstream.py"), str(tokens), str(gap_ms)]) as started:
        assert started.stdout is not None
        yield Gateway(name=DIRECT, port=int(started.stdout.readline()), pids=(started.pid,))


@contextmanager
def floor(engine: Gateway) -> Iterator[Gateway | None]:
    """A proxy that does nothing; `None` where it cannot be had."""
    python = environment("asgi-proxy")
    if python is None:
        yield None
        return
    port = free_port()
    command = [str(python), str(TESTS / "peers" / "asgi_proxy.py"), engine.url, str(port)]
    with listening(FLOOR, command, port) as started:
        yield started


@contextmanager
def litellm(engine: Gateway) -> Iterator[Gateway | None]:
    """LiteLLM's proxy: one worker, no database, a master key, logs of errors alone; `None` where it cannot be had."""
    python = environment("litellm")
    if python is None:
        yield None
        return
    port = free_port()
    there = {"model": "openai/m", "api_base": f"{engine.url}/v1", "api_key": "none"}
    config = {"model_list": [{"model_name": "m", "litellm_params": there}]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(json.dumps(config))  # JSON is YAML
        command = [str(python.parent / "litellm"), "--config", str(path), "--host", "127.0.0.1", "--port", str(port)]
        headers = {"authorization": f"Bearer {LITELLM['LITELLM_MASTER_KEY']}"}
        with listening(PROXY, [*command, "--num_workers", "1"], port, LITELLM, headers) as started:
            yield started


@contextmanager
def listening(
    name: str,
    command: Sequence[str],
    port: int,
    settings: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Iterator[Gateway | None]:
    """A peer once it listens, with how long that took; `None` where it ends or never does."""
    began_ns = CLOCK.now_ns()
    with process(command, settings) as started:
        while seconds(CLOCK.now_ns() - began_ns) < READY_S and started.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
                took_s = seconds(CLOCK.now_ns() - began_ns)
                yield Gateway(name=name, port=port, pids=(started.pid,), headers=headers or {}, start_s=took_s)
                return
            wait(0.02)
        print(f"{name} does not listen after {seconds(CLOCK.now_ns() - began_ns):.0f} s", flush=True)
        yield None


@contextmanager
def joulebox(settings: Mapping[str, str] | None = None) -> Iterator[Gateway]:
    """A Joulebox server with its books in SQLite."""
    with tempfile.TemporaryDirectory() as folder:
        supervisor = Supervisor(CLOCK)
        quiet = {"JOULEBOX_DATA_DIR": folder, "JOULEBOX_CONTROL_EVERY_S": "0", "JOULEBOX_ZONE": "DE"}
        began_ns = CLOCK.now_ns()
        try:
            url = supervisor.start("server", ["serve", "--port", "0"], quiet | dict(settings or {}))
            took_s = seconds(CLOCK.now_ns() - began_ns)
            pid = supervisor.pid("server")
            assert pid is not None
            port = int(url.rpartition(":")[2])
            yield Gateway(name=OURS, port=port, pids=(pid,), start_s=took_s, folder=Path(folder))
        finally:
            supervisor.stop()


# --- asking them ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Rushed:
    """What so many clients saw who ask as fast as they are answered."""

    clients: int
    requests: int
    failed: int
    wall_s: float
    cpu_s: float
    took_s: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.wall_s

    @property
    def cpu_ms(self) -> float:
        """Of the gateway, a request."""
        return self.cpu_s / max(self.requests, 1) * 1e3


class Client(Wire):
    """A kept-open connection that sends a gateway's own headers."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway.url)
        self.own = "".join(f"{name}: {value}\r\n" for name, value in gateway.headers.items())


async def rush(gateway: Gateway, clients: int, lasts_s: float) -> Rushed:
    """Ask without streaming for so long."""
    body = json.dumps({"model": "m", "max_tokens": 64, "messages": [{"role": "user", "content": "hello"}]}).encode()
    took: list[float] = []
    failed = 0
    end_ns = CLOCK.now_ns() + round(lasts_s * 1e9)

    async def person() -> None:
        nonlocal failed
        wire = Client(gateway)
        while (begun_ns := CLOCK.now_ns()) < end_ns:
            try:
                status, _ = await wire.post(CHAT, body)
            except (OSError, asyncio.IncompleteReadError):
                wire.close()
                status = 0
            if status == 200:
                took.append(seconds(CLOCK.now_ns() - begun_ns))
            else:
                failed += 1
        wire.close()

    cpu_s, begun_ns = gateway.cpu_s(), CLOCK.now_ns()
    await asyncio.gather(*(person() for _ in range(clients)))
    wall_s = seconds(CLOCK.now_ns() - begun_ns)
    return Rushed(
        clients=clients,
        requests=len(took),
        failed=failed,
        wall_s=wall_s,
        cpu_s=gateway.cpu_s() - cpu_s,
        took_s=tuple(took),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed:
    """What so many clients saw who each read one stream. Seconds to the first token, and of the whole stream."""

    clients: int
    tokens: int
    cpu_s: float
    first_s: tuple[float, ...]
    whole_s: tuple[float, ...]

    @property
    def cpu_us(self) -> float:
        """Of the gateway, a token."""
        return self.cpu_s / max(self.tokens, 1) * 1e6


async def stream(gateway: Gateway, clients: int, tokens_max: int, number: int = 0) -> Streamed:
    """Each client asks once for so many tokens, streamed. `number` makes the prompt another one."""
    first, whole, tokens = [], [], 0
    asked = {"model": "m", "max_tokens": tokens_max, "stream": True}

    async def person(place: int) -> None:
        nonlocal tokens
        wire = Client(gateway)
        text = f"hello {number} {place}"
        begun_ns = CLOCK.now_ns()
        status = await wire.request("POST", CHAT, json.dumps(asked | {"messages": [user(text)]}).encode())
        assert status == 200, await wire.body()
        said, told = b"", False
        while piece := await wire.chunk():
            said += piece
            if not told and WORD in said:
                told = True
                first.append(seconds(CLOCK.now_ns() - begun_ns))
        whole.append(seconds(CLOCK.now_ns() - begun_ns))
        tokens += said.count(WORD)
        wire.close()

    cpu_s = gateway.cpu_s()
    await asyncio.gather(*(person(place) for place in range(clients)))
    return Streamed(
        clients=clients,
        tokens=tokens,
        cpu_s=gateway.cpu_s() - cpu_s,
        first_s=tuple(first),
        whole_s=tuple(whole),
    )


def user(text: str) -> dict[str, str]:
    """A turn."""
    return {"role": "user", "content": text}
