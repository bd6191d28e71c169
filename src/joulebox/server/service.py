"""What people can ask of the server, as plain data: the API sends it as JSON, the pages show it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Annotated, Any, Final

from fastapi import Depends, Request
from pydantic import ValidationError

from joulebox.accounting.whatif import what_if, window
from joulebox.conversation import called, with_calls
from joulebox.errors import JouleboxError
from joulebox.model import FINAL_STATES, IdlePolicy, Intensity, Job, JobState, Phase, Prompt
from joulebox.protocol import pack_trace
from joulebox.server import control
from joulebox.server.access import EVERYBODY, Caller, digest, not_yours
from joulebox.server.bodies import AutoBody, PromptBody
from joulebox.server.campaigns import AUTO, advise, chosen
from joulebox.server.comparing import (
    MODELS_MAX,
    MODELS_MIN,
    NONE,
    TIE,
    WORTH,
    Comparison,
    Preference,
    figure_of,
    shuffled,
)
from joulebox.server.desk import Desk
from joulebox.server.events import outlook_fields
from joulebox.server.grid.live import Grid
from joulebox.server.idle import shares
from joulebox.server.jobs import FASTEST, NODE_PREFIX, NodeRecord, Record, new_id
from joulebox.server.node_now import NodeNow
from joulebox.server.operating import Operating
from joulebox.server.outlook import Outlook
from joulebox.server.overview import Overview
from joulebox.server.paging import moment, number
from joulebox.server.planner import Planner
from joulebox.server.problems import bad_request
from joulebox.server.quota import DAY, Quotas
from joulebox.server.recompute import recompute
from joulebox.server.replicas import Replicas
from joulebox.server.report import asked, sci_report
from joulebox.server.store import Store
from joulebox.server.talking import TURNS_MAX, continued, expected
from joulebox.server.tool_bodies import check_answered
from joulebox.server.whatif_words import sentences
from joulebox.statistics.recommending import Advice

Json = dict[str, Any]
NOBODY: Final = "-"
"""Nothing belongs to this owner."""
TAKES: Final = ("idle", "unloaded", "busy", "suspended", "waking")
"""States of a node whose models may be asked now."""


class Service:
    """Everything the public routes and the pages need. Every method may raise `JouleboxError`."""

    def __init__(
        self,
        desk: Desk,
        store: Store,
        grid: Grid,
        replicas: Replicas,
        planner: Planner,
        forget: Callable[[str], None] = lambda _: None,
        caller: Caller = EVERYBODY,
    ) -> None:
        self.desk = desk
        self.planner = planner
        self.caller = caller
        self._forget = forget
        self.replicas = replicas
        self.store = store
        self.grid = grid
        self.quotas = Quotas(store.access, store.past_runs)
        self.overview = Overview(desk, store, grid)
        self.operating = Operating(desk, store, caller, forget)

    def seen_by(self, request: Request) -> "Service":
        """The same for the one who asks now."""
        return Service(
            self.desk, self.store, self.grid, self.replicas, self.planner, self._forget, request.state.caller
        )

    async def ask(self, body: PromptBody) -> Json:
        """Take a prompt; the status of its job."""
        return await self.describe(await self.take(body))

    async def take(self, body: PromptBody) -> Record:
        """Take a prompt; its job. With a known key the earlier one, whatever changed since."""
        caller, key = self.caller, body.idempotency_key
        if key is not None and caller.asker is not None:  # another asker's key may be the same word
            key = digest(f"{caller.asker} {key}")
        if key is not None and (earlier := await self.store.by_key(key)) is not None:
            await self._goes_on(earlier, body.follows)
            return earlier
        prompt, wish = await self._with_model(body), body.to_wish(self.desk.now())
        if body.follows is not None:
            prompt = continued(await self._own(body.follows), prompt)
        check_answered(prompt.messages)
        await self.quotas.check(caller, prompt.model, self.desk.now())
        record = await self.planner.ask(prompt, wish, key, body.to_priority(), asker=caller.asker, owner=caller.owner)
        await self._goes_on(record, body.follows)
        return record

    async def _goes_on(self, record: Record, follows: str | None) -> None:
        """Note that a prompt goes on from another one of its owner."""
        earlier = await self.store.record(follows) if follows is not None else None
        if earlier is not None and self.caller.owns(earlier.owner):
            await self.store.talks.follow(record.job.id, earlier.job.id)

    async def _with_model(self, body: PromptBody) -> Prompt:
        """The prompt, with the model that is the cheapest of those surely good enough where the choice is left to us.

        Raises `JouleboxError`: `no_recommendation`, `bad_request`.
        """
        prompt = body.to_prompt()
        if body.model != AUTO:
            if body.auto is not None:
                raise JouleboxError("bad_request", f"The field auto goes with the model {AUTO}: leave one of them out.")
            return prompt
        wanted = body.auto or AutoBody()
        advice = await self.advice(wanted.category, wanted.min_accuracy, wanted.max_energy_j)
        model, reason = chosen(advice)
        return replace(prompt, model=model, model_reason=reason)

    async def advice(self, category: str, min_accuracy: float, max_energy_j: float | None) -> Advice:
        """Which of the models that can be asked now to take, by what published campaigns found."""
        cells = await self.store.campaigns.cells(category)
        offered = {(model["id"], model["digest"]) for model in await self.models() if model["available"]}
        return advise(cells, offered, category, min_accuracy, max_energy_j)

    async def before(self, prompt_id: str) -> list[Json]:
        """The turns before a prompt that who asks may see, oldest first: texts and receipts."""
        turns: list[Json] = []
        for turn_id in await self.store.talks.before(prompt_id, TURNS_MAX):
            record = await self.store.record(turn_id)
            if record is not None and self.sees(record):
                job = record.job
                receipt = await self.receipt(job.receipt_id) if job.receipt_id else None
                said = {"prompt": None if record.erased else _question(job.prompt), "answer": _read(job)}
                turns.append({"id": job.id, **said, "receipt": receipt})
        return turns

    async def standing(self) -> Json:
        """What who asks now may have, and has used."""
        return await self.quotas.standing(self.caller, self.desk.now())

    async def submit(self, form: Mapping[str, Any]) -> str:
        """Take a prompt from a form; the id of its job."""
        try:
            body = PromptBody.model_validate(dict(form))
        except ValidationError as error:
            raise bad_request(error) from error
        return (await self.take(body)).job.id

    async def compare(self, form: Mapping[str, Any]) -> str:
        """Have several models answer one prompt on one node, in turn, in random order; the comparison's id."""
        node, asked = await self.asked_in_turn(shuffled(dict.fromkeys(form["models"])), form)
        found = Comparison(
            id=new_id(),
            created=self.desk.now(),
            owner=self.caller.owner,
            node=node,
            jobs=tuple(shuffled(asked.values())),
        )
        await self.store.talks.compare(found)
        return found.id

    async def asked_in_turn(self, models: Sequence[str], form: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
        """Have one node answer a prompt with each of these models, in this order; its name, and the ids by model. They
        answer quietly: who writes faster would tell which is which, and the machine is warmed up alike."""
        if not MODELS_MIN <= len(models) <= MODELS_MAX:
            raise JouleboxError("bad_request", f"Choose {MODELS_MIN} to {MODELS_MAX} models to compare.")
        node, asked = await self._node_with(models), dict[str, str]()
        common = {name: value for name, value in form.items() if name != "models"}
        try:
            for model in models:
                asked[model] = await self.submit({**common, "model": model, "placement": node, "mode": "quiet"})
        except JouleboxError:
            for prompt_id in asked.values():
                await self.cancel(prompt_id)
            raise
        await self.store.talks.in_order(list(asked.values()))
        return node.removeprefix(NODE_PREFIX), asked

    async def _node_with(self, models: Sequence[str]) -> str:
        """The line of a connected node that has all of these models, an idle one first."""
        able = [
            (found.state != "idle", node.offer.node)
            for node, found in await self.desk.nodes()
            if found.state in TAKES and set(models) <= {model.id for model in node.offer.models}
        ]
        if not able:
            raise JouleboxError("bad_request", "No connected node has all of these models: choose others.")
        return NODE_PREFIX + min(able)[1]

    async def _compared(self, comparison_id: str) -> Comparison:
        found = await self.store.talks.comparison(comparison_id)
        if found is None:
            raise JouleboxError("not_found", f"There is no comparison {comparison_id}.")
        return found

    async def comparison(self, comparison_id: str) -> Json:
        """Where a comparison stands. Models, figures and receipts are not in it before its owner has voted."""
        found = await self._compared(comparison_id)
        records = [await self.record(job_id) for job_id in found.jobs]
        open_ = [one.job.id for one in records if one.job.state not in FINAL_STATES]
        ready = all(one.job.state is JobState.COMPLETED for one in records)
        seen = all(self.sees(one) and not one.erased for one in records)
        return {
            "id": found.id,
            "own": self.caller.owns(found.owner),
            "prompt": _question(records[0].job.prompt) if seen else None,
            "answered": len(records) - len(open_),
            "waiting": " ".join(open_),
            "ready": ready,
            "failed": not open_ and not ready,
            "choice": found.choice,
            "worth": found.worth,
            "figures": list(found.figures),
            "sides": [
                {"answer": _read(one.job) if seen and ready else None}
                | ({"figure": figure, "receipt_id": one.job.receipt_id} if figure else {})
                for one, figure in zip_longest(records, found.figures)
            ],
        }

    async def choose(self, comparison_id: str, choice: str) -> None:
        """Keep which answer its owner thinks better, with what models and joules it was. A second vote changes nothing.

        Raises `JouleboxError`: `not_found`, `forbidden`, `not_ready`, `bad_request`.
        """
        found = await self._compared(comparison_id)
        if not self.caller.owns(found.owner):
            raise not_yours()
        if choice not in {TIE, NONE, *map(str, range(len(found.jobs)))}:
            raise JouleboxError("bad_request", f"There is no answer {choice[:20]!r} to choose.")
        figures = []
        for record in [await self.record(job_id) for job_id in found.jobs]:
            if record.job.state is not JobState.COMPLETED:
                raise JouleboxError("not_ready", "Not every answer is there: vote when they are.")
            receipt = await self.receipt(record.job.receipt_id) if record.job.receipt_id is not None else None
            figures.append(figure_of(record.job.prompt.model, receipt))
        await self.store.talks.choose(comparison_id, choice, figures, self.desk.now())

    async def judge(self, comparison_id: str, worth: str) -> None:
        """Keep whether its owner thinks the larger energy worth it. Raises what `choose` raises."""
        found = await self._compared(comparison_id)
        if not self.caller.owns(found.owner):
            raise not_yours()
        if worth not in WORTH:
            raise JouleboxError("bad_request", "Say yes, no or unsure.")
        await self.store.talks.judge(comparison_id, worth)

    async def preferences(self) -> Sequence[Preference]:
        """What all votes add up to, pair by pair."""
        return await self.store.talks.preferences()

    async def record(self, prompt_id: str) -> Record:
        """One job. Raises `JouleboxError("not_found")`."""
        record = await self.store.record(prompt_id)
        if record is None:
            raise JouleboxError("not_found", f"There is no prompt {prompt_id}.")
        return record

    async def visible(self, prompt_id: str) -> Record:
        """One job whose texts may be seen by who asks. Raises `JouleboxError`: `not_found`, `forbidden`."""
        record = await self.record(prompt_id)
        if not self.sees(record):
            raise not_yours()
        return record

    async def _own(self, prompt_id: str) -> Record:
        """One job that who asks may go on from: a model repeats all that it is told, also what was never shared.
        Raises `JouleboxError`: `not_found`, `forbidden`."""
        record = await self.record(prompt_id)
        if not self.caller.owns(record.owner):
            raise not_yours()
        return record

    def sees(self, record: Record) -> bool:
        """Whether who asks may read the texts: their owner, an administrator, everybody where they are shared."""
        return record.shared or self.caller.owns(record.owner)

    async def status(self, prompt_id: str) -> Json:
        """Where a prompt stands."""
        return await self.describe(await self.record(prompt_id))

    async def prompts(self, limit: int, cursor: str | None) -> Json:
        """Prompts of who asks, newest first; an administrator sees all."""
        before = number(cursor) if cursor is not None else None
        page = await self.store.page(limit, before, self._mine())
        following = str(page.next_number) if page.next_number is not None else None
        outlooks = await self.desk.outlooks(page.records)
        prompts = [await self._described_job(*one) for one in zip(page.records, outlooks, strict=True)]
        return {"prompts": prompts, "next_cursor": following}

    async def cancel(self, prompt_id: str) -> None:
        """Stop a prompt; one that is over stays as it is."""
        await self._act(await self.record(prompt_id), "cancel")
        await self.desk.cancel(prompt_id)

    async def stop(self, prompt_id: str) -> Json:
        """The same, with the status after it."""
        await self.cancel(prompt_id)
        return await self.status(prompt_id)

    async def describe(self, record: Record) -> Json:
        """A job as people get it; all keys are always there."""
        return await self._described_job(record, await self.desk.outlook(record))

    async def _described_job(self, record: Record, outlook: Outlook) -> Json:
        job, seen = record.job, self.sees(record)
        return {
            "id": job.id,
            "model": job.prompt.model,
            "model_reason": job.prompt.model_reason,
            "prompt": _question(job.prompt) if seen else None,
            "texts": "removed" if record.erased else "shown" if seen else "private",
            "shared": record.shared,
            "own": self.caller.owns(record.owner),
            "state": job.state,
            "priority": record.priority,
            "placement": _placement(record),
            "phase": await self._phase(record),
            **outlook_fields(outlook),
            "node": job.node,
            "attempt": job.attempt,
            "answer": job.answer if seen else None,
            "tool_calls": called(job.tool_calls) if seen else [],
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
        """Ids of receipts in the order of asking, or from a day or moment on in the order of finishing."""
        ids, following = await self.store.receipt_ids(*self._page(since, limit, cursor))
        return {"receipts": list(ids), "next_cursor": str(following) if following is not None else None}

    async def receipt_bodies(
        self, since: str | None, limit: int, cursor: str | None, *, revisions: bool
    ) -> tuple[Sequence[bytes], int | None]:
        """The same receipts byte for byte, newest or all revisions, and the cursor of the next page."""
        return await self.store.seeing.receipts(*self._page(since, limit, cursor), revisions=revisions)

    def _page(self, since: str | None, limit: int, cursor: str | None) -> tuple[datetime | None, int, int, str | None]:
        return moment(since) if since else None, limit, number(cursor) if cursor is not None else 0, self._mine()

    async def recompute(self, receipt_id: str) -> Json:
        """Make a receipt again of its evidence; what differs is a further revision, and earlier ones are kept."""
        if await self.store.receipt(receipt_id) is None:
            raise await self._no_receipt(receipt_id)
        await self.note("recompute", receipt_id)
        return asdict(await recompute(self.store, self.grid.look_up, receipt_id, self.grid.clock.utc()))

    async def receipt(self, receipt_id: str, revision: int | None = None) -> Json:
        """A receipt as data."""
        receipt: Json = json.loads(await self.receipt_body(receipt_id, revision))
        return receipt

    async def trace(self, receipt_id: str) -> bytes:
        """The evidence behind a receipt, as the node sent it."""
        blob = await self.store.trace(receipt_id)
        if blob is None:
            raise await self._no_receipt(receipt_id)
        return blob

    async def evidence(self, receipt_id: str) -> Json:
        """A receipt's newest revision, and all that it was made of."""
        kept = await self.store.kept(receipt_id)
        if kept is None:
            raise await self._no_receipt(receipt_id)
        earlier = await self.store.earlier(kept.job_id, kept.attempt)
        return {
            "receipt": json.loads(kept.receipt.body),
            "factors": kept.receipt.factors,
            "trace": pack_trace(kept.trace),
            "earlier": [{"number": number, "trace": pack_trace(blob) if blob else None} for number, blob in earlier],
        }

    async def erase(self, receipt_id: str) -> Json:
        """Remove what was asked and answered; receipt and readings hold no text and stay."""
        return await self._erase(receipt_id, await self._asked(receipt_id))

    async def erase_prompt(self, prompt_id: str) -> Json:
        """The same of a prompt that is over, whether it has a receipt or not."""
        return await self._erase(prompt_id, await self.record(prompt_id))

    async def _erase(self, named: str, record: Record) -> Json:
        await self._act(record, "erase")
        later = await self.store.talks.after(record.job.id)
        for one in [record, *[await self.record(each) for each in later]]:
            if one.job.state not in FINAL_STATES:
                which = "This prompt" if one is record else f"The prompt {one.job.id}, which goes on from it,"
                raise JouleboxError("not_ready", f"{which} is {one.job.state}: stop it first, or wait for its end.")
        await self.store.erase(record.job.id, self.desk.now(), later)
        return {
            "id": named,
            "removed": ["prompt", "answer"],
            "kept": ["receipt", "trace"],
            "detail": "The texts of prompt and answer are removed. Receipt and readings hold no text and are kept.",
        }

    async def share(self, receipt_id: str, *, shared: bool) -> Json:
        """Let everybody with the link read prompt and answer too, or nobody else any more."""
        record = await self._asked(receipt_id)
        await self._act(record, "share" if shared else "unshare")
        if shared and record.erased:
            raise JouleboxError("not_found", "The texts of this receipt are removed: there is nothing to share.")
        await self.store.share(record.job.id, shared=shared)
        return {"id": receipt_id, "prompt_id": record.job.id, "shared": shared}

    async def texts(self, receipt_id: str) -> Json:
        """Prompt and answer behind a receipt, for those who may read them, and whether they are shared."""
        record = await self._asked(receipt_id)
        seen, prompt = self.sees(record) and not record.erased, record.job.prompt
        system = next((turn.content for turn in prompt.messages if turn.role == "system"), None)
        turns = sum(turn.role == "user" for turn in prompt.messages)
        return {
            "asked": {
                "temperature": prompt.temperature,
                "max_tokens": prompt.max_tokens,
                "turns": turns,
                "by_flags": prompt.top_p is None and prompt.json_schema is None and not prompt.tools,
            },
            "removed": record.erased,
            "system": system if seen else None,
            "prompt": _question(record.job.prompt) if seen else None,
            "answer": _read(record.job) if seen else None,
            "shared": record.shared,
            "own": self.caller.owns(record.owner) and not record.erased,
        }

    async def _asked(self, receipt_id: str) -> Record:
        record = await self.store.asked(receipt_id)
        if record is None:
            raise await self._no_receipt(receipt_id)
        return record

    # --- those who run the server -------------------------------------------------------------------------------------

    async def note(self, act: str, subject: str, detail: str = "") -> None:
        """Write down in the audit log what who asks does."""
        await self.operating.note(act, subject, detail)

    async def _act(self, record: Record, act: str) -> None:
        """Let only its owner do something to a prompt; of an administrator it is written down."""
        if not self.caller.owns(record.owner):
            raise not_yours()
        if record.owner != self.caller.owner:
            await self.note(act, record.job.id)

    def _mine(self) -> str | None:
        """Whose prompts lists show: `None` for everybody's."""
        return None if self.caller.admin else self.caller.owner or NOBODY

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
        for node, found in await self.operating.nodes():
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
                        "tools": False,
                    },
                )
                entry["tools"] |= node.offer.tools
                entry["nodes"].append(node.offer.node)
                entry["available"] |= found.state in TAKES
        return [one | await self._prospect(one["id"], set(one["nodes"])) for _, one in sorted(merged.items())]

    async def _prospect(self, model: str, offering: set[str]) -> Json:
        """What the next answer of a model is expected to take, by its newest on the node that would begin first, and
        in how many seconds that is; `None` where nobody can tell."""
        runs = await self.store.past_runs(model)
        free = [one for one in await self.desk.free(model, FASTEST) if one.offer.node in offering]
        soon = min(free, key=lambda one: (one.wait_s is None, one.wait_s or 0.0), default=None)
        known = {node: told for node, each in runs.items() if node in offering and (told := expected(each))}
        first = known.get(soon.offer.node) if soon is not None else None
        return {
            "expected": first or max(known.values(), key=lambda one: int(one["answers"]), default=None),
            "wait_s": soon.wait_s if soon is not None else None,
            "first_node": soon.offer.node if soon is not None else None,
        }

    async def nodes(self) -> list[Json]:
        """Every node that is there or was not forgotten, with what it does now."""
        return [await self._described(node, found) for node, found in await self.operating.nodes()]

    async def idle(self, name: str) -> Json:
        """What a node does while nobody asks, and what it drew meanwhile, within a day. Raises `not_found`."""
        node = next((one for one in await self.nodes() if one["name"] == name), None)
        if node is None:
            raise JouleboxError("not_found", f"There is no node {name}.")
        now = self.desk.now()
        rows = [row for row in await self.store.node_idle(now - DAY, now, name) if row.start >= now - DAY]
        told = {key: node[key] for key in ("name", "state", "since", "reason", "idle_policy", "wake_s")}
        return told | {"hours": DAY / timedelta(hours=1), "shares": [asdict(share) for share in shares(rows)]}

    async def drain(self, name: str, why: str | None) -> Json:
        """Have a node take no more prompts, or again; what it then does. Raises `JouleboxError("not_found")`."""
        await self.operating.node(name)
        await self.desk.drain(name, why)
        await self.note("drain" if why is not None else "resume", name, why or "")
        return next(node for node in await self.nodes() if node["name"] == name)

    async def _described(self, node: NodeRecord, found: NodeNow) -> Json:
        offer = node.offer
        book = await self.store.control(offer.node) if control.metered(offer) else None
        seen = node.seen.isoformat(timespec="seconds")
        shown = {"control": control.shown(book) if book else None, "wake_s": self.desk.wakes.wake_s(offer.node)}
        return _node(offer, found, seen) | shown

    async def rebaseline(self, name: str, why: str) -> Json:
        """Begin a new reference for a node's control prompt, from now on. Raises `JouleboxError("not_found")`."""
        await self.operating.node(name)
        await self.note("rebaseline", name, why)
        await self.store.rebaseline(control.Baseline(node=name, at=self.desk.now(), why=why))
        self.desk.control.forget(name)
        return control.shown(await self.store.control(name))


async def mine(request: Request) -> Service:  # FastAPI hands what is not async to a thread
    """What the one who asks now may have of the service."""
    service: Service = request.app.state.service
    return service.seen_by(request)


Mine = Annotated[Service, Depends(mine)]


def _placement(record: Record) -> Json:
    """Where and until when it is to run, what was decided, and what that saved, once it is known."""
    plan = record.plan
    return {
        "policy": record.policy,
        "reason": plan.reason if plan else None,
        "deadline": plan.deadline.isoformat(timespec="seconds") if plan and plan.deadline else None,
        "saved_g": plan.saved_g if plan else None,
    }


def _read(job: Job) -> str | None:
    """The answer as people read it, with what it called."""
    return with_calls(job.answer, job.tool_calls) if job.answer is not None else None


def _question(prompt: Prompt) -> str | None:
    """What was asked last; `None` once the texts are removed."""
    return next((turn.content for turn in reversed(prompt.messages) if turn.role == "user"), None)


def _policy(policy: IdlePolicy) -> Json:
    """What people see of an idle policy: not the address of a network card."""
    return {"unload_s": policy.unload_s, "suspend_s": policy.suspend_s, "wake_max_s": policy.wake_max_s}


def _node(offer: Any, found: NodeNow, seen: str) -> Json:
    return {
        "name": offer.node,
        "state": found.state,
        "phase": found.phase,
        "reason": found.reason,
        "since": found.since.isoformat(timespec="seconds") if found.since else None,
        "power": found.power,
        "zone": offer.zone,
        "memory_bytes": offer.memory_bytes,
        "engine": {"name": offer.engine.name, "version": offer.engine.version},
        "models": [model.id for model in offer.models],
        "loaded": offer.loaded,
        "idle_policy": _policy(offer.policy) if offer.policy else None,
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
        "bands": [asdict(band) for band in offer.bands],
        "seen": seen,
    }
