"""Which meters of one machine must agree, and the line between a whole and its parts. Pure; node and server use it.

A plug sees more than the counters behind it: board, fans, and what the power supply loses. What it shows is a straight
line of what they show, closely enough: `rest + slope * parts`. Calibration fits that line, every answer is held against
it. Without a line there is only physics: parts cannot take more than the whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, linear_regression
from typing import Final

from joulebox.metering import WHOLE_SCOPES, alternatives
from joulebox.model import Channel, MetersFit

POINTS_MIN: Final = 5
T95: Final = (3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18)
"""Student's t for 95 %, 3 to 12 degrees of freedom (any table of the distribution)."""
REST_U_RATIO: Final = 0.10
"""So far the rest may differ from day to day: fans and discs are in it. Assumed (k = 2)."""
WORK_U_RATIO: Final = 0.03
"""So far the slope may differ from one kind of work to another: a supply's efficiency is not quite constant, and
counters do not see every kind of work alike. Assumed (k = 2)."""
BEYOND_U_RATIO: Final = 0.10
"""The same for power outside of what the line was fitted to. Assumed (k = 2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two sets of channels that look at the same machine. `same`: both are the same figure; otherwise `parts` are
    inside `whole`."""

    whole: tuple[Channel, ...]
    parts: tuple[Channel, ...]
    same: bool


def pairs(channels: Sequence[Channel]) -> list[Pair]:
    """Every two sets that must agree. Of several ways to know one thing the fastest stands for it towards others."""
    sets = {
        scope: sorted(map(tuple, ways), key=lambda way: (max(one.tick_s for one in way), way[0].meter, way[0].name))
        for scope, ways in alternatives(channels).items()
    }
    found = [Pair(whole=way, parts=ways[0], same=True) for ways in sets.values() for way in ways[1:]]
    parts = tuple(one for scope, ways in sets.items() if scope not in WHOLE_SCOPES for one in ways[0])
    wholes = [scope for scope in WHOLE_SCOPES if scope in sets]
    found += [Pair(whole=way, parts=parts, same=False) for scope in wholes for way in sets[scope] if parts]
    if len(wholes) > 1:
        outer, inner = wholes[:2]
        found += [Pair(whole=way, parts=sets[inner][0], same=False) for way in sets[outer]]
    return found


def label(channel: Channel) -> str:
    """The name by which a fit knows a channel."""
    return f"{channel.meter} {channel.name}"


def labels(channels: Sequence[Channel]) -> tuple[str, ...]:
    """The same of several, in one order."""
    return tuple(sorted(label(one) for one in channels))


def words(channels: Sequence[Channel]) -> str:
    """Channels as a sentence names them: `shelly power (wall)`, `powercap package-0 + package-0/dram`."""
    kind = channels[0].meter.partition(":")[0]
    names = " + ".join(dict.fromkeys(one.name for one in channels))
    scopes = "+".join(dict.fromkeys(one.scope for one in channels))
    kinds = " and ".join(dict.fromkeys(one.meter.partition(":")[0] for one in channels))
    return f"{kinds if kinds != kind else kind} {names} ({scopes})"


def fitted(pair: Pair, points: Sequence[tuple[float, float]]) -> MetersFit | None:
    """The line through points (watts of parts, of whole); `None` for too few, or for parts that never moved."""
    parts_w, whole_w = [x for x, _ in points], [y for _, y in points]
    if len(points) < POINTS_MIN or max(parts_w) <= min(parts_w):
        return None
    line = linear_regression(parts_w, whole_w)
    freedom = len(points) - 2
    off_w = [y - line.intercept - line.slope * x for x, y in points]
    t95 = T95[min(freedom - 3, len(T95) - 1)]
    scatter_w = sqrt(sum(each * each for each in off_w) / freedom)
    centre_w = fmean(parts_w)
    spread_w = sqrt(sum((x - centre_w) ** 2 for x in parts_w))
    return MetersFit(
        whole=labels(pair.whole),
        parts=labels(pair.parts),
        rest_w=line.intercept,
        slope=line.slope,
        u_slope=t95 * scatter_w / spread_w,
        centre_w=centre_w,
        u_centre_w=t95 * scatter_w / sqrt(len(points)),
        low_w=min(parts_w),
        high_w=max(parts_w),
    )


def fit_of(pair: Pair, fits: Sequence[MetersFit]) -> MetersFit | None:
    """The fit of these very channels, if there is one."""
    whole, parts = labels(pair.whole), labels(pair.parts)
    return next((fit for fit in fits if (fit.whole, fit.parts) == (whole, parts)), None)


def expected_w(fit: MetersFit, parts_w: float) -> tuple[float, float]:
    """What the whole should show where its parts show `parts_w`, and how far that may be off (k = 2), in watts."""
    beyond_w = max(parts_w - fit.high_w, fit.low_w - parts_w, 0.0)
    u_w = sqrt(
        fit.u_centre_w**2
        + (fit.u_slope * (parts_w - fit.centre_w)) ** 2
        + (REST_U_RATIO * fit.rest_w) ** 2
        + (WORK_U_RATIO * fit.slope * (parts_w - fit.low_w)) ** 2
        + (BEYOND_U_RATIO * fit.slope * beyond_w) ** 2
    )
    return fit.rest_w + fit.slope * parts_w, u_w
