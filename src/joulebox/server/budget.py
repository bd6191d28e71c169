"""Energy budgets: which can be kept, and when one is spent, by the readings that ride on the tokens. Pure.

Between two readings the answer is taken to go on drawing as between the last two, so that it is stopped when its budget
is spent, and not a send later.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from joulebox.accounting.power_model import profile_of
from joulebox.errors import JouleboxError
from joulebox.metering import headline
from joulebox.model import Channel, Prompt
from joulebox.protocol import LeaseRequest

LIVE_MAX_S: Final = 3.0
"""What a meter shows later than this after it was drawn, tick and lag together, says nothing of an answer under way."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Joules above idle until `t_s` after the request."""

    j: float
    t_s: float


NOTHING: Final = Spent(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Due:
    """In how many seconds a budget is spent if the answer goes on so, and what is spent then; never: `inf`."""

    wait_s: float
    spent: Spent


@dataclass(slots=True)
class Watch:
    """The budget of a running answer, and how much of it was spent at the newest reading."""

    max_energy_j: float
    last: Spent = NOTHING

    def due(self, told: Mapping[str, Any]) -> Due | None:
        """When the budget is spent, by a `power` event of the node; `None` where it tells nothing new."""
        spent = spent_of(told)
        if spent is None or spent.t_s <= self.last.t_s:
            return None
        before, self.last = self.last, spent
        left_j = self.max_energy_j - spent.j
        if left_j <= 0:
            return Due(0.0, spent)
        rate_w = (spent.j - before.j) / (spent.t_s - before.t_s)
        age_s = max(told["t_s"] - spent.t_s, 0.0)
        if rate_w <= 0 or age_s > spent.t_s:  # nothing is foretold for longer than was seen
            return Due(inf, spent)
        return Due(max(left_j / rate_w - age_s, 0.0), Spent(self.max_energy_j, spent.t_s + left_j / rate_w))


def spent_of(told: Mapping[str, Any]) -> Spent | None:
    """What an answer has drawn above idle, by a `power` event of its node; `None` where that does not tell. Without a
    meter the node tells core-seconds, and the model's joules are worked out here."""
    found = [told.get(name) for name in ("counted", "idle", "counted_s", "t_s")]
    numbers = [one for one in found if isinstance(one, int | float)]
    if len(numbers) < len(found):
        return None
    counted, idle, counted_s, _ = numbers
    if "busy_cores" not in told:
        return Spent(counted - idle, counted_s)
    cores, memory_bytes = told.get("cores"), told.get("memory_bytes")
    if not isinstance(cores, int) or not isinstance(memory_bytes, int):
        return None
    return Spent((counted - idle) * profile_of(cores, memory_bytes).busy_core_w, counted_s)


def watched(channels: Sequence[Channel]) -> bool:
    """Whether these meters tell what is drawn soon enough to stop an answer by it."""
    chosen = headline(channels)
    return bool(chosen) and all(one.tick_s + one.lag_s <= LIVE_MAX_S for one in chosen)


def check_budget(prompt: Prompt, offers: Mapping[str, LeaseRequest]) -> None:
    """Refuse a budget that nobody can keep; `offers` are those of the nodes that may take the prompt.

    Raises `JouleboxError("not_supported")`.
    """
    if prompt.max_energy_j is None:
        return
    if prompt.mode == "quiet":
        raise JouleboxError(
            "not_supported",
            "An energy budget needs readings while the answer is written, and a quiet prompt sends none: leave out "
            "max_energy_j, or ask with mode live.",
        )
    blind = sorted(name for name, offer in offers.items() if not watched(offer.channels))
    if blind:
        raise JouleboxError(
            "not_supported",
            f"Without quick meters on {', '.join(blind)} no energy budget can be kept there: choose another node with "
            "placement node:NAME, or leave out max_energy_j.",
            nodes=blind,
        )
