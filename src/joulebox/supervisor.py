"""The processes of `joulebox up`: a server and a node, each its own process, started, watched, started again, ended.

A child is told through two file descriptors: its stdin is a pipe that ends when this process does, however it dies (the
child then ends too), and `JOULEBOX_READY_FD` names a pipe on which it says its address once it is ready.
"""

import os
import queue
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from joulebox.clock import Clock
from joulebox.errors import JouleboxError
from joulebox.terminal import say
from joulebox.units import nanoseconds

READY_FD: Final = "JOULEBOX_READY_FD"
LIFELINE: Final = "JOULEBOX_LIFELINE"
READY_WAIT_S: Final = 60.0
STOP_WAIT_S: Final = 8.0
END_WAIT_S: Final = 1.0
SETTLED_S: Final = 2.0
"""A child that lived this long was in order; one that dies sooner counts as a failed start."""
FAILED_STARTS_MAX: Final = 4
KILLED_FROM_OUTSIDE: Final = frozenset({signal.SIGKILL, signal.SIGTERM})
"""A child that somebody else ended did nothing wrong, however short it lived."""
USAGE_EXIT: Final = 2


def end_with_parent() -> None:
    """In a child: end when the parent is gone. A thread blocked in reading stdin costs no wake-ups."""
    if os.environ.get(LIFELINE) == "stdin":
        threading.Thread(target=_wait_for_eof, name="lifeline", daemon=True).start()


def parent_pid() -> int | None:
    """In a child: the process that started it and its siblings, `None` where it was started by itself."""
    return os.getppid() if os.environ.get(LIFELINE) == "stdin" else None


def _wait_for_eof() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


def say_ready(address: str) -> bool:
    """In a child: tell the parent that it is ready, once. False where there is no parent to tell."""
    number = os.environ.pop(READY_FD, "")
    if number:
        with os.fdopen(int(number), "w") as pipe:
            pipe.write(address)
    return bool(number)


@dataclass(slots=True)
class Child:
    """One process of the service and what became of its starts."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    started_ns: int = 0
    failed_starts: int = 0
    address: str = field(default="")


class Supervisor:
    """Starts children and keeps them running. `stop` ends them; so does the end of this process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._children: list[Child] = []
        self._exits: queue.SimpleQueue[Child | None] = queue.SimpleQueue()
        self._stopping = False

    def start(self, name: str, command: Sequence[str], settings: Mapping[str, str]) -> str:
        """Start `joulebox COMMAND` with `settings` in its environment; what it said when it was ready.

        A child that ends before that has said why on stderr: this process then ends with its exit code. Raises
        `JouleboxError("internal")` where it was killed or stays silent.
        """
        child = Child(name=name, command=command, environment=dict(settings))
        self._spawn(child)
        self._children.append(child)
        if child.address:
            return child.address
        code = self._ended(child)
        if code is not None and code > 0:
            raise SystemExit(code)
        raise JouleboxError("internal", f"The {name} could not be started: it said nothing and was not ready.")

    def keep_port(self, name: str, address: str) -> None:
        """Start `name` at the port of `address` again, whatever port it was asked to take first."""
        for child in self._children:
            if child.name == name:
                child.environment = dict(child.environment) | {"JOULEBOX_PORT": address.rpartition(":")[2]}
                child.command = [child.command[0]]

    def leave(self) -> None:
        """Make `watch` return; from a signal handler or another thread."""
        self._stopping = True
        self._exits.put(None)

    def watch(self) -> None:
        """Start again what dies, until `stop`. Raises `JouleboxError` where a child cannot be kept alive."""
        while (child := self._exits.get()) is not None:
            if self._stopping:
                return
            code = child.process.returncode if child.process else 0
            settled = self._clock.now_ns() - child.started_ns > nanoseconds(SETTLED_S)
            child.failed_starts = 0 if settled or -code in KILLED_FROM_OUTSIDE else child.failed_starts + 1
            if code == USAGE_EXIT or child.failed_starts >= FAILED_STARTS_MAX:
                raise JouleboxError("internal", f"The {child.name} does not stay up; its own words stand above.")
            wait_s = 0.2 * 2**child.failed_starts if child.failed_starts else 0.0
            say(f"the {child.name} ended ({_cause(code)}), starting it again", error=True)
            self._clock.sleep_until(self._clock.now_ns() + nanoseconds(wait_s))
            self._spawn(child)

    def _ended(self, child: Child) -> int | None:
        """The exit code of a child that may be about to end."""
        try:
            return child.process.wait(END_WAIT_S) if child.process else None
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        """End all children, first gently."""
        self.leave()
        for child in reversed(self._children):
            if child.process is None:
                continue
            child.process.send_signal(signal.SIGTERM)
            try:
                child.process.wait(STOP_WAIT_S)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()

    def pid(self, name: str) -> int | None:
        """The process number of a child."""
        return next((one.process.pid for one in self._children if one.name == name and one.process), None)

    def _spawn(self, child: Child) -> None:
        ready, tell = os.pipe()
        environment = os.environ | dict(child.environment) | {LIFELINE: "stdin", READY_FD: str(tell)}
        child.started_ns = self._clock.now_ns()
        child.process = subprocess.Popen(
            [sys.executable, "-m", "joulebox", *child.command],
            stdin=subprocess.PIPE,
            env=environment,
            pass_fds=(tell,),
            start_new_session=True,
        )
        os.close(tell)
        child.address = _read_ready(ready) or child.address
        threading.Thread(target=self._wait, args=(child, child.process), name=child.name, daemon=True).start()

    def _wait(self, child: Child, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        self._exits.put(child)


def _read_ready(pipe: int) -> str:
    """What the child says when it is ready; empty when it ends or stays silent too long."""
    with os.fdopen(pipe, "rb") as file:
        readable, _, _ = select.select([file], [], [], READY_WAIT_S)
        return file.read().decode() if readable else ""


def _cause(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
