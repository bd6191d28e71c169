"""What the node draws between its jobs: every second belongs to a run or to an idle stretch, and none to both.

A stretch is told with the next request for a lease, again and again until a server has heard it. Where a job begins the
readings are only set aside: to count them costs processor time, which would lie in the job's guard.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from joulebox.clock import Clock
from joulebox.metering import counted, headline
from joulebox.model import IdleStretch
from joulebox.node.recorder import KEEP_S, Record, Recorder
from joulebox.units import nanoseconds, seconds

CLOSE_S: Final = 20.0
"""A stretch is told when it is so long: with every request for work of an idle node."""
UNHEARD_S: Final = KEEP_S - 20.0
"""While no server hears, so long: the readings are not kept for longer."""
TOLD_MAX: Final = 1_000
"""Of more stretches than these the newest are kept; what the others held is unknown."""
LOOK_BACK_TICKS: Final = 10.0
"""So many ticks before a stretch are looked at too, so that its first ones are found."""
STEP_S: Final = 1.0
"""Two stretches that follow one another have one moment between them, unless the calendar clock was set by more."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """Readings set aside, and the stretch in them."""

    record: Record
    start_ns: int
    end_ns: int
    start: datetime
    until: datetime
    loaded: bool | None


class IdleBook:
    """The idle stretches of one node."""

    def __init__(self, recorder: Recorder, clock: Clock) -> None:
        self._recorder = recorder
        self._clock = clock
        self._from_ns: int | None = None
        self._last: _Piece | None = None
        self._pieces: list[_Piece] = []
        self._told: list[IdleStretch] = []
        self._loaded: bool | None = None

    def begin(self, since_ns: int | None = None, *, loaded: bool | None = None) -> None:
        """The node is idle, now or `since_ns`, with a model in memory or without."""
        self._loaded = loaded
        self._from_ns = self._recorder.read_now() if since_ns is None else since_ns

    def end(self) -> None:
        """A job begins."""
        self._cut()
        self._from_ns = None

    def unloaded(self) -> None:
        """The node goes on idling without a model: another stretch, with nothing between the two."""
        self._from_ns = self._cut()
        self._loaded = False

    def stretches(self, *, last: bool = False) -> tuple[IdleStretch, ...]:
        """What no server has heard yet, up to now where that is long enough; however short where it may be the `last`
        time that this process tells anything."""
        due_s = 0.0 if last else UNHEARD_S if self._told else CLOSE_S
        if self._from_ns is not None and seconds(self._clock.now_ns() - self._from_ns) >= due_s:
            self._from_ns = self._cut()
        self._told += [stretch for piece in self._pieces if (stretch := self._counted(piece)) is not None]
        self._pieces.clear()
        del self._told[:-TOLD_MAX]
        return tuple(self._told)

    def heard(self, stretches: Sequence[IdleStretch]) -> None:
        """A server has these."""
        self._told = [stretch for stretch in self._told if stretch not in stretches]

    def _cut(self) -> int | None:
        """Set the readings of the open stretch aside; the moment it ends."""
        if self._from_ns is None:
            return None
        end_ns = self._recorder.read_now()
        oldest_ns = self._recorder.oldest_ns()
        start_ns = max(self._from_ns, end_ns - nanoseconds(KEEP_S), self._from_ns if oldest_ns is None else oldest_ns)
        if end_ns <= start_ns:
            return self._from_ns
        until = self._clock.utc()
        start = until - timedelta(microseconds=(end_ns - start_ns) // 1_000)
        last = self._last
        if last is not None and last.end_ns == start_ns and abs((start - last.until).total_seconds()) < STEP_S:
            start = last.until
        look_back_ns = nanoseconds(LOOK_BACK_TICKS * self._recorder.slack_s)
        record = self._recorder.record(start_ns - look_back_ns, end_ns)
        self._last = _Piece(record, start_ns, end_ns, start, until, self._loaded)
        self._pieces.append(self._last)
        return end_ns

    def _counted(self, piece: _Piece) -> IdleStretch | None:
        """The stretch of a piece; `None` where a meter does not tell, which leaves it unknown."""
        chosen = headline(self._recorder.channels)
        origin_ns = piece.record.start_ns
        found = [
            counted(series, piece.start_ns - origin_ns, piece.end_ns - origin_ns)
            for series in piece.record.series()
            if series.channel in chosen
        ]
        known = tuple(one for one in found if one is not None)
        if not known or len(known) != len(found) or piece.until <= piece.start:
            return None
        return IdleStretch(start=piece.start, until=piece.until, counted=known, loaded=piece.loaded)
