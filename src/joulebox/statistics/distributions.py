"""Student's t and the binomial: what chance alone does. By the incomplete beta function (DLMF 8.17). Pure."""

from collections.abc import Callable
from functools import cache
from math import exp, inf, lgamma, log, log1p, sqrt
from statistics import NormalDist
from typing import Final

from joulebox.statistics import Interval

_STEPS: Final = 100_000
"""The fraction closes after about as many as the root of its larger parameter."""
_TINY: Final = 1e-300
_CLOSE: Final = 1e-15


def beta_cdf(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), for positive a and b."""
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - beta_cdf(1.0 - x, b, a)
    front = exp(a * log(x) + b * log1p(-x) + lgamma(a + b) - lgamma(a) - lgamma(b)) / a
    return front / _fraction(x, a, b)


def _fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of DLMF 8.17.22, by Lentz."""
    value = c = 1.0
    d, step, change = 0.0, 0, 0.0
    while abs(change - 1.0) >= _CLOSE and step < _STEPS:
        step += 1
        half, odd = divmod(step, 2)
        if odd:
            term = -(a + half) * (a + b + half) * x / ((a + 2 * half) * (a + 2 * half + 1))
        else:
            term = half * (b - half) * x / ((a + 2 * half - 1) * (a + 2 * half))
        d = 1.0 / (_away(1.0 + term * d))
        c = _away(1.0 + term / c)
        change = c * d
        value *= change
    return value


def _away(x: float) -> float:
    return x if abs(x) > _TINY else _TINY


@cache
def beta_quantile(p: float, a: float, b: float) -> float:
    """Where I_x(a, b) is `p`."""
    return _root(lambda x: beta_cdf(x, a, b) - p, 0.0, 1.0)


def _root(rises: Callable[[float], float], low: float, high: float) -> float:
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if rises(middle) < 0.0 else (low, middle)
    return middle


def student_t_above(t: float, freedom: float) -> float:
    """How often Student's t is above `t`."""
    tail = beta_cdf(freedom / (freedom + t * t), freedom / 2, 0.5) / 2
    return tail if t >= 0 else 1.0 - tail


@cache
def student_t_quantile(p: float, freedom: float) -> float:
    """What Student's t stays below with probability `p`, between 0 and 1."""
    if p == 0.5:
        return 0.0
    if p < 0.5:
        return -student_t_quantile(1 - p, freedom)
    x = beta_quantile(2 * (1 - p), freedom / 2, 0.5)
    return sqrt(freedom * (1 / x - 1)) if x > 0.0 else inf


def wilson(right: float, n: int, confidence: float = 0.95) -> Interval:
    """The share of `right` among `n`, with Wilson's interval (1927), which never leaves 0 to 1.

    `right` need not be whole: the mean of each prompt's repeats counts as one. Raises `ValueError` without any.
    """
    _check(right, n)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, wide = right / n, 1 + z * z / n
    centre = (share + z * z / (2 * n)) / wide
    half = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / wide
    return Interval(share, max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share)))


def at_least(right: float, n: int, risk: float) -> float:
    """The share that is exceeded for certain but for `risk` at most, whatever the truth (Clopper and Pearson 1934)."""
    _check(right, n)
    return beta_quantile(risk, right, n - right + 1) if right > 0 else 0.0


def at_most(right: float, n: int, risk: float) -> float:
    """The same from above."""
    return 1.0 - at_least(n - right, n, risk)


def _check(right: float, n: int) -> None:
    if n < 1 or not 0 <= right <= n:
        raise ValueError("a share needs at least one case, and no more right ones than cases")
