"""Which processes of this machine an engine consists of that runs as a server of its own.

They are no children of the node; without this their work would count as somebody else's. An engine of which no process
is seen here runs somewhere else, where this node's meters do not look.
"""

import contextlib
import os
import socket
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from joulebox.node.neighbours import Census, scan

NAME_MAX: Final = 15
"""The kernel knows so many letters of a program's name."""
_LISTENS: Final = "0A"
_INIT: Final = 1


def is_here(host: str) -> bool:
    """Whether `host` is an address of this machine: one that a socket can be bound to."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return any(_binds(family, address) for family, _, _, _, address in found)


def engine_processes(port: int | None, names: Collection[str], root: Path = Path("/")) -> frozenset[int] | None:
    """Who listens at `port`, and what is called one of `names`. Their children belong to them. `None` where this system
    shows no processes at all."""
    census = scan(root)
    if not census.processes:
        return None
    short = {name[:NAME_MAX] for name in names}
    called = {each.pid for each in census.processes if each.name in short and not each.kernel}
    listening = set(_listeners(port, census, root)) if port is not None else set()
    return frozenset((called | listening) - _above(census, os.getpid()))


def _binds(family: int, address: tuple[object, ...]) -> bool:
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((address[0], 0, *address[2:]))
        return True
    return False


def _listeners(port: int, census: Census, root: Path) -> Iterator[int]:
    """Processes that hold a listening socket of that port; of other users' they are only shown to root."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(port, root)}
    if not sockets:
        return
    for process in census.processes:
        folder = root / "proc" / str(process.pid) / "fd"
        with contextlib.suppress(OSError):
            for name in os.listdir(folder):  # noqa: PTH208 - a Path for each file would double the cost
                if _target(f"{folder}/{name}") in sockets:
                    yield process.pid
                    break


def _inodes(port: int, root: Path) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        try:
            rows = (root / "proc/net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _target(path: str) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115
    except OSError:
        return ""


def _above(census: Census, pid: int) -> set[int]:
    """Process 1 and who started this one: what is theirs is not the engine's."""
    parents = {each.pid: each.parent for each in census.processes}
    above = {_INIT}
    while (pid := parents.get(pid, 0)) and pid not in above:
        above.add(pid)
    return above
