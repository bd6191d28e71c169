"""Which of several models takes less: paired over the same prompts, with the many looks and comparisons paid for. Pure.

A difference that is looked for often enough is found by chance. So the level of 5 % is shared out: among the looks and
pairs of a running comparison equally, among the marks of a table by Holm (1979).
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import fmean, stdev
from typing import Final, Literal, TypeVar

from joulebox.statistics import Interval
from joulebox.statistics.distributions import student_t_above, student_t_quantile

RISK: Final = 0.05
PAIRS_MIN: Final = 5
"""From fewer pairs nothing is decided."""

Key = TypeVar("Key", bound=Hashable)
Side = Literal["less", "more", "alike", "open"]


@dataclass(frozen=True, slots=True)
class Compared:
    """How many times as much the first of two takes as the second, and what that decides: the first takes `less` or
    `more`, they are `alike` within the precision asked for, or it is `open`."""

    ratio: Interval
    side: Side
    pairs: int


def logs_of(pairs: Sequence[tuple[float, float]]) -> list[float]:
    """The logarithms of the ratios of pairs. Raises `ValueError` for figures that are not above zero."""
    if any(one <= 0.0 or other <= 0.0 for one, other in pairs):
        raise ValueError("a ratio needs figures above zero")
    return [log(one / other) for one, other in pairs]


def compare(pairs: Sequence[tuple[float, float]], risk: float = RISK, precision: float | None = None) -> Compared:
    """Compare two by the geometric mean of their ratios, with an interval that misses at most `risk` of the time.

    `precision` 0.1: decided as well once the interval is within 10 % of its middle. Raises `ValueError` for fewer than
    `PAIRS_MIN` pairs and for figures that are not above zero.
    """
    logs = logs_of(pairs)
    if len(logs) < PAIRS_MIN:
        raise ValueError(f"a comparison needs at least {PAIRS_MIN} pairs")
    middle, freedom = fmean(logs), len(logs) - 1
    half = student_t_quantile(1 - risk / 2, freedom) * stdev(logs) / sqrt(len(logs))
    ratio = Interval(exp(middle), exp(middle - half), exp(middle + half))
    side: Side = "open"
    if ratio.high < 1.0:
        side = "less"
    elif ratio.low > 1.0:
        side = "more"
    elif precision is not None and half <= log(1 + precision):
        side = "alike"
    return Compared(ratio, side, len(logs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """A comparison of `models` that is looked at up to `looks` times while it runs. Its intervals hold at all looks and
    for all pairs together, so that a wrong verdict comes at most 5 % of the time, however often one looks."""

    models: int
    looks: int
    precision: float | None = None

    @property
    def risk(self) -> float:
        """What one look at one pair may risk."""
        return RISK / (max(self.looks, 1) * max(self.models * (self.models - 1) // 2, 1))

    def at(self, pairs: Sequence[tuple[float, float]]) -> Compared | None:
        """What is decided by the pairs so far; `None` while they are too few."""
        return compare(pairs, self.risk, self.precision) if len(pairs) >= PAIRS_MIN else None


def less_by_chance(pairs: Sequence[tuple[float, float]]) -> float:
    """How often chance alone would show the first of the pairs this much below the second (one-sided p value).

    1.0 for fewer than `PAIRS_MIN` pairs. Raises `ValueError` for figures that are not above zero.
    """
    logs = logs_of(pairs)
    if len(logs) < PAIRS_MIN:
        return 1.0
    middle, spread = fmean(logs), stdev(logs)
    if spread == 0.0:
        return 0.0 if middle < 0.0 else 1.0
    return student_t_above(-middle / (spread / sqrt(len(logs))), len(logs) - 1)


def holm(chances: Mapping[Key, float]) -> dict[Key, float]:
    """The p values of several claims, so raised that all those below 5 % may be claimed together (Holm 1979)."""
    raised: dict[Key, float] = {}
    least = 0.0
    for place, (key, chance) in enumerate(sorted(chances.items(), key=lambda item: item[1])):
        least = max(least, min(1.0, (len(chances) - place) * chance))
        raised[key] = least
    return raised


def cheapest(figures: Mapping[Key, Mapping[str, float]]) -> tuple[Key, float] | None:
    """Of several models' figures by prompt the one that takes least, and how often chance would make the claim wrong.

    The one chosen is held against every other over the prompts that both have, and must be below each; that any of
    them might have been chosen is paid for. `None`: nothing to compare.
    """
    if len(figures) < 2 or not all(figures.values()):
        return None
    first = min(figures, key=lambda key: _mean_log(figures, key))
    chances = [less_by_chance(paired(figures[first], figures[other])) for other in figures if other != first]
    return first, min(1.0, max(chances) * len(figures))


def paired(one: Mapping[str, float], other: Mapping[str, float]) -> list[tuple[float, float]]:
    """The figures of the prompts that both have."""
    return [(one[prompt], other[prompt]) for prompt in one if prompt in other]


def _mean_log(figures: Mapping[Key, Mapping[str, float]], key: Key) -> float:
    """The mean over the prompts that all have, else over its own."""
    common = set.intersection(*(set(each) for each in figures.values()))
    values = [value for prompt, value in figures[key].items() if prompt in common or not common]
    return fmean(log(value) for value in values)
