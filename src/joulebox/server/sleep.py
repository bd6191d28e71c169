"""Nodes that sleep: since when, which is woken for what waits, how long that takes by what was learned. Pure."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from statistics import median
from typing import Final

from joulebox.errors import JouleboxError
from joulebox.server.jobs import Reach, Waiting

WAKES_KEPT: Final = 20
"""So many past wake-ups of a node tell how long the next one takes."""
TRY_AGAIN: Final = timedelta(minutes=10)
"""A node that did not wake is tried again after this, where nobody else can take what waits."""
_MAC: Final = re.compile(r"(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sleep:
    """A node asleep since `at` (`None`: awake), `waking` since the first packet, given up when it `failed` to come.
    `wakes_s` are its past wake-ups, in seconds from the first packet to its word, oldest first."""

    at: datetime | None = None
    waking: datetime | None = None
    failed: datetime | None = None
    wakes_s: tuple[float, ...] = ()

    @property
    def wake_s(self) -> float | None:
        """How long it takes to wake; `None` where it never did."""
        return median(self.wakes_s) if self.wakes_s else None

    def ready(self, now: datetime) -> datetime | None:
        """When it would take a prompt, woken now or already; `None` where nobody can tell."""
        if self.wake_s is None or self.failed is not None:
            return None
        return max((self.waking or now) + timedelta(seconds=self.wake_s), now)

    def woken(self, now: datetime) -> "Sleep":
        """It has spoken."""
        took_s = [(now - self.waking).total_seconds()] if self.waking is not None and self.failed is None else []
        return Sleep(wakes_s=(*self.wakes_s, *took_s)[-WAKES_KEPT:])


Line = tuple[str, str]
"""A model, and the line in which prompts to it wait."""


def unserved(reach: Mapping[str, Reach], present: Collection[str], asleep: Collection[str]) -> set[Line]:
    """The lines that only sleeping nodes serve."""

    def lines(names: Collection[str]) -> set[Line]:
        known = [reach[name] for name in names if name in reach]
        return {(model, line) for one in known for model in one.models for line in one.lines}

    return lines(asleep) - lines(present)


def to_wake(
    waiting: Collection[Line], reach: Mapping[str, Reach], asleep: Mapping[str, Sleep], now: datetime
) -> list[str]:
    """The nodes to wake: one for each line in which something is `waiting` that only sleeping nodes take, unless one of
    them is on its way. The one that wakes soonest; one that failed only when it is time again."""
    chosen: list[str] = []
    for model, line in sorted(waiting):
        job = Waiting(id="", model=model, placement=line)
        able = [name for name in asleep if name in reach and reach[name].takes(job)]
        if any(name in chosen or (asleep[name].waking and not asleep[name].failed) for name in able):
            continue
        ready = [name for name in able if _may_be_woken(asleep[name], now)]
        if ready:
            chosen.append(min(ready, key=lambda name: _order(name, asleep[name])))
    return chosen


def _may_be_woken(sleep: Sleep, now: datetime) -> bool:
    return sleep.failed is None or now - sleep.failed >= TRY_AGAIN


def _order(name: str, sleep: Sleep) -> tuple[bool, bool, float, str]:
    return sleep.failed is not None, sleep.wake_s is None, sleep.wake_s or 0.0, name


def begun(sleep: Sleep, now: datetime) -> Sleep:
    """The first packet is sent."""
    return replace(sleep, waking=now, failed=None)


def magic_packet(mac: str) -> bytes:
    """What wakes a network card: six bytes of ones, then its address sixteen times.

    Raises `JouleboxError("bad_request")` where that is no address.
    """
    if not _MAC.fullmatch(mac):
        raise JouleboxError("bad_request", f"{mac!r} is no address of a network card: write it as 00:11:22:33:44:55.")
    return b"\xff" * 6 + bytes.fromhex(re.sub("[:-]", "", mac)) * 16
