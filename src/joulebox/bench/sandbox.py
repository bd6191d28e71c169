"""Runs what an answer wants run, in a process of its own that can compute and nothing else (`cell`).

Three walls, each enough for most answers: the kernel refuses the process every call but computing, allocating and
writing to one pipe (seccomp, Linux on x86-64 and arm64); limits on processor time, memory and wall time; and the
right results never enter the process, so code that takes over the interpreter still does not know what to say. Where
the first wall is missing, Python is not run at all; SQL is, because SQLite's own authorizer lets it only read.
"""

import contextlib
import json
import secrets
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from joulebox.bench.task import Fault, Outcome, Program, Result

_CELL: Final = Path(__file__).with_name("cell.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one answer may use. Wall time is long because a busy machine is no fault of the answer."""

    cpu_s: int = 5
    wall_s: float = 30.0
    memory_bytes: int = 512 * 2**20
    reply_bytes: int = 2**20


LIMITS: Final = Limits()


def run(program: Program, limits: Limits = LIMITS) -> Outcome:
    """What the program gives, within the limits. Never raises for anything that the program does."""
    if sys.platform == "win32":
        return Outcome(fault="unavailable", detail="Answers that must be run are scored on Linux: copy the file there.")
    token = secrets.token_hex(16)
    request = {
        "language": program.language,
        "source": program.source,
        "calls": program.calls,
        "check": program.check,
        "prefix": program.prefix,
        "setup": program.setup,
        "token": token,
        "cpu_s": limits.cpu_s,
        "memory_bytes": limits.memory_bytes,
    }
    body, code, late = _exchange(json.dumps(request).encode(), limits)
    return _outcome(body, code, late=late, token=token, limits=limits)


def _exchange(request: bytes, limits: Limits) -> tuple[bytes, int, bool]:
    """Reply (cut off above its limit), exit status, and whether time ran out."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-s", "-S", "-B", "-X", "utf8", str(_CELL)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PYTHONHASHSEED": "0"},  # the same order of sets each time: scores can be repeated
        cwd="/",
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    late = threading.Event()

    def end() -> None:
        late.set()
        process.kill()

    watch = threading.Timer(limits.wall_s, end)
    watch.daemon = True
    watch.start()
    try:
        with contextlib.suppress(OSError):  # it ended before it had read everything
            process.stdin.write(request)
            process.stdin.close()
        body = process.stdout.read(limits.reply_bytes + 1)
        if len(body) > limits.reply_bytes:
            process.kill()
    finally:
        process.stdout.close()
        status = process.wait()
        watch.cancel()
    return body, status, late.is_set()


def _outcome(body: bytes, status: int, *, late: bool, token: str, limits: Limits) -> Outcome:
    """The reply as results. Nothing in it is trusted but the token, which says that the check ran to its end."""
    lines = [line for each in body.split(b"\n") if (line := _line(each)) is not None]
    if lines and lines[0].get("unavailable"):
        detail = "Code is scored on Linux (x86-64 or arm64), where it can be locked in: copy the file there."
        return Outcome(fault="unavailable", detail=detail)
    finished = bool(lines) and lines[-1].get("finished") == token
    told = [line for line in lines if "finished" not in line]
    results = tuple(_result(line) for line in told)
    if finished:
        return Outcome(results=results, finished=True)
    fault: Fault = "died"
    detail = f"The program ended itself (exit status {status})."
    if len(body) > limits.reply_bytes:
        fault, detail = "output", f"More than {limits.reply_bytes} bytes came out."
    elif late:
        fault, detail = "time", f"It did not end within {limits.wall_s:g} s."
    elif status in (-9, -24):  # SIGKILL of the hard limit, SIGXCPU
        fault, detail = "time", f"It used more than {limits.cpu_s} s of processor time."
    elif told and told[-1].get("memory"):
        fault, detail = "memory", f"It wanted more than {limits.memory_bytes >> 20} MiB."
    return Outcome(results=results, fault=fault, detail=detail)


def _line(line: bytes) -> dict[str, Any] | None:
    """One line of the reply, if it is what the cell writes."""
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None


def _result(line: dict[str, Any]) -> Result:
    if "error" in line:
        return Result(error=str(line["error"])[:300])
    try:
        return Result(value=value_of(line.get("value")))
    except (TypeError, ValueError, RecursionError):
        return Result(error="its value cannot be read")


def value_of(told: object) -> object:
    """The Python value that `cell.plain` wrote. Raises `TypeError` or `ValueError` for anything else."""
    if isinstance(told, list):
        return [value_of(each) for each in told]
    if not isinstance(told, dict):
        return told
    ((kind, held),) = told.items()
    if kind == "other":
        return Unknown(type=str(held))
    if kind == "dict":
        return {value_of(key): value_of(value) for key, value in held}
    values = [value_of(each) for each in held]
    return tuple(values) if kind == "tuple" else frozenset(values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """A value of a type that no test expects, such as a generator; equal to nothing that is expected."""

    type: str
