"""How sure a figure is: every part by name, as a standard uncertainty (k = 1), and the whole expanded (k = 2).

The baseline part is the spread of the very same estimator over sham windows: stretches of the idle record with the
same length and the same guards, where the true active energy is zero. (Scatter over the square root of n, the usual
way, covers 5-76 % of the truth where sham windows cover 94-98 %.)
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import exp, sqrt
from typing import Final

from joulebox.accounting.energy import Estimate, Window, estimate
from joulebox.metering import Curve
from joulebox.model import Channel, Sampling, UncertaintyPart
from joulebox.units import nanoseconds, seconds

COVERAGE_FACTOR: Final = 2.0
SHAM_WINDOWS_MIN: Final = 3
TAIL_S: Final = 0.8
"""How fast clocks and voltages are taken to come down after the work; what the interval of slow meters rests on."""
SNAPSHOT_SCATTER: Final = 0.3
"""By how much of its rise the power of a working machine is taken to differ from look to look: reading the prompt and
writing the answer draw differently, and a snapshot says nothing of what lies between."""
STAMP_S: Final = 0.001
"""How well the node knows when the engine's work ends; on the rig in real time it was off by a few tenths of this."""
INDEPENDENT: Final = ("resolution",)
"""Parts that differ from channel to channel. All others are one error in every channel of their name: counters of one
machine tick together, and what disturbs the idle machine disturbs all of them."""
_T95: Final = (
    12.71,
    4.30,
    3.18,
    2.78,
    2.57,
    2.45,
    2.36,
    2.31,
    2.26,
    2.23,
    2.20,
    2.18,
    2.16,
    2.14,
    2.13,
    2.12,
    2.11,
    2.10,
)
"""Student's t for 95 %, 1 to 18 degrees of freedom (any table of the distribution); 2.0 beyond."""


@dataclass(frozen=True, slots=True)
class Sham:
    """What the estimator says where nothing happened: root mean squares in the unit of the curve, over `n` independent
    windows. `active` is scaled up with the length where the idle record is too short for windows as long as the answer,
    `tail` with the distance from the guard. Windows overlap by half, so that every other one is counted in `n`."""

    active: float
    tail: float
    n: int


def sham_windows(curve: Curve, window: Window, quiet_from_ns: int) -> Sham | None:
    """The estimator's own spread on the idle record from `quiet_from_ns` to the window's start.

    A record shorter than the window needs gives a shorter sham window whose spread is scaled up; `None` where not even
    that fits.
    """
    room_s = seconds(window.start_ns - quiet_from_ns)
    wrap_s = 2 * window.guard_s + window.tick_s + window.lag_s
    length_s = min(window.duration_s, (room_s - wrap_s) / SHAM_WINDOWS_MIN)
    if length_s <= 0.02:
        return None
    pace_ns = nanoseconds(max(length_s / 2, room_s / 200))
    shams = []
    start_ns = quiet_from_ns + nanoseconds(window.guard_s)
    last_ns = window.start_ns - nanoseconds(length_s + window.guard_s + window.tick_s + window.lag_s)
    while start_ns <= last_ns:
        found = estimate(curve, replace(window, start_ns=start_ns, end_ns=start_ns + nanoseconds(length_s)))
        if found is not None:
            shams.append(found)
        start_ns += pace_ns
    if len(shams) < SHAM_WINDOWS_MIN:
        return None
    return Sham(
        active=_rms([found.active for found in shams]) * window.duration_s / length_s,
        tail=_rms([found.tail for found in shams]) * (window.duration_s + window.guard_s) / (length_s + window.guard_s),
        n=max(len(shams) // 2, 1),
    )


def _rms(values: Sequence[float]) -> float:
    return sqrt(sum(value * value for value in values) / len(values))


def boundary(channel: Channel, curve: Curve, found: Estimate, duration_s: float) -> dict[str, float]:
    """What ticks, resolution and the guards' edges leave open in the answer, in the unit of the curve (k = 1).

    A fast counter shows what was drawn until its last tick: half a tick too little on average, at either end. Of a slow
    meter the ticks themselves are known, to within the curve's blur. `stamps`: the machine may work on for `STAMP_S`
    after the last token was stamped.
    """
    idle, after = found.idle_rate, found.after_rate
    parts = {
        "guards": abs(after - idle) * found.after_s * _tail_before(found.after_s, channel.tick_s),
        "stamps": abs(found.answer / duration_s - after) * STAMP_S / sqrt(3),
    }
    if curve.margin_s:
        parts["lag"] = abs(after - idle) * curve.margin_s / sqrt(3)
    if channel.sampling is Sampling.COUNTER:
        parts["resolution"] = channel.step / sqrt(6)
    else:
        parts["resolution"] = channel.step * duration_s / sqrt(12)
    if curve.slack_s:
        parts["tick"] = channel.tick_s * sqrt((idle**2 + after**2) / 12 + (after - idle) ** 2 / 4)
    else:
        parts["tick"] = curve.blur_s * sqrt((idle**2 + after**2) / 12)
    if channel.sampling is Sampling.SNAPSHOT:
        parts["snapshots"] = _between_snapshots(channel, found, duration_s)
    return parts


def _tail_before(after_s: float, tick_s: float) -> float:
    """By how much the tail may have been above what was seen of it, as a share (k = 1): it was taken over the tick that
    began `after_s` after the answer, and a tail that dies away with `TAIL_S` was higher before."""
    return max(1 / sqrt(12), (exp((after_s + tick_s / 2) / TAIL_S) - 1) / sqrt(3))


def _between_snapshots(channel: Channel, found: Estimate, duration_s: float) -> float:
    """What a power seen once a tick leaves open: where between two looks the answer began and ended, and what it drew
    between the looks inside it. No guard cancels this, so that it stands in the interval (k = 1)."""
    rise_w = abs(found.active) / duration_s
    return channel.tick_s * rise_w * sqrt(1 / 6 + duration_s / channel.tick_s * SNAPSHOT_SCATTER**2)


def baseline(sham: Sham | None, spread: float, idle_rate: float, duration_s: float) -> float:
    """The standard uncertainty of the idle power taken off over `duration_s`, in the unit of the curve. `spread` is
    what `sham` says of it.

    Few sham windows are widened by Student's t: as many degrees of freedom as windows, because the true value is known
    to be zero. Without any, all of the idle part is uncertain (as of a rectangle).
    """
    if sham is None:
        return abs(idle_rate) * duration_s / sqrt(3)
    return spread * (_T95[sham.n - 1] / COVERAGE_FACTOR if sham.n <= len(_T95) else 1.0)


def combined(parts: Iterable[UncertaintyPart]) -> float:
    """The expanded uncertainty (k = 2) of independent parts, in joules."""
    return COVERAGE_FACTOR * sqrt(sum(part.j * part.j for part in parts))


def added(groups: Sequence[Sequence[UncertaintyPart]]) -> tuple[UncertaintyPart, ...]:
    """Parts of several channels as one list. Parts of one name add up, the `INDEPENDENT` ones in quadrature."""
    together: dict[str, list[float]] = {}
    for group in groups:
        for part in group:
            together.setdefault(part.source, []).append(part.j)
    return tuple(
        UncertaintyPart(source=source, j=sqrt(sum(j * j for j in js)) if source in INDEPENDENT else sum(js))
        for source, js in together.items()
    )
