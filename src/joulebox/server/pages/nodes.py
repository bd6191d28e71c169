"""The nodes: what each does and why, what it draws, whether it has drifted; and today's grid in their zones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from joulebox import wording
from joulebox.accounting.figures import MODELLED
from joulebox.errors import JouleboxError
from joulebox.model import DatedIntensity
from joulebox.server.idle import IdleShare
from joulebox.server.pages.asking import metered, simulated
from joulebox.server.pages.backend import Backend
from joulebox.server.pages.frame import NOWHERE, View, one_line, page, quantity, render, view_of
from joulebox.server.pages.receipts import INTENSITY
from joulebox.wording import Tongue

Json = dict[str, Any]

WIDE: Final = 600.0
HIGH: Final = 100.0
DAY: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Today's grid in a zone; `zone` as nodes name it, `None` where they name none."""

    zone: str | None
    now: datetime
    known: Sequence[DatedIntensity]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A node as the API lists it, with what the page tells beside: idling, the line, the newest control receipt."""

    node: Mapping[str, Any]
    idle: Sequence[IdleShare]
    waiting: int
    receipt: Mapping[str, Any] | None = None


def render_nodes(nodes: Sequence[Seen], grids: Sequence[Grid], view: View = NOWHERE) -> str:
    """The page."""
    _ = view._
    return render("nodes.html", view, nodes=[_told(one, _) for one in nodes], grids=[_grid(one, _) for one in grids])


def _told(seen: Seen, _: Tongue) -> Json:
    node = seen.node
    state = str(node["state"])
    return {
        "name": node["name"],
        "state": _(state),
        "why": _.said(one_line(node["reason"])) if node.get("reason") else "",
        "since": node.get("since"),
        "facts": [(label, value) for label, value in _facts(seen, _) if value],
        "control": node.get("control"),
        "sums": _sums(node["control"]) if node.get("control") else None,
    }


def _facts(seen: Seen, _: Tongue) -> list[tuple[str, str]]:
    node, power, warm = seen.node, seen.node.get("power"), seen.node.get("temperature_c")
    marks = [_("simulated")] if simulated([node]) else []
    watts = ""
    if power:
        modelled = [] if power["scope"] else [_("modelled")]
        scope = [wording.scope_words(power["scope"], _)] if power["scope"] else []
        watts = ", ".join([quantity(power["w"], None, "W", _), *scope, *modelled, *marks])
    waits = _.many("{n} prompt that it may take", "{n} prompts that it may take", seen.waiting)
    return [
        (_("Power now"), watts),
        (_("Idle, within a day"), "; ".join(_idle(one, marks, _) for one in seen.idle)),
        (_("Temperature"), _.number(f"{warm:.1f} °C") if warm is not None else _("not told")),
        (_("An answer begins"), ", ".join(_band(one, _) for one in node.get("bands", ()))),
        (_("Waiting"), waits if seen.waiting else _("nothing that it may take")),
        (_("Energy"), metered(node, _)),
        (_("Calibration"), (wording.calibration_words(seen.receipt, _) or "") if seen.receipt else ""),
        (_("Models"), ", ".join(map(one_line, node.get("models", ())))),
        (_("In memory"), one_line(node["loaded"]) if node.get("loaded") else _("no model")),
        (_("Grid zone"), one_line(node["zone"]) if node.get("zone") else ""),
    ]


def _band(band: Mapping[str, Any], _: Tongue) -> str:
    """`CPU from 35 to 45 °C`."""
    scope = wording.scope_words(band["scope"], _)
    low, high = (_.number(f"{band[name]:g}") if band[name] is not None else "" for name in ("min_c", "max_c"))
    if low and high:
        return _("{scope} from {low} to {high} °C", scope=scope, low=low, high=high)
    return (
        _("{scope} from {low} °C", scope=scope, low=low)
        if low
        else _("{scope} up to {high} °C", scope=scope, high=high)
    )


def _idle(one: IdleShare, marks: Sequence[str], _: Tongue) -> str:
    """`26.10 ± 0.80 W with a model in memory, over 5.8 h`."""
    figure = quantity(one.mean_w, one.u / one.lasted_s, "W", _)
    scope = _("modelled") if one.scope == MODELLED else wording.scope_words(one.scope, _)
    told = ", ".join([figure, scope, *(marks if one.scope != MODELLED else ())])
    time = _.number(wording.lasting(one.lasted_s))
    if one.loaded is None:
        return _("{figure}, over {time}", figure=told, time=time)
    if one.loaded:
        return _("{figure}, with a model in memory, over {time}", figure=told, time=time)
    return _("{figure}, without a model, over {time}", figure=told, time=time)


def _sums(control: Mapping[str, Any]) -> Json | None:
    """The sums of the control prompt against their limit, oldest first, as paths; `None` before there are any."""
    runs = [run for run in reversed(control["runs"]) if run["note"] is None and run["high"] is not None]
    if not runs:
        return None
    top = max([2 * control["limit"], *(max(run["high"], run["low"]) for run in runs)])
    step, middle = WIDE / len(runs), HIGH / 2

    def bars(values: Sequence[float], sign: int) -> str:
        ends = (f"H{step * at:.1f}V{middle - sign * middle * value / top:.1f}H{step * (at + 0.8):.1f}V{middle:g}"
                for at, value in enumerate(values))  # fmt: skip
        return f"M0 {middle:g}{''.join(ends)}Z"

    limits = [round(middle * (1 - sign * control["limit"] / top), 1) for sign in (1, -1)]
    return {
        "high": bars([run["high"] for run in runs], 1),
        "low": bars([run["low"] for run in runs], -1),
        "limits": limits,
        "first": runs[0]["at"],
        "last": runs[-1]["at"],
    }


def _grid(grid: Grid, _: Tongue) -> Json:
    """A zone's day: a curve where hours are known, else one figure."""
    known = [(_moment(one.start), _moment(one.until), one.intensity) for one in grid.known]
    here = next((one for start, until, one in known if start <= grid.now < until), None)
    hourly = len(known) > 1
    top = max((one.g_per_kwh for *_ends, one in known), default=0.0) or 1.0
    start = grid.now.replace(hour=0, minute=0, second=0, microsecond=0)
    past, ahead = "", ""
    for begin, end, one in known if hourly else ():
        x0, x1 = (WIDE * min(max((at - start) / DAY, 0.0), 1.0) for at in (begin, end))
        path = f"M{x0:.1f} {HIGH:g}V{HIGH - (HIGH - 4) * one.g_per_kwh / top:.1f}H{x1:.1f}V{HIGH:g}Z"
        past, ahead = (past, ahead + path) if one.quality == "forecast" else (past + path, ahead)
    least = min(known, key=lambda one: one[2].g_per_kwh) if hourly else None
    return {
        "zone": one_line(grid.zone) if grid.zone else _("the world's mean"),
        "now": quantity(here.g_per_kwh, None, "g/kWh", _) if here else "",
        "span": _("{low} to {high}", low=_.number(f"{here.low:.0f}"), high=_.number(f"{here.high:.0f}"))
        if here
        else "",
        "how": [_(INTENSITY[here.quality]), _(here.kind), _(here.factor)] if here else [],
        "source": here.source if here else "",
        "hourly": hourly,
        "past": past,
        "ahead": ahead,
        "now_x": round(WIDE * ((grid.now - start) / DAY), 1),
        "top": quantity(top, None, "g/kWh", _),
        "least": quantity(least[2].g_per_kwh, None, "g/kWh", _) if least else "",
        "least_at": f"{least[0]:%H:%M}" if least else "",
    }


def _moment(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)


def add(routes: APIRouter, backend: Callable[[Request], Backend]) -> None:
    """The route of the nodes."""

    @routes.get("/nodes")
    async def nodes_page(request: Request) -> Response:
        fetch = backend(request)
        nodes = await fetch.nodes()
        seen = [await _seen(node, fetch) for node in nodes]
        zones = dict.fromkeys(node.get("zone") for node in nodes)
        grids = [found for zone in zones if (found := _day(zone, fetch)) is not None]
        return page(request, render_nodes(seen, grids, view_of(request)))


async def _seen(node: Mapping[str, Any], fetch: Backend) -> Seen:
    name, overview = node["name"], fetch.overview
    runs = (node.get("control") or {}).get("runs", ())
    newest = next((run["receipt_id"] for run in runs if run["receipt_id"]), None)
    return Seen(
        node=node,
        idle=await overview.idle(name),
        waiting=await overview.waiting(name, node.get("zone"), node.get("models", ())),
        receipt=await fetch.receipt(newest) if newest else None,
    )


def _day(zone: str | None, fetch: Backend) -> Grid | None:
    """A zone that nobody knows has no curve."""
    try:
        now, known = fetch.overview.grid_day(zone)
    except JouleboxError:
        return None
    return Grid(zone=zone, now=now, known=known)
