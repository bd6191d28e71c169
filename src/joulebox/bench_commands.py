"""`joulebox bench ...`: wiring only; what is heavy is imported where it is used."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from joulebox.token_commands import ServerOption, client_of

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
    from joulebox.bench.suite import CATEGORIES, by_id, load, task

    chosen = [load(path) for path in tasks] if tasks else [task(each) for each in CATEGORIES]
    marked = []
    for answer, score in mark_all(by_id(chosen), read_answers(answers)):
        marked.append((answer, score))
        if as_json:
            print(score_json(answer, score), flush=True)
    if not as_json:
        print_scores(chosen, marked)


TasksOption = Annotated[
    list[Path] | None, typer.Option("--tasks", help="A task file of your own; repeatable.", metavar="FILE")
]


@app.command("run")
def bench_run(
    models: Annotated[str | None, typer.Option("--models", help="Models to compare: a,b,c.", metavar="NAMES")] = None,
    suite: Annotated[str, typer.Option("--suite", help="Which tasks: core is what ships.")] = "core",
    categories: Annotated[
        str | None, typer.Option("--categories", help="These alone: code,math,...", metavar="NAMES")
    ] = None,
    tasks: TasksOption = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, max=100, help="So often each prompt.")] = 1,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="So many prompts of each category at most.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=1, help="No answer is longer, whatever its task allows.")
    ] = None,
    block: Annotated[
        int, typer.Option("--block", min=5, help="Prompts of one model before the next has its turn.")
    ] = 10,
    until_separated: Annotated[
        bool,
        typer.Option("--until-separated", help="A model rests once it is told apart from all others in a category."),
    ] = False,
    precision: Annotated[
        float | None, typer.Option("--precision", help="... or once their ratio is known to within this: 0.1.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, help="Decides the order.")] = 1,
    node: Annotated[str | None, typer.Option("--node", help="Where to measure, if several nodes could.")] = None,
    out: Annotated[Path, typer.Option("--out", help="The campaign's file, new.", metavar="FILE")] = Path(
        "campaign.jsonl"
    ),
    resume: Annotated[
        Path | None,
        typer.Option("--resume", help="Go on with this campaign, perhaps with further --models.", metavar="FILE"),
    ] = None,
    patience_s: Annotated[float, typer.Option("--patience-s", help="Wait so long for a server that is away.")] = 900.0,
    server: ServerOption = None,
) -> None:
    """Ask models the tasks' prompts and keep every answer with its receipt; then score them. Ctrl-C is harmless."""
    from joulebox import __version__
    from joulebox.bench.campaign import begun, chosen_tasks, tasks_of
    from joulebox.bench.record import Book, read_record
    from joulebox.bench.runner import Patient, Runner, choose, score_all
    from joulebox.clock import SystemClock
    from joulebox.console import Progress

    clock, progress = SystemClock(), Progress()
    if resume is not None:
        before = read_record(resume)
        header, names = before.header, _names(models) or [model.id for model in before.models]
    else:
        asked = chosen_tasks(suite, _names(categories), tasks or ())
        header = begun(*asked, __version__, clock.utc(), seed=seed, repeats=repeats, block=block, limit=limit,
                       max_tokens=max_tokens, until_separated=until_separated, precision=precision)  # fmt: skip
        names = _names(models)
    chosen = tasks_of(header, tasks or ())
    with client_of(server) as client:
        patient = Patient(clock, progress.say, patience_s)
        place = patient(lambda: choose(client, names, node))
        path = resume or out
        with Book(path, None if resume is not None else header) as book:
            try:
                Runner(client, book, chosen, place, patient, progress.say).run()
            except KeyboardInterrupt:
                progress.clear()
                print(f"joulebox: stopped; joulebox bench run --resume {path} goes on.", file=sys.stderr)
                raise
            score_all(book, chosen, progress.say)
            progress.clear()
    print(f"Everything is in {path}. Its table: joulebox bench table {path}")


def _names(text: str | None) -> list[str]:
    """Names that were written with commas, each once."""
    return list(dict.fromkeys(name.strip() for name in (text or "").split(",") if name.strip()))
