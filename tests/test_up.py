"""`joulebox up` as a person runs it: it ends with everything it started, however it ends, and runs once."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from joulebox.client import Client
from joulebox.node.models import Registry
from stage import MODEL, SYSTEM, wait


def environment(folder: Path) -> Mapping[str, str]:
    settings = {"JOULEBOX_DATA_DIR": str(folder), "JOULEBOX_METERS": "none:", "JOULEBOX_NODE": "up"}
    return os.environ | settings


@contextmanager
def up(folder: Path, model: Path, *words: str, **around: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """`joulebox up` on a free port, and its address."""
    Registry(folder).add(model, MODEL, default_system=SYSTEM)
    command = [sys.executable, "-m", "joulebox", "up", "--port", "0", *words]
    process = subprocess.Popen(command, env={**environment(folder), **around}, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Joulebox is up: "), line
        yield process, line.split()[3]
    finally:
        process.kill()
        process.communicate()


def below(pid: int) -> list[int]:
    """Every process that `pid` started, and those they started."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [deeper for child in children for deeper in below(child)]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL], ids=lambda number: number.name
)
def test_it_ends_with_everything_it_started(tmp_path: Path, smollm2: Path, number: signal.Signals) -> None:
    """Told to end in the middle of an answer, or killed, `up` leaves no server, no node and no engine behind."""
    with up(tmp_path, smollm2) as (process, url), Client(url) as client:
        while not client.models():
            wait(0.05)
        prompt_id = client.submit(model=MODEL, prompt="Write a long story.", max_tokens=1500)["id"]
        assert "token" in (event.name for event in client.events(prompt_id))
        started = below(process.pid)
        assert len(started) == 3, "server, node, engine"
        process.send_signal(number)
        assert process.wait(10) == (0 if number != signal.SIGKILL else -number)
        assert left(started) == []


def left(started: list[int]) -> list[int]:
    """Which of these processes are still there after a while."""
    for _ in range(60):
        if not any(map(alive, started)):
            break
        wait(0.05)
    return [pid for pid in started if alive(pid)]


def test_it_runs_once(tmp_path: Path, smollm2: Path) -> None:
    """A second `up` on the same port, or on the same data folder, exits 1 with one sentence; the first goes on until
    SIGTERM, and leaves nothing behind; with `--open` the desktop is told its address."""
    opener = tmp_path / "bin" / "xdg-open"
    opener.parent.mkdir()
    opener.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    opener.chmod(0o755)
    desktop = {"DISPLAY": ":9", "PATH": f"{opener.parent}:{os.environ['PATH']}"}
    with up(tmp_path, smollm2, "--open", **desktop) as (process, url):
        port = url.rpartition(":")[2]
        for words, wanted in ((["--port", port], f"Port {port}"), (["--port", "0"], "Another server")):
            command = [sys.executable, "-m", "joulebox", "up", *words]
            second = subprocess.run(
                command, env=environment(tmp_path), capture_output=True, text=True, timeout=30, check=False
            )
            assert (second.returncode, second.stdout) == (1, "")
            assert wanted in second.stderr
            assert second.stderr.count("\n") == 1, second.stderr
        assert process.poll() is None
        assert (tmp_path / "opened").read_text() == f"{url}\n"
        with Client(url) as client:
            assert client.call("GET", "/healthz") == {"status": "ok"}
        started = below(process.pid)
        process.terminate()
        assert process.wait(10) == 0
        assert left(started) == []
