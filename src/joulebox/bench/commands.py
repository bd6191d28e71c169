"""`joulebox bench ...`: wiring only; what is heavy is imported where it is used."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Which model for which task.", no_args_is_help=True, rich_markup_mode=None)


@app.command("tasks")
def bench_tasks(
    category: Annotated[str | None, typer.Option("--category", help="This category alone, with its prompts.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """The tasks of the benchmark: how many prompts of which difficulty; with --category each prompt."""
    from joulebox.bench.show import print_task, print_tasks, tasks_json
    from joulebox.bench.suite import CATEGORIES, task

    chosen = [task(category)] if category is not None else [task(each) for each in CATEGORIES]
    if as_json:
        print(tasks_json(chosen))
    elif category is not None:
        print_task(chosen[0])
    else:
        print_tasks(chosen)


@app.command("score")
def bench_score(
    answers: Annotated[Path, typer.Argument(help='JSON lines: {"id": ..., "answer": ...}.', metavar="ANSWERS.jsonl")],
    tasks: Annotated[
        list[Path] | None, typer.Option("--tasks", help="A task file of your own; repeatable.", metavar="FILE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each score as a JSON line.")] = False,
) -> None:
    """Score stored answers: code and SQL are run in a sandbox, nothing is asked of any model."""
    from joulebox.bench.marking import mark_all, read_answers
    from joulebox.bench.show import print_scores, score_json
    from joulebox.bench.suite import CATEGORIES, load, task

    chosen = [load(path) for path in tasks] if tasks else [task(each) for each in CATEGORIES]
    samples = {sample.id: sample for each in chosen for sample in each.samples}
    marked = []
    for answer, score in mark_all(samples, read_answers(answers)):
        marked.append((answer, score))
        if as_json:
            print(score_json(answer, score), flush=True)
    if not as_json:
        print_scores(chosen, marked)
