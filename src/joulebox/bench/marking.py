"""Scores stored answers: runs what has to be run in the sandbox, and judges it."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from joulebox.bench import sandbox
from joulebox.bench.scoring import program, score
from joulebox.bench.task import Answer, Outcome, Program, Sample, Score
from joulebox.errors import JouleboxError

Run = Callable[[Program], Outcome]


def mark(sample: Sample, answer: Answer, run: Run = sandbox.run) -> Score:
    """The score of one answer. The same answer has the same score, whenever it is marked."""
    wanted = program(sample, answer)
    return score(sample, answer, run(wanted) if wanted is not None and answer.text.strip() else None)


def mark_all(
    samples: Mapping[str, Sample], answers: Iterable[Answer], run: Run = sandbox.run
) -> Iterator[tuple[Answer, Score]]:
    """Each answer with its score, one by one. Raises `JouleboxError("bad_task")` where no sample has an answer's id."""
    for answer in answers:
        if answer.id not in samples:
            sentence = f"No task has a prompt {answer.id!r}: `joulebox bench tasks --json` lists the ids."
            raise JouleboxError("bad_task", sentence)
        yield answer, mark(samples[answer.id], answer, run)


def read_answers(path: Path) -> list[Answer]:
    """The answers of a file of JSON lines, each with `id` and `answer`, and perhaps `finish_reason` and `model`.

    Raises `JouleboxError("bad_task")`, which names the line.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise JouleboxError("bad_task", f"{path} cannot be read: {error}. Give a file of JSON lines.") from error
    return [_answer(line, f"{path}, line {at}") for at, line in enumerate(lines, 1) if line.strip()]


def _answer(line: str, where: str) -> Answer:
    told: Any = None
    try:
        told = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise JouleboxError("bad_task", f"{where} is no JSON: {error}.") from error
    held = told if isinstance(told, dict) else {}
    fields = [held.get(name) for name in ("id", "answer", "finish_reason", "model")]
    texts = [each if isinstance(each, str) else None for each in fields]
    if texts[0] is None or texts[1] is None or texts != fields:
        sentence = f'{where} is no answer: write {{"id": "math-01", "answer": "...", "finish_reason": "stop"}}.'
        raise JouleboxError("bad_task", sentence)
    return Answer(id=texts[0], text=texts[1], finish_reason=texts[2], model=texts[3])
