"""The only module that reads clocks. Time is handed in: monotonic to measure, calendar to store; every wait is bounded.

`SystemClock` is the machine's. `SimulatedClock` moves only when somebody waits on it, so that tests and the rig run a
five-second answer in microseconds and always in the same order.
"""

import heapq
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Protocol

from joulebox.units import nanoseconds


class Repeating(Protocol):
    """A thing done again and again until told to stop."""

    def stop(self) -> None:
        """Stop; returns when no further call can begin."""


class Clock(Protocol):
    """What the rest of Joulebox may know of time."""

    def now_ns(self) -> int:
        """Monotonic nanoseconds; only differences mean anything."""

    def utc(self) -> datetime:
        """Calendar time, aware, in UTC."""

    def sleep_until(self, deadline_ns: int) -> None:
        """Wait until the monotonic clock reads `deadline_ns`; at once if it is past."""

    def wait_until(self, deadline_ns: int, unless: threading.Event) -> None:
        """The same, but no longer than until `unless` is set."""

    def every(self, period_s: float, action: Callable[[], None], name: str) -> Repeating:
        """Do `action` at absolute deadlines one period apart, beginning now; late turns are skipped, never bunched."""


class SystemClock:
    """The machine's own clocks."""

    now_ns = staticmethod(time.monotonic_ns)

    def utc(self) -> datetime:
        return datetime.now(UTC)

    def sleep_until(self, deadline_ns: int) -> None:
        while (left_ns := deadline_ns - time.monotonic_ns()) > 0:
            time.sleep(left_ns / 1e9)

    def wait_until(self, deadline_ns: int, unless: threading.Event) -> None:
        unless.wait(max(0, deadline_ns - time.monotonic_ns()) / 1e9)

    def every(self, period_s: float, action: Callable[[], None], name: str) -> Repeating:
        return _Thread(period_s, action, name)


class _Thread:
    """One thread with absolute deadlines. `time.sleep` to a deadline drifts less than waiting on an event."""

    def __init__(self, period_s: float, action: Callable[[], None], name: str) -> None:
        self._period_ns = nanoseconds(period_s)
        self._action = action
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        deadline_ns = time.monotonic_ns()
        while not self._stopped:
            self._action()
            deadline_ns += self._period_ns
            late_ns = time.monotonic_ns() - deadline_ns
            if late_ns > 0:
                deadline_ns += late_ns // self._period_ns * self._period_ns
            else:
                time.sleep(-late_ns / 1e9)

    def stop(self) -> None:
        self._stopped = True
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=2 * self._period_ns / 1e9 + 1.0)


class SimulatedClock:
    """A clock that moves only in `sleep_until`, doing what is due on the way, in order of time."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._now_ns = 0
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()

    def now_ns(self) -> int:
        return self._now_ns

    def utc(self) -> datetime:
        return self._start + timedelta(microseconds=self._now_ns / 1_000)

    def call_at(self, t_ns: int, action: Callable[[], None]) -> None:
        """Have `action` done when the clock passes `t_ns`."""
        heapq.heappush(self._due, (t_ns, next(self._order), action))

    def sleep_until(self, deadline_ns: int) -> None:
        while self._due and self._due[0][0] <= deadline_ns:
            t_ns, _, action = heapq.heappop(self._due)
            self._now_ns = max(self._now_ns, t_ns)
            action()
        self._now_ns = max(self._now_ns, deadline_ns)

    def wait_until(self, deadline_ns: int, unless: threading.Event) -> None:
        if not unless.is_set():
            self.sleep_until(deadline_ns)

    def every(self, period_s: float, action: Callable[[], None], name: str) -> Repeating:
        return _Turns(self, nanoseconds(period_s), action)


class _Turns:
    """Repeated calls on a simulated clock."""

    def __init__(self, clock: SimulatedClock, period_ns: int, action: Callable[[], None]) -> None:
        self._clock = clock
        self._period_ns = period_ns
        self._action: Callable[[], None] | None = action
        self._turn()

    def _turn(self) -> None:
        if self._action is None:
            return
        at_ns = self._clock.now_ns()
        self._action()
        self._clock.call_at(at_ns + self._period_ns, self._turn)

    def stop(self) -> None:
        self._action = None
