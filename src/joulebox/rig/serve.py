"""The rig in real time: writes the tree at 1 kHz while the machine follows real activity, and keeps the truth.

Every step of activity goes to `truth.jsonl` as the machine took it, so `truth_of(folder)` builds the same machine again
and tells its energy at any moment, exactly. Times are this host's monotonic clock, the one that meters are read by.
Each tick that was written late goes to `late.jsonl`: what was read meanwhile is the fault of the rig, not the reader's.
"""

import fcntl
import json
import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol, TextIO

from joulebox.clock import Clock, SystemClock
from joulebox.errors import JouleboxError
from joulebox.rig.peers import started
from joulebox.rig.physics import Machine, MachineParameters
from joulebox.rig.powercap_tree import MARK, TICK_NS, RigPowercap, TreeParameters
from joulebox.rig.wall import Wall
from joulebox.units import NS_PER_S, seconds

TRUTH: Final = "truth.jsonl"
LATE: Final = "late.jsonl"
LATE_NS: Final = TICK_NS // 4
"""Ticks written later than this are noted."""
SOCKET: Final = "activity.sock"
_KEEP_NS: Final = 10 * NS_PER_S
_LOOK_NS: Final = NS_PER_S // 20
"""/proc/stat counts in 10 ms: shorter looks would see little but steps."""

Source = Literal["cores", "socket"]


class Activity(Protocol):
    """Where the machine's work comes from. `refused` counts what could not be read."""

    refused: int

    def level(self, now_ns: int) -> float | None:
        """The level from now on, 0 to 1; `None`: as before."""

    def close(self) -> None:
        """Give back what is open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """How it went: looks at the clock, the longest time between two, the latest tick, and messages that could not be
    read."""

    ticks: int
    late_max_s: float
    gap_max_s: float
    refused: int


class BusyCores:
    """This machine's own cores: the share of them that worked since the last look. The rig's writing is in it too."""

    def __init__(self) -> None:
        """Raises `JouleboxError("bad_setting")` without Linux's /proc/stat."""
        try:
            self._stat = os.open("/proc/stat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise JouleboxError(
                "bad_setting", "The rig cannot follow this machine's cores: /proc/stat cannot be read. Use Linux."
            ) from error
        self.refused = 0
        self._before: tuple[int, int] | None = None

    def level(self, now_ns: int) -> float | None:
        """Busy share of all cores over the last twentieth of a second."""
        if self._before is not None and now_ns - self._before[0] < _LOOK_NS:
            return None
        user, nice, system, _, _, irq, softirq = (int(f) for f in os.pread(self._stat, 512, 0).split(maxsplit=8)[1:8])
        ticks = user + nice + system + irq + softirq
        before, self._before = self._before, (now_ns, ticks)
        if before is None:
            return 0.0
        cores = os.cpu_count() or 1
        busy_s = (ticks - before[1]) / os.sysconf("SC_CLK_TCK")
        return min(1.0, max(0.0, busy_s / cores / seconds(now_ns - before[0])))

    def close(self) -> None:
        """Close the file."""
        os.close(self._stat)


class LevelSocket:
    """Levels that a scripted engine sends as datagrams `{"t_ns": 1, "level": 0.8}` to `activity.sock` in the folder.

    A level counts from when it arrives, not from the sender's time: the truth is what this machine did.
    """

    def __init__(self, folder: Path) -> None:
        """Raises `JouleboxError("bad_setting")` where there can be no socket."""
        self._path = folder / SOCKET
        self.refused = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        try:
            self._path.unlink(missing_ok=True)
            self._socket.bind(str(self._path))
        except OSError as error:
            self._socket.close()
            raise JouleboxError(
                "bad_setting", f"The rig cannot listen on {self._path} ({error}): choose a shorter --folder."
            ) from error

    def level(self, now_ns: int) -> float | None:
        """The last level that came."""
        level: float | None = None
        while True:
            try:
                message = self._socket.recv(4096)
            except BlockingIOError:
                return level
            try:
                sent = float(json.loads(message)["level"])
            except (ValueError, KeyError, TypeError):
                self.refused += 1
                continue
            if 0.0 <= sent <= 1.0:
                level = sent
            else:
                self.refused += 1

    def close(self) -> None:
        """Close and remove the socket."""
        self._socket.close()
        self._path.unlink(missing_ok=True)


class Sender:
    """Tells the rig that serves `folder` what an engine does; call it with (t_ns, level)."""

    def __init__(self, folder: Path) -> None:
        self._address = str(folder / SOCKET)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def __call__(self, t_ns: int, level: float) -> None:
        """Send `level`; it counts from its arrival. Raises `OSError` where no rig listens."""
        self._socket.sendto(json.dumps({"t_ns": t_ns, "level": level}).encode(), self._address)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def serve(
    folder: Path,
    seed: int,
    source: Callable[[], Activity],
    clock: Clock,
    stopped: Callable[[], bool],
    tree: TreeParameters | None = None,
    ready: Callable[[tuple[str, ...]], None] | None = None,
    beside: Sequence[str] = (),
    parameters: MachineParameters | None = None,
) -> Served:
    """Write the tree in `folder` each millisecond until `stopped()`; calls `ready` once the meters can be opened.

    `source` opens where the activity comes from, and is called only when the folder is this rig's alone. `beside`
    names instruments at the same machine's plug that answer too (`peers.PEERS`).

    Raises `JouleboxError("bad_setting")` where another rig writes there, the folder cannot be written, or an instrument
    cannot be had.
    """
    try:
        truth = _truth_file(folder)
    except OSError as error:
        reason = "another rig writes there" if isinstance(error, BlockingIOError) else error.strerror
        raise JouleboxError(
            "bad_setting", f"The rig cannot write in {folder} ({reason}): choose another --folder."
        ) from error
    machine = Machine(seed, start_ns=clock.now_ns(), parameters=parameters)
    late = (folder / LATE).open("w", encoding="utf-8")
    with truth, late, closing(RigPowercap(clock, machine, folder, tree)) as instruments:
        truth.write((instruments.powercap / MARK).read_text())
        truth.flush()
        with closing(source()) as activity, started(beside, clock, Wall(machine)) as others:
            if ready is not None:
                ready((*instruments.addresses, *others))
            return _loop(machine, instruments, activity, truth, late, clock, stopped)


def _loop(
    machine: Machine,
    tree: RigPowercap,
    activity: Activity,
    truth: TextIO,
    late: TextIO,
    clock: Clock,
    stopped: Callable[[], bool],
) -> Served:
    level_before, ticks, gap_max_ns, late_max_ns = 0.0, 0, 0, 0
    written_ns = clock.now_ns()
    while not stopped():
        now_ns = clock.now_ns()
        level = activity.level(now_ns)
        if level is not None and level != level_before:
            machine.activity(now_ns, level)
            truth.write(f"[{now_ns},{level!r}]\n")
            truth.flush()
            machine.forget(now_ns - _KEEP_NS)
            level_before = level
        due_ns = tree.update(now_ns)
        after_ns = clock.now_ns()
        ticks, gap_max_ns, written_ns = ticks + 1, max(gap_max_ns, after_ns - written_ns), after_ns
        if due_ns is not None:
            late_max_ns = max(late_max_ns, after_ns - due_ns)
            if after_ns - due_ns > LATE_NS:
                late.write(f"[{due_ns},{after_ns}]\n")
        clock.sleep_until(tree.next_look_ns(after_ns))
    return Served(ticks=ticks, gap_max_s=seconds(gap_max_ns), late_max_s=seconds(late_max_ns), refused=activity.refused)


def late_in(folder: Path) -> list[tuple[int, int]]:
    """Ticks in `folder` that were written late: when due and when written. Whole once `serve` has ended."""
    return [(due_ns, written_ns) for due_ns, written_ns in map(json.loads, (folder / LATE).open(encoding="utf-8"))]


def truth_of(folder: Path) -> Machine:
    """The machine that `serve` ran in `folder`, built again from its record: its `energy_j` is the truth."""
    with (folder / TRUTH).open(encoding="utf-8") as lines:
        head = json.loads(next(lines))
        machine = Machine(head["seed"], head["start_ns"], MachineParameters(**head["machine"]))
        for line in lines:
            t_ns, level = json.loads(line)
            machine.activity(t_ns, level)
    return machine


def run(
    folder: Path,
    seed: int = 0,
    source: Source = "cores",
    tree: TreeParameters | None = None,
    parameters: MachineParameters | None = None,
    beside: Sequence[str] = (),
) -> None:
    """`joulebox rig run`: serve until Ctrl-C or SIGTERM, after printing the setting that a node needs."""
    stop: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: stop.append(number))
    folder = folder.absolute()
    _hurry()
    served = serve(
        folder,
        seed,
        source=(lambda: LevelSocket(folder)) if source == "socket" else BusyCores,
        clock=SystemClock(),
        stopped=lambda: bool(stop),
        tree=tree,
        ready=lambda meters: print(f'JOULEBOX_METERS="{" ".join(meters)}"', flush=True),
        beside=beside,
        parameters=parameters,
    )
    print(f"{served.ticks} ticks written, the latest {served.late_max_s * 1e3:.1f} ms after its time.", flush=True)


def _truth_file(folder: Path) -> TextIO:
    """The record, locked: two rigs in one folder would write over each other. Raises `OSError`."""
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / TRUTH).open("a", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    file.truncate(0)
    return file


def _hurry() -> None:
    """Go before the engine where this is allowed: a late tick is an error of the simulated instrument. What this
    process starts does not inherit it: a program that never waits would then keep everything else from running."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except (AttributeError, OSError):
        return
