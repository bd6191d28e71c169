"""What published campaigns found: models by categories, one figure at a time, and quality against energy.

The state of the page is its address. One campaign and one node at a time: what was asked otherwise, or drawn by another
machine, cannot be compared.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response

from joulebox import wording
from joulebox.errors import JouleboxError
from joulebox.server.campaigns import EVERYTHING, Campaign, CampaignCell
from joulebox.server.front_chart import Point, front_chart, points_of, told
from joulebox.server.pages.backend import Backend
from joulebox.server.pages.frame import NOWHERE, POLICY_ALONE, View, one_line, page, render, view_of
from joulebox.statistics import Interval
from joulebox.statistics.recommending import Advice
from joulebox.wording import Tongue, marked

Json = dict[str, Any]

MG_PER_G: Final = 1000.0
SHADES: Final = 4
"""Steps of colour above the lightest."""
FLOORS: Final = (0, 50, 60, 70, 80, 90, 95)
"""Shares of right answers, in per cent, that somebody may want."""
SORT_BY_NAME: Final = "model"
FILTERS: Final = ("campaign", "node", "figure", "category", "sort")


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of all cells: its column in the cell, what turns it into the unit shown, and words. `most`: more is
    better."""

    column: str
    factor: float
    unit: str
    title: str
    words: str
    most: bool = False
    of_judged: bool = False


FIGURES: Final[Mapping[str, Figure]] = {
    "sci": Figure(
        "sci_g",
        MG_PER_G,
        "mg CO₂e",
        marked("SCI of an answer"),
        marked("CO₂e of an answer: from its electricity, and its share of making the machine."),
    ),
    "energy": Figure(
        "answer_j",
        1.0,
        "J",
        marked("Energy of an answer"),
        marked("Everything the machine drew from the prompt to the last word, idle power included."),
    ),
    "accuracy": Figure(
        "accuracy",
        100.0,
        "%",
        marked("Right answers"),
        marked("How many of the prompts were answered right."),
        most=True,
        of_judged=True,
    ),
    "right": Figure(
        "right_j",
        1.0,
        "J",
        marked("Joules per correct answer"),
        marked("All joules over all correct answers: wrong answers take energy too."),
        of_judged=True,
    ),
    "token": Figure(
        "token_j", 1.0, "J", marked("Energy of a token"), marked("All joules over all tokens that were written.")
    ),
}
"""The first is the layout of the service that Joulebox follows: means of SCI, models by categories."""
CATEGORIES: Final = {
    EVERYTHING: marked("all together"),
    "code": marked("code"),
    "math": marked("math"),
    "questions": marked("questions"),
    "sql": marked("SQL"),
    "translation": marked("translation"),
    "summary": marked("summary"),
    "chat": marked("chat"),
}
"""What the suite's categories are called; others have the name they come with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What an address asks for, its blanks filled: the campaign, its node, the figure, a category alone or `None`, and
    what rows are sorted by."""

    campaign: Campaign
    node: str
    nodes: Sequence[str]
    figure: str
    category: str | None
    sort: str
    categories: Sequence[str]
    cells: Sequence[CampaignCell]

    @property
    def columns(self) -> Sequence[str]:
        """The categories that are shown."""
        return [self.category] if self.category else self.categories

    @property
    def drawn(self) -> str:
        """The category of the drawing."""
        return self.category or (EVERYTHING if EVERYTHING in self.categories else self.categories[0])


def seen(campaigns: Sequence[Campaign], cells: Sequence[CampaignCell], asked: Mapping[str, str]) -> Seen:
    """What an address asks for. Raises `JouleboxError("not_found")` for what is not in the table."""
    by_id = {one.id: one for one in campaigns}
    campaign = by_id[_among("campaign", asked, list(by_id), campaigns[0].id)]
    mine = [one for one in cells if one.campaign == campaign.id]
    nodes = list(dict.fromkeys(one.node for one in mine)) or [""]
    node = _among("node", asked, nodes, nodes[0])
    here = [one for one in mine if one.node == node]
    categories = sorted({one.category for one in here}, key=_order) or [EVERYTHING]
    category = _among("category", asked, categories, "") or None
    first = category or (EVERYTHING if EVERYTHING in categories else categories[0])
    return Seen(
        campaign=campaign,
        node=node,
        nodes=nodes,
        figure=_among("figure", asked, list(FIGURES), "sci"),
        category=category,
        sort=_among("sort", asked, [SORT_BY_NAME, *categories], first),
        categories=categories,
        cells=here,
    )


def _among(name: str, asked: Mapping[str, str], known: Sequence[str], default: str) -> str:
    value = asked.get(name) or default
    if value != default and value not in known:
        told = ", ".join(map(one_line, known))
        raise JouleboxError(
            "not_found", f"There is no {name} {one_line(value)[:60]} in this table: choose among {told}."
        )
    return value


def _order(category: str) -> tuple[int, str]:
    """As the suite has them, all together last."""
    known = [*list(CATEGORIES)[1:], EVERYTHING]
    return (known.index(category) if category in known else -1), category


def render_table(
    campaigns: Sequence[Campaign],
    cells: Sequence[CampaignCell],
    asked: Mapping[str, str],
    advice: Advice | None = None,
    view: View = NOWHERE,
) -> str:
    """The page, with `advice` where some was asked for. Raises `JouleboxError("not_found")` for what is not in the
    table."""
    if not campaigns:
        return render("table.html", view, s=None)
    _, s = view._, seen(campaigns, cells, asked)
    figure = FIGURES[s.figure]

    def link(**changes: str | None) -> str:
        return f"/table{_query({name: asked.get(name) for name in FILTERS} | changes)}"

    points = _points(s)
    return render(
        "table.html",
        view,
        s=s,
        figure=figure,
        rows=_rows(s, figure, _),
        figures=[(_(one.title), link(figure=name), name == s.figure) for name, one in FIGURES.items()],
        chosen=[(_category(name, _), link(category=name, sort=None), name == s.category) for name in s.categories],
        every=link(category=None, sort=None),
        heads=[(_category(name, _), link(sort=name), name == s.sort) for name in s.columns],
        by_name=link(sort=SORT_BY_NAME),
        nodes=[(name, link(node=name, category=None, sort=None), name == s.node) for name in s.nodes],
        others=[(one.title, f"/table{_query({'campaign': one.id})}") for one in campaigns if one.id != s.campaign.id],
        points=points,
        picture=f"/table/front.svg{_query({'campaign': s.campaign.id, 'node': s.node, 'category': s.drawn})}",
        picture_words=told(points, _) if points else "",
        drawn=_category(s.drawn, _),
        span=lambda one: _span(one, _),
        share=lambda one: _share(one, _),
        data=_query({"campaign": s.campaign.id}),
        floors=FLOORS,
        floor=_floor(asked),
        state=[(name, asked[name]) for name in FILTERS if name in asked],
        advice=advice,
    )


def _query(values: Mapping[str, str | None]) -> str:
    given = {name: value for name, value in values.items() if value}
    return f"?{urlencode(given)}" if given else ""


def _category(name: str, _: Tongue) -> str:
    return _(CATEGORIES[name]) if name in CATEGORIES else one_line(name)


def _figure(cell: CampaignCell | None, column: str) -> Interval | None:
    found = cell.figures.get(column) if cell is not None else None
    return Interval(found["value"], found["low"], found["high"]) if found else None


def _rows(s: Seen, figure: Figure, _: Tongue) -> list[Json]:
    """A row for each model, the best first; models without the figure last."""
    places = {(one.model, one.category): one for one in s.cells}
    models = sorted({one.model for one in s.cells})
    if s.sort != SORT_BY_NAME:
        models.sort(key=lambda model: _rank(_figure(places.get((model, s.sort)), figure.column), figure))
    shown = {
        (model, column): found.value
        for model in models
        for column in s.columns
        if (found := _figure(places.get((model, column)), figure.column)) is not None
    }
    rows = []
    for model in models:
        cells = [_cell(places.get((model, column)), figure, list(shown.values()), _) for column in s.columns]
        rows.append({"model": model, "cells": cells})
    return rows


def _rank(found: Interval | None, figure: Figure) -> tuple[bool, float]:
    return found is None, (0.0 if found is None else -found.value if figure.most else found.value)


def _cell(cell: CampaignCell | None, figure: Figure, shown: Sequence[float], _: Tongue) -> Json:
    """Figure, interval and n; what is missing says so, and why."""
    found = _figure(cell, figure.column)
    if cell is None:
        return {"missing": _("not asked"), "n": ""}
    n = cell.judged if figure.of_judged else cell.n
    counted = _("n {n}", n=n)
    if found is None:
        return {"missing": _missing(cell, figure, _), "n": counted}
    value, low, high = (
        _.number(wording.plain(figure.factor * end, "", 3)) for end in (found.value, found.low, found.high)
    )
    if figure.most:
        value, low, high = (f"{100 * end:.0f}" for end in (found.value, found.low, found.high))
    return {
        "missing": "",
        "value": value,
        "span": _("{low} to {high}", low=low, high=high),
        "n": counted,
        "shade": _shade(found.value, shown, even=figure.most),
    }


def _missing(cell: CampaignCell, figure: Figure, _: Tongue) -> str:
    if figure.of_judged and not cell.judged:
        return _("not scored")
    if figure.column == "right_j" and cell.judged:
        return _("too few right: {right}", right=_.number(wording.plain(cell.right)))
    return _("too few answers of {asked}", asked=cell.asked)


def _shade(value: float, shown: Sequence[float], *, even: bool) -> int:
    """The step of colour: by share where everything lies between 0 and 1, else by magnitude among what is shown."""
    if even:
        return round(SHADES * min(max(value, 0.0), 1.0))
    least, most = min(shown), max(shown)
    if value <= 0 or least <= 0 or most <= least:
        return 0
    return round(SHADES * log(value / least) / log(most / least))


def _points(s: Seen) -> list[Point]:
    found = []
    for cell in s.cells:
        x, y = _figure(cell, "answer_j"), _figure(cell, "accuracy")
        if cell.category == s.drawn and x is not None and y is not None and x.value > 0:
            found.append((one_line(cell.model), x, y))
    return points_of(found)


def _span(one: Interval, _: Tongue) -> str:
    """`12.3 J (10.1 to 15.2)`."""
    value, low, high = (_.number(wording.plain(end, "", 3)) for end in (one.value, one.low, one.high))
    return f"{value} J ({_('{low} to {high}', low=low, high=high)})"


def _share(one: Interval, _: Tongue) -> str:
    """`46 % (33 to 59)`."""
    value, low, high = (f"{100 * end:.0f}" for end in (one.value, one.low, one.high))
    return f"{value} % ({_('{low} to {high}', low=low, high=high)})"


def add(routes: APIRouter, backend: Callable[[Request], Backend]) -> None:
    """The routes of the table."""

    @routes.get("/table")
    async def table_page(request: Request) -> Response:
        fetch, asked = backend(request), _asked(request)
        campaigns, cells = await fetch.overview.campaigns()
        floor, advice = _floor(asked), None
        if campaigns and floor is not None:
            advice = await fetch.advice(seen(campaigns, cells, asked).drawn, floor / 100, None)
        return page(request, render_table(campaigns, cells, asked, advice, view_of(request)))

    @routes.get("/table/front.svg")
    async def front_picture(request: Request) -> Response:
        campaigns, cells = await backend(request).overview.campaigns()
        points = _points(seen(campaigns, cells, _asked(request))) if campaigns else []
        if not points:
            raise JouleboxError("not_found", "No model has both energy and right answers there: there is no picture.")
        headers = {"Content-Security-Policy": POLICY_ALONE, "Cache-Control": "no-cache"}
        svg = front_chart(points, view_of(request)._)
        return Response(svg, 200, headers | {"Vary": "Accept-Language, Cookie"}, media_type="image/svg+xml")


def _asked(request: Request) -> dict[str, str]:
    return {name: request.query_params[name] for name in (*FILTERS, "min") if name in request.query_params}


def _floor(asked: Mapping[str, str]) -> int | None:
    """So many of a hundred prompts are to be answered right; `None` where nobody asks."""
    text = asked.get("min", "")
    return int(text) if text in map(str, FLOORS) else None
