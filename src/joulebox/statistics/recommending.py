"""Which model to take: the cheapest that is good enough for certain, or that nobody can tell yet. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from joulebox.statistics import Interval
from joulebox.statistics.distributions import at_least, at_most, wilson

RISK: Final = 0.05
"""How often at most the recommended model is worse than asked for, all candidates together."""
MORE_MAX: Final = 2000
"""Where more prompts than this would be needed, nobody will ask them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model as a campaign saw it in one category: over `prompts`, `right` of them right (parts of one where repeats
    differ), `answer_j` an answer."""

    model: str
    prompts: int
    right: float
    answer_j: Interval

    @property
    def share(self) -> float:
        """Right answers among all."""
        return self.right / self.prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """The model to take, `None` where there is none for certain; why, in a sentence or two; about how many more prompts
    would settle what is open, `None` where nothing is or nobody can say."""

    model: str | None
    reason: str
    more_prompts: int | None = None


def recommend(candidates: Sequence[Candidate], min_accuracy: float, max_energy_j: float | None = None) -> Advice:
    """The cheapest of the models that are right in at least `min_accuracy` of prompts like these with 95 % confidence.

    With `max_energy_j`, only models whose mean answer surely takes no more. Where every candidate is below the floor,
    one is recommended in at most 5 % of campaigns.
    """
    measured = sorted((each for each in candidates if each.prompts), key=lambda each: each.answer_j.value)
    if not measured:
        return Advice(model=None, reason="No model was measured here: run a campaign first.")
    cheap = [each for each in measured if max_energy_j is None or each.answer_j.high <= max_energy_j]
    if not cheap:
        least = measured[0]
        told = f"{least.model} takes least, {_energy(least.answer_j)} an answer"
        return Advice(model=None, reason=f"No model surely stays below {max_energy_j:.3g} J an answer: {told}.")
    risk = RISK / len(cheap)
    chosen = next((each for each in cheap if _surely(each, min_accuracy, risk)), None)
    before = cheap[: cheap.index(chosen)] if chosen is not None else cheap
    waits = [(each, _more(each, min_accuracy, risk)) for each in before if _maybe(each, min_accuracy, risk)]
    open_, more = min(((each, more) for each, more in waits if more), key=lambda item: item[1], default=(None, None))
    if chosen is not None:
        return Advice(model=chosen.model, reason=_why(chosen, cheap, min_accuracy, risk, open_), more_prompts=more)
    if open_ is not None:
        told = f"{open_.model} was right in {_share(open_)}; about {more} more prompts would settle it"
        return Advice(model=None, reason=f"Cannot tell yet: {told}.", more_prompts=more)
    best = max(cheap, key=lambda each: each.share)
    sure = "Cannot tell yet" if any(_maybe(each, min_accuracy, risk) for each in cheap) else "No model is that good"
    return Advice(model=None, reason=f"{sure}: the best, {best.model}, was right in {_share(best)}.")


def _surely(each: Candidate, floor: float, risk: float) -> bool:
    return floor <= 0.0 or at_least(each.right, each.prompts, risk) >= floor


def _maybe(each: Candidate, floor: float, risk: float) -> bool:
    """Whether it may be good enough for all that is known."""
    return at_most(each.right, each.prompts, risk) >= floor


def _more(each: Candidate, floor: float, risk: float) -> int | None:
    """About so many further prompts would make it certain, if it goes on as it did."""
    if each.share <= floor:
        return None
    low, high = each.prompts, each.prompts + MORE_MAX
    if at_least(each.share * high, high, risk) < floor:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if at_least(each.share * middle, middle, risk) >= floor else (middle + 1, high)
    return max(low - each.prompts, 1)


def _why(chosen: Candidate, cheap: Sequence[Candidate], floor: float, risk: float, open_: Candidate | None) -> str:
    least = at_least(chosen.right, chosen.prompts, risk)
    good = f", at least {least:.0%} for 95 % certain" if floor > 0 else ""
    told = f"{chosen.model} was right in {_share(chosen)}{good}, and takes {_energy(chosen.answer_j)} an answer"
    worse = [each for each in cheap if each.answer_j.value < chosen.answer_j.value and each is not open_]
    reason = (
        f"{told}: the cheapest that is surely good enough." if len(cheap) > 1 else f"{told}: the only one measured."
    )
    if worse:
        cheaper = ", ".join(f"{each.model} {each.share:.0%}" for each in worse)
        reason += f" Cheaper, but not surely good enough: {cheaper}."
    if open_ is not None:
        reason += f" {open_.model} is cheaper and was right in {_share(open_)}: more prompts would tell."
    return reason


def _share(each: Candidate) -> str:
    interval = wilson(each.right, each.prompts)
    right = f"{each.right:.1f}".removesuffix(".0")
    return f"{right} of {each.prompts} prompts ({interval.low:.0%} to {interval.high:.0%})"


def _energy(figure: Interval) -> str:
    return f"{figure.value:.3g} J ({figure.low:.3g} to {figure.high:.3g})"
