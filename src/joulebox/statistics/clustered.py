"""Ratios of sums over prompts with their 95 % intervals, by the bootstrap. Pure: it draws from a fixed sequence.

What repeats of one prompt have in common says nothing new about other prompts, so prompts are drawn, not answers. The
bootstrap is studentised (Efron 1982) on the logarithm: energies are positive and skewed, for which the plain percentile
interval of 20 prompts covers 86 to 93 %, this one 93 to 97 % (`tests/test_statistics.py`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import exp, fsum, inf, log, sqrt
from operator import itemgetter
from statistics import fmean, stdev
from typing import Final

from joulebox.statistics import Interval

PROMPTS_MIN: Final = 10
"""From fewer prompts there is no interval."""
TELLING_MIN: Final = 5
"""Nor where fewer of them have anything to divide by, such as a right answer."""
RESAMPLES: Final = 999
_SEED: Final = 0x6A6F756C65626F78
_MASK: Final = 2**64 - 1

Gather = Callable[[Sequence[float]], Sequence[float]]


@dataclass(frozen=True, slots=True)
class Part:
    """What one prompt adds to the two sums of a ratio, such as joules and answers, tokens or right answers."""

    above: float
    below: float


def ratio_of_sums(parts: Sequence[Part]) -> Interval | None:
    """Sum above by sum below, with its interval over prompts like these. `None`: no energy, fewer than `PROMPTS_MIN`
    prompts, or fewer than `TELLING_MIN` with anything to divide by."""
    above, below = [part.above for part in parts], [part.below for part in parts]
    if len(parts) < PROMPTS_MIN or sum(value > 0 for value in below) < TELLING_MIN or fsum(above) <= 0:
        return None
    value, error = _estimate(len(parts), fsum(above), fsum(below), *_squares(above, below))
    spread = sorted(_studentised(above, below, value))
    low, high = spread[len(spread) // 40], spread[-len(spread) // 40]
    return Interval(value, value * _exp(-high * error), value * _exp(-low * error))


def mean_of(values: Sequence[float]) -> Interval | None:
    """The mean of one figure a prompt, in the same way."""
    return ratio_of_sums([Part(value, 1.0) for value in values])


def variation(repeats: Sequence[Sequence[float]]) -> tuple[float, int] | None:
    """How well a node repeats itself: the coefficient of variation within prompts (root mean square), and how many
    degrees of freedom it stands on. `None`: no prompt was measured twice."""
    told = [(stdev(one) / fmean(one), len(one) - 1) for one in repeats if len(one) > 1 and fmean(one) > 0]
    freedom = sum(count for _, count in told)
    return (sqrt(fsum(count * cv * cv for cv, count in told) / freedom), freedom) if freedom else None


def _estimate(n: int, above: float, below: float, aa: float, ab: float, bb: float) -> tuple[float, float]:
    """The ratio, and the standard error of its logarithm (linearised)."""
    ratio = above / below
    left = max(aa - 2 * ratio * ab + ratio * ratio * bb, 0.0)
    return ratio, sqrt(left * n / (n - 1)) / above


def _squares(above: Sequence[float], below: Sequence[float]) -> tuple[float, float, float]:
    pairs = list(zip(above, below, strict=True))
    return fsum(a * a for a in above), fsum(a * b for a, b in pairs), fsum(b * b for b in below)


def _studentised(above: Sequence[float], below: Sequence[float], value: float) -> Iterator[float]:
    """How far off each resample lies, in its own standard errors."""
    columns = (above, below, [a * a for a in above], [a * b for a, b in zip(above, below, strict=True)])
    squares = [b * b for b in below]
    for gather in _draws(len(above)):
        a, b, aa, ab = (sum(gather(column)) for column in columns)
        if b <= 0.0:  # nobody was right in this resample: the ratio has no upper end
            yield inf
        elif a > 0.0:
            ratio, error = _estimate(len(above), a, b, aa, ab, sum(gather(squares)))
            off = log(ratio / value)
            yield off / error if error > 0.0 else 0.0 if abs(off) < 1e-12 else inf * off
        else:
            yield -inf


def _exp(x: float) -> float:
    return inf if x > 700 else exp(x)


@cache
def _draws(n: int) -> tuple[Gather, ...]:
    """The resamples of n prompts: always the same, so that a table is the same wherever it is made."""
    numbers = _numbers(_SEED ^ n)
    return tuple(itemgetter(*(next(numbers) % n for _ in range(n))) for _ in range(RESAMPLES))  # several: a tuple


def _numbers(state: int) -> Iterator[int]:
    """Numbers without pattern (SplitMix64, Steele and others 2014)."""
    while True:
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        mixed = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        yield mixed ^ (mixed >> 31)
