"""One channel as the estimator sees it, made by hand: an answer from 10 s to 14 s at 50 W, 10 W of them idle."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from joulebox.accounting.energy import Estimate, Window, Works
from joulebox.accounting.figures import Metered, meter_scale
from joulebox.accounting.uncertainty import Noise
from joulebox.metering import Curve
from joulebox.model import Channel, Series
from joulebox.units import nanoseconds

FOUND = Estimate(
    answer=200.0,
    active=160.0,
    tail=0.0,
    idle_rate=10.0,
    after_rate=10.0,
    glow_rate=0.0,
    quiet_s=1.0,
    before_s=0.0,
    after_s=0.0,
    tail_s=1.0,
    fading=0.0,
    steep=1.0,
    late_s=0.0,
)


def metered(
    one: Channel,
    curve: Curve | None = None,
    *,
    start_s: float = 10.0,
    end_s: float = 14.0,
    guard_s: float = 1.0,
    **found: float,
) -> Metered:
    """The channel with a curve, without noise; what else was `found` on it."""
    return Metered(
        channel=one,
        curve=curve or Curve((), ()),
        window=Window(
            start_ns=nanoseconds(start_s),
            end_ns=nanoseconds(end_s),
            guard_s=guard_s,
            tick_s=one.tick_s,
            lag_s=one.lag_s,
            quiet_from_ns=0,
        ),
        scale=meter_scale(one),
        found=replace(FOUND, **found),
        noise=Noise(before=0.0, after=0.0, active=0.0, tail=0.0),
        works=Works(lasted_s=(1.0, 3.0), unseen_s=(0.0, 0.0), uneven_rate=None, freedom=0),
    )


def readings(one: Channel, times_s: Iterable[float], raw: Iterable[int]) -> Series:
    """What was read at some moments."""
    return Series(channel=one, t_ns=tuple(map(nanoseconds, times_s)), raw=tuple(raw))


def curve(times_s: Sequence[float], rates: Sequence[float], **changes: Any) -> Curve:
    """A curve through some moments, with its rate between each two of them."""
    totals = [0.0]
    for earlier_s, later_s, rate in zip(times_s, times_s[1:], rates, strict=False):
        totals.append(totals[-1] + rate * (later_s - earlier_s))
    return replace(Curve(tuple(map(nanoseconds, times_s)), tuple(totals)), **changes)
