"""How far the counters' own scale may be off, told by a meter at the plug that was there during calibration.

What calibration fits is `plug = rest + slope * counters`. The slope is two things at once: what supply and regulators
lose of each further watt, and the gain of the counters. Only with a range for the first it tells the second: `slope *
efficiency` is what a counted joule truly was in the part. Counters are not corrected by it: their figure stays what
they show, and how far that may be off, found gain and its uncertainty together, stands in place of the driver's claim
where it is less, or where the two contradict each other.
"""

from collections.abc import Mapping, Sequence
from math import hypot, sqrt
from typing import Final, NamedTuple

from joulebox.agreement import WORK_U_RATIO, label, labels
from joulebox.model import Channel
from joulebox.node.together import Agreement

SUPPLY: Final = (0.75, 0.95)
"""Of a further watt at the plug so much arrives in processor, memory or GPU, where nobody says better: supplies lose 4
to 20 % (the classes of 80 PLUS), regulators behind them some more."""
STATED_U: Final = 0.02
"""A stated efficiency is taken to be known to within so much, as of a rectangle."""
MOVED_RATIO: Final = 0.2
"""A channel with a smaller share of what the counters rose by was not tried: its driver's claim stays."""


class Gain(NamedTuple):
    """How far a channel may be off (k = 2), as a share, and what its receipt says of that. `found`: it may be off by
    less than its driver claims."""

    u_ratio: float
    accuracy: str
    found: bool


def gains(
    channels: Sequence[Channel], agreements: Sequence[Agreement], efficiency: float | None, at: str
) -> dict[str, Gain]:
    """By `label`, for counters that a meter at the plug told something of; `efficiency` as the operator states it."""
    known = {label(one): one for one in channels}
    walls = {labels([one]): one.gain_u_ratio for one in channels if one.scope == "wall"}
    fits = [one for one in agreements if one.fit is not None and one.fit.whole in walls]
    if not fits:
        return {}
    best = min(fits, key=lambda one: one.fit.u_slope / one.fit.slope + walls[one.fit.whole] if one.fit else 0.0)
    assert best.fit is not None
    shares = {name: rise_w / sum(best.rises_w) for name, rise_w in zip(best.fit.parts, best.rises_w, strict=True)}
    low, high = SUPPLY if efficiency is None else (efficiency - STATED_U, min(efficiency + STATED_U, 1.0))
    middle = (low + high) / 2
    ratio = best.fit.slope * middle
    untried = sum(share * known[name].gain_u_ratio for name, share in shares.items() if share < MOVED_RATIO)
    u_ratio = ratio * hypot(
        best.fit.u_slope / best.fit.slope,
        walls[best.fit.whole],
        (high - low) / sqrt(3) / middle,
        WORK_U_RATIO,
        untried,
    )
    return dict(_gains(known, shares, (ratio, u_ratio), at))


def _gains(
    known: Mapping[str, Channel], shares: Mapping[str, float], true: tuple[float, float], at: str
) -> list[tuple[str, Gain]]:
    ratio, u_ratio = true
    off, found = abs(ratio - 1), []
    for name, share in shares.items():
        declared = known[name].gain_u_ratio
        if share < MOVED_RATIO:
            continue
        if off + u_ratio < declared:
            accuracy = f"calibrated at the wall on {at[:10]}: {100 * (off + u_ratio):.1f} %"
            found.append((name, Gain(off + u_ratio, accuracy, found=True)))
        elif off > hypot(u_ratio, declared):
            accuracy = (
                f"off by {100 * (1 / ratio - 1):+.0f} % at the wall on {at[:10]}, where it claims "
                f"{100 * declared:.0f} %: {100 * (off + u_ratio):.0f} %"
            )
            found.append((name, Gain(off + u_ratio, accuracy, found=False)))
    return found
