"""A receipt on its own page, and what its slip says wherever it is shown."""

import asyncio
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from joulebox import wording
from joulebox.accounting.equivalents import Equivalent, equivalents
from joulebox.errors import JouleboxError
from joulebox.server.origin import refuse_other_sites
from joulebox.server.pages.backend import Backend
from joulebox.server.pages.badge import badge
from joulebox.server.pages.card import card_of, drawable, png_of
from joulebox.server.pages.frame import (
    NOWHERE,
    POLICY_ALONE,
    View,
    origin_of,
    page,
    plain,
    quantity,
    render,
    see_other,
    text_of,
    view_of,
    when,
)
from joulebox.server.pages.markdown import to_html
from joulebox.server.trace_chart import TraceChart, chart_of
from joulebox.server.whatif_words import chart
from joulebox.units import wh_from_j
from joulebox.wording import ENGLISH, Tongue, marked

Json = dict[str, Any]

NEGLIGIBLE_RATIO: Final = 0.001
"""A source of uncertainty this much smaller than the largest changes no digit of the joint one."""
SECONDS_MAX: Final = 1e7
DIGITS_MAX: Final = 7
INTENSITY: Final = {
    "measured": marked("measured at the time"),
    "estimated": marked("estimated for the time"),
    "forecast": marked("forecast"),
    "yearly": marked("yearly mean"),
    "static": marked("fixed by the operator"),
}
METERS: Final = {
    "energy_j": marked("energy counter"),
    "power_w": marked("power meter"),
    "temperature_c": marked("thermometer"),
    "busy_ratio": marked("busy time"),
}


SHOWN: Final = {
    "load": marked("Load"),
    "settle": marked("Settling"),
    "idle": marked("Idle"),
    "prefill": marked("Reading"),
    "decode": marked("Writing"),
    "tail": marked("Tail"),
}
"""What the drawing calls the phases."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What stands beside a receipt on its page: its drawing, whether that is a part only, which revision was asked for
    and which is the newest, and where the page is found."""

    trace: TraceChart | None = None
    zoomed: bool = False
    revision: int | None = None
    newest: int = 1
    origin: str = ""


def render_receipt(
    receipt: Mapping[str, Any],
    texts: Mapping[str, Any] | None = None,
    *,
    standalone: bool = False,
    whatif: Mapping[str, Any] | None = None,
    beside: Beside | None = None,
    view: View = NOWHERE,
) -> str:
    """A receipt on its own page, with the `texts` that its reader may see. `standalone` makes one file that needs no
    server: style inside, no script."""
    _, beside = view._, beside or Beside()
    elsewhere = {"whatif": whatif, "chart": chart(whatif)} if whatif else {}
    return render(
        "receipt.html",
        view,
        style=text_of("app.css") if standalone else None,
        texts=texts or {},
        html=to_html((texts or {}).get("answer") or ""),
        trace=beside.trace,
        curve_words=_curve_words(beside.trace, _) if beside.trace else "",
        legend=_legend(beside.trace, _) if beside.trace else [],
        zoomed=beside.zoomed,
        revision=beside.revision,
        revisions=range(1, beside.newest + 1),
        origin=beside.origin,
        social=_social(receipt, beside.origin) if (texts or {}).get("shared") and beside.origin else None,
        command=_command(receipt, texts or {}, _),
        provenance=_provenance(receipt, _),
        **told(receipt, _),
        **elsewhere,
    )


def _social(receipt: Mapping[str, Any], origin: str) -> Json:
    """What other sites show of a link to a shared receipt."""
    card, address = card_of(receipt), f"{origin}/receipts/{quote(receipt['id'], safe='')}"
    title = f"{card.headline} for one answer" if card.grade else f"A receipt: {card.headline}"
    picture = f"{address}/card.png" if drawable() else None
    return {"title": title, "words": card.words, "address": address, "picture": picture}


def _legend(trace: TraceChart, _: Tongue) -> list[Json]:
    """Each phase of work in view with the address that shows it alone, a little of what lies around it included."""
    found = []
    for band in (one for one in trace.bands if one.phase != "idle"):
        around_s = 0.1 * (band.end_s - band.start_s)
        ends = {"t0": f"{band.start_s - around_s:.3f}", "t1": f"{band.end_s + around_s:.3f}"}
        time = quantity(band.end_s - band.start_s, None, "s", _)
        found.append({"phase": band.phase, "words": _(SHOWN[band.phase]), "time": time, **ends})
    return found


def _curve_words(trace: TraceChart, _: Tongue) -> str:
    """The drawing for those who do not see it."""
    phases = "; ".join(f"{one['words']} {one['time']}" for one in _legend(trace, _))
    return _("Power over time, from 0 to {top}. {phases}.", top=plain(trace.top_w, _, "W"), phases=phases)


def _command(receipt: Mapping[str, Any], texts: Mapping[str, Any], _: Tongue) -> str | None:
    """What asks the same again; `None` where it was no prompt, or one of a conversation."""
    asked = texts.get("asked")
    if receipt["model"] is None or asked is None or asked["turns"] > 1 or not asked["by_flags"]:
        return None
    prompt = texts.get("prompt")
    said = shlex.quote(prompt) if prompt is not None else _("PROMPT")
    last = ["--", said] if prompt is not None and prompt.startswith("-") else []
    words = ["joulebox", "ask", *([] if last else [said])]
    if texts.get("system"):
        words += ["--system", shlex.quote(texts["system"])]
    words += ["--model", shlex.quote(receipt["model"]["name"]), "--seed", str(receipt["seed"])]
    words += ["--temperature", f"{asked['temperature']:g}", "--max-tokens", str(asked["max_tokens"])]
    if budget := receipt.get("budget"):
        words += ["--max-energy-j", f"{budget['max_energy_j']:g}"]
    return " ".join([*words, "--placement", shlex.quote(f"node:{receipt['node']}"), *last])


def _provenance(receipt: Mapping[str, Any], _: Tongue) -> list[tuple[str, str]]:
    """Everything that must be the same for the figure to be the same."""
    model, engine, calibration = receipt["model"], receipt["engine"], receipt["calibration"]
    found = [(_("Meter"), f"{meter['name']} ({meter['accuracy']})") for meter in receipt["meters"]]
    if calibration is not None:
        found.append((_("Calibration"), f"{calibration['id']}, {when(calibration['at'], _)}"))
    if engine is not None:
        found.append((_("Engine build"), f"{engine['name']} {engine['version']}"))
    if model is not None:
        found.append((_("Weights digest"), model["digest"]))
    if receipt["seed"] is not None:
        found.append((_("Seed"), str(receipt["seed"])))
    found.append((_("Node"), receipt["node"]))
    return [*found, (_("Method"), receipt["method_version"])]


def told(receipt: Mapping[str, Any] | None, _: Tongue = ENGLISH) -> Json:
    """A receipt with what the template says about it."""
    if receipt is None:
        return {"r": None}
    energy = receipt["energy"]
    return {
        "r": receipt,
        "marks": wording.marks(receipt),
        "modelled": wording.is_modelled(receipt),
        "grade": wording.grade_words(receipt, _),
        "verdict": wording.VERDICTS[receipt["verdict"]],
        "calibration": wording.calibration_words(receipt, _),
        "saved": wording.saved_words(receipt, _),
        "budget": wording.budget_words(receipt, _),
        "spent_s": {
            "answer": receipt["times"]["duration_s"],
            "tail": (energy["phases"].get("tail") or {}).get("s"),
            "full": receipt["sci"]["reserved"]["TiR_s"],
        },
        "alike": alike(receipt),
        "per_s": _rate(receipt),
        "parts": _worth_telling(energy["uncertainty"]),
        "in_units": lambda figure, over_s: in_units(figure, over_s, _),
        "INTENSITY": INTENSITY,
        "METERS": METERS,
    }


def alike(receipt: Mapping[str, Any]) -> list[Equivalent]:
    """What the answer's energy and CO2e are like; nothing where they are not known."""
    answer, total = receipt["energy"]["answer"], receipt["carbon"]["total"]
    return list(equivalents(answer["j"] if answer else None, total["g"] if total else None))


def _rate(receipt: Mapping[str, Any]) -> float | None:
    per_token_s = receipt["times"]["time_per_output_token_s"]
    return 1.0 / per_token_s if per_token_s else None


def _worth_telling(parts: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The sources of uncertainty, largest first, without those that change nothing."""
    ordered = sorted(parts, key=lambda part: -part["j"])
    return [part for part in ordered if part["j"] > NEGLIGIBLE_RATIO * ordered[0]["j"]]


def in_units(figure: Mapping[str, Any] | None, over_s: float | None, _: Tongue = ENGLISH) -> Json:
    """An energy in the three units of the switch: joules, watt hours, and mean watts over its time."""
    if figure is None or figure["j"] is None:
        return dict.fromkeys(("j", "wh", "w"), _(wording.NOT_MEASURED)) | {"sure": {}}
    j, u = figure["j"], figure["u"]
    units = {"j": (j, u, "J"), "wh": (wh_from_j(j), None if u is None else wh_from_j(u), "Wh")}
    if over_s:
        units["w"] = (j / over_s, None if u is None else u / over_s, "W")
    said = {"w": _(wording.NOT_MEASURED)} | {name: quantity(*unit, _) for name, unit in units.items()}
    return said | {"sure": {name: wording.between(*unit, _) for name, unit in units.items() if u}}


def add(routes: APIRouter, backend: Callable[[Request], Backend]) -> None:
    """The routes of receipts."""

    @routes.get("/receipts/{receipt_id}")
    async def receipt_page(request: Request, receipt_id: str) -> Response:
        fetch, asked = backend(request), request.query_params
        number = _whole(asked.get("revision"))
        newest = await fetch.receipt(receipt_id)
        receipt = newest if number is None else await fetch.receipt(receipt_id, number)
        t0_s, t1_s = (_moment(asked.get(name)) for name in ("t0", "t1"))
        blob = await fetch.trace(receipt_id)
        trace = await asyncio.to_thread(drawn, blob, t0_s, t1_s) if blob else None
        beside = Beside(
            trace=trace,
            zoomed=t0_s is not None or t1_s is not None,
            revision=number,
            newest=newest["revision"],
            origin=origin_of(request),
        )
        texts, whatif = await fetch.texts(receipt_id), await fetch.whatif(receipt_id)
        html = render_receipt(receipt, texts, whatif=whatif, beside=beside, view=view_of(request))
        return page(request, html)

    @routes.get("/receipts/{receipt_id}/badge.svg")
    async def badge_picture(request: Request, receipt_id: str) -> Response:
        svg = badge(await backend(request).receipt(receipt_id), view_of(request)._)
        headers = {"Content-Security-Policy": POLICY_ALONE, "Cache-Control": "public, max-age=3600"}
        return Response(svg, 200, headers | {"Vary": "Accept-Language, Cookie"}, media_type="image/svg+xml")

    @routes.get("/receipts/{receipt_id}/card.png")
    async def card_picture(request: Request, receipt_id: str) -> Response:
        fetch = backend(request)
        receipt, texts = await fetch.receipt(receipt_id), await fetch.texts(receipt_id)
        if not texts["shared"]:
            raise JouleboxError("not_found", "Only a receipt whose owner shares it has a picture: press Share on it.")
        if not drawable():
            raise JouleboxError("not_found", "This server draws no pictures: its operator can install joulebox[card].")
        png = await asyncio.to_thread(png_of, card_of(receipt))
        return Response(png, 200, {"Cache-Control": "public, max-age=300"}, media_type="image/png")

    @routes.post("/receipts/{receipt_id}/delete")
    async def delete(request: Request, receipt_id: str) -> Response:
        refuse_other_sites(request)
        await backend(request).erase(receipt_id)
        return see_other(f"/receipts/{quote(receipt_id, safe='')}")

    @routes.post("/receipts/{receipt_id}/share")
    async def share(request: Request, receipt_id: str) -> Response:
        return await shared(request, receipt_id, shared=True)

    @routes.post("/receipts/{receipt_id}/unshare")
    async def unshare(request: Request, receipt_id: str) -> Response:
        return await shared(request, receipt_id, shared=False)

    async def shared(request: Request, receipt_id: str, *, shared: bool) -> Response:
        refuse_other_sites(request)
        await backend(request).share(receipt_id, shared=shared)
        return see_other(f"/receipts/{quote(receipt_id, safe='')}")


@lru_cache(maxsize=32)
def drawn(blob: bytes, t0_s: float | None, t1_s: float | None) -> TraceChart | None:
    """The drawing of a trace; `None` where there is nothing to draw, or the stretch is none. A page that is looked at
    again costs no second reckoning."""
    try:
        return chart_of(blob, t0_s, t1_s)
    except (JouleboxError, ValueError):
        return None


def _moment(text: str | None) -> float | None:
    """Seconds from the address; what is no number, or beyond any run, shows all of it."""
    try:
        found = float(text) if text else math.nan
    except ValueError:
        return None
    return found if abs(found) < SECONDS_MAX else None


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and text.isascii() and len(text) < DIGITS_MAX else None
