"""For those who run the server: signing in with a key, nodes, messages, what is set, and keys.

Everything is done by the same functions as through the API; who may do what stands in `access.TABLE`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Protocol

from fastapi import APIRouter, Path, Request, Response

from joulebox.errors import JouleboxError
from joulebox.server.access import Act, Caller, Scope
from joulebox.server.feedback import Message
from joulebox.server.gate import SESSION_S, keep_session
from joulebox.server.origin import refuse_other_sites
from joulebox.server.pages.backend import Backend
from joulebox.server.pages.forms import fields
from joulebox.server.pages.frame import (
    NOWHERE,
    View,
    one_line,
    own_address,
    page,
    problem_of,
    render,
    see_other,
    view_of,
)
from joulebox.units import S_PER_HOUR
from joulebox.wording import Tongue, marked

Json = dict[str, Any]
Fields = Mapping[str, str]
Number = Annotated[int, Path(ge=1, le=2**31 - 1)]

MESSAGES_MAX: Final = 50
ACTS_MAX: Final = 20
KEY_CHARACTERS_MAX: Final = 200
WHY_CHARACTERS_MAX: Final = 200
MAINTENANCE: Final = "maintenance"
SCOPES: Final[tuple[tuple[Scope, str], ...]] = (
    ("read", marked("see models, nodes, the report and its own prompts")),
    ("ask", marked("also ask")),
    ("node", marked("a machine that takes work and delivers; it opens no page")),
    ("admin", marked("see and remove everything, and make keys")),
)
LIMITS: Final = {
    "outstanding_max": marked("Prompts that wait or run"),
    "prompts_per_day": marked("Prompts within 24 hours"),
    "joules_per_day": marked("Joules within 24 hours"),
}
"""What a key may have its own of, as the form calls it."""
UNITS: Final = {"joules_per_day": "J"}
KINDS: Final[Mapping[str, Callable[[str], float]]] = {
    "expires_days": float,
    "outstanding_max": int,
    "prompts_per_day": int,
    "joules_per_day": float,
}


class Door(Protocol):
    """Where keys are shown; the gate is it."""

    async def sign_in(self, request: Request, text: str) -> tuple[str, Caller]:
        """What a browser is to show from now on for a key, and who that is. May raise `JouleboxError`."""

    async def signed(self, request: Request) -> Caller | None:
        """Who has signed in with this browser."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the settings say of who may do how much. `public`: without a key; `None` where everything is open on this
    machine. 0 for any number."""

    public: tuple[str, ...] | None = ()
    retention_days: float | None = None
    requests_per_minute: int = 0
    asks_per_minute: int = 0
    outstanding_max: int = 0
    prompts_per_day: int = 0
    joules_per_day: float = 0.0


def render_sign_in(to: str, problem: Mapping[str, Any] | None = None, view: View = NOWHERE) -> str:
    """The page to sign in on, which leads to an address of this server."""
    return render("signin.html", view, to=to, problem=problem, hours=round(SESSION_S / S_PER_HOUR))


def render_admin(
    nodes: Sequence[Mapping[str, Any]], messages: Sequence[Message], rules: Rules, view: View = NOWHERE
) -> str:
    """Nodes, messages, what is set."""
    _ = view._
    return render(
        "admin.html",
        view,
        nodes=[_node(node, _) for node in nodes],
        messages=messages[:MESSAGES_MAX],
        more=max(len(messages) - MESSAGES_MAX, 0),
        rules=_rules(rules, _),
    )


def _node(node: Mapping[str, Any], _: Tongue) -> Json:
    state = str(node["state"])
    return {
        "name": node["name"],
        "state": _(state),
        "drained": state == "draining",
        "away": state == "away",
        "since": node.get("since"),
        "why": _.said(one_line(node["reason"])) if node.get("reason") else "",
        "models": ", ".join(map(one_line, node.get("models", ()))),
    }


def _rules(rules: Rules, _: Tongue) -> list[tuple[str, str, str]]:
    """Each with what it means and the setting it comes from."""
    days = rules.retention_days
    public = _("on this machine everything, from elsewhere nothing")
    if rules.public is not None:
        public = ", ".join(rules.public) or _("nothing")

    def most(count: float, unit: str = "") -> str:
        return _.number(f"{count:.10g} {unit}".strip()) if count else _("any number")

    told = [
        (_("People may, without a key"), public, "public"),
        (
            _("Texts of prompts are erased"),
            _("never") if days is None else _("{days} days after their end", days=_.number(f"{days:g}")),
            "retention_days",
        ),
        (_("Requests a minute"), most(rules.requests_per_minute), "requests_per_minute"),
        (_("Prompts a minute"), most(rules.asks_per_minute), "asks_per_minute"),
    ]
    told += [(_(words), most(getattr(rules, name), UNITS.get(name, "")), name) for name, words in LIMITS.items()]
    return [(label, value, f"JOULEBOX_{name.upper()}") for label, value, name in told]


def render_keys(
    keys: Sequence[Mapping[str, Any]],
    acts: Sequence[Act],
    now: datetime,
    *,
    own: str | None = None,
    made: Mapping[str, Any] | None = None,
    form: Fields | None = None,
    problem: Mapping[str, Any] | None = None,
    view: View = NOWHERE,
) -> str:
    """Every key, newest first; `own` is the one that is signed in with, `made` one that has just been made."""
    newest = [{**key, "limits": _limits(key, view._)} for key in reversed(keys)]
    valid = [key for key in newest if not _over(key, now)]
    return render(
        "keys.html",
        view,
        keys=valid,
        over=[key for key in newest if key not in valid],
        acts=[_act(one) for one in acts],
        own=own,
        made=made,
        form=form or {},
        problem=problem,
        scopes=SCOPES,
        limits=LIMITS.items(),
    )


def _act(one: Act) -> Json:
    told = {"name": one.name, "subject": one.subject, "detail": one.detail}
    return {"at": f"{one.at:%Y-%m-%d %H:%M}", "act": one.act.replace("_", " "), **told}


def _over(key: Mapping[str, Any], now: datetime) -> bool:
    return bool(key["revoked"]) or (key["expires"] is not None and datetime.fromisoformat(key["expires"]) <= now)


def _limits(key: Mapping[str, Any], _: Tongue) -> str:
    """The limits that it has of its own."""
    own = [(_(words), key[name]) for name, words in LIMITS.items() if key[name] is not None]
    return "; ".join(f"{words}: {f'{most:.10g}' if most else _('any number')}" for words, most in own)


def key_of(form: Fields) -> Json:
    """The form in the fields of `POST /api/v1/tokens`; what is empty is left out. Raises
    `JouleboxError("bad_request")`."""
    found: Json = {"name": form.get("name", "").strip(), "scopes": [form.get("scope", "")]}
    for name, kind in KINDS.items():
        if text := form.get(name, "").strip():
            try:
                found[name] = kind(text)
            except ValueError as error:
                told = f"{name} must be a number; {one_line(text)[:40]} is none."
                raise JouleboxError("bad_request", told) from error
    return found


def add(routes: APIRouter, backend: Callable[[Request], Backend], door: Door, rules: Rules) -> None:
    """The routes for those who run the server."""
    _add_door(routes, door)
    _add_overview(routes, backend, rules)
    _add_keys(routes, backend)


def _add_door(routes: APIRouter, door: Door) -> None:
    @routes.get("/signin")
    async def sign_in_page(request: Request) -> Response:
        to = own_address(request.query_params.get("to", ""), "")
        caller = await door.signed(request)
        # a link from elsewhere brings no session along; the second look, from here, does
        if caller is not None and (caller.admin or not to.startswith("/admin")):
            return see_other(_first_page(to, caller))
        return page(request, render_sign_in(to, view=view_of(request)))

    @routes.post("/signin")
    async def sign_in(request: Request) -> Response:
        to = ""
        try:
            refuse_other_sites(request)
            form = await fields(request)
            to = own_address(form.get("to", ""), "")
            session, caller = await door.sign_in(request, form.get("key", "")[:KEY_CHARACTERS_MAX])
        except JouleboxError as error:
            html = render_sign_in(to, problem_of(error), view_of(request))
            return page(request, html, error.failure.status)
        answer = see_other(_first_page(to, caller))
        keep_session(request, answer, session)
        return answer

    @routes.post("/signout")
    async def sign_out(request: Request) -> Response:
        refuse_other_sites(request)
        answer = see_other("/signin")
        keep_session(request, answer, None)
        return answer


def _first_page(to: str, caller: Caller) -> str:
    return to or ("/admin" if caller.admin else "/")


def _add_overview(routes: APIRouter, backend: Callable[[Request], Backend], rules: Rules) -> None:
    @routes.get("/admin")
    async def admin_page(request: Request) -> Response:
        fetch = backend(request)
        return page(
            request,
            render_admin(await fetch.nodes(), await fetch.operating.messages(), rules, view_of(request)),
        )

    @routes.post("/admin/nodes/{name}/drain")
    async def drain(request: Request, name: str) -> Response:
        refuse_other_sites(request)
        why = one_line((await fields(request)).get("why", "").strip())[:WHY_CHARACTERS_MAX]
        await backend(request).drain(name, why or MAINTENANCE)
        return see_other("/admin#nodes")

    @routes.post("/admin/nodes/{name}/resume")
    async def resume(request: Request, name: str) -> Response:
        refuse_other_sites(request)
        await backend(request).drain(name, None)
        return see_other("/admin#nodes")

    @routes.post("/admin/nodes/{name}/forget")
    async def forget_node(request: Request, name: str) -> Response:
        refuse_other_sites(request)
        await backend(request).operating.forget_node(name)
        return see_other("/admin#nodes")

    @routes.post("/admin/messages/{number}/forget")
    async def forget_message(request: Request, number: Number) -> Response:
        refuse_other_sites(request)
        await backend(request).operating.forget_message(number)
        return see_other("/admin#messages")


def _add_keys(routes: APIRouter, backend: Callable[[Request], Backend]) -> None:
    async def shown(request: Request, status: int = 200, **more: Any) -> Response:
        operating = backend(request).operating
        caller: Caller | None = getattr(request.state, "caller", None)
        html = render_keys(
            await operating.tokens(),
            (await operating.acts(ACTS_MAX))[0],
            operating.now(),
            own=caller.token_id if caller is not None and caller.session else None,
            view=view_of(request),
            **more,
        )
        return page(request, html, status)

    @routes.get("/admin/keys")
    async def keys_page(request: Request) -> Response:
        return await shown(request)

    @routes.post("/admin/keys")
    async def make(request: Request) -> Response:
        form: dict[str, str] = {}
        try:
            refuse_other_sites(request)
            form = await fields(request)
            made = await backend(request).operating.make_token(key_of(form))
        except JouleboxError as error:
            return await shown(request, error.failure.status, form=form, problem=problem_of(error))
        return await shown(request, made=made)

    @routes.post("/admin/keys/{token_id}/revoke")
    async def revoke(request: Request, token_id: str) -> Response:
        refuse_other_sites(request)
        await backend(request).operating.revoke_token(token_id)
        return see_other("/admin/keys")
