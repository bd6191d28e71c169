"""What a part of `make bench` finds, and the page `docs/benchmarks.md` made of it: first every figure beside its
target, then each part's own tables, then words by people, which stay."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from accuracy_page import with_part

Json = dict[str, Any]
HEAD = """# Benchmarks: what Joulebox costs

`make bench` writes this page (under 15 minutes on two cores, `make bench PART=name` one part of it) and keeps every
single figure in [benchmarks.json](benchmarks.json). Everything runs on one machine: what is measured, what asks, and
the engine behind it share its cores. So compare rows of a table, which were measured in turns, and not tables of
different days. A figure is the median of its rounds, with the lowest and highest in brackets. Peers have environments
and pins of their own in `tests/peers`; one that cannot be installed is named as absent.

Three things decide whether measuring is worth its price: how much longer an answer takes, how much the machine works
for it, and what is kept afterwards. Each part below tells one of them.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the overview. `reached` is `None` where there is no target or nothing to set beside; `why` says why
    a target was not reached."""

    what: str
    figure: str
    beside: str = "-"
    target: str = "-"
    reached: bool | None = None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a part found: its lines of the overview, its own text, and every single figure."""

    rows: Sequence[Row]
    text: str
    raw: Json


def spread(values: Sequence[float], form: str = "{:.2f}") -> str:
    """The median, and what they lay between."""
    if not values:
        return "-"
    low, middle, high = (form.format(one) for one in (min(values), median(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


def table(head: Sequence[str], lines: Sequence[Sequence[str]], names: int = 1) -> str:
    """A table whose first `names` columns are words and the others figures."""
    marks = ["---"] * names + ["--:"] * (len(head) - names)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, marks, *lines))


def kept(part: Part) -> Json:
    """A part as it is kept between runs."""
    return {"rows": [asdict(row) for row in part.rows], "figures": part.raw}


def written(page: str, parts: Mapping[str, Json], name: str, text: str) -> str:
    """The page with that part's text and the overview of all parts anew."""
    page = page or HEAD
    for one in ("overview", *parts):  # their order is that in which they run
        if f"<!-- {one}: " not in page:
            page = with_part(page, one, "-", command(one))
    page = with_part(page, "overview", _overview(parts), command("overview"))
    return with_part(page, name, text, command(name))


def command(name: str) -> str:
    """How a part is run by hand."""
    return "tests/benchmarks.py" + ("" if name == "overview" else f" --only {name}")


def _overview(parts: Mapping[str, Json]) -> str:
    lines, missed = [], []
    for name, part in parts.items():
        for row in (Row(**one) for one in part["rows"]):
            told = {True: "yes", False: "**no**", None: "-"}[row.reached]
            lines.append((row.what, row.figure, row.beside, row.target, told, name))
            if row.reached is False:
                missed.append(f"- {row.what}: {row.figure}, not {row.target}. {row.why}".rstrip())
    head = ("What", "Here", "Beside", "To reach", "Reached", "Part")
    rest = ["## What is not reached", "", *missed] if missed else ["Every target is reached."]
    return "\n".join(["## All figures", "", table(head, lines, names=len(head)), "", *rest])
