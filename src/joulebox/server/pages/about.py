"""About: who runs this server, imprint and privacy, a word to the operator, and what a page itself takes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from markupsafe import Markup

from joulebox.errors import JouleboxError
from joulebox.server.origin import refuse_other_sites
from joulebox.server.pages.backend import Backend
from joulebox.server.pages.forms import fields
from joulebox.server.pages.frame import (
    NOWHERE,
    TRANSFER_WH_PER_MB,
    View,
    page,
    plain,
    problem_of,
    render,
    see_other,
    transfer_j,
    view_of,
)
from joulebox.server.pages.markdown import SAFE_LINK, to_html

Json = dict[str, Any]
EXAMPLE_BYTES: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """Who runs the server, as the settings tell; texts are Markdown. `retention_days`: how long texts of prompts are
    kept, `None` for ever."""

    name: str | None = None
    contact: str | None = None
    imprint: str | None = None
    privacy: str | None = None
    retention_days: float | None = None


def render_about(
    operator: Operator,
    *,
    sent: bool = False,
    form: Mapping[str, str] | None = None,
    problem: Mapping[str, Any] | None = None,
    view: View = NOWHERE,
) -> str:
    """The page. `sent`: a message has just been kept; `form` and `problem`: one was refused."""
    _ = view._
    return render(
        "about.html",
        view,
        operator=operator,
        reach=_reach(operator.contact),
        imprint=_set(operator.imprint),
        privacy=_set(operator.privacy),
        kept=None if operator.retention_days is None else _.number(f"{operator.retention_days:g}"),
        sent=sent,
        form=form or {},
        problem=problem,
        factor=_.number(f"{TRANSFER_WH_PER_MB:.3f}"),
        example=plain(transfer_j(EXAMPLE_BYTES), _, "J", 2),
    )


def _reach(contact: str | None) -> str | None:
    """The address that a contact leads to; `None` where it is only words."""
    if contact is None or any(character.isspace() for character in contact):
        return None
    address = f"mailto:{contact}" if "@" in contact and ":" not in contact else contact
    return address if SAFE_LINK.match(address) else None


def _set(text: str | None) -> Markup | None:
    return to_html(text) if text else None


def add(routes: APIRouter, backend: Callable[[Request], Backend], operator: Operator) -> None:
    """The routes of this operator's page."""

    @routes.get("/about")
    async def about_page(request: Request) -> Response:
        sent = request.query_params.get("sent") == "1"
        return page(request, render_about(operator, sent=sent, view=view_of(request)))

    @routes.post("/about/feedback")
    async def feedback(request: Request) -> Response:
        form: dict[str, str] = {}
        try:
            refuse_other_sites(request)
            form = await fields(request)
            await backend(request).overview.leave(form)
        except JouleboxError as error:
            html = render_about(operator, form=form, problem=problem_of(error), view=view_of(request))
            return page(request, html, error.failure.status)
        return see_other("/about?sent=1#feedback")
