"""Scores stored answers: runs what has to be run in the sandbox, and judges it."""

from collections.abc import Callable, Iterable, Iterator

from joulebox.bench import sandbox
from joulebox.bench.scoring import program, score
from joulebox.bench.task import Answer, Outcome, Program, Sample, Score

Run = Callable[[Program], Outcome]


def mark(sample: Sample, answer: Answer, run: Run = sandbox.run) -> Score:
    """The score of one answer. The same answer has the same score, whenever it is marked."""
    wanted = program(sample, answer)
    return score(sample, answer, run(wanted) if wanted is not None and answer.text.strip() else None)


def mark_all(
    samples: dict[str, Sample], answers: Iterable[Answer], run: Run = sandbox.run
) -> Iterator[tuple[Answer, Score]]:
    """Each answer with its score, one by one. Raises `KeyError` for an answer to a sample that is not there."""
    for answer in answers:
        yield answer, mark(samples[answer.id], answer, run)
