"""A prompt waits and is tried: the nouns of the queue, its state machine, and the port that a database adapter fills.

What may be asked, what comes after an attempt and what a node may take is decided by three pure functions (`check`,
`after`, `Reach.takes`); the adapter applies them in one transaction,
so a crash leaves either the state before or the state after. A token fences each attempt: once it is closed,
nothing that comes with its token changes the job.
"""

import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Literal, Protocol

from joulebox.conversation import ToolCall, needs_tools
from joulebox.errors import REGISTRY, JouleboxError
from joulebox.model import AttemptState, Job, JobState, Problem, Prompt, Purpose
from joulebox.protocol import LEASE_WAIT_S, LeaseRequest
from joulebox.server.budget import check_budget
from joulebox.server.control import Baseline, Book, Entry
from joulebox.server.idle import NodeIdle, ServerTime
from joulebox.server.tallies import Tally
from joulebox.wording import size

LOST_MAX: Final = 10
"""So many attempts may be lost: a node or server that restarts is not the prompt's fault, so this is lenient."""
CHARACTERS_PER_TOKEN_MAX: Final = 12
"""No tokenizer packs more; a prompt above this is certainly too long. The engine knows exactly."""
RECENT: Final = 20
"""So many completed jobs tell how long one takes."""
Priority = Literal["interactive", "benchmark", "deferrable"]
RANKS: Final = {"interactive": 0, "benchmark": 1, "deferrable": 2, "control": 9}
"""The priority classes: a lower rank is taken sooner. Within one, askers take turns."""
LONGEST_EVERY: Final = 8
"""Of so many claims of a node one takes what has waited longest, whatever its class and turn: so nothing starves. With
n older prompts in the lines of that node, a prompt is taken after at most `LONGEST_EVERY * (n + 1)` of its claims."""
BEFORE_MAX: Final = 1000
"""So far back the place in the line is counted: what a look costs must not grow with the line."""
FASTEST: Final = "fastest"
ZONE_PREFIX: Final = "zone:"
NODE_PREFIX: Final = "node:"

_ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_ID_LENGTH: Final = 16


def new_id() -> str:
    """An unguessable id (94 bits) without characters that look alike or upset a shell."""
    number, letters = secrets.randbits(160), []
    for _ in range(_ID_LENGTH):
        number, letter = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[letter])
    return "".join(letters)


def new_token() -> str:
    """An unguessable fencing token (192 bits)."""
    return secrets.token_urlsafe(24)


# --- nouns of the queue -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was decided for a prompt, and why. `policy` is what was asked for, `line` the widest that it allows.

    `zone` is where the first free node would have run it: what that saved is told from the grid there, in the time of
    the run, or, where it was `shifted` to another time, at the time it was `asked`.
    """

    policy: str
    line: str
    reason: str
    asked: datetime
    deadline: datetime | None = None
    zone: str | None = None
    shifted: bool = False
    saved_g: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where and from when a planned job waits, and when it is due to be looked at again."""

    line: str
    start: datetime
    due: datetime | None
    plan: Plan
    urgent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRun:
    """What an answered prompt took from lease to release: E with PUE, time and tokens, by the scope of its meters; and
    what it cost its asker (`quota.charged_j`). Newer ones also tell the answer's own energy, its expanded uncertainty
    and grade, and whether the machine was a simulated one."""

    scope: str
    energy_kwh: float
    reserved_s: float
    output_tokens: int
    charged_j: float | None = None
    answer_j: float | None = None
    answer_u: float | None = None
    grade: str | None = None
    simulated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A job with what only the server needs: its place in the order of asking, where it may run, whether to stop it,
    whose texts it holds, whether everybody with the link may read them, whether they are gone. One that is planned is
    looked at again when it is `due`. `traceparent` names the trace that the request was part of (W3C)."""

    job: Job
    number: int
    placement: str
    cancel: bool
    purpose: Purpose = "prompt"
    rank: int = RANKS["interactive"]
    plan: Plan | None = None
    due: datetime | None = None
    owner: str | None = None
    shared: bool = False
    erased: bool = False
    traceparent: str | None = None

    @property
    def policy(self) -> str:
        """What was asked for, in the words of the contract."""
        return self.plan.policy if self.plan is not None else self.placement

    @property
    def priority(self) -> str:
        """The name of its class."""
        return next(name for name, rank in RANKS.items() if rank == self.rank)

    @property
    def waiting(self) -> "Waiting":
        """The job as it stands in the line."""
        job = self.job
        return Waiting(id=job.id, model=job.prompt.model, placement=self.placement, purpose=self.purpose)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One node's try at a job. `reason` says why this node; `owner` is the server that looks after it, where there may
    be several."""

    token: str
    job_id: str
    number: int
    node: str
    instance: str
    state: AttemptState
    reason: str
    leased: datetime
    problem: Problem | None = None
    owner: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What another server did: a job was put into the line (`ready`), deferred (`plan`) or changed otherwise, a node
    came or went. `lost`: for a while nothing could be heard, so that anything may have changed."""

    kind: Literal["ready", "job", "plan", "node", "lost"]
    subject: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A running attempt and who looks after it: `url` is that server's, `None` where it is this one."""

    attempt: Attempt
    record: Record
    url: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A job just given to a node."""

    attempt: Attempt
    record: Record


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended, other than done, and what evidence it left of what it drew."""

    state: Literal[AttemptState.FAILED, AttemptState.LOST, AttemptState.CANCELLED]
    problem: Problem | None = None
    retry: bool = True
    trace: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recheck:
    """Better grid data may still come for a receipt's time, `start` to `until` in `zone`: look when it is `due`."""

    receipt_id: str
    zone: str
    start: datetime
    until: datetime
    due: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReceipt:
    """A receipt as it is kept: the bytes that were made, and the factors they were made with."""

    id: str
    factors: Mapping[str, Any]
    body: bytes
    revision: int = 1
    recheck: Recheck | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptReceipt:
    """The newest revision of a receipt with the evidence it was made of; `attempt` is the one that answered."""

    receipt: StoredReceipt
    job_id: str
    attempt: int
    trace: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedJob:
    """A job that is over, for the report of a period: `body` is its newest receipt, `tries` how often it was tried."""

    number: int
    id: str
    purpose: Purpose
    model: str
    state: str
    tries: int
    body: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A finished answer with its evidence. Without a receipt, `error` says why there is none. `past_run` is what it
    took, with the digest of its model; `plan` that of the job, with what it
    saved; `charged_j` what it costs its asker; `tallies` what it adds to running totals."""

    answer: str
    finish_reason: str
    chunks: tuple[tuple[int, str], ...]
    answer_seq: int | None
    trace: bytes
    receipt: StoredReceipt | None
    error: Problem | None = None
    control: Entry | None = None
    past_run: tuple[str, PastRun] | None = None
    plan: Plan | None = None
    charged_j: float | None = None
    tallies: tuple[Tally, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What is needed to show a completed job's stream again."""

    attempt: int
    chunks: tuple[tuple[int, str], ...]
    answer_seq: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A job in the line."""

    id: str
    model: str
    placement: str
    purpose: Purpose = "prompt"


@dataclass(frozen=True, slots=True)
class Drain:
    """A node is to take no more prompts: since when, and why."""

    at: datetime
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRecord:
    """A node as it last described itself. `elsewhere`: another server has it on the line."""

    offer: LeaseRequest
    seen: datetime
    elsewhere: bool = False
    drain: Drain | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some jobs, newest first; `next_number` begins the next page."""

    records: tuple[Record, ...] = field(default_factory=tuple)
    next_number: int | None = None


# --- the state machine ------------------------------------------------------------------------------------------------


def check(prompt: Prompt, placement: str, offers: Mapping[str, LeaseRequest]) -> None:
    """Refuse what no node can ever answer. `offers` are those of every node that ever joined, by node name.

    Raises `JouleboxError`: `empty_prompt`, `no_node`, `unknown_model`, `model_too_big`, `prompt_too_long`,
    `bad_request`, `not_supported`.
    """
    check_says(prompt)
    if not offers:
        raise JouleboxError("no_node", "No node has joined yet: start one with `joulebox node`.")
    asked = {name: offer for name, offer in offers.items() if placement in lines_of(offer)}
    if not asked and placement.startswith(NODE_PREFIX):
        chosen = placement.removeprefix(NODE_PREFIX)
        raise JouleboxError(
            "bad_request", f"No node is called {chosen}. There is {_listed(offers)}.", nodes=sorted(offers)
        )
    if not asked:
        zones = {offer.zone for offer in offers.values() if offer.zone is not None}
        where = f"There are nodes in {_listed(zones)}." if zones else "No node has said its zone: set JOULEBOX_ZONE."
        sentence = f"No node is in the grid zone {placement.removeprefix(ZONE_PREFIX)}. {where}"
        raise JouleboxError("bad_request", sentence, zones=sorted(zones))
    files = [model for offer in asked.values() for model in offer.models if model.id == prompt.model]
    if not files:
        raise _nobody_has(prompt.model, placement, asked)
    _check_length(prompt, max(model.context_tokens for model in files))
    having = [offer for offer in asked.values() if any(model.id == prompt.model for model in offer.models)]
    if needs_tools(prompt.tools, prompt.messages) and not any(offer.tools for offer in having):
        engines = _listed({offer.engine.name for offer in having})
        sentence = f"No node that has {prompt.model} takes tools (engine: {engines}): leave them out, or ask another."
        raise JouleboxError("not_supported", sentence, field="tools")
    check_budget(prompt, {name: one for name, one in asked.items() if any(m.id == prompt.model for m in one.models)})


def check_says(prompt: Prompt) -> None:
    """Raises `JouleboxError("empty_prompt")` where nothing is asked."""
    if not any(message.content.strip() for message in prompt.messages if message.role != "system"):
        raise JouleboxError("empty_prompt", "The prompt is empty: write something for the model to answer.")


def _nobody_has(model: str, placement: str, asked: Mapping[str, LeaseRequest]) -> JouleboxError:
    """Why none of these nodes can run it: it is too big for those that have it, or none has it."""
    big = {name: file for name, offer in asked.items() for file in offer.unfit if file.id == model}
    if big:
        needs = min(file.memory_bytes or 0 for file in big.values())
        name = max(big, key=lambda one: asked[one].memory_bytes)
        room = size(asked[name].memory_bytes)
        sentence = f"{model} needs {size(needs)} of memory, and {name}, the largest node that has it, has {room}."
        return JouleboxError("model_too_big", f"{sentence} Choose a smaller model, or a smaller context.")
    known = {file.id for offer in asked.values() for file in offer.models}
    where = "No node has"
    if placement.startswith(NODE_PREFIX):
        where = f"Node {placement.removeprefix(NODE_PREFIX)} does not have"
    elif placement.startswith(ZONE_PREFIX):
        where = f"No node in {placement.removeprefix(ZONE_PREFIX)} has"
    choice = f"There is {_listed(known)}." if known else "Add one with `joulebox models add`."
    return JouleboxError("unknown_model", f"{where} the model {model}. {choice}", models=sorted(known))


def _check_length(prompt: Prompt, context_tokens: int) -> None:
    context = f"the model's context of {context_tokens} tokens"
    if prompt.max_tokens > context_tokens:
        raise JouleboxError("bad_request", f"max_tokens {prompt.max_tokens} does not fit {context}: ask for fewer.")
    characters = sum(len(message.content) for message in prompt.messages)
    characters += sum(len(tool.description) + len(tool.parameters) for tool in prompt.tools)
    if characters > context_tokens * CHARACTERS_PER_TOKEN_MAX:
        sentence = f"The prompt has {characters} characters; {context} cannot hold that. Shorten it."
        raise JouleboxError("prompt_too_long", sentence)


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names))


def after(
    ending: Ending, *, cancel: bool, failed: int, lost: int, attempts_max: int, purpose: Purpose = "prompt"
) -> tuple[JobState, Problem | None]:
    """What becomes of a job when its attempt has ended so. `failed` and `lost` count its attempts, this one included.

    The problem is that of the job: `None` unless it is discarded. A control prompt is not tried again: the next one
    comes by itself.
    """
    if ending.state is AttemptState.CANCELLED or cancel:
        return JobState.CANCELLED, None
    problem = ending.problem or Problem(code="internal", detail="The node did not say why.")
    if problem.code not in REGISTRY:
        problem = Problem(code="internal", detail=problem.detail)
    if purpose == "control":
        return JobState.DISCARDED, problem
    if ending.state is AttemptState.LOST:
        if lost <= LOST_MAX:
            return JobState.AVAILABLE, None
        return JobState.DISCARDED, _too_many(lost, "was lost", problem)
    if not ending.retry:
        return JobState.DISCARDED, problem
    if failed < attempts_max:
        return JobState.AVAILABLE, None
    return JobState.DISCARDED, _too_many(failed, "failed", problem)


def lost(what: str) -> Ending:
    """An attempt of which nothing more comes; `what` happened."""
    return Ending(AttemptState.LOST, Problem(code="energy_interrupted", detail=f"{what[0].upper()}{what[1:]}."))


def stale() -> JouleboxError:
    """What comes with the token of an attempt that is over."""
    return JouleboxError("stale_attempt", "This attempt is over: another one may be running. Ask for a new lease.")


def stopping() -> JouleboxError:
    """What comes while the server ends."""
    return JouleboxError("no_server", "The server is stopping: ask again when it is back.")


def _too_many(count: int, what: str, last: Problem) -> Problem:
    times = "once" if count == 1 else f"{count} times"
    return Problem(code="too_many_attempts", detail=f"The prompt {what} {times}. The last time: {last.detail}")


def lines_of(offer: LeaseRequest) -> tuple[str, ...]:
    """The lines that a node serves: of those who do not mind where, of its zone, of itself."""
    zone = (ZONE_PREFIX + offer.zone.strip().upper(),) if offer.zone is not None else ()
    return (FASTEST, *zone, NODE_PREFIX + offer.node)


def lasting_of(offer: LeaseRequest) -> LeaseRequest:
    """An offer without what changes from one request to the next."""
    return replace(offer, temperature_c=None, wait_s=LEASE_WAIT_S, idle=(), suspends=False)


@dataclass(frozen=True, slots=True)
class Reach:
    """What a node may take: any of its models, from the lines that it serves."""

    models: frozenset[str]
    lines: tuple[str, ...]

    def takes(self, waiting: Waiting) -> bool:
        """Whether the node may take this job."""
        return waiting.model in self.models and waiting.placement in self.lines


def reach_of(offer: LeaseRequest) -> Reach:
    """What a node that offers this may take."""
    return Reach(frozenset(model.id for model in offer.models), lines_of(offer))


class Reaches(Mapping[str, Reach]):
    """What each node may take, by its name. Who may take a job is found once for all jobs of its kind."""

    def __init__(self, reach: Mapping[str, Reach] | None = None) -> None:
        self._reach = dict(reach or {})
        self._able: dict[tuple[str, str], frozenset[str]] = {}

    def __getitem__(self, node: str) -> Reach:
        return self._reach[node]

    def __iter__(self) -> Iterator[str]:
        return iter(self._reach)

    def __len__(self) -> int:
        return len(self._reach)

    def put(self, node: str, reach: Reach) -> None:
        """Note what a node may take from now on."""
        if self._reach.get(node) != reach:
            self._reach[node] = reach
            self._able.clear()

    def able(self, waiting: Waiting) -> frozenset[str]:
        """The nodes that may take this job."""
        kind = waiting.model, waiting.placement
        if (known := self._able.get(kind)) is not None:
            return known
        able = frozenset(name for name, one in self._reach.items() if one.takes(waiting))
        if able:  # what nobody can take may be any word that somebody sent
            self._able[kind] = able
        return able


# --- the port ---------------------------------------------------------------------------------------------------------


class Queue(Protocol):
    """What a durable queue does. Every change is one transaction; `None` for an attempt means: the token is stale.

    Every method may raise `JouleboxError("database")`. One contract suite, `tests/test_queue.py`, is for all adapters.
    """

    @property
    def shared(self) -> bool:
        """Whether several servers may use it at once: then each hears what the others do."""

    async def join(self, url: str, heard: Callable[[News], None], now: datetime) -> None:
        """Be one of the servers that share this queue, reached by the others at `url`; `heard` is told what they do."""

    async def enqueue(
        self,
        prompt: Prompt,
        placement: str,
        key: str | None,
        now: datetime,
        purpose: Purpose = "prompt",
        *,
        rank: int = RANKS["interactive"],
        asker: str | None = None,
        place: Place | None = None,
        owner: str | None = None,
    ) -> tuple[Record, bool]:
        """Put a prompt in the line, whose texts are `owner`'s, or defer it where its `place` begins later; with a known
        `key`, the earlier job and `False`."""

    async def by_key(self, key: str) -> Record | None:
        """The job that was asked with this idempotency key."""

    async def claim(self, request: LeaseRequest, why: Callable[[Record], str], now: datetime) -> Claim | None:
        """Give this node the job of its lines whose turn it is, `None` where there is none; among equals one for the
        model that is loaded; of a node's `LONGEST_EVERY` claims one takes what has waited longest. A job goes to one
        claimer only; `why` gives the reason for this node, for the receipt."""

    async def close_attempt(
        self, token: str, ending: Ending, attempts_max: int, now: datetime, *, own: bool = False
    ) -> Record | None:
        """End an attempt that is not done; the job's next state is `after(...)`. `own`: only where this server still
        looks after it."""

    async def earlier(self, job_id: str, number: int) -> Sequence[tuple[int, bytes | None]]:
        """The attempts at a job before `number`, in order, each with the evidence it left."""

    async def complete(self, token: str, delivery: Delivery, now: datetime) -> Record | None:
        """Attempt done, job completed, trace and receipt stored: all of it or nothing."""

    async def cancel(self, job_id: str, now: datetime) -> Record | None:
        """Cancel a waiting job, mark a running one; a final one stays as it is. `None`: there is no such job."""

    async def record(self, job_id: str) -> Record | None:
        """One job."""

    async def attempt(self, token: str) -> Attempt | None:
        """One attempt by its token."""

    async def running(self) -> Sequence[tuple[Attempt, Record]]:
        """Every attempt that runs, with its job."""

    async def take_up(self) -> Sequence[tuple[Attempt, Record]]:
        """Running attempts that no server looks after become this server's; nodes of servers that are gone are on
        nobody's line."""

    async def token_of(self, job_id: str) -> str | None:
        """The token of the attempt at this job that runs, by whatever server."""

    async def working(self) -> Mapping[str, datetime]:
        """The nodes that work for other servers, each since when."""

    async def running_on(self, node: str) -> Sequence[str]:
        """The tokens of what runs on a node, by whatever server: at most one."""

    async def held(self, token: str) -> Held | None:
        """A running attempt and who looks after it; one that no living server does becomes this server's."""

    async def before(self, job_ids: Sequence[str]) -> Mapping[str, Mapping[tuple[str, str], int]]:
        """For each of these waiting jobs, how many prompts of people come before it, by what they wait for (model and
        placement); each counted up to `BEFORE_MAX`."""

    async def crowd(self) -> Mapping[tuple[str, str], int]:
        """How many jobs wait, by model and line, each line counted up to `BEFORE_MAX`."""

    async def durations_s(self, count: int) -> Sequence[tuple[str, float]]:
        """The models of the last `count` completed attempts at people's prompts, newest first, and how long each took,
        from lease to delivery, in seconds."""

    async def replay(self, job_id: str) -> Replay | None:
        """The stored pieces of a completed job's answer."""

    async def receipt(self, receipt_id: str, revision: int | None = None) -> bytes | None:
        """A receipt's bytes, as they were made: of the newest revision, or of the one named."""

    async def save_node(self, node: NodeRecord, *, present: bool = True) -> bool:
        """Remember what a node offers, and whether it is on this server's line. `False`, and nothing is remembered,
        where another process of that name is on the line of another server."""

    async def nodes(self, names: Collection[str] | None = None) -> Sequence[NodeRecord]:
        """Every node that ever joined, or those of these names, by name."""

    async def drain(self, node: str, drain: Drain | None) -> None:
        """Note that a node is to take no more prompts, or that it may again (`None`)."""

    async def control(self, node: str) -> Book:
        """What is kept of a node's control prompt."""

    async def keep_idle(self, stretches: Sequence[NodeIdle], server: ServerTime) -> None:
        """Note what nodes drew between jobs, each stretch once however often it is told, and what this server used."""

    async def rebaseline(self, baseline: Baseline) -> None:
        """Begin a new reference: the node's later control runs make it."""
