"""The SCI report in words: what the page says of its figures, and all of it as Markdown. No figure is made here."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from joulebox.server.report import PARTS
from joulebox.wording import NOT_MEASURED, SIMULATED, lasting, plain, quantity, ranged

Json = Mapping[str, Any]


def told(report: Json) -> dict[str, Any]:
    """What template and Markdown say of the report's figures."""
    score, counts, waiting = report["score"], report["counts"], report["waiting"]
    least = "at least " if report["at_least"] and score["per_token"] is not None else ""
    return {
        "period": f"{_when(report['period']['start'])} to {_when(report['period']['until'])} UTC",
        "what": ", ".join(
            part
            for part in (
                f"zone {report['zone']}" if report["zone"] else "",
                f"model {report['model']}" if report["model"] else "",
            )
            if part
        ),
        "headline": _score(score["per_million_tokens"]),
        "least": least,
        "scores": [
            (label, *_score(score[name]))
            for label, name in (
                ("per token", "per_token"),
                ("per output token", "per_output_token"),
                ("per answer", "per_answer"),
            )
        ],
        "counts": [
            ("Answers", str(counts["answers"])),
            ("Tokens read", _count(counts["input_tokens"])),
            ("Tokens written", _count(counts["output_tokens"])),
            ("Prompts without an answer", str(counts["fruitless"])),
            ("Control prompts", str(counts["control_runs"])),
            ("Nodes in service", str(counts["nodes"])),
            ("Their time in service", lasting(counts["service_s"])),
            ("of it unknown", lasting(counts["unknown_s"])),
        ],
        "waiting": _waiting(waiting, score["per_answer"]),
        "rows": list(_rows(report)),
        "parts": PARTS,
    }


def _waiting(waiting: Json, per_answer: Json | None) -> str:
    if waiting["per_answer"] is None or per_answer is None:
        return "No answer was given, so there is none that waiting could be counted with."
    share = 100 * waiting["per_answer"]["g"] / per_answer["g"] if per_answer["g"] else 0.0
    grams = quantity(waiting["per_answer"]["g"], None, "g")
    energy = quantity(waiting["kwh_per_answer"] * 1000, None, "Wh")
    return (
        f"Waiting for prompts adds {grams} CO2e to each answer, {plain(share, '%', 2)} of its score: {energy} of idle "
        "electricity, and the making of machines that wait."
    )


def _rows(report: Json) -> Iterable[dict[str, Any]]:
    terms = {(one["part"], one["method"]): one["term"] for one in report["components"]}
    for one in report["shown"]["components"]:
        name, note = PARTS[one["part"]]
        yield {**one, "name": name, "note": note, "term": terms[one["part"], one["method"]]}


def _score(grams: Json | None) -> tuple[str, str]:
    if grams is None:
        return NOT_MEASURED, ""
    shown, span = ranged(grams["g"], grams["low"], grams["high"], "g")
    return shown, span or ""


def _count(count: int | None) -> str:
    return "unknown" if count is None else str(count)


def _when(text: str) -> str:
    return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M}"


def as_markdown(report: Json) -> str:
    """The report as a page of Markdown."""
    words = told(report)
    shown, total = report["shown"], report["shown"]["total"]
    lines = [
        f"# Software Carbon Intensity{', ' + _plain(words['what']) if words['what'] else ''}",
        "",
        f"{words['period']}. SCI for AI, Consumer boundary; training is not included.",
        "",
    ]
    if report["simulated"]:
        lines += [f"**{SIMULATED}**", ""]
    shown_score, span = words["headline"]
    lines += [f"**{words['least']}{shown_score} CO2e per million tokens**{f' ({span})' if span else ''}", ""]
    lines += [
        f"- {label}: {words['least']}{value}{f' ({span})' if span else ''}" for label, value, span in words["scores"]
    ]
    lines += ["", words["waiting"], "", "## What it adds up from", ""]
    lines += _table(
        ("Component", f"CO2e, {shown['unit']}", "low", "high", f"Energy, {shown['energy_unit']}", "Term", "How"),
        [
            *(
                (one["name"], one["g"], one["low"], one["high"], one["energy"] or "", one["term"], one["method"])
                for one in words["rows"]
            ),
            ("**Sum**", f"**{total['g']}**", total["low"], total["high"], total["energy"], "O + M", ""),
        ],
    )
    lines += ["", "## What was counted", "", *(f"- {label}: {value}" for label, value in words["counts"])]
    lines += ["", "## Nodes", "", *_table(NODE_HEAD, [node_row(one) for one in report["nodes"]])]
    lines += ["", "## Factors", "", *_table(FACTOR_HEAD, [factor_row(one) for one in report["coefficients"]])]
    lines += ["", "## What is not known", "", *(f"- {_plain(sentence)}" for sentence in report["unknown"])]
    lines += ["", "## Boundary and unit", "", report["boundary"], "", report["unit"], ""]
    lines += [f"Made {_when(report['made'])} UTC by Joulebox, method {report['method_version']}.", ""]
    return "\n".join(lines)


NODE_HEAD: Final = ("Node", "Zone", "In service", "At work", "Control", "Waiting", "Unknown", "Meters cover")
FACTOR_HEAD: Final = ("Term", "Factor", "Value", "Range", "How", "Source", "Licence")


def node_row(one: Json) -> tuple[str, ...]:
    """A node as a row under `NODE_HEAD`."""
    times = (lasting(one[name]) for name in ("service_s", "asked_s", "control_s", "idle_s", "unknown_s"))
    scopes = ", ".join(one["scopes"]) or "nothing"
    return (one["name"], one["zone"] or "none", *times, scopes + (", simulated" if one["simulated"] else ""))


def factor_row(one: Json) -> tuple[str, ...]:
    """A factor as a row under `FACTOR_HEAD`."""
    span = f"{plain(one['low'])} to {plain(one['high'])}" if one["low"] is not None else ""
    how = ", ".join(part for part in (one["method"], one["quality"]) if part)
    value = plain(one["value"], one["unit"])
    return one["symbol"], one["name"], value, span, how, one["source"], one["licence"]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(_plain(str(cell)) for cell in line)} |" for line in lines]


def _plain(text: str) -> str:
    """A name that people chose must not become Markdown's marks or break the table."""
    return " ".join(text.translate({ord("|"): "/", ord("<"): "(", ord(">"): ")", ord("`"): "'"}).split())
