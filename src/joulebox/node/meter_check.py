"""Reads meters for a moment, as often as the node would, and tells what each channel shows: `joulebox meters check`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final

from joulebox.clock import Clock
from joulebox.metering import POWER_KINDS
from joulebox.model import Channel, ReadingKind, Sampling
from joulebox.node.calibration import Calibration, calibrated
from joulebox.node.meter import Meter, MeterFault
from joulebox.node.together import Agreement, at_a_glance
from joulebox.units import nanoseconds, seconds

CHECK_S: Final = 2.0
TICKS: Final = 3
CHECK_MAX_S: Final = 10.0
"""A meter slower than the usual look is looked at for three of its ticks, but no longer than this."""
UNITS: Final = {
    ReadingKind.ENERGY_J: ("J", "W"),
    ReadingKind.POWER_W: ("W", "W"),
    ReadingKind.TEMPERATURE_C: ("°C", "°C/s"),
    ReadingKind.BUSY_RATIO: ("core s", "cores"),
}
"""What a channel's value and its mean are in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelCheck:
    """What a channel showed. `changes_per_s`: how often its reading was a new one.

    `mean`: the mean power in watts, of a temperature its rise a second, of busy time the cores busy; `None` where the
    readings do not tell.
    """

    name: str
    kind: str
    scope: str
    value: float | None
    unit: str
    mean: float | None
    mean_unit: str
    readings_per_s: float
    changes_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterCheck:
    """What a meter showed in `window_s` seconds. `faults` are its sentences, with how often each came."""

    meter: str
    ok: bool
    window_s: float
    faults: tuple[tuple[str, int], ...]
    channels: tuple[ChannelCheck, ...]


def check(meter: Meter, clock: Clock, hz: float) -> MeterCheck:
    """Read `meter` at `hz` for two seconds or three of its ticks.

    It fails where it is at fault even once, or where one of its channels never has a value.
    """
    channels = meter.channels()
    slowest_s = max((channel.tick_s for channel in channels), default=0.0)
    start_ns = now_ns = clock.now_ns()
    end_ns = start_ns + nanoseconds(max(CHECK_S, min(TICKS * slowest_s, CHECK_MAX_S)))
    rows: list[tuple[int, Sequence[int | None]]] = []
    faults: Counter[str] = Counter()
    while now_ns < end_ns:
        try:
            row = meter.read()
            rows.append((clock.now_ns(), row))
        except MeterFault as fault:
            faults[str(fault) or "it does not answer"] += 1
        clock.sleep_until(now_ns + nanoseconds(1 / hz))
        now_ns = clock.now_ns()
    window_s = seconds(now_ns - start_ns)
    found = tuple(
        _channel_check(one, [(t_ns, raw) for t_ns, row in rows if (raw := row[at]) is not None], window_s)
        for at, one in enumerate(channels)
    )
    ok = not faults and all(one.value is not None for one in found)
    return MeterCheck(meter=meter.address, ok=ok, window_s=window_s, faults=tuple(faults.most_common()), channels=found)


def together(
    meters: Sequence[Meter], checks: Sequence[MeterCheck], calibration: Calibration | None, now: datetime
) -> tuple[Agreement, ...]:
    """Whether what the meters showed makes sense together, by the calibration where it holds."""
    watts = {
        channel: shown.mean
        for meter, checked in zip(meters, checks, strict=True)
        for channel, shown in zip(meter.channels(), checked.channels, strict=True)
        if shown.mean is not None and channel.kind in POWER_KINDS
    }
    ref = calibrated(meters, calibration)[1](now)
    return at_a_glance(watts, ref.fits if ref is not None else ())


def _channel_check(channel: Channel, readings: Sequence[tuple[int, int]], window_s: float) -> ChannelCheck:
    unit, mean_unit = UNITS[channel.kind]
    return ChannelCheck(
        name=channel.name,
        kind=channel.kind.value,
        scope=channel.scope,
        value=readings[-1][1] * channel.step if readings else None,
        unit=unit,
        mean=_mean(channel, readings),
        mean_unit=mean_unit,
        readings_per_s=len(readings) / window_s,
        changes_per_s=sum(after != before for (_, before), (_, after) in pairwise(readings)) / window_s,
    )


def _mean(channel: Channel, readings: Sequence[tuple[int, int]]) -> float | None:
    """A power's mean over its readings; for all else the change a second, over a counter's wraps."""
    if channel.kind is ReadingKind.POWER_W:
        return sum(raw for _, raw in readings) * channel.step / len(readings) if readings else None
    if len(readings) < 2:
        return None
    moves = [after - before for (_, before), (_, after) in pairwise(readings)]
    if channel.sampling is Sampling.COUNTER:
        if not any(moves):
            return None  # not zero: its tick has not come yet
        moves = [move + (channel.wrap_raw or 0) if move < 0 else move for move in moves]
    return sum(moves) * channel.step / seconds(readings[-1][0] - readings[0][0])
