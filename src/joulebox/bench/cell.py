"""The process in which an answer's code runs: it reads one request, locks itself in, runs it, and replies line by line.

Started by its path as `python -S`, so it knows the standard library alone, and never imported by the service. After
the lock the kernel (seccomp) lets it do nothing but compute, allocate memory, and write to the pipe it has: it cannot
open or look at a file, make a socket, start a process or thread, or signal anyone. The lock is for the whole life of
the process and cannot be undone, whatever the code does. What an answer may import is loaded before the lock.
"""

import contextlib
import ctypes
import importlib
import json
import os
import re
import resource
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

MODULES: Final = (
    # data and numbers
    "array", "bisect", "cmath", "collections", "collections.abc", "copy", "decimal", "enum", "fractions", "functools",
    "heapq", "itertools", "math", "numbers", "operator", "queue", "random", "statistics", "weakref",
    # texts and times
    "base64", "binascii", "calendar", "codecs", "csv", "datetime", "difflib", "hashlib", "html", "json", "keyword",
    "locale", "pprint", "re", "string", "struct", "textwrap", "time", "unicodedata", "uuid", "zlib", "zoneinfo",
    # the language itself
    "abc", "ast", "contextlib", "dataclasses", "io", "logging", "os", "os.path", "sys", "threading", "timeit",
    "traceback", "types", "typing", "unittest", "warnings",
)  # fmt: skip
"""What an answer may import: nothing here acts when it is loaded. Loaded only if the source mentions it."""

_ALSO: Final = {"datetime": ("_strptime",), "decimal": ("_decimal",), "random": ("_random",)}
"""What some of them would load late, when no file can be opened any more."""

_TRIMS_MAX: Final = 200
_ROWS_MAX: Final = 10_000

# --- the lock ---------------------------------------------------------------------------------------------------------

# name: (number on x86-64, number on arm64)
_CALLS: Final = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215),
    "brk": (12, 214), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "sched_yield": (24, 124), "mremap": (25, 216), "madvise": (28, 233), "nanosleep": (35, 101), "getpid": (39, 172),
    "exit": (60, 93), "gettimeofday": (96, 169), "sigaltstack": (131, 132), "gettid": (186, 178), "futex": (202, 98),
    "restart_syscall": (219, 128), "clock_gettime": (228, 113), "clock_nanosleep": (230, 115), "exit_group": (231, 94),
    "getrandom": (318, 278), "rseq": (334, 293),
}  # fmt: skip
_MACHINES: Final = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _MODE_FILTER = 1, 22, 38, 2
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | 1, 0x80000000
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER_AT, _MACHINE_AT = 0, 4


class _Filter(ctypes.Structure):
    """The kernel's `struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def _filter(machine: int, numbers: list[int]) -> bytes:
    """Allow these calls of this machine, refuse all others as not permitted, end the process on a foreign machine."""
    steps = [(_LOAD, 0, 0, _MACHINE_AT), (_IF_EQUAL, 1, 0, machine), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER_AT)]
    for left, number in zip(range(len(numbers), 0, -1), numbers, strict=True):
        steps.append((_IF_EQUAL, left, 0, number))
    steps += [(_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def lock() -> bool:
    """Give up every right but to compute, for good. False where the machine has no such lock."""
    known = _MACHINES.get(os.uname().machine) if sys.platform == "linux" else None
    if known is None or sys.maxsize < 2**32:
        return False
    machine, column = known
    code = _filter(machine, [numbers[column] for numbers in _CALLS.values()])
    program = _Filter(length=len(code) // 8, code=code)
    prctl = ctypes.CDLL(None).prctl
    if prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return bool(prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0) == 0)


def limit(cpu_s: int, memory_bytes: int) -> None:
    """Bound what the process may use; it ends with the one that started it, and yields to everybody else."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.nice(10)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    for kind, most in (("AS", memory_bytes), ("FSIZE", 0), ("CORE", 0), ("NPROC", 0)):
        with contextlib.suppress(OSError, ValueError):  # not every system knows each of them
            resource.setrlimit(getattr(resource, f"RLIMIT_{kind}"), (most, most))


# --- the run ----------------------------------------------------------------------------------------------------------


def plain(value: object) -> object:
    """A value as JSON that tells lists, tuples, sets and dictionaries apart; of anything else its type alone."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, tuple):
        return {"tuple": [plain(each) for each in value]}
    if isinstance(value, set | frozenset):
        return {"set": [plain(each) for each in value]}
    if isinstance(value, dict):
        return {"dict": [[plain(key), plain(each)] for key, each in value.items()]}
    return {"other": type(value).__name__}


def _told(error: BaseException) -> dict[str, object]:
    return {"error": f"{type(error).__name__}: {error}"[:300], "memory": isinstance(error, MemoryError)}


def _load(source: str) -> None:
    """Import before the lock whatever the source might want of the allowed modules."""
    mentioned = set(re.findall(r"[a-z_]+", source))
    for name in MODULES:
        if mentioned.issuperset(name.split(".")):
            importlib.import_module(name)
            for late in _ALSO.get(name, ()):
                importlib.import_module(late)
    if "random" in sys.modules:
        sys.modules["random"].seed(0)


def _compiled(prefix: str, source: str) -> Any:
    """The program; prose after the code is left off, line by line. Raises `SyntaxError` if nothing of it compiles."""
    lines = source.splitlines()
    first: SyntaxError | None = None
    for kept in range(len(lines), max(len(lines) - _TRIMS_MAX, 0), -1):
        try:
            return compile(prefix + "\n" + "\n".join(lines[:kept]) + "\n", "answer", "exec")
        except SyntaxError as error:
            first = first or error
    raise first or SyntaxError("there is no code")


def _python(request: dict[str, Any]) -> Iterator[dict[str, object]]:
    """Define what the answer defines, then evaluate the calls one by one, then the check."""
    names: dict[str, Any] = {"__name__": "answer"}
    try:
        exec(_compiled(request["prefix"], request["source"]), names)
    except BaseException as error:  # noqa: BLE001 - an answer may raise anything
        yield _told(error) | {"defining": True}
        return
    for call in request["calls"]:
        try:
            yield {"value": plain(eval(call, names))}
        except BaseException as error:  # noqa: BLE001
            yield _told(error)
    try:
        exec(compile(request["check"], "check", "exec"), names)
    except BaseException as error:  # noqa: BLE001
        yield _told(error) | {"checking": True}


def _sql(request: dict[str, Any]) -> Iterator[dict[str, object]]:
    """Make the tables, then answer the query with nothing allowed but reading."""
    import sqlite3

    reading = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(request["setup"])
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1_000_000)

    def only_reading(action: int, _1: str | None, name: str | None, _3: str | None, _4: str | None) -> int:
        allowed = action in reading and name not in {"load_extension", "fts3_tokenizer"}
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    connection.set_authorizer(only_reading)
    try:
        rows = connection.execute(request["source"]).fetchmany(_ROWS_MAX)
        yield {"value": plain([tuple(row) for row in rows])}
    except (sqlite3.Error, sqlite3.Warning, OverflowError, UnicodeError, MemoryError) as error:
        yield _told(error)


def main() -> None:
    """Serve the one request."""
    request = json.loads(sys.stdin.buffer.read())
    run: Callable[[dict[str, Any]], Iterator[dict[str, object]]] = {"python": _python, "sql": _sql}[request["language"]]
    limit(request["cpu_s"], request["memory_bytes"])
    reply = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)
    os.chdir("/")
    if request["language"] == "python":
        _load(f"{request['prefix']}\n{request['source']}\n{request['check']}\n" + "\n".join(request["calls"]))
    else:
        importlib.import_module("sqlite3")
    locked = lock()

    def say(line: dict[str, object]) -> None:
        body = json.dumps(line).encode() + b"\n"
        while body:
            body = body[os.write(reply, body) :]

    if not locked and request["language"] == "python":
        say({"unavailable": True})
        return
    token = request.pop("token")
    for line in run(request):
        try:
            say(line)
        except (ValueError, RecursionError, MemoryError) as error:  # a value that JSON cannot hold
            say(_told(error))
    say({"finished": token})
    os._exit(0)


if __name__ == "__main__":
    main()
