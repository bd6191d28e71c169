"""What repeated measurements say: means and paired ratios with their 95 % intervals. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import NormalDist, fmean, stdev
from typing import Final

_Z: Final = NormalDist().inv_cdf(0.975)


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
