"""The SCI report of a period as data: components that add up, factors with their sources, and what nobody knows.

JSON is this data; `server.report_words` and a template make Markdown and HTML of it, and add no figure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from math import fsum
from typing import Any, Final

from joulebox.accounting import METHOD_VERSION
from joulebox.accounting.carbon import OUTSIDE
from joulebox.accounting.fleet import (
    EMBODIED,
    Component,
    Drawn,
    Fleet,
    Piece,
    electricity,
    fleet,
    made,
    making_method,
    server_energy,
)
from joulebox.accounting.power_model import WATTS_PER_THREAD, profile_of
from joulebox.accounting.rounding import above, below, column, place_of
from joulebox.errors import JouleboxError
from joulebox.model import Embodied, Grams, Intensity
from joulebox.server.grid.live import Grid
from joulebox.server.grid.table import check_zone
from joulebox.server.jobs import NodeRecord
from joulebox.server.period import NOT_METERED, Answers, Books, Gathered, NodeTime, Period, gather, node_times
from joulebox.wording import lasting, marked

Json = dict[str, Any]
SCHEMA: Final = "joulebox.sci-report/1"
DEFAULT: Final = timedelta(days=7)
DIGITS: Final = 4
"""Significant digits of the sum that is shown; the parts have its last digit."""
AT_LEAST_FROM: Final = 0.01
"""Where more of the time than this is unknown, the score is called a lower bound."""
BOUNDARY: Final = (
    "Consumer boundary of SCI for AI: all electricity of the nodes (answers, loading, settling, attempts that failed, "
    "control prompts, waiting) as far as their meters reach, the server's processor time, and making the nodes, over "
    f"the whole time they were in service. {OUTSIDE}"
)
UNIT: Final = (
    "R = 1 token, read or written, of the answers given in the period: the unit SCI for AI names for language models, "
    "and that in which their use is counted. The same grams per answer stand beside it."
)
LICENCES: Final = (
    ("Electricity Maps (ODbL)", "ODbL 1.0"),
    ("Electricity Maps", "terms of the operator's plan"),
    ("NESO", "CC BY 4.0"),
    ("Energy-Charts", "CC BY 4.0 unless its answer says otherwise"),
    ("world mean", "CC BY 4.0"),
    ("generic desktop", "ODbL 1.0"),
)
OWN: Final = "the operator's own"
PARTS: Final = {
    "answer": (marked("Answers"), marked("request to last token, idle power included")),
    "load": (marked("Loading models"), ""),
    "around": (marked("Settling, guards and tails"), marked("before and after answers")),
    "failed": (marked("Attempts without an answer"), marked("failed, cancelled, tried again")),
    "control": (marked("Control prompts"), marked("nodes that check themselves")),
    "idle": (marked("Waiting between prompts"), marked("idle nodes")),
    "server": (marked("The server"), marked("its processor time above idle")),
    "making": (marked("Making the machines: at work"), marked("their time for prompts")),
    "making-control": (marked("Making the machines: control"), marked("their time for control prompts")),
    "waiting": (marked("Making the machines: waiting"), marked("the rest of their time in service")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which report: a period, and a zone or a model where only that is meant."""

    period: Period
    zone: str | None = None
    model: str | None = None


def asked(start: str | None, until: str | None, zone: str | None, model: str | None, now: datetime) -> Asked:
    """What was asked for in words: days or moments, UTC. A day as the end is part of the period; without an end it is
    now, without a beginning seven days before the end.

    Raises `JouleboxError`: `bad_request`, `unknown_zone`.
    """
    end = min(_moment(until, "to", end=True), now) if until else now
    begin = _moment(start, "from", end=False) if start else end - DEFAULT
    if begin >= end:
        raise JouleboxError("bad_request", f"The period ends before it begins: {begin:%F %R} to {end:%F %R} UTC.")
    return Asked(period=Period(begin, end), zone=check_zone(zone) if zone else None, model=model)


def _moment(text: str, name: str, *, end: bool) -> datetime:
    try:
        at = datetime.fromisoformat(text.strip())
        at = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
        return at + timedelta(days=1) if end and len(text.strip()) <= len("2026-11-23") else at
    except (ValueError, OverflowError) as error:
        sentence = f"{name} {text!r} is no day: write 2026-11-23 or 2026-11-23T10:00Z."
        raise JouleboxError("bad_request", sentence) from error


async def sci_report(books: Books, grid: Grid, nodes: Sequence[NodeRecord], wanted: Asked, now: datetime) -> Json:
    """The report. Raises `JouleboxError("database")`."""
    found = await gather(books, grid, wanted.period)
    times = node_times(found, nodes, await books.first_signs())
    hardware = {node.offer.node: _hardware(grid, node, wanted) for node in nodes}
    for one in times:
        for piece in _making(grid, one, hardware.get(one.node)):
            found.put(piece)
    own = _server(found, grid)
    here = [one for one in times if wanted.zone in {None, one.zone}]
    counts = _counts(found, here, wanted)
    answers, tokens = counts["answers"], (counts["input_tokens"], counts["output_tokens"])
    result = fleet(found.pieces.values(), found.work(), answers, tokens, zone=wanted.zone, model=wanted.model)
    vague = counts["unknown_s"] > AT_LEAST_FROM * counts["service_s"]
    return {
        "schema": SCHEMA,
        "method_version": METHOD_VERSION,
        "made": now.isoformat(timespec="seconds"),
        "period": {
            "start": wanted.period.start.isoformat(timespec="seconds"),
            "until": wanted.period.until.isoformat(timespec="seconds"),
            "s": (wanted.period.until - wanted.period.start).total_seconds(),
        },
        "zone": wanted.zone,
        "model": wanted.model,
        "simulated": bool(found.simulated),
        "at_least": vague or bool(found.no_energy or found.no_evidence),
        "counts": counts,
        "score": {name: _range(value) for name, value in _scores(result).items()},
        "total": _range(result.total),
        "energy_kwh": result.kwh,
        "waiting": {
            "total": _range(result.waiting),
            "per_answer": _range(_over(result.waiting, answers)),
            "kwh_per_answer": result.waiting_kwh / answers if answers else None,
        },
        "components": [_component(one) for one in result.components],
        "shown": _shown(result),
        "nodes": [_node(found, one) for one in here],
        "server": own,
        "coefficients": _coefficients(found, here, hardware),
        "unknown": _unknown(found, here, own, grid),
        "boundary": BOUNDARY,
        "unit": UNIT,
    }


def _counts(found: Gathered, here: Sequence[NodeTime], wanted: Asked) -> Json:
    mine = Answers()
    for (zone, model), answers in found.answers.items():
        if wanted.zone in {None, zone} and wanted.model in {None, model}:
            mine.add(answers.count, answers.read, answers.written)
    read, written = mine.read, mine.written
    return {
        "answers": mine.count,
        "input_tokens": read,
        "output_tokens": written,
        "tokens": read + written if read is not None and written is not None else None,
        "fruitless": sum(count for model, count in found.fruitless.items() if wanted.model in {None, model}),
        "control_runs": found.control_runs,
        "nodes": len(here),
        "service_s": fsum(one.service_s for one in here),
        "unknown_s": fsum(one.unknown_s for one in here),
    }


# --- pieces -----------------------------------------------------------------------------------------------------------


def _hardware(grid: Grid, node: NodeRecord, wanted: Asked) -> Embodied:
    start, until = wanted.period.start, wanted.period.until
    return grid.factors(node.offer.zone, start, until, node.offer.parts).embodied


def _making(grid: Grid, one: NodeTime, te: Embodied | None) -> list[Piece]:
    """M of a node over all its time in service, shared out by what it did in it."""
    factors = grid.factors(one.zone, one.since, one.since)
    te = te or factors.embodied
    spent: list[tuple[Any, float]] = [("making", one.asked_s), ("making-control", one.control_s)]
    spent.append(("waiting", max(one.service_s - one.asked_s - one.control_s, 0.0)))
    return [
        Piece(part=part, method=making_method(te), node=one.node, zone=one.zone, grams=made(te, lasted_s, factors))
        for part, lasted_s in spent
        if lasted_s
    ]


def _server(found: Gathered, grid: Grid) -> Json:
    """The server's own electricity: in a node's figures where it runs on that machine, else modelled."""
    inside: set[str] = set()
    cpu_s, known_s = 0.0, 0.0
    for one in found.server:
        whole_s = (one.until - one.start).total_seconds()
        share = found.period.clipped_s(one.start, one.until) / whole_s if whole_s else 1.0
        known_s += whole_s * share
        if one.host in found.hosts:
            inside.add(found.hosts[one.host])
            continue
        cpu_s += one.cpu_s * share
    if cpu_s:
        intensity = grid.factors(grid.own_zone, found.period.until, found.period.until)
        kwh, grams = electricity(server_energy(cpu_s), intensity.intensity, intensity.pue)
        found.put(Piece(part="server", method="modelled", node="", zone=None, grams=grams, kwh=kwh))
        found.note(intensity.intensity, kwh)
    return {"inside": sorted(inside), "cpu_s": cpu_s, "known_s": known_s}


# --- figures ----------------------------------------------------------------------------------------------------------


def _over(total: Grams, units: float) -> Grams | None:
    return Grams(g=total.g / units, low=total.low / units, high=total.high / units) if units else None


def _scores(result: Fleet) -> Mapping[str, Grams | None]:
    per_token = result.score.per_token
    million = _over(per_token, 1e-6) if per_token is not None else None
    return {
        "per_token": per_token,
        "per_million_tokens": million,
        "per_output_token": result.score.per_output_token,
        "per_answer": result.score.per_answer,
    }


def _range(grams: Grams | None) -> Json | None:
    return None if grams is None else asdict(grams)


def _component(one: Component) -> Json:
    kind = "M" if one.part in EMBODIED else "O"
    return {"part": one.part, "term": kind, "method": one.method, "kwh": one.kwh, **asdict(one.grams)}


def _shown(result: Fleet) -> Json:
    """What is printed: decimal digits in one unit, of which the parts add up to the sum in every column."""
    parts = result.components
    scale, unit = _unit(result.total.g, (("kg", 1e3), ("g", 1.0), ("mg", 1e-3)))
    energy_scale, energy_unit = _unit(result.kwh, (("kWh", 1.0), ("Wh", 1e-3), ("mWh", 1e-6)))
    central = column([one.grams.g / scale for one in parts], place_of(result.total.g / scale, DIGITS))
    low = below([one.grams.low / scale for one in parts], central)
    high = above([one.grams.high / scale for one in parts], central)
    powered = [one for one in parts if one.kwh is not None]
    place = place_of(result.kwh / energy_scale, DIGITS)
    energy = column([(one.kwh or 0.0) / energy_scale for one in powered], place)
    told = dict(zip([(one.part, one.method) for one in powered], energy.parts, strict=True))
    return {
        "unit": unit,
        "energy_unit": energy_unit,
        "components": [
            {
                "part": one.part,
                "method": one.method,
                "g": central.text(central.parts[index]),
                "low": low.text(low.parts[index]),
                "high": high.text(high.parts[index]),
                "energy": energy.text(told[one.part, one.method]) if one.kwh is not None else None,
            }
            for index, one in enumerate(parts)
        ],
        "total": {
            "g": central.text(central.total),
            "low": low.text(low.total),
            "high": high.text(high.total),
            "energy": energy.text(energy.total),
        },
    }


def _unit(value: float, units: Sequence[tuple[str, float]]) -> tuple[float, str]:
    """The largest unit of which there is at least one; the smallest for less."""
    name, scale = next((one for one in units if value >= one[1]), units[-1])
    return scale, name


def _node(found: Gathered, one: NodeTime) -> Json:
    return {
        "name": one.node,
        "zone": one.zone,
        "since": one.since.isoformat(timespec="seconds"),
        "service_s": one.service_s,
        "asked_s": one.asked_s,
        "control_s": one.control_s,
        "idle_s": one.idle_s,
        "unknown_s": one.unknown_s,
        "scopes": sorted(found.scopes.get(one.node, ())),
        "missing": sorted(found.missing.get(one.node, ())),
        "simulated": one.node in found.simulated,
        "idle_w": found.idle_w.get(one.node),
    }


# --- factors and what is unknown --------------------------------------------------------------------------------------


def _coefficients(found: Gathered, here: Sequence[NodeTime], hardware: Mapping[str, Embodied]) -> list[Json]:
    rows = [_grid_row(zone, used) for (zone, _, _), used in sorted(found.used.items())]
    rows += [_te_row(one.node, hardware[one.node]) for one in here if one.node in hardware]
    for source, pue in sorted(found.pues.items()):
        how = "modelled" if source == NOT_METERED else "sourced"
        rows.append(_row("PUE", "energy of the building per energy of the machine", pue, "", how, source, licence=OWN))
    alone = "a node runs one prompt at a time"
    rows.append(_row("RR/ToR", "share of the machine", 1.0, "", "measured", alone, licence=OWN))
    if any(piece.method == "modelled" and piece.kwh is not None for piece in found.pieces.values()):
        profile = profile_of(1, 0)
        sources = f"mean of {len(WATTS_PER_THREAD)} processor generations, Cloud Carbon Footprint"
        for name, central, u in (
            ("power of an idle thread", profile.idle_w, profile.idle_u_w),
            ("power a busy thread adds", profile.busy_core_w, profile.busy_core_u_w),
        ):
            low_high = (max(central - u, 0.0), central + u)
            rows.append(_row("P", name, central, "W", "sourced", sources, low_high, licence="Apache-2.0"))
    return rows


def _row(
    symbol: str,
    name: str,
    value: float,
    unit: str,
    method: str,
    source: str,
    span: tuple[float, float] | None = None,
    quality: str = "",
    licence: str = "",
) -> Json:
    low, high = span or (None, None)
    return {
        "symbol": symbol,
        "name": name,
        "value": value,
        "low": low,
        "high": high,
        "unit": unit,
        "method": method,
        "quality": quality,
        "source": source,
        "licence": licence or next((named for begin, named in LICENCES if source.startswith(begin)), OWN),
    }


def _grid_row(zone: str, used: Any) -> Json:
    one: Intensity = used.intensity
    value, span = one.g_per_kwh, (one.low, one.high)
    if used.kwh > 0:
        value, span = used.g / used.kwh, (used.low / used.kwh, used.high / used.kwh)
    name = f"grid {zone}, {one.kind}, {one.factor}, mean by energy"
    return _row("I", name, value, "g/kWh", "sourced", one.source, span, quality=one.quality)


def _te_row(node: str, te: Embodied) -> Json:
    name = f"making {node}, over EL = {te.life_years:g} years"
    licence = "named with each part on the receipts" if te.parts else ""
    span = (te.low_kg, te.high_kg)
    return _row("TE", name, te.central_kg, "kg", making_method(te), te.source, span, licence=licence)


def _unknown(found: Gathered, here: Sequence[NodeTime], own: Mapping[str, Any], grid: Grid) -> list[str]:
    told = [_unknown_time(found, one, grid) for one in here if one.unknown_s >= 1.0]
    if found.no_energy:
        told.append(f"{found.no_energy} answers: their energy is unknown and not in the sum.")
    if found.no_evidence:
        told.append(f"{found.no_evidence} attempts left no evidence: what they drew is unknown and not in the sum.")
    lacking = [(one.node, sorted(found.missing.get(one.node, ()))) for one in here]
    told += [f"{node}: no meter covers {', '.join(missing)}." for node, missing in lacking if missing]
    if own["inside"]:
        told.append(f"The server ran on {', '.join(own['inside'])}: its electricity is in that node's figures.")
    if own["cpu_s"]:
        told.append("The server's machine: its idle power and its making are not known here and not in the sum.")
    if not own["known_s"]:
        told.append("The server's own electricity: its processor time was not noted in this period.")
    told.append("The network, and the devices people ask from, are not in the sum.")
    return told


def _unknown_time(found: Gathered, one: NodeTime, grid: Grid) -> str:
    span = f"{one.node}: what it drew in {lasting(one.unknown_s)} of its {lasting(one.service_s)} in service"
    idle_w = found.idle_w.get(one.node)
    if idle_w is None:
        return f"{span} is unknown, not zero."
    factors = grid.factors(one.zone, found.period.until, found.period.until)
    if_idle = electricity(Drawn(scope="", j=idle_w * one.unknown_s, u=0.0), factors.intensity, factors.pue)[1]
    return (
        f"{span} is unknown, not zero. Waiting as it last did it would have emitted {if_idle.g:.3g} g more (modelled)."
    )
