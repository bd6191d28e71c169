"""The SCI report of a period as a page."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response

from joulebox.server import report_words
from joulebox.server.pages.backend import Backend
from joulebox.server.pages.frame import NOWHERE, View, page, render, text_of, view_of


def render_report(report: Mapping[str, Any], query: str = "", *, standalone: bool = False, view: View = NOWHERE) -> str:
    """The SCI report of a period, which `query` asks for. `standalone` makes one file that needs no server."""
    _, factors = view._, report["coefficients"]

    def head(names: Sequence[str]) -> list[str]:
        return [_(name) for name in names]

    return render(
        "report.html",
        view,
        report=report,
        words=report_words.told(report, _),
        tables={
            "Nodes": (head(report_words.NODE_HEAD), [report_words.node_row(one, _) for one in report["nodes"]]),
            "Factors": (head(report_words.FACTOR_HEAD), [report_words.factor_row(one, _) for one in factors]),
        },
        query=query,
        style=text_of("app.css") if standalone else None,
        standalone=standalone,
    )


def add(routes: APIRouter, backend: Callable[[Request], Backend]) -> None:
    """The route of the report."""

    @routes.get("/report/sci")
    async def report_page(request: Request) -> Response:
        asked = {name: request.query_params.get(name) for name in ("from", "to", "zone", "model")}
        given = {name: value for name, value in asked.items() if value}
        found = await backend(request).report(*(given.get(name) for name in asked))
        return page(request, render_report(found, urlencode(given), view=view_of(request)))
