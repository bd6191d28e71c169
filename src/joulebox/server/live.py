"""A running attempt as the server that looks after it sees it: what was said, who holds it, who waits for more."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from joulebox.errors import JouleboxError
from joulebox.logs import about
from joulebox.model import Phase, Purpose
from joulebox.protocol import VERSION, EventKind, LeaseRequest, NodeEvent
from joulebox.server.budget import Spent, Watch
from joulebox.server.delivery import Wanted
from joulebox.server.jobs import Attempt, Record, reach_of
from joulebox.server.outlook import settling
from joulebox.server.presence import Visit
from joulebox.server.problems import refuse_version
from joulebox.server.tool_bodies import read_calls
from joulebox.units import S_PER_HOUR

NODE_NAME_MAX: Final = 64
SAID_MAX_BYTES: Final = 64 * 1024 * 1024
"""More than this a node may not say in one attempt: all of it stays in memory until the end."""
Word = Literal["hello", "cancel", "enough", "bye", "move"]
PHASES: Final[dict[EventKind, Phase]] = {
    "settling": "settling",
    "loading": "loading",
    "started": "answering",
    "token": "answering",
    "measuring": "measuring",
    "answer": "measuring",
}


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Another server looks after this attempt."""

    url: str
    attempt: Attempt


class Bell:
    """Many wait for the next ring; nobody polls. Take `next()` before looking, so that no ring is missed."""

    __slots__ = ("__weakref__", "_next")

    def __init__(self) -> None:
        self._next: asyncio.Future[None] | None = None

    def next(self) -> asyncio.Future[None]:
        """A future that is done at the next ring."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        return self._next

    def ring(self) -> None:
        """Wake everybody who waits."""
        if self._next is not None and not self._next.done():
            self._next.set_result(None)
        self._next = None


@dataclass(frozen=True, slots=True)
class Ended:
    """What was kept where an attempt ended its job: whoever watches need not look it up."""

    record: Record
    receipt: bytes | None = None


@dataclass(slots=True, eq=False)
class Live:
    """A running attempt: everything it has said, in order of `seq`, and the connection that holds it."""

    attempt: Attempt
    wanted: Wanted
    cancel: bool
    purpose: Purpose = "prompt"
    log: list[NodeEvent] = field(default_factory=list)
    phase: Phase | None = None
    since: datetime | None = None
    hold: "Hold | None" = None
    grace: asyncio.TimerHandle | None = None
    limit: asyncio.TimerHandle | None = None
    watch: Watch | None = None
    """Of an energy budget, until it is spent or the answer has ended."""
    spends: asyncio.TimerHandle | None = None
    spent: Spent | None = None
    said_bytes: int = 0
    finishing: int = 0
    over: bool = False
    ended: Ended | None = None

    @property
    def about(self) -> dict[str, Any]:
        """What a log line is about that is about this attempt."""
        return about(job=self.attempt.job_id, attempt=self.attempt.number, node=self.attempt.node)

    def note(self, event: NodeEvent) -> None:
        """What the node says next. Where an energy budget is, or will be, spent by that, the node is told in time.
        Raises `JouleboxError("bad_request")` for calls that cannot be."""
        if event.kind == "answer":
            read_calls(event.data.get("tool_calls"))
        self.log.append(event)
        if event.kind == "answer":
            self.watch = None
            self._stop_spending()
        due = self.watch.due(event.data) if self.watch is not None and event.kind == "power" else None
        if due is None:
            return
        self._stop_spending()
        if due.wait_s <= 0:
            self._enough(due.spent)
        elif due.wait_s < S_PER_HOUR:
            self.spends = asyncio.get_running_loop().call_later(due.wait_s, self._enough, due.spent)

    def _enough(self, spent: Spent) -> None:
        self.watch, self.spent = None, spent
        if self.hold is not None:
            self.hold.tell_spent(spent)

    def _stop_spending(self) -> None:
        if self.spends is not None:
            self.spends.cancel()

    def stop_grace(self) -> None:
        """The node has spoken."""
        if self.grace is not None:
            self.grace.cancel()
            self.grace = None

    def stop_timers(self) -> None:
        """Nothing is waited for any more."""
        self.stop_grace()
        self._stop_spending()
        if self.limit is not None:
            self.limit.cancel()


def live_of(attempt: Attempt, record: Record) -> Live:
    """An attempt that begins here, or is taken up."""
    wanted = Wanted(record.policy, record.plan, record.job.prompt.model)
    max_energy_j = record.job.prompt.max_energy_j
    watch = Watch(max_energy_j) if max_energy_j is not None else None
    return Live(attempt=attempt, wanted=wanted, cancel=record.cancel, purpose=record.purpose, watch=watch)


def settling_of(live: Live) -> str | None:
    """How the node of this attempt settles, while it does."""
    if live.phase != "settling":
        return None
    return settling(live.attempt.node, next(event.data for event in reversed(live.log) if event.kind == "settling"))


class Hold:
    """The connection a node holds open while it works: what the server says down it."""

    def __init__(self, live: Live, visit: Visit) -> None:
        self.live = live
        self.visit = visit
        self._words: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def greet(self) -> None:
        """The first words: what a node that comes back may have missed too."""
        self.say("hello")
        if self.live.cancel:
            self.say("cancel")
        if self.live.spent is not None:
            self.tell_spent(self.live.spent)

    def tell_spent(self, spent: Spent) -> None:
        """The energy budget is spent: the answer so far is to be kept."""
        self.say("enough", judged_j=round(spent.j, 3), judged_s=round(spent.t_s, 3))

    def say(self, word: Word, **told: float) -> None:
        """Send a word; `bye` is the last. `move` is not said: the connection ends, and the node opens another."""
        if word != "move":
            self._words.put_nowait({"say": word, **told})
        if word in ("bye", "move"):
            self.end()

    def end(self) -> None:
        """End the connection after what was said so far."""
        self._words.put_nowait(None)

    async def words(self) -> AsyncIterator[dict[str, Any]]:
        """Everything to say, as it comes."""
        while (word := await self._words.get()) is not None:
            yield word


class Poll:
    """A held lease request."""

    def __init__(self, request: LeaseRequest) -> None:
        self.request = request
        self.reach = reach_of(request)
        self.superseded = False
        self.woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(self) -> None:
        """There may be work for it."""
        if not self.woken.done():
            self.woken.set_result(None)

    def rest(self) -> None:
        """It has looked, and waits for the next ring."""
        if self.woken.done():
            self.woken = asyncio.get_running_loop().create_future()


def check_request(request: LeaseRequest) -> None:
    """Refuse what another version says, and a name that cannot be one.

    Raises `JouleboxError`: `protocol_version`, `bad_request`.
    """
    if request.version != VERSION:
        refuse_version(request.version)
    for name in (request.node, request.instance):
        if not 1 <= len(name) <= NODE_NAME_MAX or not name.isprintable():
            raise JouleboxError("bad_request", f"A node's name has 1 to {NODE_NAME_MAX} printable characters.")
