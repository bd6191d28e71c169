"""What people see. Pure functions from data to HTML (`render_...`), and routes; `frame` holds what all pages share.

Everything works without JavaScript; `static/*.js` adds streaming. Every figure comes from the data handed in.
"""

from collections.abc import Callable

from fastapi import APIRouter, Request, Response

from joulebox.server.pages import (
    about,
    admin,
    asking,
    comparisons,
    frame,
    method,
    nodes,
    receipts,
    reference,
    reports,
    tables,
)
from joulebox.server.pages.about import Operator, render_about
from joulebox.server.pages.admin import Door, Rules, render_admin, render_keys, render_sign_in
from joulebox.server.pages.asking import render_ask, render_prompt, sentence
from joulebox.server.pages.backend import Backend
from joulebox.server.pages.comparisons import render_compare, render_comparison, render_preferences
from joulebox.server.pages.forms import FORM_MAX_BYTES
from joulebox.server.pages.frame import POLICY_ALONE, problem_of, refused, render_problem
from joulebox.server.pages.method import render_method
from joulebox.server.pages.nodes import render_nodes
from joulebox.server.pages.receipts import alike, in_units, render_receipt
from joulebox.server.pages.reference import render_reference
from joulebox.server.pages.reports import render_report
from joulebox.server.pages.tables import render_table
from joulebox.server.problems import NewRouter

__all__ = [
    "FORM_MAX_BYTES",
    "POLICY_ALONE",
    "Backend",
    "Door",
    "Operator",
    "Rules",
    "alike",
    "in_units",
    "problem_of",
    "refused",
    "render_about",
    "render_admin",
    "render_ask",
    "render_compare",
    "render_comparison",
    "render_keys",
    "render_method",
    "render_nodes",
    "render_preferences",
    "render_problem",
    "render_prompt",
    "render_receipt",
    "render_reference",
    "render_report",
    "render_sign_in",
    "render_table",
    "router",
    "sentence",
]


def router(
    new: NewRouter,
    backend: Callable[[Request], Backend],
    door: Door,
    operator: Operator | None = None,
    rules: Rules | None = None,
) -> APIRouter:
    """The pages over HTTP. Failures are raised: `problems.install` shows them as pages (`refused`)."""
    routes = new(include_in_schema=False)
    for pages in (asking, comparisons, tables, receipts, reports, nodes, method, reference):
        pages.add(routes, backend)
    about.add(routes, backend, operator or Operator())
    admin.add(routes, backend, door, rules or Rules())

    @routes.get("/language/{tag}")
    async def language(request: Request, tag: str) -> Response:
        return frame.language(request, tag)

    @routes.get("/static/{name}")
    async def static(request: Request, name: str) -> Response:
        return frame.static(request, name)

    return routes
