"""What an asker may have: prompts in hand, prompts a day, joules a day; how much of it is used, and when there is more.

Joules are those of finished receipts as they were booked: what the answer added to the idle machine, and loading the
model where this prompt caused that. What waits or runs counts by expectation, the median of the model's newest
receipts. A receipt without energy is unknown and counts for nothing; how many there are is said.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from statistics import median
from typing import Any, Final, Protocol

from joulebox.errors import JouleboxError
from joulebox.model import Receipt
from joulebox.server.access import Caller, Usage
from joulebox.server.jobs import PastRun

DAY: Final = timedelta(hours=24)
BUSY_S: Final = 60
"""Somebody whose prompts all wait may look again after so long."""
PastRuns = Callable[[str], Coroutine[Any, Any, Mapping[str, Sequence[PastRun]]]]
"""What past runs of a model took, by node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What an asker's prompts took that ended since a moment, when each ended, how many of them nobody knows it of, and
    how many are not over, by model."""

    ended: Sequence[tuple[datetime, float]]
    unknown: int
    pending: Mapping[str, int]

    @property
    def energy_j(self) -> float:
        """All that is known of."""
        return sum(energy_j for _, energy_j in self.ended)


class Books(Protocol):
    """What this needs of the store."""

    async def usage(self, asker: str, since: datetime) -> Usage:
        """What an asker has in hand, and has asked since a moment."""

    async def spent(self, asker: str, since: datetime) -> Spent:
        """What an asker's prompts took that ended since a moment, oldest first, and what is still to come."""


def charged_j(receipt: Receipt) -> float | None:
    """What a receipt costs its asker: above idle (the whole answer where idle is not known), and its own load. `None`
    where nobody knows."""
    figure = receipt.energy.active or receipt.energy.answer
    load = receipt.energy.phases.get("load")
    if figure is None:
        return None
    return max(figure.j, 0.0) + (load.j if load is not None and load.j is not None else 0.0)


def expected_j(runs: Mapping[str, Sequence[PastRun]]) -> float | None:
    """What the next prompt to a model is expected to cost; `None` where no receipt tells."""
    known = [run.charged_j for each in runs.values() for run in each if run.charged_j is not None]
    return median(known) if known else None


class Quotas:
    """Keeps everybody to what they may have."""

    def __init__(self, books: Books, past_runs: PastRuns) -> None:
        self._books = books
        self._past_runs = past_runs

    async def check(self, caller: Caller, model: str, now: datetime) -> None:
        """Raises `JouleboxError("quota_used")` where this asker has all that is theirs; `retry_after_s` says when there
        is more."""
        if caller.unlimited or caller.asker is None:
            return
        if caller.outstanding_max or caller.prompts_per_day:
            _check_prompts(caller, await self._books.usage(caller.asker, now - DAY), now)
        if caller.joules_per_day:
            spent = await self._books.spent(caller.asker, now - DAY)
            pending_j, _ = await self._pending(spent)
            expected = expected_j(await self._past_runs(model))
            check_energy(caller.joules_per_day, spent, pending_j, (model, expected or 0.0), now)

    async def standing(self, caller: Caller, now: datetime) -> dict[str, Any]:
        """What an asker may have and has used, for themselves; `max` is `None` where there is no limit."""
        unlimited = caller.unlimited or caller.asker is None
        usage, spent = Usage(outstanding=0, asked=0, first=None), Spent(ended=(), unknown=0, pending={})
        if caller.asker is not None:
            usage = await self._books.usage(caller.asker, now - DAY)
            spent = await self._books.spent(caller.asker, now - DAY)
        pending_j, guessed = await self._pending(spent)
        most = (None, None, None) if unlimited else (caller.outstanding_max, caller.prompts_per_day)
        return {
            "name": caller.name,
            "scopes": sorted(caller.scopes),
            "outstanding": {"used": usage.outstanding, "max": most[0] or None},
            "prompts_24h": {"used": usage.asked, "max": most[1] or None},
            "energy_24h": {
                "used_j": spent.energy_j,
                "pending_j": pending_j,
                "max_j": None if unlimited else caller.joules_per_day or None,
                "unknown": spent.unknown,
                "unexpected": guessed,
            },
        }

    async def _pending(self, spent: Spent) -> tuple[float, int]:
        """What is still to come, in joules, and of how many prompts no receipt tells what to expect."""
        total_j, unexpected = 0.0, 0
        for model, count in spent.pending.items():
            expected = expected_j(await self._past_runs(model))
            total_j += count * (expected or 0.0)
            unexpected += count if expected is None else 0
        return total_j, unexpected


def _check_prompts(caller: Caller, usage: Usage, now: datetime) -> None:
    if caller.outstanding_max and usage.outstanding >= caller.outstanding_max:
        sentence = f"{usage.outstanding} of your prompts wait or run, as many as may: ask again when one is done."
        raise JouleboxError("quota_used", sentence, retry_after_s=BUSY_S)
    if caller.prompts_per_day and usage.asked >= caller.prompts_per_day:
        wait_s = max(ceil((usage.first + DAY - now).total_seconds()), 1) if usage.first else BUSY_S
        sentence = f"{usage.asked} prompts within 24 hours, as many as may: ask again in {wait_s} s."
        raise JouleboxError("quota_used", sentence, retry_after_s=wait_s)


def check_energy(max_j: float, spent: Spent, pending_j: float, wanted: tuple[str, float], now: datetime) -> None:
    """Raises `quota_used` where a prompt to the model that is `wanted`, with what is expected of it, has no room."""
    model, expected = wanted
    if expected > max_j:
        sentence = (
            f"A prompt to {model} is expected to take {expected:,.0f} J, more than the {max_j:,.0f} J that you may use "
            "within 24 hours: choose a smaller model."
        )
        raise JouleboxError("quota_used", sentence)
    over_j = spent.energy_j + pending_j + expected - max_j
    if over_j < 0 or (over_j == 0 and expected):
        return
    told = [f"took {spent.energy_j:,.0f} J"]
    told += [f"{pending_j:,.0f} J are expected of those that wait or run"] if pending_j else []
    told += [f"{expected:,.0f} J of this one"] if expected else []
    wait_s = _free_in_s(over_j, spent.ended, now)
    sentence = (
        f"Your prompts of the last 24 hours {', '.join(told)}; {max_j:,.0f} J you may use: ask again in {wait_s} s."
    )
    raise JouleboxError("quota_used", sentence, retry_after_s=wait_s)


def _free_in_s(over_j: float, ended: Sequence[tuple[datetime, float]], now: datetime) -> int:
    """When so many joules are older than a day; where that is not enough, others must end first."""
    for at, energy_j in ended:
        over_j -= energy_j
        if over_j <= 0:
            return max(ceil((at + DAY - now).total_seconds()), 1)
    return BUSY_S
