"""What the terminal shows of tasks and scores."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Final

from joulebox.bench.scoring import accuracy
from joulebox.bench.task import Answer, Score, Task
from joulebox.terminal import say, shown_json

_MARKS: Final = ("correct", "wrong", "truncated", "refused", "empty", "unscored")


def print_tasks(tasks: Iterable[Task]) -> None:
    """One line for each task: prompts, how many of each difficulty, longest answer, version, licence."""
    rows = [("task", "prompts", "difficulty 1 2 3 4 5", "max tokens", "version", "licence")]
    for task in tasks:
        hard = Counter(sample.difficulty for sample in task.samples)
        spread = " ".join(str(hard[level]) for level in range(1, 6))
        rows.append((task.category, str(len(task.samples)), spread, str(task.max_tokens), task.version, task.licence))
    _print_rows(rows)
    say("One task with its prompts: joulebox bench tasks --category math")


def print_task(task: Task) -> None:
    """The system prompt, then one line for each prompt."""
    say(f"{task.category}, version {task.version}, {task.licence}\nsystem: {task.system}\n")
    rows = [("id", "difficulty", "prompt")]
    for sample in task.samples:
        line = sample.prompt.splitlines()[-1]
        rows.append((sample.id, str(sample.difficulty), line if len(line) <= 90 else f"{line[:89]}…"))
    _print_rows(rows)


def tasks_json(tasks: Iterable[Task]) -> str:
    """The tasks with everything in them as JSON."""
    return shown_json([asdict(task) for task in tasks])


def score_json(answer: Answer, score: Score) -> str:
    """One score as a line of JSON."""
    return shown_json({"id": answer.id, "model": answer.model, **asdict(score)}, None)


def print_scores(tasks: Sequence[Task], marked: Sequence[tuple[Answer, Score]]) -> None:
    """One line for each model and task that has answers: how many, the share that is right, what the others were."""
    task_of = {sample.id: task.category for task in tasks for sample in task.samples}
    rows: list[tuple[str, ...]] = [("model", "task", "answers", "accuracy", *_MARKS)]
    groups: dict[tuple[str, str], list[Score]] = {}
    for answer, score in marked:
        groups.setdefault((answer.model or "-", task_of[answer.id]), []).append(score)
    for (model, category), scores in groups.items():
        share = accuracy(scores)
        told = "-" if share.value is None else f"{share.value:.0%} of {share.n}"
        counts = Counter(score.mark for score in scores)
        rows.append((model, category, str(len(scores)), told, *(str(counts[mark]) for mark in _MARKS)))
    _print_rows(rows)


def _print_rows(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
