"""The public routes: JSON in, JSON out, events as they come."""

import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from joulebox.catalog import about
from joulebox.model import FINAL_STATES
from joulebox.server.bodies import PromptBody
from joulebox.server.events import Seen, seen_until, watch
from joulebox.server.pages import POLICY_ALONE, render_report
from joulebox.server.problems import NewRouter
from joulebox.server.report_words import as_markdown
from joulebox.server.service import Mine, Service
from joulebox.server.texts import Kept

Json = dict[str, Any]
Limit = Annotated[int, Query(ge=1, le=100)]
TEXTS: Final[dict[int | str, Json]] = {
    200: {"content": {kind: {"schema": {"type": "string"}} for kind in ("text/markdown", "text/html")}}
}
Revision = Annotated[int | None, Query(ge=1, le=1_000_000)]


class BaselineBody(BaseModel):
    """Why a new reference begins."""

    model_config = ConfigDict(extra="forbid", strict=True)

    why: Annotated[Kept, Field(min_length=1, max_length=200, description="What was changed, and that it is to stay.")]


class DrainBody(BaseModel):
    """Why a node is to take no more prompts."""

    model_config = ConfigDict(extra="forbid", strict=True)

    why: Annotated[Kept, Field(min_length=1, max_length=200, description="What people who wait for it are told.")]


def router(new: NewRouter, service: Service) -> APIRouter:
    """All public routes."""
    routes = new()
    _prompts(routes, service)
    _receipts(routes, service)
    _fleet(routes, service)
    return routes


def _prompts(routes: APIRouter, service: Service) -> None:
    @routes.post("/api/v1/prompts", status_code=202)
    async def ask(body: PromptBody, mine: Mine) -> Json:
        """Ask a model. Follow the events of the id you get."""
        return await mine.ask(body)

    @routes.get("/api/v1/prompts")
    async def prompts(mine: Mine, limit: Limit = 20, cursor: str | None = None) -> Json:
        """Prompts, newest first."""
        return await mine.prompts(limit, cursor)

    @routes.get("/api/v1/prompts/{prompt_id}")
    async def status(mine: Mine, prompt_id: str) -> Json:
        """Where a prompt stands."""
        return await mine.status(prompt_id)

    @routes.delete("/api/v1/prompts/{prompt_id}")
    async def cancel(mine: Mine, prompt_id: str) -> Json:
        """Stop a prompt. One that runs stops as soon as its node hears of it; one that is over stays as it is."""
        return await mine.stop(prompt_id)

    @routes.delete("/api/v1/prompts/{prompt_id}/texts")
    async def erase(mine: Mine, prompt_id: str) -> Json:
        """Remove the texts of a prompt that is over, also where it has no receipt; what was measured is kept."""
        return await mine.erase_prompt(prompt_id)

    @routes.get("/api/v1/prompts/{prompt_id}/receipt")
    async def receipt_of(prompt_id: str, mine: Mine) -> Response:
        """The newest receipt of a prompt, as soon as there is one."""
        record = await mine.record(prompt_id)
        body = await mine.receipt_body(record.job.receipt_id or prompt_id)
        return Response(body, media_type="application/json")

    async def place(
        mine: Mine, prompt_id: str, last_event_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None
    ) -> Seen:
        record = await mine.visible(prompt_id)
        seen = seen_until(last_event_id)
        if seen.attempt > record.job.attempt:
            return Seen()
        if seen.over and record.job.state in FINAL_STATES:
            raise HTTPException(204)  # tells a browser's EventSource not to come again
        return Seen(attempt=seen.attempt) if seen.over else seen

    over: dict[int | str, Json] = {204: {"description": "`Last-Event-ID` was the last one: do not come again."}}

    @routes.get("/api/v1/prompts/{prompt_id}/events", response_class=EventSourceResponse, responses=over)
    async def events(prompt_id: str, seen: Annotated[Seen, Depends(place)]) -> AsyncIterator[ServerSentEvent]:
        """Everything that happens to a prompt until its receipt; `Last-Event-ID` resumes without a gap."""
        async for event in watch(prompt_id, seen, service.desk, service.replicas, service.store):
            yield event


def _receipts(routes: APIRouter, service: Service) -> None:
    @routes.get("/api/v1/receipts")
    async def receipts(mine: Mine, since: str | None = None, limit: Limit = 20, cursor: str | None = None) -> Json:
        """Ids of receipts in the order of asking; with `since`, a day or a moment, those finished from then on, in the
        order of finishing."""
        return await mine.receipts(since, limit, cursor)

    @routes.get("/api/v1/receipts/{receipt_id}")
    async def receipt(receipt_id: str, revision: Revision = None) -> Response:
        """A receipt, byte for byte as it was made: its newest revision, or the one named."""
        return Response(await service.receipt_body(receipt_id, revision), media_type="application/json")

    @routes.post("/api/v1/receipts/{receipt_id}/recompute")
    async def recompute(mine: Mine, receipt_id: str) -> Json:
        """Make a receipt again of its evidence. The same method and factors give the same bytes; what differs is a
        further revision, and earlier ones are kept."""
        return await mine.recompute(receipt_id)

    @routes.get("/api/v1/receipts/{receipt_id}/whatif")
    async def whatif(receipt_id: str) -> Json:
        """The same energy and hardware in every zone, and at other hours where they are known: what moving would have
        saved. Making the machine does not move. `whatif` is null where the answer's energy is not known."""
        return {"id": receipt_id, "whatif": await service.whatif(receipt_id)}

    @routes.delete("/api/v1/receipts/{receipt_id}")
    async def erase(mine: Mine, receipt_id: str) -> Json:
        """Remove the texts of prompt and answer; receipt and readings hold none and are kept."""
        return await mine.erase(receipt_id)

    @routes.post("/api/v1/receipts/{receipt_id}/share")
    async def share(mine: Mine, receipt_id: str) -> Json:
        """Let everybody with the receipt's link read prompt and answer too."""
        return await mine.share(receipt_id, shared=True)

    @routes.delete("/api/v1/receipts/{receipt_id}/share")
    async def unshare(mine: Mine, receipt_id: str) -> Json:
        """Let nobody else read prompt and answer any more."""
        return await mine.share(receipt_id, shared=False)

    @routes.get("/api/v1/receipts/{receipt_id}/evidence")
    async def evidence(receipt_id: str) -> Json:
        """All that a receipt was made of, beside it: the trace as the node sent it (base64), those of earlier attempts,
        and the factors. With the same method, anyone makes the same receipt of it."""
        return await service.evidence(receipt_id)


def _fleet(routes: APIRouter, service: Service) -> None:
    @routes.get("/api/v1/models")
    async def models() -> Json:
        """The models that can be asked."""
        return {"models": [one | about(one["id"], one["digest"]) for one in await service.models()]}

    @routes.get("/api/v1/preferences")
    async def preferences() -> Json:
        """What blind comparisons of models add up to, pair by pair."""
        return {"preferences": [asdict(one) for one in await service.preferences()]}

    @routes.get("/api/v1/nodes")
    async def nodes() -> Json:
        """The nodes that have joined."""
        return {"nodes": await service.nodes()}

    @routes.get("/api/v1/nodes/{name}/idle")
    async def idle(mine: Mine, name: str) -> Json:
        """What a node does while nobody asks, and what it drew in the last 24 hours between prompts, with a model in
        memory and without. Time that is not told of is unknown."""
        return await mine.idle(name)

    @routes.post("/api/v1/nodes/{name}/baseline")
    async def rebaseline(mine: Mine, name: str, body: BaselineBody) -> Json:
        """Begin a new reference for the node's control prompt, dated now, with the reason."""
        return await mine.rebaseline(name, body.why)

    @routes.get("/api/v1/report/sci", responses=TEXTS)
    async def report(
        start: Annotated[str | None, Query(alias="from", max_length=40)] = None,
        until: Annotated[str | None, Query(alias="to", max_length=40)] = None,
        zone: Annotated[str | None, Query(max_length=40)] = None,
        model: Annotated[str | None, Query(max_length=200)] = None,
        form: Annotated[Literal["json", "markdown", "html"], Query(alias="format")] = "json",
    ) -> Response:
        """The SCI of the service over a period (SCI for AI, Consumer): all electricity of its machines and all of their
        making, per token and per answer. Days are UTC; a day as `to` is part of the period; without both it is the last
        seven days."""
        found = await service.report(start, until, zone, model)
        if form == "json":
            return Response(json.dumps(found, ensure_ascii=False), media_type="application/json")
        text = as_markdown(found) if form == "markdown" else render_report(found, standalone=True)
        headers = {"Content-Security-Policy": POLICY_ALONE, "X-Content-Type-Options": "nosniff"}
        return Response(text, media_type=f"text/{form}; charset=utf-8", headers=headers)

    @routes.post("/api/v1/nodes/{name}/drain")
    async def drain(mine: Mine, name: str, body: DrainBody) -> Json:
        """Have the node finish what it does and take no more prompts."""
        return await mine.drain(name, body.why)

    @routes.delete("/api/v1/nodes/{name}/drain")
    async def resume(mine: Mine, name: str) -> Json:
        """Have the node take prompts again."""
        return await mine.drain(name, None)

    @routes.get("/healthz")
    async def healthz() -> Json:
        """The process answers."""
        return {"status": "ok"}

    @routes.get("/readyz")
    async def readyz() -> Json:
        """The database answers too."""
        await service.store.check()
        return {"status": "ready"}
