"""A campaign as one file: JSON lines, each on disk before the next prompt is asked, so that a kill loses nothing.

The first line says what is asked and in which order; then a line for each sitting, warm-up, answer, failure and score.
An answer's line holds its text, its receipt and everything the receipt was made of, so that another installation can
make it again (`verify`). A line that a kill cut off is dropped when the campaign goes on.
"""

import fcntl
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import TypeAdapter, ValidationError

from joulebox.bench.task import Mark, Score, Task
from joulebox.errors import JouleboxError

SCHEMA: Final = "joulebox.campaign/1"
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRef:
    """Which task was asked; `digest` is of everything in it, so that another one under its name is noticed."""

    category: str
    version: str
    licence: str
    samples: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a campaign asks, fixed for all its sittings. `max_tokens` caps the tasks' own limits; `block` prompts are
    asked of one model before the next has its turn; `limit`: so many prompts of each task at most. `until_separated`:
    a model rests in a category once it is told apart from all others, or their ratio is known to within `precision`."""

    schema: str
    id: str
    created: str
    joulebox: str
    suite: str
    tasks: tuple[TaskRef, ...]
    seed: int
    repeats: int
    block: int
    max_tokens: int | None
    until_separated: bool
    precision: float | None
    limit: int | None
    kind: Literal["campaign"] = "campaign"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRef:
    """A model that was asked."""

    id: str
    digest: str
    quantization: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sitting:
    """One run of the runner: which models on which node; `described` is what the server said of the node then."""

    at: str
    node: str
    models: tuple[ModelRef, ...]
    described: Json
    kind: Literal["sitting"] = "sitting"


@dataclass(frozen=True, slots=True)
class Key:
    """A prompt asked of a model."""

    model: str
    category: str
    sample: str
    repeat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An answer. It `counts` unless its receipt was invalid; then the prompt was asked again, a few times at most. Of
    several that count the last one does.

    `evidence` is what `GET /api/v1/receipts/ID/evidence` gives.
    """

    model: str
    category: str
    sample: str
    repeat: int
    attempt: int
    counts: bool
    prompt_id: str
    text: str
    finish_reason: str | None
    evidence: Json
    kind: Literal["answer"] = "answer"

    @property
    def key(self) -> Key:
        """What was asked of whom."""
        return Key(self.model, self.category, self.sample, self.repeat)

    @property
    def receipt(self) -> Json:
        """Its receipt."""
        found: Json = self.evidence["receipt"]
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A prompt that came to no answer, with the error; `final`: asking again would not help."""

    model: str
    category: str
    sample: str
    repeat: int
    attempt: int
    prompt_id: str | None
    code: str
    detail: str
    final: bool
    kind: Literal["failure"] = "failure"

    @property
    def key(self) -> Key:
        """What was asked of whom."""
        return Key(self.model, self.category, self.sample, self.repeat)


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """A short answer before a model's turn, which counts for nothing but its joules. `None`: it came to nothing."""

    model: str
    prompt_id: str | None
    evidence: Json | None
    kind: Literal["warm-up"] = "warm-up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """The score of an answer that counts; the last line of a key holds."""

    model: str
    category: str
    sample: str
    repeat: int
    correct: bool
    partial: float
    mark: Mark
    reason: str
    kind: Literal["score"] = "score"

    @property
    def key(self) -> Key:
        """What was asked of whom."""
        return Key(self.model, self.category, self.sample, self.repeat)

    @property
    def score(self) -> Score:
        """The judgement."""
        return Score(correct=self.correct, partial=self.partial, mark=self.mark, reason=self.reason)


Line = Header | Sitting | WarmUp | Answered | Failed | Scored
_LINES: Final[Mapping[str, TypeAdapter[Any]]] = {
    kind: TypeAdapter(made)
    for kind, made in {
        "campaign": Header,
        "sitting": Sitting,
        "warm-up": WarmUp,
        "answer": Answered,
        "failure": Failed,
        "score": Scored,
    }.items()
}


@dataclass(slots=True)
class Record:
    """A campaign as far as it is known: its header and everything that came after, by key."""

    header: Header
    sittings: list[Sitting] = field(default_factory=list)
    warm_ups: list[WarmUp] = field(default_factory=list)
    answers: dict[Key, Answered] = field(default_factory=dict)
    discarded: list[Answered] = field(default_factory=list)
    failures: dict[Key, list[Failed]] = field(default_factory=dict)
    scores: dict[Key, Scored] = field(default_factory=dict)

    def take(self, line: Line) -> None:
        """Add what a line says."""
        match line:
            case Header():
                raise ValueError("a second beginning")
            case Sitting():
                self.sittings.append(line)
            case WarmUp():
                self.warm_ups.append(line)
            case Answered(counts=True):
                if (before := self.answers.get(line.key)) is not None:  # measured again, and better
                    self.discarded.append(replace(before, counts=False))
                    self.scores.pop(line.key, None)
                self.answers[line.key] = line
            case Answered():
                self.discarded.append(line)
            case Failed():
                self.failures.setdefault(line.key, []).append(line)
            case Scored():
                self.scores[line.key] = line

    @property
    def models(self) -> list[ModelRef]:
        """Every model that was asked, in the order of their first sitting."""
        return list({model.id: model for sitting in self.sittings for model in sitting.models}.values())

    def attempts(self, key: Key) -> int:
        """How often a prompt was asked without an answer that counts."""
        return len(self.failures.get(key, ())) + sum(one.key == key for one in self.discarded)


def task_ref(task: Task) -> TaskRef:
    """A task as a campaign names it."""
    told = json.dumps(asdict(task), sort_keys=True, ensure_ascii=False, default=repr)
    digest = hashlib.sha256(told.encode()).hexdigest()
    return TaskRef(
        category=task.category,
        version=task.version,
        licence=task.licence,
        samples=len(task.samples),
        digest=f"sha256:{digest}",
    )


def read_record(path: Path) -> Record:
    """A campaign's file, packed (.gz) or not; a last line that was cut off is left out.

    Raises `JouleboxError("bad_campaign")`, which names the line.
    """
    try:
        body = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        told = getattr(error, "strerror", None) or str(error)
        raise JouleboxError("bad_campaign", f"{path} cannot be read: {told}. Give a campaign's file.") from error
    record: Record | None = None
    for at, line in enumerate(_whole_lines(body), 1):
        try:
            said = _said(line)
            if record is not None:
                record.take(said)
            elif isinstance(said, Header):
                record = Record(said)
            else:
                raise ValueError("it does not begin with a campaign")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            told = "it has the wrong form" if isinstance(error, ValidationError) else str(error)
            raise JouleboxError("bad_campaign", f"{path}, line {at} cannot be read: {told}.") from error
    if record is None:
        raise JouleboxError("bad_campaign", f"{path} is empty: give a file of `joulebox bench run`.")
    return record


def _whole_lines(body: bytes) -> Iterator[bytes]:
    yield from (line for line in body[: body.rfind(b"\n") + 1].split(b"\n") if line.strip())


def _said(line: bytes) -> Line:
    data = json.loads(line)
    if not isinstance(data, dict) or data.get("kind") not in _LINES:
        raise ValueError("it says nothing known")
    if data["kind"] == "campaign" and data.get("schema") != SCHEMA:
        raise ValueError(f"it is of {data.get('schema')}, not {SCHEMA}: use the version of Joulebox that made it")
    said: Line = _LINES[data["kind"]].validate_python(data)
    return said


class Book:
    """A campaign's file held open by its one runner: what is added is on disk when `add` returns."""

    def __init__(self, path: Path, header: Header | None = None) -> None:
        """Go on with the campaign of `path`, or begin one with `header`. Raises `JouleboxError("bad_campaign")`."""
        try:
            self._file = path.open("r+b" if header is None else "xb")
        except FileExistsError as error:
            sentence = f"{path} is there already: go on with it by --resume {path}, or name another file with --out."
            raise JouleboxError("bad_campaign", sentence) from error
        except OSError as error:
            raise JouleboxError("bad_campaign", f"{path} cannot be used: {error.strerror}.") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise JouleboxError("bad_campaign", f"Another runner works on {path}: wait for it, or end it.") from error
        if header is not None:
            self.record = Record(header)
            self._append(header)
            _sync_folder(path.absolute().parent)
        else:
            self.record = read_record(path)
            self._file.truncate(path.read_bytes().rfind(b"\n") + 1)
            self._file.seek(0, os.SEEK_END)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, line: Sitting | WarmUp | Answered | Failed | Scored) -> None:
        """Keep a line."""
        self._append(line)
        self.record.take(line)

    def _append(self, line: Line) -> None:
        data = asdict(line)
        text = json.dumps({"kind": data.pop("kind")} | data, ensure_ascii=False, separators=(",", ":"))
        self._file.write(text.encode("utf-8", "surrogatepass") + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _sync_folder(folder: Path) -> None:
    """A new file's name is on disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
