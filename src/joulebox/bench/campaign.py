"""What a campaign asks: how one begins, and the tasks of one that was begun."""

import secrets
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from joulebox.bench.record import SCHEMA, Header, task_ref
from joulebox.bench.suite import CATEGORIES, load, task
from joulebox.bench.task import Task
from joulebox.errors import JouleboxError

CORE: Final = "core"
OWN: Final = "own"
ID_BYTES: Final = 8


def chosen_tasks(suite: str, categories: Sequence[str], files: Sequence[Path]) -> tuple[str, list[Task]]:
    """The suite's name and tasks: those of the named categories (all without any), or those of files of one's own.

    Raises `JouleboxError`: `not_found`, `bad_task`.
    """
    if suite != CORE:
        raise JouleboxError("not_found", f"There is no suite {suite}: leave it out, or give files with --tasks.")
    if not files:
        return CORE, [task(name) for name in categories or CATEGORIES]
    own = [load(path) for path in files]
    chosen = [one for one in own if not categories or one.category in categories]
    if lacking := set(categories) - {one.category for one in own}:
        raise JouleboxError("not_found", f"No file has the category {', '.join(sorted(lacking))}.")
    if len({one.category for one in chosen}) < len(chosen):
        raise JouleboxError("bad_task", "Two files have the same category: give one of them another.")
    if len({sample.id for one in chosen for sample in one.samples}) < sum(len(one.samples) for one in chosen):
        raise JouleboxError("bad_task", "Two files have a prompt of the same id: give one of them another.")
    return OWN, chosen


def begun(
    suite: str,
    tasks: Sequence[Task],
    version: str,
    now: datetime,
    *,
    seed: int,
    repeats: int,
    block: int,
    max_tokens: int | None,
    limit: int | None,
    until_separated: bool,
    precision: float | None,
) -> Header:
    """The first line of a new campaign, made by this version of Joulebox.

    Raises `JouleboxError("bad_request")` for what does not go together.
    """
    if until_separated and repeats > 1:
        raise JouleboxError("bad_request", "--until-separated asks each prompt once: leave --repeats out.")
    if precision is not None and not (until_separated and 0 < precision < 10):
        raise JouleboxError("bad_request", "--precision goes with --until-separated and is a share: write 0.1.")
    return Header(
        schema=SCHEMA,
        id=secrets.token_hex(ID_BYTES),
        created=now.isoformat(timespec="seconds"),
        joulebox=version,
        suite=suite,
        tasks=tuple(map(task_ref, tasks)),
        seed=seed,
        repeats=repeats,
        block=block,
        max_tokens=max_tokens,
        until_separated=until_separated,
        precision=precision,
        limit=limit,
    )


def tasks_of(header: Header, files: Sequence[Path] = ()) -> list[Task]:
    """The tasks of a campaign, from what ships or from files. Raises `JouleboxError("bad_campaign")` where one of them
    is not here as it was asked."""
    own = {one.category: one for one in map(load, files)}
    found = []
    for ref in header.tasks:
        here = own.get(ref.category) or (task(ref.category) if ref.category in CATEGORIES else None)
        if here is None:
            raise JouleboxError("bad_campaign", f"The task {ref.category} is not here: give its file with --tasks.")
        if task_ref(here).digest != ref.digest:
            raise JouleboxError(
                "bad_campaign",
                f"The task {ref.category} here (version {here.version}) is not the one that was asked (version "
                f"{ref.version}, {ref.digest}): use the release of Joulebox {header.joulebox}, or give its file.",
            )
        found.append(here)
    return found
