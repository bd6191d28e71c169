"""What this machine's meters really do: idle power, noise, tick, lag, cost of a reading. Dated, void after change.

Tick: meters are polled fast while idle, and the distances between changes of a reading are looked at. Lag: the machine
works in a known rhythm; the delay at which a channel's power from tick to tick fits it best is the lag. In the end all
meters are read at once, to see whether they agree (`together`).

A node that starts reads its meters by the calibration stored in its data folder (`calibrated`).
"""

import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import pairwise
from math import inf
from pathlib import Path
from statistics import correlation, fmean, median, stdev
from typing import Final

from pydantic import TypeAdapter

from joulebox.clock import Clock
from joulebox.errors import JouleboxError
from joulebox.host import fresh_file, own_folder
from joulebox.metering import curve_of, idle_spreads
from joulebox.model import CalibrationRef, Channel, IdleRecord, IdleSpread, PhasePowers, ReadingKind, Sampling, Series
from joulebox.node.meter import Meter, MeterFault
from joulebox.node.meters import open_meters
from joulebox.node.recorder import period_s
from joulebox.node.spool import SPOOL, Spool
from joulebox.node.together import Agreement, compare
from joulebox.node.wall_gain import Gain, gains
from joulebox.units import NS_PER_S, nanoseconds, seconds

FILE: Final = "calibration.json"
"""In the node's data folder."""
IDLE_S: Final = 30.0
POLL_HZ: Final = 200.0
TICKS_WANTED: Final = 20
TICK_WATCH_MIN_S: Final = 3.0
TICK_WATCH_MAX_S: Final = 40.0
STEP_S: Final = 1.5
STEPS: Final = 4
LAG_MAX_S: Final = 3.0
LAG_COARSE_S: Final = 0.05
LAG_FINE_S: Final = 0.005
LAG_U_S: Final = 0.02
"""So far a lag found may be off (k = 2)."""
FIT_MIN: Final = 0.6
POWERS_MIN: Final = 8
THIN_S: Final = 0.02
AGE_MAX: Final = timedelta(days=90)

METERED: Final = (ReadingKind.ENERGY_J, ReadingKind.POWER_W)
CHANGED: Final = "machine, kernel or meters have changed since"

Load = Callable[[float], AbstractContextManager[object]]
"""Makes that share of the machine work as long as the context lasts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelCalibration:
    """What was found of one channel. `None`: it could not be told, and the driver's declaration stands."""

    meter: str
    name: str
    idle_w: float | None
    noise_w: float | None
    tick_s: float | None
    lag_s: float | None
    read_s: float
    spreads: tuple[IdleSpread, ...] = ()
    """How quiet the idle machine was: what the interval of the energy above idle rests on where a prompt's own idle
    record is too short. Empty in calibrations made before this was kept."""
    gain: Gain | None = None
    """How far it may be off, as a meter at the plug told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A dated record of a node's meters. A mark changes with machine, kernel and its meter: then all this is void.

    A meter that is no longer there leaves what was found of the others, also beside it, as it is.
    """

    id: str
    at: str
    marks: Mapping[str, str]
    """By the meter's address."""
    channels: tuple[ChannelCalibration, ...]
    agreements: tuple[Agreement, ...] = ()
    splits: tuple[PhasePowers, ...] = ()

    def stale(self, marks: Mapping[str, str], now: datetime) -> str | None:
        """Why it may no longer hold of meters with these marks, in a few words; `None` while it does."""
        if any(mark != self.marks.get(address) for address, mark in marks.items()):
            return CHANGED
        if now - datetime.fromisoformat(self.at) > AGE_MAX:
            return f"it is older than {AGE_MAX.days} days"
        return None

    def applied(self, channel: Channel) -> Channel:
        """The channel with the tick and lag found here. A lag that may well be the declared one leaves that."""
        for found in self.channels:
            if (found.meter, found.name) == (channel.meter, channel.name):
                timed = _as_found(channel, found.tick_s, found.lag_s)
                if found.gain is None:
                    return timed
                gain = found.gain
                return replace(timed, gain_u_ratio=gain.u_ratio, accuracy=gain.accuracy, at_wall=gain.found)
        return channel

    def ref(self, marks: Mapping[str, str], now: datetime) -> CalibrationRef:
        """What a trace says of it at `now`: of changed meters nothing but that it is stale."""
        stale = self.stale(marks, now)
        if stale == CHANGED:
            return CalibrationRef(id=self.id, at=self.at, stale=stale)
        fits = tuple(one.fit for one in self.agreements if one.fit is not None)
        idle = tuple(IdleRecord(meter=one.meter, name=one.name, spreads=one.spreads) for one in self.channels)
        return CalibrationRef(id=self.id, at=self.at, stale=stale, fits=fits, splits=self.splits, idle=idle)


_STORED: Final = TypeAdapter(Calibration)

RefAt = Callable[[datetime], CalibrationRef | None]
"""The calibration that a run at that moment names."""


class Calibrated:
    """A meter whose channels have the tick and lag that a calibration found."""

    def __init__(self, meter: Meter, calibration: Calibration) -> None:
        self._channels = tuple(calibration.applied(channel) for channel in meter.channels())
        self.address = meter.address
        self.missing = meter.missing
        self.read = meter.read
        self.close = meter.close

    def channels(self) -> Sequence[Channel]:
        """As calibrated."""
        return self._channels


def calibrated(meters: Sequence[Meter], calibration: Calibration | None) -> tuple[list[Meter], RefAt]:
    """The meters as a node reads them, and which calibration its traces name.

    A calibration counts where it holds one of these meters; meters it does not know stay as they are. Where machine,
    kernel or a meter it holds have changed it is named, as stale, and nothing of it is applied.
    """
    known = {channel.meter for channel in calibration.channels} if calibration else set()
    held = [meter for meter in meters if meter.address in known]
    if calibration is None or not held:
        return list(meters), lambda _: None
    marks = {meter.address: fingerprint(meter) for meter in held}
    read = [Calibrated(meter, calibration) if meter in held else meter for meter in meters]
    same = all(calibration.marks.get(address) == mark for address, mark in marks.items())
    return (read if same else list(meters)), lambda now: calibration.ref(marks, now)


@contextmanager
def busy_cores(count: int | None = None) -> Iterator[Load]:
    """A real load: one process a core (or `count`), which work only while the load lasts.

    They are started once and held: to let one go on takes no time, to start one would blur the moment of the change.
    """
    with ExitStack() as stack:
        processes = [stack.enter_context(_held_process()) for _ in range(count or os.cpu_count() or 1)]

        @contextmanager
        def work(share: float) -> Iterator[None]:
            working = processes[: max(1, round(share * len(processes)))]
            try:
                for process in working:
                    process.send_signal(signal.SIGCONT)
                yield
            finally:
                for process in working:
                    process.send_signal(signal.SIGSTOP)

        yield work


_SPIN: Final = """
import os
parent = os.getppid()
here, there = (memoryview(bytearray(16_000_000)) for _ in range(2))
print(flush=True)
while os.getppid() == parent:
    for _ in range(100_000):
        pass
    here[:] = there
"""


@contextmanager
def _held_process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that counts and copies memory, as models do, when it is let go, and ends with this one."""
    command = [sys.executable, "-I", "-S", "-c", _SPIN]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        yield process
    finally:
        process.kill()
        process.communicate()


@dataclass(frozen=True, slots=True)
class _Watched:
    """What a channel showed while it was polled."""

    channel: Channel
    t_ns: list[int]
    raw: list[int]


def calibrate(
    meters: Sequence[Meter],
    clock: Clock,
    load: Load,
    say: Callable[[str], None],
    idle_s: float = IDLE_S,
    supply_efficiency: float | None = None,
) -> Calibration:
    """Calibrate `meters` on an otherwise idle machine; takes about `idle_s` and 20 s more for each, and half a minute
    where several must agree. Meters stay open. `supply_efficiency`: how much of a further watt at the plug arrives in
    processor and memory, where somebody knows.

    Raises `MeterFault` where a meter falls silent.
    """
    found: list[ChannelCalibration] = []
    for meter in meters:
        say(f"{meter.address}: listening to the idle machine for {idle_s:.0f} s")
        idle = _watch(meter, clock, idle_s, 1 / period_s(meter.channels(), 10.0))
        cost_s = _cost_s(meter, clock)
        say(f"{meter.address}: looking for its tick")
        fast = _watch(meter, clock, _tick_watch_s(meter), _poll_hz(cost_s))
        ticks = [_tick_s(one, 1 / _poll_hz(cost_s)) for one in fast]
        say(f"{meter.address}: looking for its lag, the machine works in a rhythm")
        stepped, edges = _step(meter, clock, load, _poll_hz(cost_s))
        for quiet, tick_s, moved in zip(idle, ticks, stepped, strict=True):
            idle_w, noise_w = _idle(quiet)
            lag_s = _lag_s(moved, edges, quiet.channel.tick_s if tick_s is None else tick_s)
            found.append(
                ChannelCalibration(
                    meter=meter.address,
                    name=quiet.channel.name,
                    idle_w=idle_w,
                    noise_w=noise_w,
                    tick_s=tick_s,
                    lag_s=lag_s,
                    read_s=cost_s,
                    spreads=_spreads(quiet, tick_s, lag_s),
                )
            )
    at, marks = clock.utc().isoformat(timespec="seconds"), {meter.address: fingerprint(meter) for meter in meters}
    alone = Calibration(id="", at=at, marks=marks, channels=tuple(found))
    if len(meters) > 1:
        say("holding the meters against one another, the machine works in steps")
    agreements = compare([Calibrated(meter, alone) for meter in meters], clock, load)
    own = [channel for meter in meters for channel in meter.channels()]
    gain = gains(own, agreements, supply_efficiency, at)
    with_gain = tuple(replace(one, gain=gain.get(f"{one.meter} {one.name}")) for one in found)
    whole = replace(alone, channels=with_gain, agreements=agreements)
    return replace(whole, id=sha256(json.dumps(asdict(whole)).encode()).hexdigest()[:12])


def calibrate_node(
    data_dir: Path,
    addresses: Sequence[str],
    clock: Clock,
    say: Callable[[str], None],
    idle_s: float = IDLE_S,
    supply_efficiency: float | None = None,
) -> Calibration:
    """`joulebox meters calibrate`: calibrate the energy and power meters a node in `data_dir` would read, under a real
    load, and store what was found there.

    Raises `JouleboxError`: `meters_in_use` where a node runs there, those of `open_meters`, `meter_unreadable`.
    """
    spool = claimed(data_dir)  # held to the end, so that no node begins in between
    meters = open_meters(addresses)
    try:
        wanted = [meter for meter in meters if any(one.kind in METERED for one in meter.channels())]
        if not wanted:
            raise JouleboxError(
                "meter_unreadable",
                "There is no energy or power meter to calibrate here: connect one and name it with --meter "
                "(see `joulebox meters list`).",
            )
        with busy_cores() as load:
            calibration = calibrate(wanted, clock, load, say, idle_s, supply_efficiency)
    except MeterFault as fault:
        raise JouleboxError(
            "meter_unreadable", f"A meter fell silent, so nothing was stored: {fault}. Mend it, then calibrate again."
        ) from fault
    finally:
        for meter in meters:
            meter.close()
        del spool
    store_calibration(data_dir / FILE, calibration)
    return calibration


def claimed(data_dir: Path) -> Spool:
    """The node's place in the data folder, so that nothing else measures there."""
    try:
        return Spool(data_dir / SPOOL)
    except JouleboxError as error:
        raise JouleboxError(
            "meters_in_use",
            f"A node works in {data_dir}, and the two would disturb each other: stop it, then calibrate.",
        ) from error


def fingerprint(meter: Meter) -> str:
    """What a calibration of a meter rests on: the kernel, the processor and what the meter shows, in any order."""
    facts = [platform.release(), platform.machine(), _processor()]
    facts += sorted(
        f"{meter.address} {one.name} {one.kind} {one.sampling} {one.scope} {one.step!r} {one.wrap_raw}"
        for one in meter.channels()
    )
    return sha256("\n".join(facts).encode()).hexdigest()[:16]


def load_calibration(path: Path) -> Calibration | None:
    """The stored calibration, or `None` where there is none that can be read."""
    try:
        found = _STORED.validate_json(path.read_bytes())
        dated = datetime.fromisoformat(found.at).tzinfo is not None
    except (OSError, ValueError):
        return None
    return found if dated and all(map(_sound, found.channels)) else None


def _sound(found: ChannelCalibration) -> bool:
    """Whether a meter can be read by what a file says was found."""
    ticks = found.tick_s is None or 0.0 < found.tick_s < inf
    return ticks and (found.lag_s is None or 0.0 <= found.lag_s < inf)


def store_calibration(path: Path, calibration: Calibration) -> None:
    """Keep a calibration, whole or not at all."""
    own_folder(path.parent)
    part = path.with_suffix(".part")
    with fresh_file(part) as file:
        file.write(json.dumps(asdict(calibration), indent=2).encode() + b"\n")
    part.replace(path)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _watch(meter: Meter, clock: Clock, duration_s: float, hz: float) -> list[_Watched]:
    """Read at absolute deadlines for a while."""
    watched = [_Watched(channel, [], []) for channel in meter.channels()]
    start_ns = clock.now_ns()
    for turn in range(int(duration_s * hz)):
        clock.sleep_until(start_ns + nanoseconds(turn / hz))
        row = meter.read()
        t_ns = clock.now_ns()
        for one, raw in zip(watched, row, strict=True):
            if raw is not None and (not one.t_ns or t_ns > one.t_ns[-1]):
                one.t_ns.append(t_ns)
                one.raw.append(raw)
    return watched


def _cost_s(meter: Meter, clock: Clock, turns: int = 20) -> float:
    """How long one reading takes; the median."""
    costs = []
    for _ in range(turns):
        start_ns = clock.now_ns()
        meter.read()
        costs.append(seconds(clock.now_ns() - start_ns))
    return median(costs)


def _poll_hz(cost_s: float) -> float:
    """As fast as `POLL_HZ`, but never more than a fifth of the time in readings."""
    return min(POLL_HZ, 0.2 / cost_s) if cost_s > 0 else POLL_HZ


def _tick_watch_s(meter: Meter) -> float:
    slowest_s = max((channel.tick_s for channel in meter.channels()), default=0.0)
    return min(max(TICK_WATCH_MIN_S, TICKS_WANTED * slowest_s), TICK_WATCH_MAX_S)


def _tick_s(watched: _Watched, poll_s: float) -> float | None:
    """The distance between changes, where a change means a tick and not a step of a coarse resolution."""
    pairs = zip(watched.t_ns, pairwise(watched.raw), strict=False)
    changed = [t for t, (before, after) in pairs if after != before]
    if len(changed) < 4:
        return None
    moves = [abs(after - before) for before, after in pairwise(watched.raw) if after != before]
    if watched.channel.kind not in METERED:
        return None
    if median(moves) <= 2:
        return None  # one step at a time: the resolution shows, not the tick
    distance_s = median(seconds(b - a) for a, b in pairwise(changed))
    return None if distance_s < 2.5 * poll_s else distance_s


def _powers(watched: _Watched, tick_s: float) -> list[tuple[int, int, float]]:
    """Mean power from tick to tick: from, to (ns), watts. What shows nothing new, wraps and resets are left out."""
    channel = watched.channel
    rows = list(zip(watched.t_ns, watched.raw, strict=True))
    ticks = [row for row, (_, before) in zip(rows[1:], rows, strict=False) if row[1] != before]
    if channel.kind is ReadingKind.POWER_W:
        # A mean tells of the tick before it, a look of half a tick on either side.
        later_ns = nanoseconds(tick_s / 2 if channel.sampling is Sampling.SNAPSHOT else 0)
        return [(t_ns - nanoseconds(tick_s) + later_ns, t_ns + later_ns, raw * channel.step) for t_ns, raw in ticks]
    if channel.kind is not ReadingKind.ENERGY_J or channel.sampling is not Sampling.COUNTER:
        return []
    kept = [ticks[0]] if ticks else []
    kept += [row for row, (t_ns, _) in zip(ticks[1:], ticks, strict=False) if row[0] > t_ns]
    return [
        (a, b, (after - before) * channel.step * NS_PER_S / (b - a))
        for (a, before), (b, after) in pairwise(_thinned(kept))
        if after >= before
    ]


def _thinned(rows: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Rows at least `THIN_S` apart: more would only cost time."""
    kept: list[tuple[int, int]] = []
    for row in rows:
        if not kept or row[0] - kept[-1][0] >= nanoseconds(THIN_S):
            kept.append(row)
    return kept


def _idle(watched: _Watched) -> tuple[float | None, float | None]:
    """Idle power and its scatter over seconds."""
    blocks: dict[int, list[float]] = {}
    for start_ns, _, watts in _powers(watched, watched.channel.tick_s):
        blocks.setdefault(start_ns // NS_PER_S, []).append(watts)
    means = [fmean(watts) for watts in blocks.values()]
    if len(means) < 3:
        return None, None
    return fmean(means), stdev(means)


def _spreads(watched: _Watched, tick_s: float | None, lag_s: float | None) -> tuple[IdleSpread, ...]:
    """The idle record in short, seen as a node would: with the tick and lag found here."""
    channel = watched.channel
    if channel.kind not in METERED:
        return ()
    channel = _as_found(channel, tick_s, lag_s)
    return idle_spreads(curve_of(Series(channel=channel, t_ns=tuple(watched.t_ns), raw=tuple(watched.raw))), channel)


def _as_found(channel: Channel, tick_s: float | None, lag_s: float | None) -> Channel:
    known = lag_s is not None and abs(lag_s - channel.lag_s) > LAG_U_S
    return replace(
        channel,
        tick_s=channel.tick_s if tick_s is None else tick_s,
        lag_s=lag_s if known and lag_s is not None else channel.lag_s,
    )


def _step(meter: Meter, clock: Clock, load: Load, hz: float) -> tuple[list[_Watched], list[tuple[int, float]]]:
    """Readings while the machine works and rests in turn, with the moments of change and the level from then on."""
    watched = [_Watched(channel, [], []) for channel in meter.channels()]
    edges: list[tuple[int, float]] = []

    def listen(level: float) -> None:
        edges.append((clock.now_ns(), level))
        for whole, part in zip(watched, _watch(meter, clock, STEP_S, hz), strict=True):
            whole.t_ns.extend(part.t_ns)
            whole.raw.extend(part.raw)

    listen(0.0)
    for _ in range(STEPS):
        with load(1.0):
            listen(1.0)
        listen(0.0)
    return watched, edges


def _lag_s(watched: _Watched, edges: Sequence[tuple[int, float]], tick_s: float) -> float | None:
    """The delay at which the power from tick to tick fits the rhythm best; `None` where it does not follow it."""
    powers = _powers(watched, tick_s)
    if len(powers) < POWERS_MIN:
        return None
    coarse = max(range(round(LAG_MAX_S / LAG_COARSE_S)), key=lambda i: _fit(powers, edges, i * LAG_COARSE_S))
    around = [coarse * LAG_COARSE_S + i * LAG_FINE_S for i in range(-10, 11)]
    best_s = max((lag_s for lag_s in around if lag_s >= 0), key=lambda lag_s: _fit(powers, edges, lag_s))
    return best_s if _fit(powers, edges, best_s) > FIT_MIN else None


def _fit(powers: Sequence[tuple[int, int, float]], edges: Sequence[tuple[int, float]], lag_s: float) -> float:
    """Correlation of the power with the rhythm `lag_s` before."""
    lag_ns = nanoseconds(lag_s)
    levels = [_level(a - lag_ns, b - lag_ns, edges) for a, b, _ in powers]
    watts = [w for _, _, w in powers]
    return correlation(levels, watts) if len(set(levels)) > 1 and len(set(watts)) > 1 else 0.0


def _level(start_ns: int, end_ns: int, edges: Sequence[tuple[int, float]]) -> float:
    """The mean level of the rhythm over a stretch of time; 0 before it began."""
    worked = 0.0
    ends = [t_ns for t_ns, _ in edges[1:]] + [end_ns]
    for (since_ns, level), until_ns in zip(edges, ends, strict=True):
        worked += level * max(0, min(end_ns, until_ns) - max(start_ns, since_ns))
    return worked / (end_ns - start_ns)
