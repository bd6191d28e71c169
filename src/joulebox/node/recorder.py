"""Reads every meter at absolute deadlines, all the time, and keeps what was read.

Each meter has a thread of its own, so that a blocked one stalls no other, and a rate that fits its tick. Idle readings
are kept for `KEEP_S` (they are the next prompt's guard and idle record); while a run is held nothing is thrown away.
`read_now` reads the meters that tick fast from the calling thread: the marks at a run's edges.
"""

import logging
import threading
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from operator import itemgetter
from statistics import median
from typing import Final

from joulebox.clock import Clock, Repeating
from joulebox.metering import FINE_TICK_S, POWER_KINDS, guard_s, headline
from joulebox.model import Channel, ReadingKind, Remark, Series
from joulebox.node.meter import Meter, MeterFault
from joulebox.units import NS_PER_S, nanoseconds, seconds

LOG: Final = logging.getLogger("joulebox.node")
KEEP_S: Final = 120.0
_KEEP_NS: Final = nanoseconds(KEEP_S)
READINGS_A_TICK: Final = 4.236
"""So often a meter slower than `FINE_TICK_S` is read between two ticks, so that its ticks can be found. Not a whole
number nor near one: readings in step with the ticks would always be equally late."""
PERIOD_MIN_S: Final = 0.002
TICK_MAX_S: Final = 3.0
"""A channel slower than this is kept as evidence, but no prompt waits for its guards."""
REMARKS_MAX: Final = 100
"""Of more faults of one meter than these the newest are kept."""
LATE_TICKS: Final = 0.5
LATE_TIMES: Final = 5.0
"""A reading is stamped halfway between question and answer. One that took longer than this share of a tick and this
many times as long as usual is left out: when it was taken is not known."""
COSTS_KEPT: Final = 15
QUICK_COST_S: Final = 0.01
"""A meter whose last answer took longer is not read at a run's edges: the run does not wait for a line."""
RAW_MAX: Final = 2**62
"""Evidence is kept as differences of 64-bit numbers; no instrument counts so far."""
LIVE_MIN_S: Final = 0.05
"""The live power is a mean over so long at least, and over two ticks: between readings a moment apart one tick's step
would show as a spike, and none as nothing."""
_BACK_NS: Final = nanoseconds(3 * TICK_MAX_S)
"""So far before a moment lies all that the mean at that moment is made of."""


_Row = tuple[int, Sequence[int | None]]
_WHEN: Final = itemgetter(0)


@dataclass(frozen=True, slots=True)
class Record:
    """What was read and what went wrong in a stretch of time, kept as it came: to make series of it takes ten times as
    long, and can wait."""

    start_ns: int
    rows: tuple[tuple[tuple[Channel, ...], list[_Row]], ...]
    noted: tuple[Remark, ...]

    def series(self) -> tuple[Series, ...]:
        """All readings, times counted from `start_ns`."""
        return tuple(
            _series(channel, index, rows, self.start_ns)
            for channels, rows in self.rows
            for index, channel in enumerate(channels)
        )

    def remarks(self) -> tuple[Remark, ...]:
        """What went wrong, times counted from `start_ns`."""
        return tuple(
            Remark(code=one.code, detail=one.detail, t_ns=one.t_ns - self.start_ns)
            for one in self.noted
            if one.t_ns is not None
        )


class _Log:
    """What one meter said: rows of (time, raw values), oldest first."""

    def __init__(self, meter: Meter, reading_hz: float) -> None:
        self.meter = meter
        self.channels = tuple(meter.channels())
        self.counting = [channel for channel in self.channels if _counts(channel)]
        self.rows: deque[_Row] = deque()
        self.reading = threading.Lock()
        self.remarks: deque[Remark] = deque(maxlen=REMARKS_MAX)
        self.costs_ns: deque[int] = deque(maxlen=COSTS_KEPT)
        self.broke = False
        ticks_s = [channel.tick_s for channel in self.counting]
        self.long_ns = nanoseconds(LATE_TICKS * min(ticks_s, default=0.0))
        self.quick = bool(ticks_s) and max(ticks_s) <= FINE_TICK_S
        self.period_s = period_s(self.channels, reading_hz)

    def fault(self, error: Exception, t_ns: int) -> Remark:
        """Why there is no reading. Where the driver itself is at fault its trace is logged, once."""
        why = str(error) if isinstance(error, MeterFault) else f"its driver broke ({type(error).__name__})"
        if not isinstance(error, MeterFault) and not self.broke:
            LOG.error("the driver of %s broke", self.meter.address, exc_info=error)
            self.broke = True
        code = "meter_gap" if self.counting else "sensor_gap"
        return Remark(code=code, detail=f"{self.meter.address}: {why}", t_ns=t_ns)

    def late(self, cost_ns: int) -> bool:
        """Whether a reading that took more than `long_ns` is of no use."""
        return bool(self.costs_ns) and cost_ns > LATE_TIMES * median(self.costs_ns)

    def forget(self, before_ns: int) -> None:
        """Throw away what is older."""
        while self.rows and self.rows[0][0] < before_ns:
            self.rows.popleft()
        while self.remarks and (self.remarks[0].t_ns or 0) < before_ns:
            self.remarks.popleft()


def period_s(channels: Sequence[Channel], reading_hz: float) -> float:
    """How far apart a meter with these channels is read: as `reading_hz` says, or so that slow ticks can be found.
    Reading a sensor faster than it changes wakes the machine for nothing."""
    counting = [channel for channel in channels if _counts(channel)]
    sensors = [channel for channel in channels if channel.kind is ReadingKind.TEMPERATURE_C]
    slow = [channel.tick_s for channel in counting or sensors if channel.tick_s > FINE_TICK_S]
    return max(min(slow) / READINGS_A_TICK, PERIOD_MIN_S) if slow else 1.0 / reading_hz


def _counts(channel: Channel) -> bool:
    return channel.kind is not ReadingKind.TEMPERATURE_C and channel.tick_s <= TICK_MAX_S


class Recorder:
    """Records from `start` to `stop`."""

    def __init__(self, meters: Sequence[Meter], clock: Clock, reading_hz: float) -> None:
        self._logs = [_Log(meter, reading_hz) for meter in meters]
        self._clock = clock
        self._lock = threading.Lock()
        self._repeating: list[Repeating] = []
        self._held = False
        self.missing = _missing(meters)
        self.channels = tuple(channel for log in self._logs for channel in log.channels)
        """All channels of all meters."""
        counting = [channel for log in self._logs for channel in log.counting]
        self.slack_s = max((channel.tick_s + channel.lag_s for channel in counting), default=0.0)
        """After so long every meter's reading holds what was drawn until now: the slowest tick and lag."""
        self.guard_s = max((guard_s(channel) for channel in counting), default=0.0)
        """How long the quiet stretches around an answer are; 0 without meters."""

    def start(self) -> None:
        """Begin to record."""
        for log in self._logs:
            if log.channels:
                turn = partial(self._turn, log)
                self._repeating.append(self._clock.every(log.period_s, turn, f"recorder {log.meter.address}"))

    def stop(self) -> None:
        """Stop recording and close the meters."""
        for repeating in self._repeating:
            repeating.stop()
        for log in self._logs:
            log.meter.close()

    def hold(self, *, held: bool) -> None:
        """While held, nothing is thrown away."""
        self._held = held

    def read_now(self) -> int:
        """Read the quick meters at once. The moment just after: nothing that begins then is in the reading.

        One that is being read at this moment, or whose line was slow the last time, is not waited for.
        """
        for log in self._logs:
            near = not log.costs_ns or log.costs_ns[-1] <= QUICK_COST_S * NS_PER_S
            if log.quick and near and log.reading.acquire(timeout=QUICK_COST_S):
                try:
                    self._read(log)
                finally:
                    log.reading.release()
        return self._clock.now_ns()

    def _turn(self, log: _Log) -> None:
        with log.reading:
            self._read(log)

    def _read(self, log: _Log) -> None:
        """One reading into the log, or a remark why there is none.

        In one piece: between two turns the caches grow cold, and each further function costs ten times as much as hot.
        """
        now_ns, rows = self._clock.now_ns, log.rows
        before_ns = now_ns()
        raw: Sequence[int | None] | None = None
        remark: Remark | None = None
        try:
            raw = log.meter.read()
            if len(raw) != len(log.channels):
                raise MeterFault(f"it gave {len(raw)} values for {len(log.channels)} channels")
            for value in raw:
                if value is not None and not -RAW_MAX < value < RAW_MAX:
                    raise MeterFault("it shows a number that no meter counts to")
        except Exception as error:  # noqa: BLE001 - whatever a driver does, the recorder goes on
            raw, remark = None, log.fault(error, before_ns)
        after_ns = now_ns()
        cost_ns = after_ns - before_ns
        late = cost_ns > log.long_ns and log.late(cost_ns)
        log.costs_ns.append(cost_ns)
        t_ns = (before_ns + after_ns) // 2
        with self._lock:
            if remark is not None:
                log.remarks.append(remark)
            elif raw is not None and not late and (not rows or t_ns > rows[-1][0]):
                rows.append((t_ns, raw))
            if not self._held and (log.remarks or (rows and rows[0][0] < after_ns - _KEEP_NS)):
                log.forget(after_ns - _KEEP_NS)

    def oldest_ns(self) -> int | None:
        """The time from which every meter that counts has readings; `None` where one has none."""
        with self._lock:
            logs = [log for log in self._logs if log.counting]
            if not logs or not all(log.rows for log in logs):
                return None
            return max(log.rows[0][0] for log in logs)

    def reading_before(self, t_ns: int) -> int:
        """The last moment not after `t_ns` from which every meter has a reading; `t_ns` where there is none."""
        with self._lock:
            firsts = [next((row[0] for row in reversed(log.rows) if row[0] <= t_ns), t_ns) for log in self._logs]
        return min(firsts, default=t_ns)

    def record(self, start_ns: int, end_ns: int) -> Record:
        """What was read and what went wrong in a stretch of time."""
        with self._lock:
            rows = tuple((log.channels, _between(log.rows, start_ns, end_ns)) for log in self._logs)
            noted = tuple(one for log in self._logs for one in log.remarks if start_ns <= (one.t_ns or 0) <= end_ns)
        return Record(start_ns, rows, noted)

    def series(self, start_ns: int, end_ns: int) -> tuple[Series, ...]:
        """All readings of a stretch of time, times counted from `start_ns`."""
        return self.record(start_ns, end_ns).series()

    def latest_power(self) -> tuple[int, float, str] | None:
        """Time, mean power over the last readings and scope of the headline channels, for the live curve; `None` where
        one of them has too few readings.

        With the power model the figure is busy cores, scope `modelled`: watts are the server's arithmetic.
        """
        chosen = headline(self.channels)
        if not chosen:
            return None
        moment_ns, total = 0, 0.0
        with self._lock:
            for log in self._logs:
                indices = [index for index, channel in enumerate(log.channels) if channel in chosen]
                latest = _latest(log.channels, log.rows, indices) if indices else (moment_ns, 0.0)
                if latest is None:
                    return None
                moment_ns, total = max(moment_ns, latest[0]), total + latest[1]
        return moment_ns, total, _scope(chosen)

    def power_within(self, start_ns: int, until_ns: int, most: int, apart_ns: int) -> list[tuple[int, float, str]]:
        """The same at moments of a stretch of time, its beginning included, oldest first: `apart_ns` or further from
        one another, about `most` of them at most."""
        chosen = headline(self.channels)
        with self._lock:
            kept = [
                (log.channels, indices, _between(log.rows, start_ns - _BACK_NS, until_ns))
                for log in self._logs
                if (indices := [index for index, channel in enumerate(log.channels) if channel in chosen])
            ]
        end_ns = max(start_ns, min((rows[-1][0] for *_, rows in kept if rows), default=start_ns))
        step_ns = max(apart_ns, (end_ns - start_ns) // most)
        found: dict[int, float] = {}
        for moment_ns in range(start_ns, end_ns + 1, step_ns):
            told = [
                _latest(channels, rows[: bisect_right(rows, moment_ns, key=_WHEN)], indices)
                for channels, indices, rows in kept
            ]
            known = [one for one in told if one is not None]
            if known and len(known) == len(told):
                found[max(t_ns for t_ns, _ in known)] = sum(rate for _, rate in known)
        return [(t_ns, rate, _scope(chosen)) for t_ns, rate in found.items() if t_ns > start_ns - apart_ns]

    def latest_temperature_c(self) -> float | None:
        """The highest temperature last read."""
        with self._lock:
            found = [
                raw * channel.step
                for log in self._logs
                if log.rows
                for channel, raw in zip(log.channels, log.rows[-1][1], strict=True)
                if raw is not None and channel.kind is ReadingKind.TEMPERATURE_C
            ]
        return max(found, default=None)


def _missing(meters: Sequence[Meter]) -> tuple[str, ...]:
    """What no meter covers: parts that one of them misses and no other has. At the wall nothing is missing."""
    covered = {channel.scope for meter in meters for channel in meter.channels() if channel.kind in POWER_KINDS}
    if "wall" in covered:
        return ()
    return tuple(dict.fromkeys(part for meter in meters for part in meter.missing if part not in covered))


def _between(rows: deque[_Row], start_ns: int, end_ns: int) -> list[_Row]:
    """From the newest backwards: what is asked for is nearly always the last of a long record."""
    first, after = bisect_left(rows, start_ns, key=_WHEN), bisect_right(rows, end_ns, key=_WHEN)
    found = list(islice(reversed(rows), len(rows) - after, len(rows) - first))
    found.reverse()
    return found


def _series(channel: Channel, index: int, rows: Sequence[_Row], origin_ns: int) -> Series:
    pairs = [(t_ns - origin_ns, raw) for t_ns, values in rows if (raw := values[index]) is not None]
    return Series(channel=channel, t_ns=tuple(t for t, _ in pairs), raw=tuple(raw for _, raw in pairs))


def _scope(chosen: Sequence[Channel]) -> str:
    return "modelled" if chosen[0].kind is ReadingKind.BUSY_RATIO else chosen[0].scope


def _latest(channels: Sequence[Channel], rows: Sequence[_Row], indices: Sequence[int]) -> tuple[int, float] | None:
    """Time of the last reading, and the mean rate of these channels from one far enough before it."""
    if not rows:
        return None
    end_ns, later = rows[-1]
    apart_ns = nanoseconds(max(LIVE_MIN_S, *(2 * channels[index].tick_s for index in indices)))
    before = next((row for row in reversed(rows) if end_ns - row[0] >= apart_ns), None)
    if before is None:
        return None
    wait_s = seconds(end_ns - before[0])
    total = 0.0
    for index in indices:
        rate = _rate(channels[index], before[1][index], later[index], wait_s)
        if rate is None:
            return None
        total += rate
    return end_ns, total


def _rate(channel: Channel, earlier: int | None, later: int | None, wait_s: float) -> float | None:
    if earlier is None or later is None or wait_s <= 0:
        return None
    if channel.kind is ReadingKind.POWER_W:
        return later * channel.step
    step_raw = later - earlier
    if step_raw < 0:
        step_raw += channel.wrap_raw or 0
    return step_raw * channel.step / wait_s
