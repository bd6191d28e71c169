"""A Joulebox server from Python: ask, compare, read what models take.

    from joulebox import Client

    with Client() as client:
        answer = client.ask("Why is the sky blue?")
        print(answer.text, answer.receipt.joules)

Every failure is a `joulebox.JouleboxError`: its `code` names it, its text says what to do.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any, Final, Literal, Self, TypedDict, Unpack

from joulebox import client as http
from joulebox.clock import Clock, SystemClock
from joulebox.conversation import ToolCall, with_calls
from joulebox.errors import REGISTRY, JouleboxError
from joulebox.receipt import FRAME, UNSET, Receipt, card, read, row
from joulebox.settings import load_settings
from joulebox.statistics import Interval
from joulebox.statistics.ratio import energy_ratio
from joulebox.units import nanoseconds
from joulebox.wording import plain, ranged

Watch = Callable[[http.ServerEvent], None]
"""Told of every event of a prompt: its place in the line, settling, power."""
Turn = Mapping[str, Any]
"""A turn of a conversation: `role` and `content`; of a call `tool_calls`, or, with the role `tool`, `tool_call_id`."""
FIRST_CHOICE: Final = "smollm2-135m-instruct"
"""Asked where no model is named, if a node has it."""
JOIN_WAIT_S: Final = 60.0
"""A node that has just been started has spoken to its server after so long, or does not come."""
LOOK_EVERY_S: Final = 0.1


class Options(TypedDict, total=False):
    """What may be said beside prompt and model, as in `POST /api/v1/prompts`."""

    system: str
    max_tokens: int
    temperature: float
    seed: int
    stop: Sequence[str]
    mode: Literal["live", "quiet"]
    placement: str
    deadline: str
    priority: Literal["interactive", "benchmark", "deferrable"]
    max_energy_j: float
    idempotency_key: str
    follows: str
    tools: Sequence[Mapping[str, Any]]
    tool_choice: str | Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model answered, and what that cost. A notebook shows both."""

    text: str
    receipt: Receipt
    prompt_id: str
    tool_calls: tuple[ToolCall, ...] = ()

    @property
    def model(self) -> str:
        """The model that answered."""
        return self.receipt.model.name if self.receipt.model else ""

    @property
    def finish_reason(self) -> str:
        """Why it ended: `stop`, `tool_calls`, `length` (the token limit), `energy` (the budget)."""
        return self.receipt.finish_reason

    def __str__(self) -> str:
        return with_calls(self.text, self.tool_calls)

    def _repr_html_(self) -> str:
        return _set(str(self)) + card(self.receipt.to_dict())


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that nodes offer. `expected_j` is what its next answer may take, by its newest; `None`: nobody knows."""

    id: str
    digest: str
    quantization: str
    size_bytes: int
    memory_bytes: int
    context_tokens: int
    nodes: tuple[str, ...]
    available: bool
    expected_j: float | None
    wait_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What a model came to in a category of a published campaign on a node: each figure with its 95 % interval, `None`
    where too few prompts tell it. Figures of different nodes must not be compared."""

    campaign: str
    node: str
    model: str
    digest: str
    category: str
    asked: int
    n: int
    judged: int
    right: float
    answer_j: Interval | None
    token_j: Interval | None
    right_j: Interval | None
    sci_g: Interval | None
    accuracy: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One prompt answered by several models on one node, in the order they ran, which `order_seed` decides."""

    node: str
    order_seed: int
    answers: tuple[Answer, ...]

    @property
    def ratio(self) -> Interval | None:
        """How many times the least energy the most is, with its 95 % interval; `None` where it is not known."""
        known = self._by_energy()
        return energy_ratio(known[-1].receipt, known[0].receipt) if known else None

    @property
    def headline(self) -> str:
        """The ratio in words, with its interval, and which receipts are not valid."""
        known, ratio = self._by_energy(), self.ratio
        if not known or ratio is None:
            return "What they took cannot be compared: it is not known of all of them, or not of the same parts."
        large, small = known[-1].model, known[0].model
        times, span = ranged(ratio.value, ratio.low, ratio.high, "")
        told = (
            f"{large} took {times.strip()} × ({(span or times).strip()}, 95 % sure) what {small} took for this answer"
        )
        if ratio.low <= 1.0:
            told = f"About the same energy: {told}, less than can be told apart."
        else:
            told = f"{plain(ratio.value, '', 2)} × the energy: {told}."
        doubtful = [
            f"the receipt of {one.model} is {one.receipt.verdict}" for one in known if one.receipt.verdict != "valid"
        ]
        return f"{told} Read it with care: {', '.join(doubtful)}." if doubtful else told

    def _by_energy(self) -> list[Answer]:
        """The answers, least energy first; empty where one is not known."""
        if any(one.receipt.joules is None for one in self.answers):
            return []
        return sorted(self.answers, key=lambda one: one.receipt.joules or 0.0)

    def to_dict(self) -> dict[str, Any]:
        """All of it, as `joulebox compare --json` prints it."""
        ratio = self.ratio
        return {
            "node": self.node,
            "order_seed": self.order_seed,
            "headline": self.headline,
            "ratio": {"value": ratio.value, "low": ratio.low, "high": ratio.high} if ratio else None,
            "answers": [
                {"model": one.model, "answer": one.text, "receipt": one.receipt.to_dict()} for one in self.answers
            ],
        }

    def _repr_html_(self) -> str:
        rows = "".join(row(one.model, *str(one.receipt).split(", ", 1)) for one in self.answers)
        texts = "".join(f"<p><strong>{escape(one.model)}</strong></p>{_set(one.text)}" for one in self.answers)
        return (
            f'<div class="joulebox {UNSET}" style="{FRAME}"><strong>{escape(self.headline)}</strong>'
            f'<table style="background:transparent;color:inherit">{rows}</table></div>{texts}'
        )


class Stream:
    """An answer as it comes: iterate over its pieces of text, then take `answer`, which waits for the receipt.

    `text` is what was written so far. Where a node is lost another one begins anew: so does `text`, and `restarts`
    counts it. As a context manager it stops the prompt when the block is left before the end.
    """

    def __init__(self, server: http.Client, status: Mapping[str, Any], watch: Watch | None = None) -> None:
        self.prompt_id = str(status["id"])
        self.restarts = 0
        self._server = server
        self._watch = watch
        self._events = server.events(self.prompt_id)
        self._pieces: list[str] = []
        self._complete = self._over = False
        self._answer: Answer | None = None
        self._calls: tuple[ToolCall, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._over:
            with suppress(JouleboxError):  # what ended the block is told, if anything did
                self.cancel()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while not self._complete:
            event = self._take()
            if event.name == "token":
                return self._pieces[-1]
        raise StopIteration

    @property
    def text(self) -> str:
        """What was written so far."""
        return "".join(self._pieces)

    @property
    def answer(self) -> Answer:
        """The whole answer with its receipt, which comes once the machine is calm again. Raises `JouleboxError`."""
        while self._answer is None:
            self._take()
        return self._answer

    def cancel(self) -> None:
        """Stop it; nothing happens where it is over."""
        self._over = True
        self._server.cancel(self.prompt_id)

    def _take(self) -> http.ServerEvent:
        event = next(self._events, None)
        if event is None:
            self._over = True
            raise JouleboxError("no_server", "The server ended the stream without a receipt. Ask again.")
        if self._watch is not None:
            self._watch(event)
        match event.name:
            case "token":
                self._pieces.append(str(event.data.get("text", "")))
            case "restarted":
                self._pieces.clear()
                self._complete = False
                self.restarts += 1
            case "answer":
                self._complete = True
                self._calls = tuple(ToolCall(**one) for one in event.data.get("tool_calls") or ())
            case "receipt":
                self._complete = self._over = True
                receipt = _receipt(event.data)
                self._answer = Answer(text=self.text, receipt=receipt, prompt_id=self.prompt_id, tool_calls=self._calls)
            case "cancelled" | "error":
                self._complete = self._over = True
                raise _ended(event)
        return event


class Client:
    """A Joulebox server. Without `server` and `token`, those of the settings (`JOULEBOX_SERVER`, `JOULEBOX_TOKEN`),
    else the server on this machine. Use it as a context manager, or `close` it.

    Raises `JouleboxError("bad_setting")`.
    """

    def __init__(self, server: str | None = None, token: str | None = None, *, timeout_s: float = 30.0) -> None:
        settings = load_settings(server=server, token=token)
        shown = settings.token_for(admin=False)
        self._http = http.Client(settings.server, shown, timeout_s, ca_file=settings.ca_file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def ask(self, prompt: str | Sequence[Turn], *, model: str | None = None, **options: Unpack[Options]) -> Answer:
        """Ask a model and wait for answer and receipt; interrupted, the prompt is stopped. `prompt` is a question, or
        the turns of a conversation: what came of a call goes back so. Raises `JouleboxError`."""
        with self.stream(prompt, model=model, **options) as stream:
            return stream.answer

    def stream(
        self,
        prompt: str | Sequence[Turn],
        *,
        model: str | None = None,
        watch: Watch | None = None,
        **options: Unpack[Options],
    ) -> Stream:
        """Ask a model and have the answer as it comes. `watch` is told of every event. Raises `JouleboxError`."""
        asked = {"prompt": prompt} if isinstance(prompt, str) else {"messages": list(prompt)}
        status = self._http.submit(**asked, model=model or some_model(self._http), **options)
        return Stream(self._http, status, watch)

    def compare(
        self,
        prompt: str,
        models: Sequence[str],
        *,
        system: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        order_seed: int | None = None,
        watch: Callable[[str, http.ServerEvent], None] | None = None,
    ) -> Comparison:
        """Have several models answer a prompt on one node, one after the other, in an order that `order_seed` decides
        (drawn by lot without it). Interrupted, all of them are stopped. `watch` is told of every event of every model.
        Raises `JouleboxError`."""
        options: dict[str, object] = {"system": system, "max_tokens": max_tokens, "temperature": temperature}
        options |= {"seed": seed, "order_seed": order_seed}
        begun = self._http.compare(prompt=prompt, models=list(models), **options)
        with ExitStack() as stack:
            streams = [
                stack.enter_context(Stream(self._http, status, partial(watch, status["model"]) if watch else None))
                for status in begun["prompts"]
            ]
            answers = tuple(stream.answer for stream in streams)
        return Comparison(node=begun["node"], order_seed=begun["order_seed"], answers=answers)

    def receipt(self, receipt_id: str) -> Receipt:
        """The newest revision of a receipt. Raises `JouleboxError`."""
        return _receipt(self._http.receipt(receipt_id))

    def models(self) -> list[Model]:
        """The models that nodes offer. Raises `JouleboxError`."""
        names = ("id", "digest", "quantization", "size_bytes", "memory_bytes", "context_tokens", "available", "wait_s")
        return [
            Model(
                **{name: one[name] for name in names},
                nodes=tuple(one["nodes"]),
                expected_j=(one["expected"] or {}).get("median_j"),
            )
            for one in self._http.models()
        ]

    def table(self, category: str | None = None) -> list[Cell]:
        """What published campaigns found, the newest first; of one category, or of all. Raises `JouleboxError`."""
        return [_cell(one) for one in self._http.table(category)["cells"]]


def some_model(server: http.Client, wait_s: float = 0.0, clock: Clock | None = None) -> str:
    """The model to ask where none is named; a node that begins just now is waited for so long. Raises
    `JouleboxError("no_node")`."""
    clock = clock or SystemClock()
    until_ns = clock.now_ns() + nanoseconds(wait_s)
    while not (names := [str(one["id"]) for one in server.models()]):
        if clock.now_ns() >= until_ns:
            words = "No node offers a model yet. Start one with `joulebox up` or `joulebox node`."
            raise JouleboxError("no_node", words)
        clock.sleep_until(clock.now_ns() + nanoseconds(LOOK_EVERY_S))
    return FIRST_CHOICE if FIRST_CHOICE in names else names[0]


def _receipt(told: Mapping[str, Any]) -> Receipt:
    try:
        return read(told)
    except ValueError as error:
        sentence = "The server's receipt cannot be read: update this installation, or the server."
        raise JouleboxError("protocol_version", sentence) from error


def _ended(event: http.ServerEvent) -> JouleboxError:
    """A prompt without an answer, as the failure it was."""
    code = "cancelled" if event.name == "cancelled" else str(event.data.get("code"))
    detail = str(event.data.get("detail") or "The prompt was cancelled.")
    return JouleboxError(code if code in REGISTRY else "internal", detail)


def _cell(told: Mapping[str, Any]) -> Cell:
    figures: dict[str, Any] = {
        name: Interval(**told["figures"][name]) if told["figures"].get(name) else None
        for name in ("answer_j", "token_j", "right_j", "sci_g", "accuracy")
    }
    names = ("campaign", "node", "model", "digest", "category", "asked", "n", "judged", "right")
    return Cell(**{name: told[name] for name in names}, **figures)


def _set(text: str) -> str:
    """What a model wrote, as text and nothing else."""
    return f'<div class="{UNSET}" dir="auto" style="white-space:pre-wrap;max-width:42rem">{escape(text)}</div>'
