"""The method as the server computes by it: the page of the docs, which travels in the wheel."""

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response
from markupsafe import Markup

from joulebox.accounting import METHOD_VERSION
from joulebox.server.pages.backend import Backend
from joulebox.server.pages.frame import NOWHERE, View, page, render, view_of
from joulebox.server.pages.markdown import document

CHECKOUT: Final = Path(__file__).parents[4] / "docs" / "explanation" / "method.md"


@cache
def method() -> tuple[Markup, list[tuple[str, str]]]:
    """The page as HTML with its headings: from the wheel, or from the checkout that runs as it is."""
    packed = files("joulebox.server").joinpath("docs", "method.md")
    return document((packed if packed.is_file() else CHECKOUT).read_text(encoding="utf-8"))


def render_method(view: View = NOWHERE) -> str:
    """The page, which is English in every language."""
    html, headings = method()
    return render("method.html", view, html=html, headings=headings, version=METHOD_VERSION)


def add(routes: APIRouter, _: Callable[[Request], Backend]) -> None:
    """The route of the method."""

    @routes.get("/method")
    async def method_page(request: Request) -> Response:
        return page(request, render_method(view_of(request)))
