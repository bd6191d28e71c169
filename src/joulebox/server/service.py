"""What people can ask of the server, as plain data: the API sends it as JSON, the pages show it."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from joulebox.accounting.whatif import what_if, window
from joulebox.errors import JouleboxError
from joulebox.model import FINAL_STATES, Intensity, JobState, Message, Mode, Phase, Prompt, Role
from joulebox.server import control
from joulebox.server.desk import Desk
from joulebox.server.events import outlook_fields
from joulebox.server.grid import check_zone
from joulebox.server.grid.live import Grid
from joulebox.server.jobs import FASTEST, NODE_PREFIX, ZONE_PREFIX, NodeRecord, Priority, Record
from joulebox.server.outlook import Outlook
from joulebox.server.placement import GREENEST, Wish
from joulebox.server.planner import Planner
from joulebox.server.problems import bad_request
from joulebox.server.recompute import recompute
from joulebox.server.replicas import Replicas
from joulebox.server.report import asked, sci_report
from joulebox.server.store import Store
from joulebox.server.whatif_words import sentences

Json = dict[str, Any]
Text = Annotated[str, Field(max_length=1_000_000)]
CURSOR_MAX: Final = 18
"""Longer numbers fit no database."""
LATER: Final = ("max_energy_j",)


class MessageBody(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: Role
    content: Text


class PromptBody(BaseModel):
    """A prompt as people send it: either `prompt` or `messages`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: Annotated[str, Field(max_length=200, description="Id of a model, as `GET /api/v1/models` lists it.")]
    prompt: Annotated[Text | None, Field(description="What to ask; or give `messages`.")] = None
    messages: Annotated[list[MessageBody] | None, Field(max_length=1_000, description="A conversation.")] = None
    system: Annotated[Text | None, Field(description="How the model is to behave.")] = None
    max_tokens: Annotated[int, Field(ge=1, description="The answer ends here at the latest.")] = 256
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 0.0
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    stop: Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=16)] = []
    mode: Annotated[Mode, Field(description="`quiet` sends nothing until the answer is measured.")] = "live"
    placement: Annotated[
        str | None,
        Field(
            max_length=100, description="`fastest`, `greenest`, `zone:DE` or `node:NAME`; with a deadline `greenest`."
        ),
    ] = None
    priority: Annotated[
        Priority | None,
        Field(description="Who goes first: `interactive` where nothing is said, `deferrable` with a deadline."),
    ] = None
    deadline: Annotated[
        str | None,
        Field(
            max_length=40, description="Until then it runs in the greenest hours of the forecast: 2026-11-24T06:00Z."
        ),
    ] = None
    max_energy_j: Annotated[Any, Field(description="Not built yet.")] = None
    idempotency_key: Annotated[str | None, Field(min_length=1, max_length=200)] = None

    def to_prompt(self) -> Prompt:
        """The noun. Raises `JouleboxError`: `bad_request`, `not_supported`."""
        for name in LATER:
            if getattr(self, name) is not None:
                raise JouleboxError("not_supported", f"{name} is not built yet: leave it out.")
        if (self.prompt is None) == (self.messages is None):
            raise JouleboxError("bad_request", "Give either prompt or messages, one of the two.")
        turns = [(turn.role, turn.content) for turn in self.messages or ()]
        if self.prompt is not None:
            turns = [("user", self.prompt)]
        if self.system is not None:
            turns.insert(0, ("system", self.system))
        return Prompt(
            model=self.model,
            messages=tuple(Message(role=role, content=content) for role, content in turns),
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            seed=self.seed,
            stop=tuple(self.stop),
            mode=self.mode,
        )

    def to_wish(self, now: datetime) -> Wish:
        """Where and until when it may run, spelled as nodes are. Raises `JouleboxError`: `bad_request`,
        `unknown_zone`."""
        deadline = _moment(self.deadline, "deadline") if self.deadline is not None else None
        if deadline is not None and deadline <= now:
            raise JouleboxError(
                "bad_request", f"The deadline {self.deadline} is over: it is {now:%Y-%m-%dT%H:%MZ} now."
            )
        if deadline is not None and self.priority not in {None, "deferrable"}:
            raise JouleboxError(
                "bad_request", f"A deadline is for deferrable work: leave out priority {self.priority}."
            )
        if deadline is not None and self.placement == FASTEST:
            raise JouleboxError("bad_request", "placement fastest and a deadline contradict each other: leave one out.")
        policy = self.placement or (FASTEST if deadline is None else GREENEST)
        if policy in {FASTEST, GREENEST}:
            return Wish(policy=policy, deadline=deadline)
        kind, _, name = policy.partition(":")
        if kind not in {"zone", "node"}:
            known = f"{FASTEST}, {GREENEST}, {ZONE_PREFIX}DE or {NODE_PREFIX}NAME"
            raise JouleboxError("bad_request", f"placement {policy} is unknown: use {known}.")
        if kind == "node" and not name:
            raise JouleboxError("bad_request", "placement node: needs the name of a node, like node:desk.")
        line = ZONE_PREFIX + check_zone(name) if kind == "zone" else policy
        return Wish(policy=line, line=line, deadline=deadline)

    def to_priority(self) -> Priority:
        """Its class."""
        return self.priority or ("interactive" if self.deadline is None else "deferrable")


class Service:
    """Everything the public routes and the pages need. Every method may raise `JouleboxError`."""

    def __init__(self, desk: Desk, store: Store, grid: Grid, replicas: Replicas, planner: Planner) -> None:
        self.desk = desk
        self.planner = planner
        self.replicas = replicas
        self.store = store
        self.grid = grid

    async def ask(self, body: PromptBody) -> Json:
        """Take a prompt; the status of its job."""
        prompt, wish = body.to_prompt(), body.to_wish(self.desk.now())
        record = await self.planner.ask(prompt, wish, body.idempotency_key, body.to_priority())
        return await self.describe(record)

    async def submit(self, form: Mapping[str, Any]) -> str:
        """Take a prompt from a form; the id of its job."""
        try:
            body = PromptBody.model_validate(dict(form))
        except ValidationError as error:
            raise bad_request(error) from error
        return str((await self.ask(body))["id"])

    async def record(self, prompt_id: str) -> Record:
        """One job. Raises `JouleboxError("not_found")`."""
        record = await self.store.record(prompt_id)
        if record is None:
            raise JouleboxError("not_found", f"There is no prompt {prompt_id}.")
        return record

    async def status(self, prompt_id: str) -> Json:
        """Where a prompt stands."""
        return await self.describe(await self.record(prompt_id))

    async def prompts(self, limit: int, cursor: str | None) -> Json:
        """Prompts, newest first."""
        page = await self.store.page(limit, _number(cursor) if cursor is not None else None)
        following = str(page.next_number) if page.next_number is not None else None
        outlooks = await self.desk.outlooks(page.records)
        prompts = [await self._described_job(*one) for one in zip(page.records, outlooks, strict=True)]
        return {"prompts": prompts, "next_cursor": following}

    async def cancel(self, prompt_id: str) -> None:
        """Stop a prompt; one that is over stays as it is."""
        await self.desk.cancel(prompt_id)

    async def stop(self, prompt_id: str) -> Json:
        """The same, with the status after it."""
        return await self.describe(await self.desk.cancel(prompt_id))

    async def describe(self, record: Record) -> Json:
        """A job as people get it; all keys are always there."""
        return await self._described_job(record, await self.desk.outlook(record))

    async def _described_job(self, record: Record, outlook: Outlook) -> Json:
        job = record.job
        return {
            "id": job.id,
            "model": job.prompt.model,
            "prompt": _question(job.prompt),
            "state": job.state,
            "priority": record.priority,
            "placement": _placement(record),
            "phase": await self._phase(record),
            **outlook_fields(outlook),
            "node": job.node,
            "attempt": job.attempt,
            "answer": job.answer,
            "finish_reason": job.finish_reason,
            "receipt_id": job.receipt_id,
            "error": {"code": job.error.code, "detail": job.error.detail} if job.error else None,
            "created": job.created.isoformat(timespec="milliseconds"),
            "finalized": job.finalized.isoformat(timespec="milliseconds") if job.finalized else None,
        }

    async def _phase(self, record: Record) -> Phase | None:
        if record.job.state in FINAL_STATES:
            return None
        if record.job.state is not JobState.RUNNING:
            return "queued"
        live = self.desk.live(record.job.id) or await self.replicas.follow(record.job.id)
        return live.phase if live else None

    async def receipt_body(self, receipt_id: str, revision: int | None = None) -> bytes:
        """A receipt, byte for byte as it was made: its newest revision, or the one named."""
        body = await self.store.receipt(receipt_id, revision)
        if body is None and revision is not None and (newest := await self.store.receipt(receipt_id)) is not None:
            last = json.loads(newest)["revision"]
            raise JouleboxError("not_found", f"Receipt {receipt_id} has no revision {revision}: its last is {last}.")
        if body is None:
            raise await self._no_receipt(receipt_id)
        return body

    async def receipts(self, since: str | None, limit: int, cursor: str | None) -> Json:
        """Ids of receipts in the order of asking, from a day or moment on."""
        after = _number(cursor) if cursor is not None else 0
        ids, following = await self.store.receipt_ids(_moment(since) if since else None, limit, after)
        return {"receipts": list(ids), "next_cursor": str(following) if following is not None else None}

    async def recompute(self, receipt_id: str) -> Json:
        """Make a receipt again of its evidence; what differs is a further revision, and earlier ones are kept."""
        if await self.store.receipt(receipt_id) is None:
            raise await self._no_receipt(receipt_id)
        return asdict(await recompute(self.store, self.grid.look_up, receipt_id, self.grid.clock.utc()))

    async def receipt(self, receipt_id: str) -> Json:
        """A receipt as data."""
        receipt: Json = json.loads(await self.receipt_body(receipt_id))
        return receipt

    async def trace(self, receipt_id: str) -> bytes:
        """The evidence behind a receipt, as the node sent it."""
        blob = await self.store.trace(receipt_id)
        if blob is None:
            raise await self._no_receipt(receipt_id)
        return blob

    async def erase(self, receipt_id: str) -> Json:
        """Remove what was asked and answered; receipt and readings hold no text and stay."""
        if not await self.store.erase(receipt_id):
            raise await self._no_receipt(receipt_id)
        return {
            "id": receipt_id,
            "removed": ["prompt", "answer"],
            "kept": ["receipt", "trace"],
            "detail": "The texts of prompt and answer are removed. Receipt and readings hold no text and are kept.",
        }

    async def _no_receipt(self, receipt_id: str) -> JouleboxError:
        record = await self.store.record(receipt_id)
        if record is None:
            return JouleboxError("not_found", f"There is no receipt {receipt_id}.")
        if record.job.state not in FINAL_STATES:
            sentence = f"This is the id of a prompt that is {record.job.state}: wait for its receipt."
            return JouleboxError("not_ready", sentence)
        own = f"its receipt is {record.job.receipt_id}" if record.job.receipt_id else "it has no receipt"
        return JouleboxError("not_found", f"This is the id of a prompt; {own}.", receipt_id=record.job.receipt_id)

    async def whatif(self, receipt_id: str) -> Json | None:
        """What the receipt's answer would have emitted elsewhere and at other hours; `None` where its energy is not
        known. The day ahead of its zone is looked for, for who asks again."""
        receipt = await self.receipt(receipt_id)
        sci, carbon = receipt["sci"]["answer"], receipt["carbon"]
        if sci["E_kwh"] is None:
            return None
        zone, now = carbon["intensity"]["zone"], self.grid.clock.utc()
        self.grid.expect(receipt["zone"], ahead=True)
        grid = Intensity(**(carbon["intensity"] | {"slots": ()}))
        found = what_if((sci["E_kwh"], sci["M_g"], grid), zone, *self.grid.everywhere(*window(now)), now)
        return asdict(found) | {"sentences": list(sentences(found))}

    async def report(self, start: str | None, until: str | None, zone: str | None, model: str | None) -> Json:
        """The SCI of the service over a period. Raises `JouleboxError`: `bad_request`, `unknown_zone`."""
        now = self.grid.clock.utc()
        nodes = [node for node, _ in await self.desk.nodes()]
        return await sci_report(self.store, self.grid, nodes, asked(start, until, zone, model, now), now)

    async def models(self) -> list[Json]:
        """Every model that a node offers, once, with its nodes."""
        merged: dict[tuple[str, str], Json] = {}
        for node, state in await self.desk.nodes():
            for model in node.offer.models:
                entry = merged.setdefault(
                    (model.id, model.digest),
                    {
                        "id": model.id,
                        "digest": model.digest,
                        "quantization": model.quantization,
                        "size_bytes": model.size_bytes,
                        "memory_bytes": model.memory_bytes,
                        "context_tokens": model.context_tokens,
                        "nodes": [],
                        "available": False,
                    },
                )
                entry["nodes"].append(node.offer.node)
                entry["available"] |= state != "away"
        return [merged[key] for key in sorted(merged)]

    async def nodes(self) -> list[Json]:
        """Every node that ever joined, with what it does now."""
        return [await self._described(node, state) for node, state in await self.desk.nodes()]

    async def _described(self, node: NodeRecord, state: Literal["idle", "busy", "away"]) -> Json:
        offer = node.offer
        book = await self.store.control(offer.node) if control.metered(offer) else None
        seen = node.seen.isoformat(timespec="seconds")
        return _node(offer, state, seen) | {"control": control.shown(book) if book else None}

    async def rebaseline(self, name: str, why: str) -> Json:
        """Begin a new reference for a node's control prompt, from now on. Raises `JouleboxError("not_found")`."""
        if name not in [node.offer.node for node, _ in await self.desk.nodes()]:
            raise JouleboxError("not_found", f"There is no node {name}.")
        await self.store.rebaseline(control.Baseline(node=name, at=self.desk.now(), why=why))
        self.desk.forget_control(name)
        return control.shown(await self.store.control(name))


def _number(cursor: str) -> int:
    if not (cursor.isdecimal() and cursor.isascii() and len(cursor) <= CURSOR_MAX):
        raise JouleboxError("bad_request", "The cursor is none that this server gave: leave it out to begin anew.")
    return int(cursor)


def _moment(text: str, what: str = "since") -> datetime:
    """A day or a moment as people write it; without a zone it is UTC."""
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise JouleboxError(
            "bad_request", f"{what} {text!r} is no time: write 2026-11-23 or 2026-11-23T10:00Z."
        ) from error


def _placement(record: Record) -> Json:
    """Where and until when it is to run, what was decided, and what that saved, once it is known."""
    plan = record.plan
    return {
        "policy": record.policy,
        "reason": plan.reason if plan else None,
        "deadline": plan.deadline.isoformat(timespec="seconds") if plan and plan.deadline else None,
        "saved_g": plan.saved_g if plan else None,
    }


def _question(prompt: Prompt) -> str | None:
    """What was asked last; `None` once the texts are removed."""
    return next((turn.content for turn in reversed(prompt.messages) if turn.role == "user"), None)


def _node(offer: Any, state: Literal["idle", "busy", "away"], seen: str) -> Json:
    return {
        "name": offer.node,
        "state": state,
        "zone": offer.zone,
        "memory_bytes": offer.memory_bytes,
        "engine": {"name": offer.engine.name, "version": offer.engine.version},
        "models": [model.id for model in offer.models],
        "loaded": offer.loaded,
        "meters": [
            {
                "name": channel.name,
                "meter": channel.meter,
                "kind": channel.kind,
                "scope": channel.scope,
                "tick_s": channel.tick_s,
                "accuracy": channel.accuracy,
                "simulated": channel.simulated,
            }
            for channel in offer.channels
        ],
        "missing": list(offer.missing),
        "temperature_c": offer.temperature_c,
        "seen": seen,
    }
