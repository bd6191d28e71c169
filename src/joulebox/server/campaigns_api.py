"""The routes of what campaigns found: the table, a recommendation, publishing."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from joulebox.columns import Row
from joulebox.errors import JouleboxError
from joulebox.server.campaigns import EVERYTHING, Campaign, CampaignCell
from joulebox.server.problems import NewRouter
from joulebox.server.service import Mine, Service
from joulebox.server.texts import Kept
from joulebox.tabular import csv_text

Json = dict[str, Any]
Name = Annotated[Kept, Field(min_length=1, max_length=64)]
Count = Annotated[int, Field(ge=0, le=10_000_000)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
NOTES_MAX, CELLS_MAX = 1_000, 2_000
PLACE: Final = ("campaign", "node", "model", "digest", "category", "asked", "n", "judged", "right")
FIGURES: Final = ("answer_j", "token_j", "right_j", "sci_g", "accuracy")


class IntervalBody(BaseModel):
    """A figure and the ends of its 95 % interval."""

    model_config = ConfigDict(extra="forbid", strict=True)

    value: Amount
    low: Amount
    high: Amount


class CellBody(BaseModel):
    """What a model came to in a category on a node."""

    model_config = ConfigDict(extra="forbid", strict=True)

    node: Name
    model: Annotated[Kept, Field(min_length=1, max_length=200)]
    digest: Annotated[Kept, Field(min_length=1, max_length=80)]
    category: Name
    asked: Count
    n: Count
    judged: Count
    right: Amount
    answer_j: IntervalBody | None
    token_j: IntervalBody | None
    right_j: IntervalBody | None
    sci_g: IntervalBody | None
    accuracy: IntervalBody | None


class CampaignBody(BaseModel):
    """A campaign's table, as `joulebox bench publish` sends it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[0-9A-Za-z]+$")]
    title: Annotated[Kept, Field(max_length=500)]
    created: Annotated[Kept, Field(max_length=40)]
    notes: Annotated[list[Annotated[str, Field(max_length=1_000)]], Field(max_length=NOTES_MAX)]
    cells: Annotated[list[CellBody], Field(max_length=CELLS_MAX)]


def router(new: NewRouter, service: Service) -> APIRouter:
    """All of them."""
    routes = new()
    books = service.store.campaigns

    @routes.get("/api/v1/table", responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}})
    async def table(
        category: Annotated[str | None, Query(max_length=64)] = None,
        campaign: Annotated[str | None, Query(max_length=32)] = None,
        form: Annotated[Literal["json", "csv"], Query(alias="format")] = "json",
    ) -> Response:
        """What published campaigns found, the newest first: each figure with its interval and n. Joules of different
        nodes must not be compared. As CSV, a row a cell: what is missing is empty."""
        campaigns, cells = await books.campaigns(), await books.cells(category)
        if campaign is not None:
            campaigns = [one for one in campaigns if one.id == campaign]
            cells = [one for one in cells if one.campaign == campaign]
        if form == "csv":
            return Response(as_csv(cells), media_type="text/csv; charset=utf-8")
        return JSONResponse({"campaigns": [shown(one) for one in campaigns], "cells": [asdict(one) for one in cells]})

    @routes.get("/api/v1/recommend")
    async def recommend(
        category: Annotated[str, Query(max_length=64)] = EVERYTHING,
        min_accuracy: Annotated[float, Query(ge=0, le=1)] = 0.0,
        max_energy_j: Annotated[float | None, Query(gt=0, allow_inf_nan=False)] = None,
    ) -> Json:
        """The cheapest model offered now that is right in at least `min_accuracy` of such prompts with 95 % confidence,
        or null, with about how many more prompts would tell."""
        return asdict(await service.advice(category, min_accuracy, max_energy_j))

    @routes.post("/api/v1/campaigns", status_code=201)
    async def publish(body: CampaignBody, mine: Mine) -> Json:
        """Keep what a campaign found, in place of what was published of it before."""
        if len({(one.node, one.model, one.category) for one in body.cells}) < len(body.cells):
            raise JouleboxError("bad_request", "Two cells are of the same node, model and category.")
        campaign = Campaign(
            id=body.id, title=body.title, created=body.created, published=mine.desk.now(), notes=tuple(body.notes)
        )
        await books.publish(campaign, [_cell(body.id, one) for one in body.cells])
        await mine.note("publish", body.id, body.title[:200])
        return shown(campaign) | {"cells": len(body.cells)}

    @routes.delete("/api/v1/campaigns/{campaign_id}")
    async def remove(campaign_id: str, mine: Mine) -> Json:
        """Forget what a campaign found; its file, wherever it is, stays."""
        if not await books.remove(campaign_id):
            raise JouleboxError("not_found", f"No campaign {campaign_id} was published here.")
        await mine.note("unpublish", campaign_id)
        return {"id": campaign_id, "removed": True}

    return routes


def shown(campaign: Campaign) -> Json:
    """A campaign as people get it."""
    return asdict(campaign) | {"published": campaign.published.isoformat(timespec="seconds")}


def as_csv(cells: Sequence[CampaignCell]) -> str:
    """A row a cell, every figure with its interval; what is missing is empty."""
    names = [*PLACE, *(f"{name}{end}" for name in FIGURES for end in ("", "_low", "_high"))]
    return csv_text(names, map(_row, cells))


def _row(cell: CampaignCell) -> Row:
    ends = [(cell.figures.get(name) or {}).get(end) for name in FIGURES for end in ("value", "low", "high")]
    return [*(getattr(cell, name) for name in PLACE), *ends]


def _cell(campaign: str, body: CellBody) -> CampaignCell:
    fields = body.model_dump()
    figures = {name: fields.pop(name) for name in FIGURES}
    return CampaignCell(campaign=campaign, figures=figures, **fields)
