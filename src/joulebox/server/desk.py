"""The live side of the queue, in the memory of one server: who waits for work, who works, what they say, who watches.

Nothing here polls. Whoever waits, waits on a future; timers exist only while a lease request is held or a silent node
has its period of grace. What must survive a crash is in the `Queue`; after a restart a running attempt begins in grace.

Where several servers share the queue, each attempt is looked after by one of them, by whom it was leased. What reaches
another server about it is passed on (`Elsewhere`); when its server dies another takes it up, in grace. What the others
do is heard as `News`; only the search for attempts of dead servers has a timer.
"""

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from weakref import WeakValueDictionary

from joulebox.clock import Clock
from joulebox.errors import JouleboxError
from joulebox.model import FINAL_STATES, AttemptState, JobState, Problem, Prompt
from joulebox.protocol import (
    EVENTS_MAX,
    LEASE_WAIT_S,
    Batch,
    BatchReply,
    Finish,
    FinishReply,
    Lease,
    LeaseRequest,
)
from joulebox.server.control_runs import ControlRuns
from joulebox.server.delivery import deliver, ending_of
from joulebox.server.grid.live import Grid
from joulebox.server.idle import IdleBooks
from joulebox.server.jobs import (
    RANKS,
    Attempt,
    Claim,
    Drain,
    Ending,
    News,
    NodeRecord,
    Place,
    Priority,
    Queue,
    Reaches,
    Record,
    Waiting,
    check,
    lasting_of,
    lost,
    reach_of,
    stale,
    stopping,
)
from joulebox.server.live import PHASES, Bell, Elsewhere, Ended, Hold, Live, Poll, check_request, live_of, settling_of
from joulebox.server.node_now import NodeNow, node_now
from joulebox.server.outlook import Free, Outlook, Pace, Scene, outlook, shared, wait_s, why
from joulebox.server.presence import BETWEEN_S, Presence, Visit, check_offer, taken
from joulebox.server.wakes import Wakes
from joulebox.settings import Settings
from joulebox.units import NS_PER_S, nanoseconds, seconds

_log = logging.getLogger(__name__)

LOOK_S: Final = 0.01
"""Of all who watch the line, one looks again each so many seconds, however often it changes."""
LEARNED_FROM: Final = 400
"""So many answered prompts, of whatever model, tell a server that begins how long they take."""
SWEEP_S: Final = 5.0
"""How often servers that share a queue look for what a dead one left."""


class Desk:
    """Where prompts, nodes and watchers meet. One per server process."""

    def __init__(self, queue: Queue, settings: Settings, clock: Clock, grid: Grid, wakes: Wakes) -> None:
        self.line_bell = Bell()
        self.wakes = wakes
        self.closing = False
        self._queue = queue
        self._settings = settings
        self._clock = clock
        self._grid = grid
        self._presence = Presence(clock)
        self._nodes: dict[str, NodeRecord] = {}
        self._doors: dict[str, asyncio.Lock] = {}
        self._polls: dict[str, Poll] = {}
        self._live: dict[str, Live] = {}
        self._bells: WeakValueDictionary[str, Bell] = WeakValueDictionary()
        self._pace = Pace()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._busy: Mapping[str, datetime] | None = None
        self._stale_nodes: set[str] = set()
        self._on_line: dict[str, str] = {}
        self._reach = Reaches()
        self._taking: tuple[int, frozenset[str]] | None = None
        self._joined: dict[str, datetime] = {}
        self._idle_since: dict[str, datetime] = {}
        self.plan_bell = asyncio.Event()
        self.fleet_changed = self.planned = False
        self._idle_books = IdleBooks(queue, clock)
        self.control = ControlRuns(queue, settings, clock)

    async def open(self, url: str = "") -> None:
        """Take up where an earlier server stopped: every running attempt has its period of grace. Others that share the
        queue reach this server at `url`."""
        await self._queue.join(url, self._heard, self._clock.utc())
        await self._take_up()
        self._know(await self._queue.nodes())
        await self.wakes.look()
        self._pace = Pace(reversed(await self._queue.durations_s(LEARNED_FROM)))
        if self._queue.shared:
            self._sweep_later()

    async def close(self) -> None:
        """End every connection that is held open; attempts go on and are taken up by the next server."""
        self.closing = True
        if self._sweep is not None:
            self._sweep.cancel()
        for poll in self._polls.values():
            poll.wake()
        for live in self._live.values():
            live.stop_timers()
            if live.hold is not None:
                live.hold.end()
        for bell in [self.line_bell, *self._bells.values()]:
            bell.ring()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)

    # --- for people ---------------------------------------------------------------------------------------------------

    async def ask(
        self,
        prompt: Prompt,
        placement: str,
        key: str | None,
        priority: Priority = "interactive",
        place: Place | None = None,
        *,
        asker: str | None = None,
        owner: str | None = None,
    ) -> Record:
        """Put a prompt in the line, or where its `place` says; with a known idempotency key, the earlier job.

        Raises what `jobs.check` raises.
        """
        if key is not None and (earlier := await self._queue.by_key(key)) is not None:
            return earlier
        check(prompt, placement, offers := await self.offers())
        for zone in {offers[name].zone for name, reach in self._reach.items() if prompt.model in reach.models}:
            self._grid.expect(zone)
        now, rank = self._clock.utc(), RANKS[priority]
        record, new = await self._queue.enqueue(
            prompt, placement, key, now, rank=rank, asker=asker, owner=owner, place=place
        )
        if new:
            self.placed(record)
        return record

    def placed(self, record: Record) -> None:
        """A job has come into the line, or was deferred."""
        if record.job.state is JobState.AVAILABLE:
            self._waits(record)
        else:
            self._changed(record.job.id)

    async def offers(self) -> dict[str, LeaseRequest]:
        """What every node that ever joined offers."""
        await self._look_at_nodes()
        return {name: node.offer for name, node in self._nodes.items()}

    async def free(self, model: str, line: str) -> list[Free]:
        """The nodes that may take a prompt from that line, connected or asleep, each with when it would begin."""
        await self._look_at_nodes()
        coming = frozenset(name for name in self._nodes if self._comes(name))
        able = self._reach.able(Waiting(id="", model=model, placement=line)) & coming
        shares = shared(self._reach, coming, await self._queue.crowd())
        busy, now = await self._working(), self._clock.utc()
        waits_s = {name: wait_s(name, shares, busy.get(name), self._pace, now) for name in able}
        return [Free(self._nodes[name].offer, self.wakes.delayed_s(name, waits_s[name])) for name in able]

    def served(self, record: Record) -> bool:
        """Whether a node that is connected, or can be woken, takes from the line that a job waits in."""
        return any(self._comes(name) for name in self._reach.able(record.waiting))

    async def cancel(self, job_id: str) -> Record:
        """Cancel a job: at once where it waits, down the hold where it runs; one that is over stays as it is."""
        record = await self._queue.cancel(job_id, self._clock.utc())
        if record is None:
            raise JouleboxError("not_found", f"There is no prompt {job_id}.")
        if record.job.state is JobState.RUNNING and (live := self.live(job_id)) is not None:
            live.cancel = True
            if live.hold is not None:
                live.hold.say("cancel")
        self._changed(job_id)
        return record

    async def outlook(self, record: Record) -> Outlook:
        """Place in the line, expected start, and why."""
        return (await self.outlooks([record]))[0]

    async def outlooks(self, records: Sequence[Record]) -> list[Outlook]:
        """Place in the line, expected start, and why, of each."""
        await self._look_at_nodes()
        before = await self._queue.before([one.job.id for one in records if one.job.state is JobState.AVAILABLE])
        scene = Scene(
            before={},
            reach=self._reach,
            present=self._present(),
            busy=await self._working(),
            pace=self._pace,
            settling={live.attempt.node: said for live in self._live.values() if (said := settling_of(live))},
            draining={name: node.drain.why for name, node in self._nodes.items() if node.drain is not None},
            asleep=self.wakes.asleep,
        )
        now, seen = self._clock.utc(), []
        for record in records:
            live = self.live(record.job.id)
            mine = replace(scene, before=before.get(record.job.id, {}))
            seen.append(outlook(record, live.attempt.reason if live else None, mine, now))
        return seen

    @property
    def rest_s(self) -> float:
        """How long whoever watches the line rests before he looks again: the more who watch, the longer."""
        return LOOK_S * len(self._bells)

    def now(self) -> datetime:
        """Calendar time."""
        return self._clock.utc()

    def live(self, job_id: str) -> Live | None:
        """The attempt at this job that runs now."""
        return next((live for live in self._live.values() if live.attempt.job_id == job_id), None)

    async def elsewhere(self, job_id: str) -> Elsewhere | None:
        """The server that looks after this job's running attempt, where that is another one."""
        if not self._queue.shared:
            return None
        token = await self._queue.token_of(job_id)
        held = await self._queue.held(token) if token is not None else None
        return Elsewhere(held.url, held.attempt) if held is not None and held.url is not None else None

    def bell(self, job_id: str) -> Bell:
        """Rings whenever something happens to this job. Lives as long as somebody keeps it."""
        if (bell := self._bells.get(job_id)) is None:
            bell = self._bells[job_id] = Bell()
        return bell

    async def nodes(self) -> list[tuple[NodeRecord, NodeNow]]:
        """Every node that ever joined, with what it does now."""
        await self._look_at_nodes()
        busy, now = await self._working(), self._clock.utc()
        lives = {live.attempt.node: live for live in self._live.values()}
        seen: list[tuple[NodeRecord, NodeNow]] = []
        for name, node in sorted(self._nodes.items()):
            record = replace(node, seen=now) if (here := self._connected(name)) else node
            idle, sleep = self._idle_since.get(name), self.wakes.of(name)
            seen.append((record, node_now(record, here, busy.get(name), lives.get(name), idle, sleep)))
        return seen

    async def drain(self, name: str, why: str | None) -> None:
        """Have a node take no more prompts, because `why`, or again (`None`). Raises `JouleboxError("not_found")`."""
        await self._look_at_nodes()
        if name not in self._nodes:
            raise JouleboxError("not_found", f"There is no node {name}.")
        drain = Drain(self._clock.utc(), why) if why is not None else None
        await self._queue.drain(name, drain)
        self._nodes[name] = replace(self._nodes[name], drain=drain)
        self._taking = None
        self.line_bell.ring()
        if (poll := self._polls.get(name)) is not None:
            poll.wake()
            if drain is not None:
                self._pass_on(poll)

    # --- for nodes ----------------------------------------------------------------------------------------------------

    async def lease(self, request: LeaseRequest, gone: asyncio.Future[Any]) -> Lease | None:
        """One job for this node, or `None` after `wait_s`. `gone` is done when the node has hung up.

        A node that asks for work does none: whatever ran on it is lost and rescued at once.
        Raises `JouleboxError`: `no_server`, `bad_request`, `node_name_taken`, `unknown_zone`.
        """
        if self.closing:
            raise stopping()
        check_request(request)
        visit = self._enter(request.node, request.instance)
        now = self._clock.utc()
        self._joined.setdefault(request.node, now)
        self._idle_since.setdefault(request.node, now)
        poll = Poll(request)
        if (earlier := self._polls.pop(request.node, None)) is not None:
            earlier.superseded = True
            earlier.wake()
        self._polls[request.node] = poll
        try:
            async with self._doors.setdefault(request.node, asyncio.Lock()):
                await self._join(request)
                claim = await self._next_claim(poll, gone)
                if claim is None and request.suspends and not gone.done():
                    await self._let_sleep(poll)
                return await self._hand_out(claim, poll, gone) if claim is not None else None
        finally:
            if self._polls.get(request.node) is poll:
                del self._polls[request.node]
            if poll.woken.done():  # since its last look, for a job that it did not take
                self._pass_on(poll)
            self._leave(visit, cut=gone.done())

    async def find(self, token: str) -> Live | Elsewhere:
        """A running attempt, or where it is looked after; one of a dead server is taken up here, in grace.

        Raises `JouleboxError("stale_attempt")`.
        """
        if (live := self._live.get(token)) is not None:
            return live
        held = await self._queue.held(token) if self._queue.shared else None
        if held is None:
            raise stale()
        if held.url is not None:
            return Elsewhere(held.url, held.attempt)
        return self._live.get(token) or self._take(held.attempt, held.record)

    def open_hold(self, live: Live) -> Hold:
        """The connection of a running attempt. Raises `JouleboxError`: `stale_attempt`, `node_name_taken`."""
        if live.over:
            raise stale()
        hold = Hold(live, self._enter(live.attempt.node, live.attempt.instance))
        if live.hold is not None:
            live.hold.end()
        live.hold = hold
        live.stop_grace()
        hold.greet()
        if self.closing:
            hold.end()  # a node that comes back while the server leaves must not keep it
        return hold

    def let_go(self, hold: Hold, *, cut: bool) -> None:
        """The connection has ended. A node that has not finished now has its period of grace."""
        live = hold.live
        if live.hold is hold:
            live.hold = None
            self._start_grace(live)
        self._leave(hold.visit, cut=cut)

    def events(self, live: Live, batch: Batch) -> BatchReply:
        """Note what a node says. What is known is skipped; before a gap nothing is kept, and the reply says from where.

        Raises `JouleboxError`: `stale_attempt`, `bad_request`.
        """
        if live.over:
            raise stale()
        for event in batch.events:
            if event.seq > len(live.log):
                break
            if event.seq < len(live.log):
                continue
            if event.seq >= EVENTS_MAX:
                raise JouleboxError("bad_request", f"An attempt may send at most {EVENTS_MAX} events.")
            if event.kind == "token" and not isinstance(event.data.get("text"), str):
                raise JouleboxError("bad_request", f"Event {event.seq} is a token without text.")
            live.note(event)
            if (phase := PHASES.get(event.kind, live.phase)) != live.phase:
                live.phase, live.since = phase, self._clock.utc()
        self.ring(live.attempt.job_id)
        return BatchReply(next_seq=len(live.log), cancel=live.cancel)

    async def finish(self, token: str, finish: Finish) -> FinishReply:
        """Take a delivery, a failure or a cancellation. The same again is answered the same.

        Raises `JouleboxError`: `stale_attempt`, `bad_evidence` (the attempt has then failed and may be tried again).
        """
        live = self._live.get(token) or await self._unseen(token)
        if live is None:
            return await self._finished_before(token, finish)
        live.finishing += 1
        live.stop_grace()
        try:
            if finish.outcome == "done":
                record = await self._take_delivery(live, finish)
            else:
                record = await self._close(live, await ending_of(live.attempt, finish, self.now()))
        finally:
            live.finishing -= 1
            if live.hold is None and token in self._live:
                self._start_grace(live)
        if record is None:
            return await self._finished_before(token, finish)
        return FinishReply(receipt_id=record.job.receipt_id)

    # --- inside -------------------------------------------------------------------------------------------------------

    async def _join(self, request: LeaseRequest) -> None:
        await self._look_at_nodes()
        known = self._nodes.get(request.node)
        changed = known is None or lasting_of(known.offer) != lasting_of(request)
        if changed:
            check_offer(request)
        joined = NodeRecord(offer=request, seen=self._clock.utc(), drain=known.drain if known else None)
        came = self._queue.shared and self._on_line.get(request.node) != request.instance
        if (changed or came) and not await self._queue.save_node(joined):
            raise JouleboxError("node_name_taken", taken(request.node), retry_s=BETWEEN_S)
        self._on_line[request.node] = request.instance
        self._reach.put(request.node, reach_of(request))
        if await self.wakes.spoke(request.node) or changed or not self._here(request.node):
            self.replan()
        self._nodes[request.node] = joined
        await self._idle_books.keep(request)
        anew = lost(f"node {request.node} began anew")
        for live in [live for live in self._live.values() if live.attempt.node == request.node]:
            await self._close(live, anew)
        if came:
            self.control.forget(request.node)
            for token in await self._queue.running_on(request.node):
                await self._queue.close_attempt(token, anew, self._settings.attempts_max, self._clock.utc())

    async def _let_sleep(self, poll: Poll) -> None:
        """Leave to suspend; a server that stops gives none, since it could not wake the node."""
        if self.closing or poll.superseded:
            raise stopping()
        await self.wakes.slept(poll.request)
        self.replan()
        self.line_bell.ring()

    async def _next_claim(self, poll: Poll, gone: asyncio.Future[Any]) -> Claim | None:
        end_ns = self._clock.now_ns() + nanoseconds(min(poll.request.wait_s, LEASE_WAIT_S))
        while not (poll.superseded or gone.done() or self.closing):
            poll.rest()
            claim = await self._claim(poll.request)
            if claim is not None:
                return claim
            left_s = seconds(end_ns - self._clock.now_ns())
            if left_s <= 0:
                break
            await asyncio.wait({poll.woken, gone}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if not poll.woken.done():
                break
        nobody = poll.woken.done() or gone.done()
        return await self._control_claim(poll.request) if not nobody else None

    async def _claim(self, request: LeaseRequest) -> Claim | None:
        await self._look_at_nodes()
        if self._drained(request.node):
            return None
        return await self._queue.claim(request, self._why, self._clock.utc())

    async def _hand_out(self, claim: Claim, poll: Poll, gone: asyncio.Future[Any]) -> Lease | None:
        record = claim.record
        live = live_of(claim.attempt, record)
        self._live[claim.attempt.token] = live
        if gone.done() or poll.superseded:
            await self._close(live, lost(f"node {claim.attempt.node} left before it took the prompt"))
            return None
        self._start_grace(live)
        self._limit(live, self._settings.attempt_max_s)
        self._changed(claim.attempt.job_id)
        self._grid.expect(poll.request.zone)
        job = claim.record.job
        return Lease(
            token=claim.attempt.token,
            job_id=job.id,
            attempt=claim.attempt.number,
            prompt=job.prompt,
            queued_s=(claim.attempt.leased - job.available).total_seconds(),
            placement_reason=claim.attempt.reason,
            purpose=record.purpose,
            control=await self.control.stands(poll.request),
        )

    async def _control_claim(self, request: LeaseRequest) -> Claim | None:
        """The control prompt for a node that nobody has asked for a while, where it is due."""
        name = request.node
        if self.closing or self._drained(name):
            return None
        due = await self.control.asked(request, self._joined[name], self._idle_since[name])
        return await self._queue.claim(request, self._why, self._clock.utc()) if due else None

    async def _give_way(self, job_id: str) -> None:
        """People first: a control prompt under way is stopped for them, and comes again when the node is idle."""
        try:
            await self.cancel(job_id)
        except JouleboxError:
            _log.exception("the control prompt %s goes on", job_id)

    def _why(self, record: Record) -> str:
        return why(record, self._reach.able(record.waiting), self._present())

    async def _take_delivery(self, live: Live, finish: Finish) -> Record | None:
        try:
            attempt = live.attempt
            earlier = await self._queue.earlier(attempt.job_id, attempt.number) if attempt.number > 1 else ()
            delivery = await deliver(attempt, live.wanted, finish, live.log, self._grid, earlier)
            if live.purpose == "control":
                delivery = await self.control.entered(attempt, delivery)
        except JouleboxError as error:
            if error.code != "database":  # the node delivers again
                problem = Problem(code=error.code, detail=error.detail)
                await self._close(live, Ending(AttemptState.FAILED, problem))
            raise
        now = self._clock.utc()
        record = await self._queue.complete(live.attempt.token, delivery, now)
        if record is not None:
            if live.purpose == "control":
                self.control.forget(live.attempt.node)
            else:
                self._pace.add(record.job.prompt.model, (now - live.attempt.leased).total_seconds())
            if delivery.receipt is not None and delivery.receipt.recheck is not None:
                self._grid.bell.set()
            self._over(live, record, delivery.receipt.body if delivery.receipt is not None else None)
        return record

    async def _finished_before(self, token: str, finish: Finish) -> FinishReply:
        attempt = await self._queue.attempt(token)
        if attempt is None or attempt.state != finish.outcome:
            raise stale()
        record = await self._queue.record(attempt.job_id)
        return FinishReply(receipt_id=record.job.receipt_id if record and finish.outcome == "done" else None)

    async def _close(self, live: Live, ending: Ending, *, own: bool = False) -> Record | None:
        token, attempts_max = live.attempt.token, self._settings.attempts_max
        record = await self._queue.close_attempt(token, ending, attempts_max, self._clock.utc(), own=own)
        if record is not None:
            self._over(live, record)
        return record

    def _over(self, live: Live, record: Record, receipt: bytes | None = None) -> None:
        live.over = True
        live.ended = Ended(record, receipt) if record.job.state in FINAL_STATES else None
        self._idle_since[live.attempt.node] = self._clock.utc()
        live.stop_timers()
        self._live.pop(live.attempt.token, None)
        if live.hold is not None:
            live.hold.say("bye")
        if record.job.state is JobState.AVAILABLE:
            self._waits(record)
        else:
            self._changed(record.job.id)

    # --- several servers ----------------------------------------------------------------------------------------------

    def _heard(self, news: News) -> None:
        """Another server did something: whoever waits for that looks again."""
        if news.kind in ("node", "lost"):
            self._stale_nodes.add(news.subject)
            self._on_line.pop(news.subject, None)
            self.control.forget(news.subject)
            self.replan()
        if news.kind == "plan":
            self.plan_bell.set()
        self._busy = None
        if news.kind == "node" and (poll := self._polls.get(news.subject)) is not None:
            poll.wake()
        if news.kind == "lost":
            self._on_line.clear()
            self.control.forget()
            for poll in self._polls.values():
                poll.wake()
            for bell in list(self._bells.values()):
                bell.ring()
            self._spawn(self._check_own())
        if news.kind == "ready":
            self._spawn(self._ready(news.subject))
        if news.kind == "job":
            self.ring(news.subject)
            if (live := self.live(news.subject)) is not None:
                self._spawn(self._check(live))
        self.line_bell.ring()

    def replan(self) -> None:
        """What plans depend on has changed; nobody is woken where nothing is planned."""
        self._taking = None
        self.fleet_changed = True
        if self.planned:
            self.plan_bell.set()

    async def _ready(self, job_id: str) -> None:
        """A job came into the line through another server: one node that waits here is woken for it."""
        record = await self._queue.record(job_id)
        if record is not None and record.job.state is JobState.AVAILABLE:
            self._waits(record)

    async def _check_own(self) -> None:
        for live in list(self._live.values()):
            await self._check(live)

    async def _check(self, live: Live) -> None:
        """What another server did to an attempt that this one looks after: it ended, was cancelled, or is another's."""
        held = await self._queue.held(live.attempt.token)
        if held is not None and held.url is None:
            if held.record.cancel and not live.cancel:
                live.cancel = True
                if live.hold is not None:
                    live.hold.say("cancel")
            return
        self._given_up(live, None)
        if live.hold is not None:
            live.hold.say("bye" if held is None else "move")
        self.ring(live.attempt.job_id)

    def _take(self, attempt: Attempt, record: Record) -> Live:
        live = live_of(attempt, record)
        self._live[attempt.token] = live
        self._start_grace(live)
        ran_s = (self._clock.utc() - attempt.leased).total_seconds()
        self._limit(live, max(0.0, self._settings.attempt_max_s - ran_s))
        return live

    async def _take_up(self) -> None:
        self._busy = None
        for attempt, record in await self._queue.take_up():
            if attempt.token not in self._live:
                self._take(attempt, record)

    def _sweep_later(self) -> None:
        self._sweep = asyncio.get_running_loop().call_later(SWEEP_S, lambda: self._spawn(self._swept()))

    async def _swept(self) -> None:
        try:
            await self._take_up()
        except JouleboxError as error:
            _log.warning("%s", error.detail)
        finally:
            if not self.closing:
                self._sweep_later()

    async def _unseen(self, token: str) -> Live | None:
        """A running attempt that another server looks after, to take its delivery here: the database lets one in."""
        held = await self._queue.held(token) if self._queue.shared else None
        if held is None:
            return None
        if held.url is None:
            return self._live.get(token) or self._take(held.attempt, held.record)
        return live_of(held.attempt, held.record)

    def _connected(self, name: str) -> bool:
        return (self._presence.here(name) or self._nodes[name].elsewhere) and self.wakes.of(name) is None

    def _comes(self, name: str) -> bool:
        """Whether this node takes prompts, now or once it is woken."""
        return self._here(name) or (self.wakes.may_come(name) and not self._drained(name))

    def _here(self, name: str) -> bool:
        """Whether this node is connected and takes prompts."""
        return self._connected(name) and self._nodes[name].drain is None

    def _present(self) -> frozenset[str]:
        """The nodes that are connected and take prompts: looked at anew when one comes or goes, and each second."""
        now_ns = self._clock.now_ns()
        if self._taking is None or not 0 <= now_ns - self._taking[0] < NS_PER_S:
            self._taking = now_ns, frozenset(name for name in self._nodes if self._here(name))
        return self._taking[1]

    async def _look_at_nodes(self) -> None:
        if self._stale_nodes:
            names, self._stale_nodes = self._stale_nodes, set()
            try:
                await self.wakes.look()
                self._know(await self._queue.nodes(None if "" in names else names))
            except BaseException:  # also where whoever asked has gone: the next one looks
                self._stale_nodes |= names
                raise

    def _know(self, nodes: Sequence[NodeRecord]) -> None:
        for node in nodes:  # one that is on the line here is known better
            name = node.offer.node
            mine = self._nodes.get(name) if self._presence.here(name) else None
            self._nodes[name] = replace(mine, drain=node.drain) if mine is not None else node
            self._reach.put(name, reach_of(self._nodes[name].offer))
        self._taking = None

    async def _working(self) -> Mapping[str, datetime]:
        """The nodes that work, each since when."""
        if self._busy is None:
            self._busy = await self._queue.working() if self._queue.shared else {}
        return {**self._busy, **{one.attempt.node: one.attempt.leased for one in self._live.values()}}

    # --- grace --------------------------------------------------------------------------------------------------------

    def _start_grace(self, live: Live) -> None:
        live.stop_grace()
        if live.over or live.finishing or self.closing:
            return
        loop = asyncio.get_running_loop()
        live.grace = loop.call_later(self._settings.grace_s, lambda: self._spawn(self._rescue(live)))

    async def _rescue(self, live: Live) -> None:
        if live.over or live.finishing or live.hold is not None:
            return
        try:
            record = await self._close(live, lost(f"node {live.attempt.node} went silent"), own=True)
            self._given_up(live, record)
        except Exception:  # noqa: BLE001 - an attempt without a timer would stay silent for ever
            _log.exception("the attempt is not rescued yet", extra=live.about)
            self._start_grace(live)

    def _given_up(self, live: Live, record: Record | None) -> None:
        if record is None:  # another server has taken it up, or its end
            live.over = True
            live.stop_timers()
            self._live.pop(live.attempt.token, None)

    def _limit(self, live: Live, left_s: float) -> None:
        """The backstop: a node that answers every probe and never ends is stopped all the same."""
        live.limit = asyncio.get_running_loop().call_later(left_s, lambda: self._spawn(self._cut_short(live)))

    async def _cut_short(self, live: Live) -> None:
        if live.over or self.closing:
            return
        most_s = self._settings.attempt_max_s
        sentence = f"Node {live.attempt.node} was not done after {most_s:g} s (attempt_max_s): ask for less."
        try:
            if live.hold is not None:
                live.hold.say("cancel")
            ending = Ending(AttemptState.FAILED, Problem(code="attempt_too_long", detail=sentence), retry=False)
            self._given_up(live, await self._close(live, ending, own=True))
        except Exception:  # noqa: BLE001 - it is the last resort
            _log.exception("the attempt is not stopped yet", extra=live.about)
            self._limit(live, self._settings.grace_s)

    # --- who is told --------------------------------------------------------------------------------------------------

    def _waits(self, record: Record) -> None:
        """A job has come into the line: one waiting node is woken, no more."""
        waiting = record.waiting
        self._changed(record.job.id)
        if record.due is not None:
            self.plan_bell.set()
        for name, poll in self._polls.items():
            if not poll.woken.done() and poll.reach.takes(waiting) and not self._drained(name):
                poll.wake()
                return
        for live in self._live.values():
            able = live.attempt.node in self._reach.able(waiting) and not self._drained(live.attempt.node)
            if able and live.purpose != "prompt" and not live.cancel:
                live.cancel = True
                self._spawn(self._give_way(live.attempt.job_id))
                return

    def _pass_on(self, gave_up: Poll) -> None:
        """A woken node left without a job: what it was woken for may be another's."""
        for name, poll in self._polls.items():
            able = poll is not gave_up and poll.reach.models & gave_up.reach.models
            if able and not poll.woken.done() and not self._drained(name):
                poll.wake()
                return

    def _drained(self, name: str) -> bool:
        return (node := self._nodes.get(name)) is not None and node.drain is not None

    def _changed(self, job_id: str) -> None:
        self.ring(job_id)
        self.line_bell.ring()

    def ring(self, job_id: str) -> None:
        """Wake whoever watches this job."""
        if (bell := self._bells.get(job_id)) is not None:
            bell.ring()

    def _enter(self, node: str, instance: str) -> Visit:
        was_here = self._presence.here(node)
        visit = self._presence.enter(node, instance)
        if not was_here:
            self._taking = None
            self.line_bell.ring()
        return visit

    def _leave(self, visit: Visit, *, cut: bool) -> None:
        self._presence.leave(visit, cut=cut)
        if cut and not self._presence.here(visit.node):
            self._taking = None
            self.line_bell.ring()
            self._departs(visit.node)
        elif self._queue.shared and not self.closing:
            loop = asyncio.get_running_loop()
            loop.call_later(BETWEEN_S + 1, lambda: self._departs(visit.node))

    def _departs(self, name: str) -> None:
        if self.closing or self._presence.here(name):
            return
        self._on_line.pop(name, None)
        self.replan()
        if (node := self._nodes.get(name)) is not None and not node.elsewhere:
            self._nodes[name] = replace(node, seen=self._clock.utc())
            self._spawn(self._note_departure(name))

    async def _note_departure(self, node: str) -> None:
        try:
            await self._queue.save_node(self._nodes[node], present=False)
        except JouleboxError as error:
            _log.warning("the departure of node %s is not stored: %s", node, error.detail)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
