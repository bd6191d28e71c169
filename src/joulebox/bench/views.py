"""A campaign's table for people and programs: text, Markdown, CSV, JSON. The same cells, with n and interval."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from joulebox.bench.record import Record
from joulebox.bench.table import ALL, Cell, Pair, Table
from joulebox.columns import Row
from joulebox.statistics import Interval
from joulebox.tabular import csv_text

MG_PER_G: Final = 1000.0
Rows = list[list[str]]


@dataclass(frozen=True, slots=True)
class View:
    """One figure of all models and categories. `factor` turns the cell's unit into the one shown."""

    name: str
    title: str
    pick: Callable[[Cell], Interval | None]
    factor: float = 1.0
    percent: bool = False


VIEWS: Final = (
    View("sci", "SCI of an answer (mgCO2e)", lambda cell: cell.sci_g, MG_PER_G),
    View("energy", "Energy of an answer (J); * takes least, sure for the whole table", lambda cell: cell.answer_j),
    View("accuracy", "Right answers (%)", lambda cell: cell.accuracy, 100.0, True),
    View("right", "Energy of a right answer (J)", lambda cell: cell.right_j),
    View("token", "Energy of a token (J)", lambda cell: cell.token_j),
)
"""The first is the layout of the service that Joulebox follows: means of SCI, models by categories."""
_COLUMNS: Final = ("answer_j", "token_j", "right_j", "sci_g", "accuracy")


def columns_of(table: Table, node: str) -> list[str]:
    """The categories, and `all` where some model has it."""
    every = any(cell.category == ALL for cell in table.cells if cell.node == node)
    return [*table.categories, *([ALL] if every else [])]


def rows_of(table: Table, view: View, node: str) -> Rows:
    """The view as rows of text, the heading first."""
    columns = columns_of(table, node)
    rows = [["model", *columns]]
    for model in table.models:
        cells = [table.cell(node, model, category) for category in columns]
        rows.append([model, *(cell_text(cell, view) for cell in cells)])
    return rows


def cell_text(cell: Cell | None, view: View) -> str:
    """Figure, interval and n of a cell; what is missing says why."""
    if cell is None:
        return "–"
    found = view.pick(cell)
    if found is None:
        few = f"{cell.right:.0f} right" if view.name == "right" and cell.judged else missing_text(cell)
        return f"– n={cell.n}{f' ({few})' if few else ''}"
    digits = (lambda x: f"{x:.0f}") if view.percent else figure
    value, low, high = (digits(x * view.factor) for x in (found.value, found.low, found.high))
    n = cell.judged if view.name in {"accuracy", "right"} else cell.n
    star = "*" if view.name == "energy" and cell.best else ""
    return f"{value}{star} ({low} to {high}) n={n}"


def missing_text(cell: Cell) -> str:
    """Why prompts have no figure."""
    return ", ".join(f"{count} {why}" for why, count in cell.missing)


def figure(value: float) -> str:
    """Three digits, written out."""
    if value == float("inf"):
        return "∞"
    if value >= 100:
        return f"{value:.0f}"
    text = f"{value:.3g}"
    return f"{value:.6f}" if "e" in text else text


# --- what has to be said with it --------------------------------------------------------------------------------------


def notes(table: Table, record: Record) -> list[str]:
    """What a reader must know to read the figures right."""
    receipts = [one.receipt for one in record.answers.values()]
    told = [*_of_meters(receipts, table), *_of_carbon(receipts)]
    if len(table.nodes) > 1:
        told.append(_of_nodes(record))
    told += [f"{node}: repeats of a prompt differ by {cv:.1%} (coefficient of variation, {freedom} repeats)."
             for node, (cv, freedom) in table.repeat_cv.items()]  # fmt: skip
    missing = [cell for cell in table.cells if cell.missing and cell.category != ALL]
    told += [f"Missing, {cell.model} {cell.category}: {missing_text(cell)}." for cell in missing]
    if suspect := sum(cell.suspect for cell in table.cells if cell.category != ALL):
        told.append(f"{suspect} of the answers have a suspect receipt and count (--strict leaves them out).")
    if unscored := len(record.answers) - len(record.scores):
        told.append(f"{unscored} answers are not scored yet: joulebox bench run --resume FILE scores them.")
    if record.header.until_separated:
        told.append("Models rested once they were told apart: n differs, and intervals are of the prompts asked.")
    cut = sum(cell.truncated for cell in table.cells if cell.category != ALL)
    refused = sum(cell.refused for cell in table.cells if cell.category != ALL)
    told.append(
        f"{cut} wrong answers were cut off by the limit of tokens, {refused} were refusals: both count as wrong."
    )
    return [*told, _of_apart(table)]


def _of_meters(receipts: Sequence[Mapping[str, Any]], table: Table) -> Iterator[str]:
    figures = [(one["energy"]["scope"], one["energy"]["answer"]) for one in receipts if one["energy"]["answer"]]
    grades = sorted({figure["grade"] for _, figure in figures})
    scopes = sorted({scope for scope, _ in figures})
    if any(one["simulated"] for one in receipts):
        yield "Simulated: these joules were drawn by no real machine."
    if scopes == ["modelled"]:
        yield ("Grade D: no meter was read; the joules are modelled from how busy the cores were. They compare models "
               "on this node and say little of other machines.")  # fmt: skip
    elif figures:
        yield f"Measured at {', '.join(scopes)}; grade {', '.join(grades)}."
    if table.meter_u_ratio is not None:
        yield ("The intervals (95 %) are for other prompts like these on this node. What the meter may be wrong by "
               f"comes on top and is the same for all: ±{table.meter_u_ratio:.0%} of each figure (k=2).")  # fmt: skip
    for name, of in (("Method", "method_version"), ("Engine", "engine"), ("Calibration", "calibration")):
        values = {json.dumps(one[of]) for one in receipts}
        if len(values) > 1:
            yield f"{name}: {len(values)} different ones were used; `joulebox bench verify` tells which."


def _of_carbon(receipts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    grids: dict[tuple[str, str, str], list[float]] = {}
    for grid in (one["carbon"]["intensity"] for one in receipts):
        grids.setdefault((grid["zone"], grid["source"], grid["quality"]), []).append(grid["g_per_kwh"])
    for (zone, source, quality), values in sorted(grids.items()):
        span = f"{min(values):.0f}" if min(values) == max(values) else f"{min(values):.0f} to {max(values):.0f}"
        yield f"Grid {zone}: {span} gCO2e/kWh ({quality}; {source})."


def _of_nodes(record: Record) -> str:
    """Nodes are compared by their control prompt, or not at all."""
    found = {}
    for sitting in record.sittings:
        control = sitting.described.get("control") or {}
        reference = control.get("reference") or {}
        if control.get("state") == "steady" and reference.get("mean_j") and reference.get("subject"):
            subject = reference["subject"]
            found[sitting.node] = (reference["mean_j"], subject["digest"], subject["output_tokens"], subject["scope"])
    nodes = sorted({sitting.node for sitting in record.sittings})
    if set(found) != set(nodes) or len({each[1:] for each in found.values()}) != 1:
        return (f"Nodes {', '.join(nodes)} are shown apart and must not be compared: no control prompt that ran "
                "steadily on all of them says how they differ.")  # fmt: skip
    told = ", ".join(f"{node} {found[node][0]:.3g} J" for node in nodes)
    return f"The same control prompt takes {told}: by so much the nodes differ. They are shown apart."


def _of_apart(table: Table) -> str:
    apart = table.apart
    parts = [
        f"{apart.warm_ups} warm-ups {apart.warm_ups_j:.0f} J",
        f"{apart.discarded} answers with an invalid receipt {apart.discarded_j:.0f} J",
        f"{apart.aborted} aborted attempts {apart.aborted_j:.0f} J"
        + (f" (of {apart.unknown} nobody knows)" if apart.unknown else ""),
    ]
    failed = f"; {apart.failures} prompts failed" if apart.failures else ""
    return f"Beside the table's answers were drawn: {', '.join(parts)}{failed}."


def pairs_rows(pairs: Sequence[Pair]) -> Rows:
    """How many times as much one model takes as another, and how much of that is longer answers."""
    rows = [["category", "model", "than", "an answer", "tokens", "a token", "n"]]
    for pair in pairs:
        each = [pair.answer, pair.tokens, pair.token]
        texts = ["–" if one is None else f"{_times(one.ratio)}" for one in each]
        rows.append([pair.category, pair.one, pair.other, *texts, str(pair.answer.pairs)])
    return rows


def _times(ratio: Interval) -> str:
    return f"×{figure(ratio.value)} ({figure(ratio.low)} to {figure(ratio.high)})"


# --- forms ------------------------------------------------------------------------------------------------------------


def title_of(table: Table) -> str:
    """What the table is of."""
    header = table.header
    suite = ", ".join(f"{ref.category} {ref.version}" for ref in header.tasks)
    cap = f", at most {header.max_tokens} tokens an answer" if header.max_tokens else ""
    return f"Campaign {header.id} of {header.created[:10]}: {suite}{cap}"


def as_text(table: Table, record: Record, views: Sequence[View]) -> str:
    """For the terminal."""
    parts = [title_of(table)]
    for node in table.nodes:
        parts += [f"\n{view.title}, node {node}\n{_aligned(rows_of(table, view, node))}" for view in views]
        own = [pair for pair in table.pairs if pair.node == node]
        if own:
            parts.append(f"\nHow many times as much, for the same prompts, node {node}\n{_aligned(pairs_rows(own))}")
    return "\n".join([*parts, "", *notes(table, record)])


def _aligned(rows: Rows) -> str:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def as_markdown(table: Table, record: Record, views: Sequence[View]) -> str:
    """For a page."""
    parts = [f"# {title_of(table)}"]
    for node in table.nodes:
        parts += [f"## {_escaped(view.title)}, node {node}\n\n{_piped(rows_of(table, view, node))}" for view in views]
        own = [pair for pair in table.pairs if pair.node == node]
        if own:
            parts.append(f"## How many times as much, for the same prompts, node {node}\n\n{_piped(pairs_rows(own))}")
    models = "\n".join(f"- {one.id}: {one.quantization}, `{one.digest}`" for one in record.models)
    told = "\n".join(f"- {_escaped(note)}" for note in notes(table, record))
    return "\n\n".join([*parts, f"## To be read with it\n\n{told}", f"## Models\n\n{models}"]) + "\n"


def _piped(rows: Rows) -> str:
    lines = [f"| {' | '.join(map(_escaped, row))} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def as_csv(table: Table) -> str:
    """A row a cell, every figure with its interval; what is missing is empty."""
    names = (
        ["node", "model", "category", "asked", "n", "answers", "missing"]
        + [f"{name}{end}" for name in _COLUMNS for end in ("", "_low", "_high")]
        + ["right", "judged", "output_tokens", "truncated", "refused", "suspect", "repeat_cv", "best"]
    )
    return csv_text(names, map(_row, table.cells))


def _row(cell: Cell) -> Row:
    intervals: list[Interval | None] = [getattr(cell, name) for name in _COLUMNS]
    ends = [end for one in intervals for end in ((one.value, one.low, one.high) if one else (None, None, None))]
    counts = (cell.right, cell.judged, cell.output_tokens, cell.truncated, cell.refused, cell.suspect)
    place = (cell.node, cell.model, cell.category, cell.asked, cell.n, cell.answers, missing_text(cell))
    return [*place, *ends, *counts, cell.repeat_cv, cell.best]


def as_json(table: Table, record: Record) -> str:
    """Everything, for programs."""
    told = asdict(table) | {
        "models": [asdict(one) for one in record.models],
        "sittings": [asdict(one) for one in record.sittings],
        "notes": notes(table, record),
    }
    return json.dumps(told, ensure_ascii=False, indent=2)
