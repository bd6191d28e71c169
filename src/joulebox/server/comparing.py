"""Comparisons: one prompt, several models, one node, one after the other in random order; and what votes add up to.

Pure but for `shuffled`. Who votes first sees nothing but the answers; models and joules come after.
"""

import hashlib
import math
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
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


def preferences(votes: Sequence[Comparison]) -> list[Preference]:
    """Every pair of models that was voted on, most votes first. In a pair the one that took more energy in most of its
    comparisons is the large one."""
    pairs: dict[tuple[str, str], list[tuple[Mapping[str, Any], Mapping[str, Any], str, str | None]]] = {}
    for vote in votes:
        if len(vote.figures) == 2 and vote.choice is not None:
            first, second = vote.figures
            winner = str(vote.figures[int(vote.choice)]["model"]) if vote.choice.isdecimal() else vote.choice
            one, other = sorted((first, second), key=lambda figure: str(figure["model"]))
            if one["model"] != other["model"]:
                pairs.setdefault((one["model"], other["model"]), []).append((one, other, winner, vote.worth))
    return sorted((_preference(pair, told) for pair, told in pairs.items()), key=lambda one: (-one.n, one.large))


def _preference(
    pair: tuple[str, str], told: Sequence[tuple[Mapping[str, Any], Mapping[str, Any], str, str | None]]
) -> Preference:
    ratios = [one["j"] / other["j"] for one, other, _, _ in told if (one["j"] or 0) > 0 and (other["j"] or 0) > 0]
    middle = math.exp(median(map(math.log, ratios))) if ratios else None
    large, small = pair if middle is None or middle >= 1 else pair[::-1]
    worths = [worth for *_, worth in told if worth in {"yes", "no"}]
    return Preference(
        large=large,
        small=small,
        large_wins=sum(winner == large for _, _, winner, _ in told),
        small_wins=sum(winner == small for _, _, winner, _ in told),
        ties=sum(winner in {TIE, NONE} for _, _, winner, _ in told),
        ratio=None if middle is None else max(middle, 1 / middle),
        worth_yes=sum(worth == "yes" for worth in worths),
        worth_told=len(worths),
    )
