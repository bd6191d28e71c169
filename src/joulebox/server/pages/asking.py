"""The page to ask on, and the page of one prompt on its way."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from joulebox import wording
from joulebox.conversation import with_calls
from joulebox.errors import JouleboxError
from joulebox.model import FINAL_STATES, Prompt
from joulebox.server.gate import remember
from joulebox.server.origin import refuse_other_sites
from joulebox.server.pages.backend import Backend
from joulebox.server.pages.forms import fields
from joulebox.server.pages.frame import (
    NOWHERE,
    View,
    one_line,
    page,
    problem_of,
    quantity,
    render,
    see_other,
    view_of,
)
from joulebox.server.pages.markdown import to_html
from joulebox.server.pages.receipts import told
from joulebox.server.problems import headers_of
from joulebox.server.talking import talk
from joulebox.server.tool_bodies import from_calls
from joulebox.server.whatif_words import chart
from joulebox.wording import ENGLISH, Tongue, marked

Json = dict[str, Any]

REFRESH_S: Final = 2
"""How often the page of a prompt asks again where there is no JavaScript."""
BLANK: Final = {
    "completed": marked("The answer could not be accounted for."),
    "cancelled": marked("It was stopped before there was an answer to account for."),
    "discarded": marked("It failed before there was an answer to account for."),
}
"""Why a prompt that is over has no receipt."""


FRUGAL_RATIO: Final = 0.5
"""A model is suggested that takes no more than this share of what another one takes."""


def render_ask(
    models: Sequence[Mapping[str, Any]],
    nodes: Sequence[Mapping[str, Any]],
    *,
    form: Mapping[str, Any] | None = None,
    problem: Mapping[str, Any] | None = None,
    view: View = NOWHERE,
) -> str:
    """The ask page. `form` and `problem` show again what was sent and why it was refused."""
    _ = view._
    return render(
        "ask.html",
        view,
        models=[model_told(model, nodes, _) for model in models],
        nodes=[_node(node, _) for node in nodes],
        form=form or {},
        problem=problem,
        defaults=defaults_of_a_prompt(),
        places=_places(nodes, _),
        frugal=_frugal(models, _),
    )


def render_prompt(
    status: Mapping[str, Any],
    receipt: Mapping[str, Any] | None,
    nodes: Sequence[Mapping[str, Any]] = (),
    *,
    models: Sequence[Mapping[str, Any]] = (),
    before: Sequence[Mapping[str, Any]] = (),
    whatif: Mapping[str, Any] | None = None,
    view: View = NOWHERE,
) -> str:
    """The page of one prompt: what was said `before`, where it stands, the answer so far; once there is a receipt, that
    and the way on with any of the `models`."""
    # what is not for this reader is not followed either
    final, _ = status.get("state") in FINAL_STATES or status.get("texts") == "private", view._
    answer = with_calls(status.get("answer") or "", from_calls(status.get("tool_calls") or ()))
    elsewhere = {"whatif": whatif, "chart": chart(whatif)} if whatif else {}
    goes_on = status.get("state") == "completed" and answer and status.get("own", True)
    return render(
        "prompt.html",
        view,
        status=status,
        earlier=[_turn(turn, _) for turn in before],
        simulated=simulated(nodes),
        sentence=wording.done_words(receipt, _) if receipt else sentence(status, _),
        final=final,
        html=to_html(answer) if final and answer else None,
        talk=_talk_words([turn["receipt"] for turn in before] + [receipt], _) if before and receipt else None,
        models=[model_told(model, nodes, _) for model in models] if goes_on else [],
        defaults=defaults_of_a_prompt(),
        places=_places(nodes, _),
        blank=_(BLANK.get(str(status.get("state")), marked("comes out here, after the answer."))),
        refresh_s=REFRESH_S,
        **told(receipt, _),
        **elsewhere,
    )


def model_told(model: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]], _: Tongue) -> Json:
    """A model with the range of its answers so far, or the interval of the only one, and what the next is expected to
    take, in words."""
    known, wait_s = model.get("expected"), model.get("wait_s")
    parts = [_("No answer of it was measured well here yet.")]
    span = ""
    if known:
        low, high = (quantity(known[name], None, "J", _) for name in ("low_j", "high_j"))
        middle = quantity(known["median_j"], known.get("u_j"), "J", _)
        marks = [_(word) for word in (marked("modelled"), marked("simulated")) if known[word]]
        grade = known["grade"] or "D"
        told = _("{low} to {high}", low=low, high=high) if known["answers"] > 1 else middle
        span = ", ".join([told, *marks, f"{_('grade')} {grade}"])
        parts = [
            _.many(
                "Expect about {figure} (its only answer so far; grade {grade}).",
                "Expect about {figure} (its last {n} answers took {span}; grade {grade}).",
                known["answers"],
                figure=", ".join([middle, *marks]),
                span=told,
                grade=grade,
            )
        ]
    if model.get("first_node"):
        parts.append(_wait_words(model["first_node"], wait_s, nodes, _))
    return {**model, "range": span, "expect": " ".join(parts)}


def _wait_words(node: str, wait_s: float | None, nodes: Sequence[Mapping[str, Any]], _: Tongue) -> str:
    """When it would begin, and why not at once."""
    now = next((one for one in nodes if one["name"] == node), {})
    why = _.said(one_line(now.get("reason") or "")) if now.get("state") == "busy" else ""
    if wait_s is not None and wait_s < 1:
        return _("It begins at once.")
    if wait_s is None:
        return _("It has to wait: {node} is busy.", node=one_line(node))
    about = _.number(wording.lasting(wait_s))
    if why:
        return _("It begins in about {time}: {node} is busy ({why}).", time=about, node=one_line(node), why=why)
    return _("It begins in about {time}: others come first on {node}.", time=about, node=one_line(node))


def _frugal(models: Sequence[Mapping[str, Any]], _: Tongue) -> str | None:
    """A model that takes much less than the first one that is offered."""
    known = [(model["id"], model["expected"]["median_j"]) for model in models if model.get("expected")]
    least = min(known, key=lambda one: one[1], default=None)
    most = max(known, key=lambda one: one[1], default=None)
    if least is None or most is None or least[1] <= 0 or least[1] > FRUGAL_RATIO * most[1]:
        return None
    share = _.number(wording.plain(100 * least[1] / most[1], "%", 2))
    words = _("{small} takes about {share} of what an answer of {large} takes. Compare them to see which you prefer.")
    return words.format(small=one_line(least[0]), large=one_line(most[0]), share=share)


def _turn(turn: Mapping[str, Any], _: Tongue) -> Json:
    """An earlier turn, its answer set, with its figure."""
    answer = (turn["receipt"] or {}).get("energy", {}).get("answer")
    marks = [_(word) for word in wording.marks(turn["receipt"])] if turn["receipt"] else []
    figure = ", ".join([quantity(answer["j"], answer["u"], "J", _), *marks]) if answer else _(wording.NOT_MEASURED)
    return {**turn, "html": to_html(turn["answer"] or ""), "figure": figure}


def _talk_words(receipts: Sequence[Mapping[str, Any] | None], _: Tongue) -> str:
    """What the conversation took so far, and how much of it was reading again what had been said."""
    found = talk(receipts)
    if found.j is None:
        return _("The energy of this conversation was not measured.")
    marks = [
        _(word) for word, on in ((marked("modelled"), found.modelled), (marked("simulated"), found.simulated)) if on
    ]
    figure = ", ".join([quantity(found.j, found.u, "J", _), *marks])
    words = [_("This conversation so far: {figure} in {n} answers.", figure=figure, n=found.answers)]
    if found.unknown:
        words.append(_.many("{n} of them is not counted.", "{n} of them are not counted.", found.unknown))
    if found.again_j is None:
        words.append(_("How much of it went into reading earlier turns again cannot be told."))
    else:
        share = _.number(wording.plain(100 * found.again_j / found.j, "%", 2)) if found.j > 0 else "0 %"
        again = quantity(found.again_j, None, "J", _)
        words.append(_("Reading earlier turns again took about {again} of it ({share}).", again=again, share=share))
    return " ".join(words)


def _places(nodes: Sequence[Mapping[str, Any]], _: Tongue) -> list[tuple[str, str]]:
    """Where a prompt may be sent: what the form calls it, and its words."""
    zones = dict.fromkeys(str(node["zone"]) for node in nodes if node.get("zone"))
    found = [("", _("wherever it begins first")), ("greenest", _("where the grid is greenest"))]
    found += [(f"zone:{zone}", _("grid {zone}", zone=one_line(zone))) for zone in zones]
    return found + [(f"node:{node['name']}", one_line(node["name"])) for node in nodes]


def sentence(status: Mapping[str, Any], _: Tongue = ENGLISH) -> str:
    """Where a prompt stands, in one sentence."""
    state = status.get("state")
    if state == "completed":
        return _("Done.")
    if state == "cancelled":
        return _("Stopped, as asked.")
    if state == "discarded":
        return _("This prompt failed.")
    phase, node = status.get("phase"), one_line(status.get("node") or "")
    match phase:
        case "settling":
            return _("Waiting until the machine is calm enough to measure.")
        case "loading":
            return _("Loading the model on {node}.", node=node) if node else _("Loading the model.")
        case "answering":
            return _("Answering on {node}.", node=node) if node else _("Answering.")
        case "measuring":
            return _("The answer is complete. Measuring until the machine is calm again.")
        case _other:
            return _waiting(status, _)


def _waiting(status: Mapping[str, Any], _: Tongue) -> str:
    before, reason = status.get("position"), status.get("reason")
    if reason:
        told = "; ".join(_.said(part) for part in str(reason).split("; "))
    elif before:
        told = _.many("{n} prompt before yours", "{n} prompts before yours", before)
    else:
        told = _("Yours is next") if before == 0 else _("Waiting for a node")
    return f"{told[0].upper()}{told[1:].rstrip('.')}."


def _node(node: Mapping[str, Any], _: Tongue) -> Json:
    """A node with its line in words."""
    zone = [_("grid {zone}", zone=one_line(node["zone"]))] if node.get("zone") else []
    return {**node, "line": ", ".join([*zone, metered(node, _)])}


def metered(node: Mapping[str, Any], _: Tongue = ENGLISH) -> str:
    """What a node's figures will rest on, said before anybody asks."""
    meters = [meter for meter in node.get("meters", ()) if meter["kind"] in {"energy_j", "power_w"}]
    scopes = ", ".join(dict.fromkeys(wording.scope_words(meter["scope"], _) for meter in meters))
    if not scopes:
        return _("no meter, so energy is modelled")
    if simulated([node]):
        return _("simulated meters for {scopes}", scopes=scopes)
    return _("meters for {scopes}", scopes=scopes)


def simulated(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the nodes whose machine is a simulated one."""
    return [node["name"] for node in nodes if any(meter["simulated"] for meter in node.get("meters", ()))]


def defaults_of_a_prompt() -> Json:
    """What is taken where nothing else is asked for."""
    parts = Prompt.__dataclass_fields__
    return {name: parts[name].default for name in ("max_tokens", "temperature", "seed")}


def add(routes: APIRouter, backend: Callable[[Request], Backend]) -> None:
    """The routes of asking."""

    async def ask_again(request: Request, form: Mapping[str, str], error: JouleboxError) -> Response:
        fetch, view = backend(request), view_of(request)
        html = render_ask(await fetch.models(), await fetch.nodes(), form=form, problem=problem_of(error), view=view)
        answer = page(request, html, error.failure.status)
        answer.headers.update(headers_of(error))
        return answer

    @routes.get("/")
    async def ask_page(request: Request) -> Response:
        fetch = backend(request)
        return page(request, render_ask(await fetch.models(), await fetch.nodes(), view=view_of(request)))

    @routes.post("/ask")
    async def ask(request: Request) -> Response:
        form: dict[str, str] = {}
        try:
            refuse_other_sites(request)
            form = await fields(request)
            answer = see_other(f"/prompts/{quote(await backend(request).submit(prompt_of(form)), safe='')}")
            remember(request, answer)
            return answer
        except JouleboxError as error:
            return await ask_again(request, form, error)

    @routes.get("/prompts/{prompt_id}")
    async def prompt_page(request: Request, prompt_id: str) -> Response:
        fetch = backend(request)
        status = await fetch.status(prompt_id)
        receipt_id = status.get("receipt_id")
        receipt = await fetch.receipt(receipt_id) if receipt_id else None
        html = render_prompt(
            status,
            receipt,
            await fetch.nodes(),
            models=await fetch.models() if receipt and status.get("answer") and status.get("own", True) else (),
            before=await fetch.before(prompt_id),
            whatif=await fetch.whatif(receipt_id) if receipt_id else None,
            view=view_of(request),
        )
        return page(request, html)

    @routes.post("/prompts/{prompt_id}/stop")
    async def stop(request: Request, prompt_id: str) -> Response:
        refuse_other_sites(request)
        await backend(request).cancel(prompt_id)
        return see_other(f"/prompts/{quote(prompt_id, safe='')}")


def prompt_of(texts: Mapping[str, str]) -> Json:
    """The ask form in the fields of `POST /api/v1/prompts`; empty options are left out."""
    form: Json = {name: texts.get(name, "") for name in ("model", "prompt")}
    for name in ("system", "placement", "priority", "follows"):
        if text := texts.get(name, "").strip():
            form[name] = text
    if deadline := texts.get("deadline", "").strip():
        form["deadline"] = deadline
    for name, kind in (("max_tokens", int), ("temperature", float), ("seed", int), ("max_energy_j", float)):
        if text := texts.get(name, "").strip():
            try:
                form[name] = kind(text)
            except ValueError as error:
                raise JouleboxError(
                    "bad_request", f"{name} must be a number; {one_line(text)[:40]} is none."
                ) from error
    return form
