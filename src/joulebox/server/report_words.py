"""The SCI report in words: what the page says of its figures in the reader's language, and all of it as Markdown, which
is English. No figure is made here."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from joulebox.server.report import PARTS
from joulebox.wording import ENGLISH, NOT_MEASURED, SIMULATED, Tongue, lasting, marked, plain, quantity, ranged

Json = Mapping[str, Any]


def told(report: Json, _: Tongue = ENGLISH) -> dict[str, Any]:
    """What template and Markdown say of the report's figures."""
    score, waiting = report["score"], report["waiting"]
    vague = report["at_least"] and score["per_token"] is not None
    start, until = _when(report["period"]["start"]), _when(report["period"]["until"])
    zone, model = report["zone"], report["model"]
    what = [_("zone {zone}", zone=zone) if zone else "", _("model {model}", model=model) if model else ""]
    scores = (
        (_("per token"), "per_token"),
        (_("per output token"), "per_output_token"),
        (_("per answer"), "per_answer"),
    )
    return {
        "period": _("{start} to {until} UTC", start=start, until=until),
        "what": ", ".join(part for part in what if part),
        "headline": _score(score["per_million_tokens"], _),
        "least": _("at least") + " " if vague else "",
        "scores": [(label, *_score(score[name], _)) for label, name in scores],
        "counts": _counts(report["counts"], _),
        "waiting": _waiting(waiting, score["per_answer"], _),
        "rows": list(_rows(report, _)),
    }


def _counts(counts: Json, _: Tongue) -> list[tuple[str, str]]:
    return [
        (_("Answers"), str(counts["answers"])),
        (_("Tokens read"), _count(counts["input_tokens"], _)),
        (_("Tokens written"), _count(counts["output_tokens"], _)),
        (_("Prompts without an answer"), str(counts["fruitless"])),
        (_("Control prompts"), str(counts["control_runs"])),
        (_("Nodes in service"), str(counts["nodes"])),
        (_("Their time in service"), _.number(lasting(counts["service_s"]))),
        (_("of it unknown"), _.number(lasting(counts["unknown_s"]))),
    ]


def _waiting(waiting: Json, per_answer: Json | None, _: Tongue) -> str:
    if waiting["per_answer"] is None or per_answer is None:
        return _("No answer was given, so there is none that waiting could be counted with.")
    share = 100 * waiting["per_answer"]["g"] / per_answer["g"] if per_answer["g"] else 0.0
    return _(
        "Waiting for prompts adds {grams} CO2e to each answer, {share} of its score: {energy} of idle electricity, and "
        "the making of machines that wait.",
        grams=_.number(quantity(waiting["per_answer"]["g"], None, "g")),
        share=_.number(plain(share, "%", 2)),
        energy=_.number(quantity(waiting["kwh_per_answer"] * 1000, None, "Wh")),
    )


def _rows(report: Json, _: Tongue) -> Iterable[dict[str, Any]]:
    terms = {(one["part"], one["method"]): one["term"] for one in report["components"]}
    for one in report["shown"]["components"]:
        (name, note), how = PARTS[one["part"]], one["method"]
        figures = {key: _.number(one[key]) if one[key] else one[key] for key in ("g", "low", "high", "energy")}
        words = {"name": _(name), "note": _(note), "term": terms[one["part"], how]}
        yield {**one, **figures, **words, "method": _(how)}


def _score(grams: Json | None, _: Tongue) -> tuple[str, str]:
    if grams is None:
        return _(NOT_MEASURED), ""
    shown, span = ranged(grams["g"], grams["low"], grams["high"], "g")
    return _.number(shown), _span(span, _)


def _span(span: str | None, _: Tongue) -> str:
    """`12 to 32 mg` in this language."""
    low, to, high = (span or "").partition(" to ")
    return _("{low} to {high}", low=_.number(low), high=_.number(high)) if to else low


def _count(count: int | None, _: Tongue) -> str:
    return _("unknown") if count is None else str(count)


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


NODE_HEAD: Final = (
    marked("Node"),
    marked("Zone"),
    marked("In service"),
    marked("At work"),
    marked("Control"),
    marked("Waiting"),
    marked("Unknown"),
    marked("Meters cover"),
)
FACTOR_HEAD: Final = (
    marked("Term"),
    marked("Factor"),
    marked("Value"),
    marked("Range"),
    marked("How"),
    marked("Source"),
    marked("Licence"),
)


def node_row(one: Json, _: Tongue = ENGLISH) -> tuple[str, ...]:
    """A node as a row under `NODE_HEAD`."""
    names = ("service_s", "asked_s", "control_s", "idle_s", "unknown_s")
    times = (_.number(lasting(one[name])) for name in names)
    scopes = ", ".join(one["scopes"]) or _("nothing")
    simulated = f", {_('simulated')}" if one["simulated"] else ""
    return (one["name"], one["zone"] or _("none"), *times, scopes + simulated)


def factor_row(one: Json, _: Tongue = ENGLISH) -> tuple[str, ...]:
    """A factor as a row under `FACTOR_HEAD`."""
    span = _span(f"{plain(one['low'])} to {plain(one['high'])}", _) if one["low"] is not None else ""
    how = ", ".join(_(part) for part in (one["method"], one["quality"]) if part)
    value = _.number(plain(one["value"], one["unit"]))
    return one["symbol"], _.said(one["name"]), value, span, how, _.said(one["source"]), _.said(one["licence"])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(_plain(str(cell)) for cell in line)} |" for line in lines]


def _plain(text: str) -> str:
    """A name that people chose must not become Markdown's marks or break the table."""
    return " ".join(text.translate({ord("|"): "/", ord("<"): "(", ord(">"): ")", ord("`"): "'"}).split())
