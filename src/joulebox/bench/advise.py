"""Which model a campaign recommends, and the campaign as a server keeps it."""

from dataclasses import asdict
from math import isfinite
from typing import Any

from joulebox.bench.record import Record
from joulebox.bench.table import Cell, table_of
from joulebox.bench.views import notes, title_of
from joulebox.errors import JouleboxError
from joulebox.statistics import Interval
from joulebox.statistics.recommending import Advice, Candidate, recommend

FIGURES = ("answer_j", "token_j", "right_j", "sci_g", "accuracy")


def advise(
    record: Record, category: str, min_accuracy: float, max_energy_j: float | None, node: str | None = None
) -> Advice:
    """The model to take. Raises `JouleboxError("not_found")` for a category or node that the campaign has not, and
    `bad_request` where several nodes might be meant."""
    table = table_of(record)
    if node is None and len(table.nodes) > 1:
        raise JouleboxError("bad_request", f"Several nodes were measured ({', '.join(table.nodes)}): name one, --node.")
    if node is not None and node not in table.nodes:
        raise JouleboxError("not_found", f"Node {node} was not measured; these were: {', '.join(table.nodes)}.")
    if category not in {"all", *table.categories}:
        known = ", ".join([*table.categories, "all"])
        raise JouleboxError("not_found", f"There is no category {category} in this campaign: choose among {known}.")
    where = node or next(iter(table.nodes), "")
    only = table.categories[0] if category == "all" and len(table.categories) == 1 else category
    cells = [cell for cell in table.cells if (cell.node, cell.category) == (where, only)]
    return recommend([one for cell in cells if (one := _candidate(cell)) is not None], min_accuracy, max_energy_j)


def _candidate(cell: Cell) -> Candidate | None:
    if cell.answer_j is None or not cell.judged:
        return None
    return Candidate(model=cell.model, prompts=cell.judged, right=cell.right, answer_j=cell.answer_j)


def published(record: Record, prompts_min: int, *, strict: bool) -> dict[str, Any]:
    """The campaign in the fields of `POST /api/v1/campaigns`."""
    table = table_of(record, prompts_min, strict=strict)
    digests = {model.id: model.digest for model in record.models}
    cells = [
        {name: getattr(cell, name) for name in ("node", "model", "category", "asked", "n", "judged")}
        | {"digest": digests[cell.model], "right": float(cell.right)}
        | {name: _ends(getattr(cell, name)) for name in FIGURES}
        for cell in table.cells
    ]
    header = record.header
    told = [note[:1000] for note in notes(table, record)]
    return {"id": header.id, "title": title_of(table)[:500], "created": header.created, "notes": told, "cells": cells}


def _ends(figure: Interval | None) -> dict[str, float] | None:
    """A figure without an end is none that others can use."""
    if figure is None or not all(map(isfinite, (figure.value, figure.low, figure.high))):
        return None
    return {name: float(value) for name, value in asdict(figure).items()}
