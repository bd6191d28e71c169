"""What repeated measurements say: means and paired ratios with their 95 % intervals, and whether a series of them has
moved from its reference (a two-sided CUSUM, Page 1954). Pure.

In modules of their own: `distributions`, `clustered` (ratios of sums over prompts), `comparing` (which model takes
less), `recommending` (which model to take).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import NormalDist, fmean, stdev
from typing import Final

_Z: Final = NormalDist().inv_cdf(0.975)
ALLOWANCE: Final = 0.75
"""Spreads from the mean that are nobody's drift (k): half of the 1.5 spreads that are to be found quickly. It is larger
than the usual 0.5, because a mean of `REFERENCE_RUNS` is itself off by up to half a spread."""
DECISION: Final = 6.0
"""Spreads that must have added up beyond the allowance (h)."""
CEILING: Final = 2 * DECISION
"""The sums go no higher, so that a series which has come back is soon believed."""
REFERENCE_RUNS: Final = 20
"""So many values make the reference."""
SPREAD_MIN_RATIO: Final = 0.005
"""A spread is taken to be at least this share of the mean: less than half a per cent matters to nobody."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and the ends of its 95 % interval, in its own unit."""

    value: float
    low: float
    high: float


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean of independent values, by Student's t. Raises `ValueError` for fewer than four."""
    if len(values) < 4:
        raise ValueError("an interval needs at least four values")
    mean = fmean(values)
    u = student_t95(len(values) - 1) * stdev(values) / sqrt(len(values))
    return Interval(mean, mean - u, mean + u)


def ratio_interval(pairs: Sequence[tuple[float, float]]) -> Interval:
    """By how much the first of each pair is greater than the second: the geometric mean of their ratios. What both of a
    pair share cancels.

    Raises `ValueError` for fewer than four pairs and for figures that are not above zero.
    """
    if any(one <= 0.0 or other <= 0.0 for one, other in pairs):
        raise ValueError("a ratio needs figures above zero")
    logs = mean_interval([log(one / other) for one, other in pairs])
    return Interval(exp(logs.value), exp(logs.low), exp(logs.high))


def student_t95(freedom: int) -> float:
    """The two-sided 95 % point of Student's t (Abramowitz and Stegun 26.7.5), good to 0.2 % from three degrees of
    freedom on."""
    z = _Z
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * freedom**4)
    )


@dataclass(frozen=True, slots=True)
class Reference:
    """Mean and spread (standard deviation) that later values are held against, in their unit."""

    mean: float
    spread: float


@dataclass(frozen=True, slots=True)
class Cusum:
    """The sums of either side in spreads: `high` of values above the reference, `low` of values below it.

    A single figure says little: three spreads off may be chance, half a spread off for weeks is not. The sums add up
    how far each value lies beyond an allowance on either side of a reference that stays fixed, so that small steady
    shifts are found soon, and nothing creeps along with the drift it should find.
    """

    high: float = 0.0
    low: float = 0.0

    @property
    def drifted(self) -> bool:
        """Whether the values have moved."""
        return max(self.high, self.low) > DECISION

    def then(self, value: float, reference: Reference, allowance: float = ALLOWANCE) -> "Cusum":
        """The sums after one more value."""
        off = (value - reference.mean) / reference.spread
        return Cusum(
            high=min(max(self.high + off - allowance, 0.0), CEILING),
            low=min(max(self.low - off - allowance, 0.0), CEILING),
        )


def reference_of(values: Sequence[float]) -> Reference:
    """The reference that `values` make. Raises `ValueError` for fewer than two."""
    if len(values) < 2:
        raise ValueError("a reference needs at least two values")
    mean = fmean(values)
    return Reference(mean=mean, spread=max(stdev(values), SPREAD_MIN_RATIO * abs(mean)))
