"""The benchmark's nouns, frozen, in Inspect's words: a Task holds Samples, a Scorer makes of each answer a Score, and a
Metric is what the scores of many answers come to.

Nothing here does anything. What is right about an answer stands in the sample's `target`, one kind for each way of
judging, so that any task, ours or imported, is scored by the same few functions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Value = None | bool | int | float | str
Row = tuple[Value, ...]

# --- what is right ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One unit test: an expression, and the value it must have. The value never enters the sandbox."""

    call: str
    expected: object


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeTarget:
    """Python that defines `entry_point`. Right when every case holds and the `check` program, if any, runs to its end.

    `prefix` stands before the answer's code: what the prompt already gave (imports, a signature to be completed).
    """

    entry_point: str
    cases: tuple[Case, ...] = ()
    check: str = ""
    prefix: str = ""
    reference: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberTarget:
    """A number: `value` is written as an integer, a decimal or a fraction; `tolerance` is absolute."""

    value: str
    tolerance: str = "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTarget:
    """A short text: any of `accepted` counts; naming one of `rejected` beside it does not."""

    accepted: tuple[str, ...]
    rejected: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlTarget:
    """A query: `setup` makes tables and data, `rows` is what must come out; `ordered` where the order was asked for."""

    setup: str
    rows: tuple[Row, ...]
    ordered: bool = False
    reference: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TranslationTarget:
    """A translation: right from `chrf_min` (0 to 100) on, against the nearest of the references."""

    references: tuple[str, ...]
    chrf_min: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """One thing that can be checked of a text, such as `words_max` 40; the kinds are in `scoring.CRITERIA`."""

    kind: str
    value: object


@dataclass(frozen=True, slots=True, kw_only=True)
class CriteriaTarget:
    """A text that meets every criterion; `reference` is one that does."""

    criteria: tuple[Criterion, ...]
    reference: str = ""


Target = CodeTarget | NumberTarget | TextTarget | SqlTarget | TranslationTarget | CriteriaTarget

# --- what is asked ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One prompt of a task and what is right. `difficulty` goes from 1 (very easy) to 5 (hard); 0 is unknown."""

    id: str
    prompt: str
    target: Target
    difficulty: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One category of prompts. Every sample is asked with the same system prompt and at most `max_tokens` of answer."""

    category: str
    version: str
    licence: str
    system: str
    max_tokens: int
    samples: tuple[Sample, ...]


# --- what came back ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model said to the sample `id`. `finish_reason` is the engine's: `length` means that it was cut off."""

    id: str
    text: str
    finish_reason: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What has to be run before an answer can be judged. `source` is the model's and is not to be trusted."""

    language: Literal["python", "sql"]
    source: str
    calls: tuple[str, ...] = ()
    check: str = ""
    prefix: str = ""
    setup: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one call or query gave: a value, or the error that it ended with."""

    value: object = None
    error: str | None = None


Fault = Literal["time", "memory", "output", "died", "unavailable"]
"""What ended a program from outside; `unavailable`: this machine has no sandbox to run it in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run gave, call by call; `finished` when it came to its end, `fault` and `detail` when it did not."""

    results: tuple[Result, ...] = ()
    finished: bool = False
    fault: Fault | None = None
    detail: str = ""


Mark = Literal["correct", "wrong", "truncated", "refused", "empty", "unscored"]
"""What became of an answer; `unscored` says nothing about the model: it could not be judged on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The judgement of one answer: `partial` is the share of the checks that it met, `reason` one sentence."""

    correct: bool
    partial: float
    mark: Mark
    reason: str


Scorer = Callable[[Sample, Answer], Score]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What the scores of many answers come to. `n` counts the answers that were judged; without any, no value."""

    name: str
    value: float | None
    n: int
