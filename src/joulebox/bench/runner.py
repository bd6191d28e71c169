"""Runs a campaign through the public API, as any user might: one prompt at a time, and everything kept before the next.

Each prompt has an idempotency key of its own, so that a runner which was killed between asking and keeping finds the
answer that was measured meanwhile, and nothing is measured twice. Scoring runs answers' code, so it waits until nothing
is being measured any more.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeVar

from joulebox.bench.marking import mark
from joulebox.bench.plan import Turn, rests, turns
from joulebox.bench.record import Answered, Book, Failed, Key, ModelRef, Scored, Sitting, WarmUp
from joulebox.bench.suite import by_id
from joulebox.bench.task import Answer, Sample, Task
from joulebox.client import AWAY, Client
from joulebox.clock import Clock
from joulebox.errors import JouleboxError
from joulebox.model import FINAL_STATES
from joulebox.units import nanoseconds, seconds

Json = dict[str, Any]
T = TypeVar("T")

RETRIES: Final = 2
"""So often a prompt is asked again whose receipt is invalid, or that failed."""
PATIENCE_S: Final = 900.0
"""So long a server that is away is waited for; then the runner ends, and `--resume` goes on."""
AGAIN_S: Final = 0.5
WARM_UP: Final = "Count from one to twenty in words."
WARM_UP_TOKENS: Final = 32
_AWAY: Final = frozenset({*AWAY, "internal", "no_node"})
_BUSY: Final = frozenset({"quota_used", "too_many_requests"})
_OF_THE_PROMPT: Final = frozenset({"prompt_too_long", "empty_prompt", "body_too_large"})
"""What is wrong with one prompt alone: asking again would not help, asking the next does."""

MENDED: Final = frozenset({
    "foreign_load", "idle_drift", "meter_frozen", "meter_gap", "noisy_idle", "shared_host", "steal", "throttled",
    "too_cold", "too_hot",
})  # fmt: skip
"""What makes a receipt suspect by chance of the moment: asked again, the prompt may be measured better."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a campaign runs: the node and the models as the server describes them."""

    node: str
    models: tuple[ModelRef, ...]
    described: Json


def choose(client: Client, models: Sequence[str], node: str | None) -> Place:
    """The node that has all models, or the one named. Raises `JouleboxError`: `unknown_model`, `no_node`,
    `bad_request` where several nodes might be meant."""
    files = client.models()
    offered = {str(model["id"]) for model in files}
    if not models:
        known = ", ".join(sorted(offered)) or "none yet"
        raise JouleboxError("bad_request", f"Name the models to compare, --models a,b; the models are: {known}.")
    if lacking := [name for name in models if name not in offered]:
        known = ", ".join(sorted(offered)) or "none"
        raise JouleboxError("unknown_model", f"No node has {', '.join(lacking)}; the models are: {known}.")
    able = {one["name"]: one for one in client.nodes() if set(models) <= set(one["models"]) and one["state"] != "away"}
    if node is not None and node not in able:
        raise JouleboxError("no_node", f"Node {node} is away, or does not have all of {', '.join(models)}.")
    if not able:
        raise JouleboxError("no_node", f"No node that is here has all of {', '.join(models)}: add what is missing.")
    if node is None and len(able) > 1:
        names = ", ".join(sorted(able))
        raise JouleboxError("bad_request", f"Several nodes have them ({names}), and joules of one node are not those "
                            "of another: name one with --node.")  # fmt: skip
    name = node or next(iter(able))
    here = {str(file["id"]): file for file in files if name in file["nodes"]}  # another node's may be another file
    refs = [ModelRef(**{each: here[model][each] for each in ("id", "digest", "quantization")}) for model in models]
    return Place(node=name, models=tuple(refs), described=able[name])


class Patient:
    """Calls a server again and again while it is away or has enough to do, for a while."""

    def __init__(self, clock: Clock, say: Say, patience_s: float = PATIENCE_S) -> None:
        self.clock = clock
        self._say = say
        self._patience_ns = nanoseconds(patience_s)

    def __call__(self, call: Callable[[], T]) -> T:
        """What the call gives. Raises its `JouleboxError`."""
        until_ns = self.clock.now_ns() + self._patience_ns
        while True:
            try:
                return call()
            except JouleboxError as error:
                if error.code not in _AWAY | _BUSY or self.clock.now_ns() > until_ns:
                    raise
                self._say(f"waiting: {error.detail}")
                self.wait(float(str(error.extra.get("retry_after_s", AGAIN_S))))

    def wait(self, wait_s: float) -> None:
        """Let time pass."""
        self.clock.sleep_until(self.clock.now_ns() + nanoseconds(wait_s))


class Runner:
    """One sitting of a campaign."""

    def __init__(
        self, client: Client, book: Book, tasks: Sequence[Task], place: Place, patient: Patient, say: Say, *,
        strict: bool = False,
    ) -> None:  # fmt: skip
        """`strict`: answers with a suspect receipt are asked again too, those of earlier sittings as well."""
        self._strict = strict
        self._client = client
        self._book = book
        self._tasks = {task.category: task for task in tasks}
        self._samples = by_id(tasks)
        self._place = place
        self._clock = patient.clock
        self._patiently = patient
        self._say = say
        self._loaded: str | None = None
        self._spent_s: dict[str, list[float]] = {}
        self.drawn_j = sum(_full_j(one.evidence) for one in self._kept())

    def _kept(self) -> list[Answered | WarmUp]:
        record = self._book.record
        return [*record.answers.values(), *record.discarded, *record.warm_ups]

    def run(self) -> None:
        """Ask what is left. Raises `JouleboxError` where it cannot go on; what is kept is kept."""
        record, names = self._book.record, [model.id for model in self._place.models]
        self._refuse_others()
        at = self._clock.utc().isoformat(timespec="seconds")
        place = self._place
        self._book.add(Sitting(at=at, node=place.node, models=place.models, described=place.described))
        samples = {name: [sample.id for sample in task.samples] for name, task in self._tasks.items()}
        everybody = [model.id for model in record.models]
        line = list(turns(record.header, samples, names))
        for number, turn in enumerate(line):
            if record.header.until_separated and rests(record, samples, everybody, turn):
                continue
            self._turn(turn, line[number + 1 :])

    def _refuse_others(self) -> None:
        """A name means the same file in all sittings."""
        before = {model.id: model for model in self._book.record.models}
        for model in self._place.models:
            if (known := before.get(model.id)) is not None and known.digest != model.digest:
                raise JouleboxError(
                    "bad_campaign",
                    f"{model.id} is another file ({model.digest}) than in earlier sittings ({known.digest}): "
                    "give it another name, or begin another campaign.",
                )

    def _turn(self, turn: Turn, after: Sequence[Turn]) -> None:
        left = [key for key in turn.keys if not self._settled(key)]
        if not left:
            return
        if self._loaded != turn.model:
            self._warm_up(turn.model)
        for key in left:
            begun_ns = self._clock.now_ns()
            told = self._ask(key)
            self._spent_s.setdefault(key.model, []).append(seconds(self._clock.now_ns() - begun_ns))
            self._say(f"{self._progress(after, turn)} {key.model} {key.sample}: {told}")

    def _settled(self, key: Key) -> bool:
        record = self._book.record
        if record.attempts(key) > RETRIES or any(one.final for one in record.failures.get(key, ())):
            return True
        answer = record.answers.get(key)
        return answer is not None and not (self._strict and _mendable(answer.receipt))

    # --- one prompt ---------------------------------------------------------------------------------------------------

    def _ask(self, key: Key) -> str:
        """Ask until an answer counts, or often enough; what came of it, in words."""
        told = "not asked"
        while not self._settled(key):
            before = self._book.record.answers.get(key)
            attempt = self._book.record.attempts(key) + 1 + (before is not None)
            status = self._answered(self._fields(key, attempt), key, attempt)
            if status is None:
                told = "failed"
                continue
            evidence = self._patiently(lambda: self._client.evidence(str(status["receipt_id"])))  # noqa: B023
            receipt = evidence["receipt"]
            counts = receipt["verdict"] != "invalid" if before is None else not _mendable(receipt)
            self._book.add(
                Answered(
                    **asdict(key),
                    attempt=attempt,
                    counts=counts,
                    prompt_id=status["id"],
                    text=status["answer"] or "",
                    finish_reason=status["finish_reason"],
                    evidence=evidence,
                )
            )
            self.drawn_j += _full_j(evidence)
            told = _told(receipt) if counts else f"its receipt is {receipt['verdict']}, again and again"
        return told

    def _fields(self, key: Key, attempt: int) -> Json:
        header, task = self._book.record.header, self._tasks[key.category]
        cap = header.max_tokens or task.max_tokens
        return {
            "model": key.model,
            "prompt": self._samples[key.sample].prompt,
            "system": task.system,
            "max_tokens": min(task.max_tokens, cap),
            "seed": header.seed,
            "idempotency_key": f"bench {header.id} {key.model} {key.sample} {key.repeat} {attempt}",
        }

    def _answered(self, fields: Json, key: Key, attempt: int) -> Json | None:
        """The status of a prompt that was answered; `None` where it came to nothing, which is kept."""
        try:
            status = self._done(fields)
        except JouleboxError as error:
            if error.code not in _OF_THE_PROMPT:
                raise
            self._fail(key, attempt, None, error.code, error.detail, final=True)
            return None
        if status["receipt_id"] is None:
            why = status["error"] or {"code": "internal", "detail": f"The prompt ended as {status['state']}."}
            final = why["code"] in _OF_THE_PROMPT
            self._fail(key, attempt, status["id"], why["code"], why["detail"], final=final)
            return None
        return status

    def _fail(self, key: Key, attempt: int, prompt_id: str | None, code: str, detail: str, *, final: bool) -> None:
        self._book.add(
            Failed(**asdict(key), attempt=attempt, prompt_id=prompt_id, code=code, detail=detail, final=final)
        )

    def _done(self, fields: Json) -> Json:
        """Ask, and wait for the end, whatever happens to the server meanwhile; the last status."""
        common = {"mode": "quiet", "priority": "benchmark", "placement": f"node:{self._place.node}", "temperature": 0.0}
        prompt_id = str(self._patiently(lambda: self._client.submit(**(common | fields)))["id"])
        while True:
            status = self._patiently(lambda: self._client.status(prompt_id))
            if status["state"] in FINAL_STATES:
                return status
            try:
                for _ in self._client.events(prompt_id):
                    pass
            except JouleboxError as error:
                if error.code not in _AWAY:
                    raise
                self._patiently.wait(AGAIN_S)

    def _warm_up(self, model: str) -> None:
        """A short answer, so that loading and cold caches are nobody's first prompt. It is kept apart."""
        self._say(f"warming up {model}")
        header, number = self._book.record.header, len(self._book.record.warm_ups)
        fields = {"model": model, "prompt": WARM_UP, "max_tokens": WARM_UP_TOKENS, "seed": header.seed}
        status = self._done(fields | {"idempotency_key": f"bench {header.id} warm-up {number}"})
        receipt_id = status["receipt_id"]
        evidence = self._patiently(lambda: self._client.evidence(receipt_id)) if receipt_id is not None else None
        self._book.add(WarmUp(model=model, prompt_id=status["id"], evidence=evidence))
        self.drawn_j += _full_j(evidence)
        self._loaded = model

    # --- what a person sees -------------------------------------------------------------------------------------------

    def _progress(self, after: Sequence[Turn], turn: Turn) -> str:
        """How far it is: prompts done of all, joules so far, and about how long it will take."""
        names = {model.id for model in self._place.models}
        left = [key for one in (turn, *after) for key in one.keys if not self._settled(key)]
        done = sum(key.model in names for key in self._book.record.answers)
        pace_s = {model: sum(spent) / len(spent) for model, spent in self._spent_s.items()}
        usual_s = sum(pace_s.values()) / len(pace_s)
        left_s = sum(pace_s.get(key.model, usual_s) for key in left)
        most = " at most" if self._book.record.header.until_separated else ""
        return f"[{done}/{done + len(left)}{most}, {self.drawn_j:.0f} J so far, about {_duration(left_s)} left]"


def score_all(book: Book, tasks: Sequence[Task], say: Say) -> None:
    """Score the answers that have no score yet, and keep that."""
    samples = by_id(tasks)
    left = [answer for key, answer in book.record.answers.items() if key not in book.record.scores]
    for number, answer in enumerate(left, 1):
        say(f"scoring {number} of {len(left)}")
        book.add(scored(answer, samples))


def scored(answer: Answered, samples: Mapping[str, Sample]) -> Scored:
    """The score of an answer."""
    told = Answer(id=answer.sample, text=answer.text, finish_reason=answer.finish_reason, model=answer.model)
    return Scored(**asdict(answer.key), **asdict(mark(samples[answer.sample], told)))


def _mendable(receipt: Mapping[str, Any]) -> bool:
    """Whether a receipt is not valid for a reason that another moment may not have."""
    suspected = {one["code"] for one in receipt["reasons"] if one["level"] != "note"}
    return receipt["verdict"] != "valid" and bool(suspected & MENDED)


def _told(receipt: Mapping[str, Any]) -> str:
    figure, tokens = receipt["energy"]["answer"], receipt["usage"]["output_tokens"]
    energy = f"{figure['j']:.3g} J" if figure is not None else "no energy"
    return f"{energy}, {tokens if tokens is not None else '?'} tokens"


def _full_j(evidence: Json | None) -> float:
    """What an answer drew with load and guards, as far as it is known."""
    full = evidence["receipt"]["energy"]["full"] if evidence is not None else None
    return float(full["j"]) if full is not None else 0.0


def _duration(left_s: float) -> str:
    minutes = round(left_s / 60)
    return f"{left_s:.0f} s" if left_s < 90 else f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
