"""The page to ask on, and the page of one prompt on its way."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from joulebox import wording
from joulebox.errors import JouleboxError
from joulebox.model import FINAL_STATES, Prompt
from joulebox.server.gate import remember
from joulebox.server.origin import refuse_other_sites
from joulebox.server.pages.backend import Backend
from joulebox.server.pages.forms import fields
from joulebox.server.pages.frame import NOWHERE, View, one_line, page, problem_of, render, see_other, view_of
from joulebox.server.pages.receipts import told
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


def render_ask(
    models: Sequence[Mapping[str, Any]],
    nodes: Sequence[Mapping[str, Any]],
    *,
    form: Mapping[str, Any] | None = None,
    problem: Mapping[str, Any] | None = None,
    view: View = NOWHERE,
) -> str:
    """The ask page. `form` and `problem` show again what was sent and why it was refused."""
    return render(
        "ask.html",
        view,
        models=models,
        nodes=[_node(node, view._) for node in nodes],
        simulated=simulated(nodes),
        form=form or {},
        problem=problem,
        defaults=_defaults(),
    )


def render_prompt(
    status: Mapping[str, Any],
    receipt: Mapping[str, Any] | None,
    nodes: Sequence[Mapping[str, Any]] = (),
    *,
    view: View = NOWHERE,
) -> str:
    """The page of one prompt: where it stands, the answer so far, the receipt once there is one."""
    # what is not for this reader is not followed either
    final, _ = status.get("state") in FINAL_STATES or status.get("texts") == "private", view._
    return render(
        "prompt.html",
        view,
        status=status,
        simulated=simulated(nodes),
        sentence=wording.done_words(receipt, _) if receipt else sentence(status, _),
        final=final,
        blank=_(BLANK.get(str(status.get("state")), marked("comes out here, after the answer."))),
        refresh_s=REFRESH_S,
        **told(receipt, _),
    )


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


def _defaults() -> Json:
    parts = Prompt.__dataclass_fields__
    return {name: parts[name].default for name in ("max_tokens", "temperature", "seed")}


def add(routes: APIRouter, backend: Callable[[Request], Backend]) -> None:
    """The routes of asking."""

    async def ask_again(request: Request, form: Mapping[str, str], error: JouleboxError) -> Response:
        fetch, view = backend(request), view_of(request)
        html = render_ask(await fetch.models(), await fetch.nodes(), form=form, problem=problem_of(error), view=view)
        return page(request, html, error.failure.status)

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
        return page(request, render_prompt(status, receipt, await fetch.nodes(), view=view_of(request)))

    @routes.post("/prompts/{prompt_id}/stop")
    async def stop(request: Request, prompt_id: str) -> Response:
        refuse_other_sites(request)
        await backend(request).cancel(prompt_id)
        return see_other(f"/prompts/{quote(prompt_id, safe='')}")


def prompt_of(texts: Mapping[str, str]) -> Json:
    """The ask form in the fields of `POST /api/v1/prompts`; empty options are left out."""
    form: Json = {name: texts.get(name, "") for name in ("model", "prompt")}
    if system := texts.get("system", "").strip():
        form["system"] = system
    for name, kind in (("max_tokens", int), ("temperature", float), ("seed", int)):
        if text := texts.get(name, "").strip():
            try:
                form[name] = kind(text)
            except ValueError as error:
                raise JouleboxError(
                    "bad_request", f"{name} must be a number; {one_line(text)[:40]} is none."
                ) from error
    return form
