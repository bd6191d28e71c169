"""Who else used the machine: two looks at the process table, one at each end of the guards, and what lies between them.

A look (`scan`) costs about a millisecond at 100 processes and keeps nothing open; nothing runs in between. What can be
said afterwards (`compare`, pure) is told apart, never subtracted from any energy: own programs, the server on the same
host, foreign programs by name, the kernel's own threads, and what no process explains. Names are the kernel's short
ones (15 letters); command lines and users are never read, since receipts are shown to others.
"""

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from joulebox.model import NeighboursSeen, ProgramLoad

SECTOR_BYTES: Final = 512
"""The kernel counts sectors of 512 bytes, whatever the disk's own are (block layer statistics)."""
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_KERNEL_THREAD: Final = 0x0020_0000
"""PF_KTHREAD among a process's flags."""
_STAT_BYTES: Final = 1024
_OUR_NAME: Final = "joulebox"
"""As the kernel calls what the installed command starts: a server, or another part of Joulebox, on this machine."""
_FOREIGN_MAX: Final = 5
_NAME_MAX: Final = 60
_NO_DISK: Final = re.compile(r"loop|ram|zram|dm-|md|nbd|sr|fd")
"""Devices in memory, or on top of disks that are counted already."""

Whose = Literal["own", "server", "foreign", "kernel"]
_Key = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Process:
    """One process at one look. A process is `pid` and `start_ticks` together: numbers are used again.

    `cpu_s` counts all its threads, ended ones too; `children_cpu_s` its children that ended and were waited for.
    """

    pid: int
    start_ticks: int
    name: str
    parent: int
    kernel: bool
    cpu_s: float
    children_cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """The process table and the machine's own counters at one moment. `None`: this machine does not tell."""

    uptime_s: float | None
    cores: int | None
    busy_s: float | None
    steal_s: float | None
    disk_sectors: int | None
    network_bytes: int | None
    processes: tuple[Process, ...]
    throttled: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """CPU seconds of all foreign processes of one name."""

    name: str
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """What the machine did between two looks, in CPU seconds (one core busy for a second is 1).

    `foreign` names programs, greatest first. `kernel_s` is the kernel's threads, which work for everybody.
    `unexplained_s` is what the machine was busy beyond all seen processes: interrupts, other containers, programs whose
    end nobody waited for. Disk and network are the whole machine's, own traffic included.
    """

    window_s: float | None
    cores: int | None
    busy_s: float | None
    own_s: float
    server_s: float
    foreign: tuple[Load, ...]
    kernel_s: float
    unexplained_s: float | None
    steal_s: float | None
    disk_bytes: int | None
    network_bytes: int | None
    throttled: int | None = None

    @property
    def foreign_s(self) -> float:
        """CPU seconds of all foreign programs together."""
        return _tidy(sum(load.cpu_s for load in self.foreign))


# --- the look ---------------------------------------------------------------------------------------------------------


def scan(root: Path = Path("/")) -> Census:
    """Look once at the processes and counters of the machine whose files stand below `root`. Never raises.

    Processes that end while it looks are left out.
    """
    proc = os.path.join(root, "proc")  # noqa: PTH118 - a Path for each process would double the cost of a look
    cores, busy_s, steal_s = _processor(_text(f"{proc}/stat"))
    return Census(
        uptime_s=_uptime_s(_text(f"{proc}/uptime")),
        cores=cores,
        busy_s=busy_s,
        steal_s=steal_s,
        disk_sectors=_disk_sectors(_text(f"{proc}/diskstats")),
        network_bytes=_network_bytes(_text(f"{proc}/net/dev"), os.path.join(root, "sys/class/net")),  # noqa: PTH118
        processes=tuple(_processes(proc)),
        throttled=_throttled(os.path.join(root, "sys/devices/system/cpu")),  # noqa: PTH118
    )


def _processes(proc: str) -> Iterator[Process]:
    try:
        names = os.listdir(proc)  # noqa: PTH208
    except OSError:
        return
    for name in names:
        if name.isdecimal() and (process := _process(int(name), _bytes(f"{proc}/{name}/stat"))) is not None:
            yield process


def _process(pid: int, stat: bytes) -> Process | None:
    """A line of `proc/PID/stat`; the name in brackets may itself hold brackets and blanks."""
    start, end = stat.find(b"("), stat.rfind(b")")
    fields = stat[end + 2 :].split(None, 20)
    try:
        return Process(
            pid=pid,
            start_ticks=int(fields[19]),
            name=stat[start + 1 : end].decode("utf-8", "replace"),
            parent=int(fields[1]),
            kernel=bool(int(fields[6]) & _KERNEL_THREAD),
            cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS_PER_S,
            children_cpu_s=(int(fields[13]) + int(fields[14])) / _TICKS_PER_S,
        )
    except (IndexError, ValueError):
        return None


def _processor(stat: str) -> tuple[int | None, float | None, float | None]:
    """Cores, busy and stolen seconds. Guests' time is in user time already; idle and waiting for disks are not busy."""
    lines = [line.split() for line in stat.splitlines() if line.startswith("cpu")]
    try:
        user, nice, system, _idle, _waiting, irq, softirq, steal = (int(ticks) for ticks in lines[0][1:9])
    except (IndexError, ValueError):
        return None, None, None
    busy = user + nice + system + irq + softirq
    return len(lines) - 1 or None, busy / _TICKS_PER_S, steal / _TICKS_PER_S


def _uptime_s(uptime: str) -> float | None:
    try:
        return float(uptime.split(maxsplit=1)[0])
    except (IndexError, ValueError):
        return None


def _disk_sectors(diskstats: str) -> int | None:
    """Sectors read and written by whole disks: partitions and stacked devices would count them twice."""
    disk, total, seen = "", 0, False
    for line in diskstats.splitlines():
        fields = line.split()
        try:
            name, sectors = fields[2], int(fields[5]) + int(fields[9])
        except (IndexError, ValueError):
            continue
        if _NO_DISK.match(name) or _is_partition(name, disk):
            continue
        disk, seen = name, True
        total += sectors
    return total if seen else None


def _is_partition(name: str, disk: str) -> bool:
    """Whether `name` is a part of `disk`, the one before it: `sda` has `sda1`, `nvme0n1` has `nvme0n1p1`."""
    if not disk or not name.startswith(disk):
        return False
    rest = name.removeprefix(disk)
    return (rest[:1] == "p" and rest[1:].isdecimal()) if disk[-1].isdecimal() else rest.isdecimal()


def _network_bytes(dev: str, links: str) -> int | None:
    """Bytes in and out of the network cards. Where none has hardware (a container), of all but the loopback: bridges
    and tunnels would count the same bytes again."""
    traffic: dict[str, int] = {}
    for line in dev.splitlines():
        name, colon, counters = line.partition(":")
        fields = counters.split()
        try:
            if colon and name.strip() != "lo":
                traffic[name.strip()] = int(fields[0]) + int(fields[8])
        except (IndexError, ValueError):
            continue
    cards = [name for name in traffic if os.path.exists(f"{links}/{name}/device")]  # noqa: PTH110
    return sum(traffic[name] for name in cards or traffic) if traffic else None


def _throttled(cores: str) -> int | None:
    """How often cores and packages were slowed down because of heat, where the processor counts it (x86)."""
    total, seen = 0, False
    try:
        names = os.listdir(cores)  # noqa: PTH208
    except OSError:
        return None
    for name in names:
        if name.startswith("cpu") and name[3:].isdecimal():
            for part in ("core", "package"):
                count = _bytes(f"{cores}/{name}/thermal_throttle/{part}_throttle_count").strip()
                if count.isdigit():
                    total, seen = total + int(count), True
    return total if seen else None


def _bytes(path: str) -> bytes:
    """What one `read` gives of a kernel file; empty where there is none or no right to it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, _STAT_BYTES)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return file.read()
    except OSError:
        return ""


# --- what lies between two looks --------------------------------------------------------------------------------------


def compare(before: Census, after: Census, own: Collection[int], server: Collection[int] = ()) -> Neighbours:
    """What the machine did from `before` to `after`. Pure.

    `own` are the pids of node and engine, `server` those of a server on the same host; their children belong to them,
    and of two such ancestors the nearer one counts. A program that was born and ended in between is seen only in the
    time its parent was credited with, and is listed as `children of PARENT`.
    """
    seen = _Seen(before, after, own, server)
    by_whose: defaultdict[Whose, float] = defaultdict(float)
    by_name: defaultdict[str, float] = defaultdict(float)
    for name, whose, cpu_s in seen.loads():
        by_whose[whose] += cpu_s
        if whose == "foreign":
            by_name[name] += cpu_s
    busy_s = _growth(before.busy_s, after.busy_s)
    sectors = _growth(before.disk_sectors, after.disk_sectors)
    traffic = _growth(before.network_bytes, after.network_bytes)
    throttled = _growth(before.throttled, after.throttled)
    loads = (Load(name=name, cpu_s=_tidy(cpu_s)) for name, cpu_s in by_name.items() if _tidy(cpu_s) > 0)
    return Neighbours(
        window_s=_growth(before.uptime_s, after.uptime_s),
        cores=after.cores,
        busy_s=busy_s,
        own_s=_tidy(by_whose["own"]),
        server_s=_tidy(by_whose["server"]),
        foreign=tuple(sorted(loads, key=lambda load: (-load.cpu_s, load.name))),
        kernel_s=_tidy(by_whose["kernel"]),
        unexplained_s=None if busy_s is None else max(0.0, _tidy(busy_s - sum(by_whose.values()))),
        steal_s=_growth(before.steal_s, after.steal_s),
        disk_bytes=None if sectors is None else int(sectors) * SECTOR_BYTES,
        network_bytes=None if traffic is None else int(traffic),
        throttled=None if throttled is None else int(throttled),
    )


def witnessed(
    before: Census, after: Census, own: int, server: int | None, engine: Collection[int] = ()
) -> NeighboursSeen:
    """What goes into the evidence. `own` is the node's pid, `engine` those of an engine that is not its child, `server`
    that of a server on this machine, if one is known; what was started as `joulebox` and is not the node's counts as
    such."""
    ours = {each.pid for each in (*before.processes, *after.processes) if each.name == _OUR_NAME} - {own}
    ours |= {server} if server is not None else set()
    seen = compare(before, after, (own, *engine), ours)
    return NeighboursSeen(
        window_s=seen.window_s,
        own_s=seen.own_s,
        server_s=seen.server_s if ours else None,
        foreign=tuple(
            ProgramLoad(name=_printable(load.name), cpu_s=load.cpu_s) for load in seen.foreign[:_FOREIGN_MAX]
        ),
        foreign_s=seen.foreign_s,
        unexplained_s=seen.unexplained_s,
        steal_s=seen.steal_s,
        disk_bytes=seen.disk_bytes,
        network_bytes=seen.network_bytes,
        throttled=seen.throttled,
    )


def _printable(name: str) -> str:
    """Any program may call itself anything."""
    return "".join(sign if sign.isprintable() else "?" for sign in name[:_NAME_MAX])


def _growth(before: float | None, after: float | None) -> float | None:
    """How much a counter rose; one that fell (a disk or network card left) tells nothing."""
    if before is None or after is None or after < before:
        return None
    return _tidy(after - before)


def _tidy(value: float) -> float:
    """Ticks are whole, their floats are not quite."""
    return round(value, 6)


class _Seen:
    """Both looks side by side: which processes stayed, came and went, and whose they are."""

    def __init__(self, before: Census, after: Census, own: Collection[int], server: Collection[int]) -> None:
        self._before: dict[_Key, Process] = {(each.pid, each.start_ticks): each for each in before.processes}
        self._after: dict[_Key, Process] = {(each.pid, each.start_ticks): each for each in after.processes}
        self._pids_before = {each.pid: each for each in before.processes}
        self._pids_after = {each.pid: each for each in after.processes}
        self._marks: dict[int, Whose] = {}
        self._marks.update(dict.fromkeys(server, "server"))
        self._marks.update(dict.fromkeys(own, "own"))

    def loads(self) -> Iterator[tuple[str, Whose, float]]:
        """Name, owner and CPU seconds in between: of each process, and of each one's children that ended."""
        ended = {
            key: process.children_cpu_s - (self._before[key].children_cpu_s if key in self._before else 0.0)
            for key, process in self._after.items()
        }
        gone = self._take_off_the_gone(ended)
        for key, process in self._after.items():
            earlier_s = self._before[key].cpu_s if key in self._before else 0.0
            whose = self._whose(process)
            name = _family(process)
            if process.cpu_s > earlier_s:
                yield name, whose, process.cpu_s - earlier_s
            if ended[key] > 0:
                yield _children_of(name, gone.get(key, ())), whose, ended[key]

    def _take_off_the_gone(self, ended: dict[_Key, float]) -> Mapping[_Key, Sequence[str]]:
        """Take from `ended` what processes that are gone had used before the first look; their names, by heir.

        Those whose only possible heir is a living parent come first: then no past is ever counted as work in between.
        Where nobody was credited, nobody waited for the end, and the last seconds are unexplained.
        """
        names: defaultdict[_Key, list[str]] = defaultdict(list)
        gone = [each for key, each in self._before.items() if key not in self._after and not each.kernel]
        for process, heirs in sorted(((each, self._heirs(each)) for each in gone), key=lambda pair: len(pair[1])):
            left_s = process.cpu_s + process.children_cpu_s
            for heir in heirs:
                if ended[heir] > 0:
                    names[heir].append(process.name)
                    taken_s = min(left_s, ended[heir])
                    ended[heir] -= taken_s
                    left_s -= taken_s
                if left_s <= 0:
                    break
        return names

    def _heirs(self, process: Process) -> Sequence[_Key]:
        """Who may have been credited with the time of a process that is gone: its parent where that still lives, else
        one of the ancestors, nearest first, since orphans are adopted by an ancestor (process 1, or a subreaper)."""
        keys = [(each.pid, each.start_ticks) for each in self._ancestors(process, self._pids_before)]
        living = [key for key in keys if key in self._after]
        return living[:1] if keys and keys[0] in self._after else living

    def _whose(self, process: Process) -> Whose:
        """By the nearest marked ancestor at either look: an orphan still belongs to whom it was born to."""
        if process.kernel:
            return "kernel"
        key = (process.pid, process.start_ticks)
        for table, pids in ((self._after, self._pids_after), (self._before, self._pids_before)):
            if key not in table:
                continue
            for each in (table[key], *self._ancestors(table[key], pids)):
                if each.pid in self._marks:
                    return self._marks[each.pid]
        return "foreign"

    @staticmethod
    def _ancestors(process: Process, pids: Mapping[int, Process]) -> Iterator[Process]:
        """From parent upwards, and at last process 1, which adopts whom nobody else does."""
        passed = {process.pid}
        above = pids.get(process.parent)
        while above is not None and above.pid not in passed:
            passed.add(above.pid)
            yield above
            above = pids.get(above.parent)
        if 1 in pids and 1 not in passed:
            yield pids[1]


def _family(process: Process) -> str:
    """`kworker` for `kworker/u8:1-writeback`: the kernel numbers its threads."""
    return process.name.partition("/")[0] if process.kernel else process.name


def _children_of(name: str, gone: Sequence[str]) -> str:
    known = f" ({', '.join(dict.fromkeys(gone))})" if gone else ""
    return f"children of {name}{known}"
