"""A receipt on its own page, and what its slip says wherever it is shown."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from joulebox import wording
from joulebox.accounting.equivalents import Equivalent, equivalents
from joulebox.server.origin import refuse_other_sites
from joulebox.server.pages.backend import Backend
from joulebox.server.pages.frame import NOWHERE, View, page, quantity, render, see_other, text_of, view_of
from joulebox.server.pages.markdown import to_html
from joulebox.server.whatif_words import chart
from joulebox.units import wh_from_j
from joulebox.wording import ENGLISH, Tongue, marked

Json = dict[str, Any]

NEGLIGIBLE_RATIO: Final = 0.001
"""A source of uncertainty this much smaller than the largest changes no digit of the joint one."""
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


def render_receipt(
    receipt: Mapping[str, Any],
    texts: Mapping[str, Any] | None = None,
    *,
    standalone: bool = False,
    whatif: Mapping[str, Any] | None = None,
    view: View = NOWHERE,
) -> str:
    """A receipt on its own page, with the `texts` that its reader may see. `standalone` makes one file that needs no
    server: style inside, no script."""
    style = text_of("app.css") if standalone else None
    elsewhere = {"whatif": whatif, "chart": chart(whatif)} if whatif else {}
    html = to_html((texts or {}).get("answer") or "")
    return render("receipt.html", view, style=style, texts=texts or {}, html=html, **told(receipt, view._), **elsewhere)


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
        fetch = backend(request)
        receipt, texts = await fetch.receipt(receipt_id), await fetch.texts(receipt_id)
        whatif = await fetch.whatif(receipt_id)
        return page(request, render_receipt(receipt, texts, whatif=whatif, view=view_of(request)))

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
