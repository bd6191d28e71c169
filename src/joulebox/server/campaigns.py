"""What campaigns found, as the server keeps it: cells of models, categories and nodes; and which model they recommend.

Cells come from `joulebox bench publish`. Joules of different nodes are never compared: a recommendation stands on the
cells of one node, of the models that are offered now, by file.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from joulebox.errors import JouleboxError
from joulebox.statistics import Interval
from joulebox.statistics.recommending import Advice, Candidate, recommend

AUTO: Final = "joulebox/auto"
"""A model of this name is chosen by the server."""
EVERYTHING: Final = "all"
"""The category of all categories together."""
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """A campaign that was published. `created` is when it began, as its record says."""

    id: str
    title: str
    created: str
    published: datetime
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignCell:
    """What a model came to in a category on a node: `right` of `judged` prompts, and the figures with their intervals
    (`answer_j`, `token_j`, `right_j`, `sci_g`, `accuracy`), each `None` where too few prompts tell it."""

    campaign: str
    node: str
    model: str
    digest: str
    category: str
    asked: int
    n: int
    judged: int
    right: float
    figures: Json

    @property
    def candidate(self) -> Candidate | None:
        """As the recommendation wants it."""
        answer_j = self.figures.get("answer_j")
        if answer_j is None or not self.judged:
            return None
        figure = Interval(answer_j["value"], answer_j["low"], answer_j["high"])
        return Candidate(model=self.model, prompts=self.judged, right=self.right, answer_j=figure)


def advise(
    cells: Sequence[CampaignCell],
    offered: Collection[tuple[str, str]],
    category: str,
    min_accuracy: float,
    max_energy_j: float | None,
) -> Advice:
    """The model to take among those offered (id and digest), by cells in the order of newest campaign first."""
    nodes: dict[str, dict[str, Candidate]] = {}
    for cell in cells:
        if cell.category != category or (cell.model, cell.digest) not in offered:
            continue
        if (candidate := cell.candidate) is not None:
            nodes.setdefault(cell.node, {}).setdefault(cell.model, candidate)
    if not nodes:
        sentence = f"No published campaign has figures of {category} for a model that is offered now: run one first."
        return Advice(model=None, reason=sentence)
    node = max(nodes, key=lambda name: len(nodes[name]))
    advice = recommend(list(nodes[node].values()), min_accuracy, max_energy_j)
    return Advice(
        model=advice.model, reason=f"{advice.reason} (Node {node}, {category}.)", more_prompts=advice.more_prompts
    )


def chosen(advice: Advice) -> tuple[str, str]:
    """Model and reason. Raises `JouleboxError("no_recommendation")` where no model can be told to be good enough."""
    if advice.model is None:
        sentence = f"{advice.reason} Name a model, or ask for less (auto.min_accuracy, auto.max_energy_j)."
        raise JouleboxError("no_recommendation", sentence, more_prompts=advice.more_prompts)
    return advice.model, advice.reason
