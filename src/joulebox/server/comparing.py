"""Comparisons: one prompt, several models, one node, one after the other in random order; and what votes add up to.

Pure but for `shuffled`. Who votes first sees nothing but the answers; models and joules come after.
"""

import hashlib
import math
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean
from typing import Any, Final, TypeVar

MODELS_MIN: Final = 2
MODELS_MAX: Final = 4
TIE: Final = "tie"
NONE: Final = "none"
WORTH: Final = ("yes", "no", "unsure")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What was compared, as it is kept: the prompts in the order shown; the vote, once there is one."""

    id: str
    created: datetime
    node: str
    jobs: tuple[str, ...]
    owner: str | None = None
    choice: str | None = None
    chosen: datetime | None = None
    figures: tuple[Mapping[str, Any], ...] = ()
    worth: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """What people thought of two models: how often each was better, how much more energy `large` took (median of the
    ratios), and how often that was thought worth it."""

    large: str
    small: str
    large_wins: int
    small_wins: int
    ties: int
    ratio: float | None
    worth_yes: int
    worth_told: int

    @property
    def n(self) -> int:
        """Votes."""
        return self.large_wins + self.small_wins + self.ties


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The votes on two models as the books add them up: how often each was better, what of their ratios, the energy of
    `one` over that of `other`, is in the middle (two where their number is even), and what was thought worth it."""

    one: str
    other: str
    one_wins: int
    other_wins: int
    ties: int
    worth_yes: int
    worth_told: int
    ratios: tuple[float, ...] = ()


def shuffled(items: Iterable[T]) -> list[T]:
    """In an order that nobody can know."""
    mixed = list(items)
    secrets.SystemRandom().shuffle(mixed)
    return mixed


def in_order(names: Sequence[str], seed: int) -> list[str]:
    """The names in an order that only they and the seed decide."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).digest())


def figure_of(model: str, receipt: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is kept of an answer with a vote: the model and what it took, `None` where that is not known, or no receipt
    could be made."""
    answer = receipt["energy"]["answer"] if receipt is not None else None
    return {
        "model": model,
        "j": answer["j"] if answer else None,
        "u": answer["u"] if answer else None,
        "modelled": receipt is not None and receipt["energy"]["scope"] == "modelled",
        "simulated": receipt is not None and receipt["simulated"],
    }


def preferences(tallies: Iterable[Tally]) -> list[Preference]:
    """Every pair of models that was voted on, most votes first. In a pair the one that took more energy in most of its
    comparisons is the large one."""
    return sorted(map(_preference, tallies), key=lambda one: (-one.n, one.large, one.small))


def _preference(tally: Tally) -> Preference:
    middle = math.exp(fmean(map(math.log, tally.ratios))) if tally.ratios else None
    models, wins = (tally.one, tally.other), (tally.one_wins, tally.other_wins)
    if middle is not None and middle < 1:
        models, wins = models[::-1], wins[::-1]
    return Preference(
        large=models[0],
        small=models[1],
        large_wins=wins[0],
        small_wins=wins[1],
        ties=tally.ties,
        ratio=None if middle is None else max(middle, 1 / middle),
        worth_yes=tally.worth_yes,
        worth_told=tally.worth_told,
    )
