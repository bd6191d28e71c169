"""`joulebox bench ...`: wiring only; what is heavy is imported where it is used."""

from pathlib import Path
from typing import Annotated, Final

import typer

from joulebox.command_help import Whole
from joulebox.terminal import escaped, say, say_json
from joulebox.token_commands import ServerOption, client_of

PNG_WIDTH_PX: Final = 1920
"""Of a plot as PNG: three times what it is as SVG."""

app = typer.Typer(help="Which model for which task.", no_args_is_help=True, rich_markup_mode=None, cls=Whole)


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
        say(tasks_json(chosen))
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
            say(score_json(answer, score))
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
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="So many prompts of each category.")] = None,
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
    strict: Annotated[
        bool, typer.Option("--strict", help="Measure answers with a suspect receipt again too, twice at most.")
    ] = False,
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
    from joulebox.errors import JouleboxError

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
                Runner(client, book, chosen, place, patient, progress.say, strict=strict).run()
            except (KeyboardInterrupt, JouleboxError):
                progress.clear()
                say(f"stopped; joulebox bench run --resume {path} goes on.", error=True)
                raise
            score_all(book, chosen, progress.passing)
            progress.clear()
    say(f"Everything is in {path}. Its table: joulebox bench table {path}")


CampaignArgument = Annotated[Path, typer.Argument(help="A campaign's file.", metavar="CAMPAIGN.jsonl")]


@app.command("table")
def bench_table(
    campaign: CampaignArgument,
    form: Annotated[str, typer.Option("--format", help="text, markdown, html, csv or json.")] = "text",
    view: Annotated[
        list[str] | None, typer.Option("--view", help="sci, energy, accuracy, right, token; repeatable. All of them.")
    ] = None,
    min_n: Annotated[int, typer.Option("--min-n", min=10, help="A cell of fewer prompts is shown as missing.")] = 10,
    strict: Annotated[bool, typer.Option("--strict", help="Leave out answers whose receipt is suspect.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Account and score everything anew, by the method of this installation.")
    ] = False,
    tasks: TasksOption = None,
    plots: Annotated[
        Path | None, typer.Option("--plots", help="Write the plots as SVG into this folder.", metavar="FOLDER")
    ] = None,
    png: Annotated[bool, typer.Option("--png", help="With --plots: as PNG too (extra `pictures`).")] = False,
    output: Annotated[Path | None, typer.Option("--output", help="Write it to a file.", metavar="FILE")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """What a campaign came to: models by categories, every figure with n and 95 % interval, and what is missing."""
    from joulebox.bench import page, views
    from joulebox.bench.campaign import tasks_of
    from joulebox.bench.record import read_record
    from joulebox.bench.table import table_of
    from joulebox.bench.verify import verify
    from joulebox.errors import JouleboxError
    from joulebox.raster import png_of

    if png and plots is None:
        raise JouleboxError("bad_request", "--png is for plots: say where with --plots FOLDER.")
    named = {one.name: one for one in views.VIEWS}
    if unknown := [name for name in view or () if name not in named]:
        raise JouleboxError("bad_request", f"There is no view {unknown[0]}: choose among {', '.join(named)}.")
    chosen = [named[name] for name in view] if view else list(views.VIEWS)
    record = read_record(campaign)
    if again:
        _, record = verify(record, tasks_of(record.header, tasks or ()), lambda _: None)
    table = table_of(record, min_n, strict=strict)
    forms = {
        "text": lambda: views.as_text(table, record, chosen) + "\n",
        "markdown": lambda: views.as_markdown(table, record, chosen),
        "html": lambda: page.as_html(table, record),
        "csv": lambda: views.as_csv(table),
        "json": lambda: views.as_json(table, record) + "\n",
    }
    if form not in forms:
        raise JouleboxError("bad_request", f"There is no format {form}: choose among {', '.join(forms)}.")
    text = forms["json" if as_json else form]()
    if output is not None:
        output.write_text(text, encoding="utf-8")
        say(f"The table is in {output}.")
    else:
        say(escaped(text, keep="\n") if as_json or form == "json" else text, end="")
    if plots is not None:
        plots.mkdir(parents=True, exist_ok=True)
        for name, svg in page.plots(table).items():
            (plots / name).write_text(svg, encoding="utf-8")
            if png:
                (plots / name).with_suffix(".png").write_bytes(png_of(svg, PNG_WIDTH_PX))


@app.command("verify")
def bench_verify(
    campaign: CampaignArgument,
    tasks: TasksOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make every receipt of a campaign again of its evidence, and score every answer again. Exit 1 if any differs."""

    from joulebox.bench.campaign import tasks_of
    from joulebox.bench.record import read_record
    from joulebox.bench.verify import as_data, as_lines, verify
    from joulebox.console import Progress

    progress = Progress()
    record = read_record(campaign)
    verified, _ = verify(record, tasks_of(record.header, tasks or ()), progress.passing)
    progress.clear()
    say_json(as_data(verified)) if as_json else say("\n".join(as_lines(verified)))
    if not verified.sound:
        raise typer.Exit(1)


@app.command("recommend")
def bench_recommend(
    campaign: Annotated[
        Path | None,
        typer.Argument(help="A campaign's file; else what the server has.", metavar="CAMPAIGN.jsonl"),
    ] = None,
    category: Annotated[str, typer.Option("--category", help="What it is for; all takes all together.")] = "all",
    min_accuracy: Annotated[
        float, typer.Option("--min-accuracy", min=0.0, max=1.0, help="Right in so many of such prompts: 0.6.")
    ] = 0.0,
    max_energy_j: Annotated[
        float | None, typer.Option("--max-energy-j", min=0.0, help="A mean answer takes no more.")
    ] = None,
    node: Annotated[str | None, typer.Option("--node", help="Of which node, if the campaign has several.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    server: ServerOption = None,
) -> None:
    """The cheapest model that is good enough with 95 % confidence, or what it would take to tell. Exit 1 if none."""
    from dataclasses import asdict

    from joulebox.bench.advise import advise
    from joulebox.bench.record import read_record

    if campaign is not None:
        told = asdict(advise(read_record(campaign), category, min_accuracy, max_energy_j, node))
    else:
        with client_of(server) as client:
            told = client.recommend(category=category, min_accuracy=min_accuracy, max_energy_j=max_energy_j)
    say_json(told) if as_json else say(f"{told['model'] or '-'}\n{told['reason']}")
    if told["model"] is None:
        raise typer.Exit(1)


@app.command("publish")
def bench_publish(
    campaign: CampaignArgument,
    min_n: Annotated[int, typer.Option("--min-n", min=10, help="A cell of fewer prompts is missing.")] = 10,
    strict: Annotated[bool, typer.Option("--strict", help="Leave out answers whose receipt is suspect.")] = False,
    server: ServerOption = None,
) -> None:
    """Give a campaign's table to the server, for its page, for recommendations and for the model joulebox/auto."""
    from joulebox.bench.advise import published
    from joulebox.bench.record import read_record

    with client_of(server, admin=True) as client:
        kept = client.publish(published(read_record(campaign), min_n, strict=strict))
    say(f"Campaign {kept['id']} is published: {kept['cells']} cells.")


@app.command("import")
def bench_import(
    kind: Annotated[str, typer.Argument(help="humaneval, mbpp, gsm8k, sql, or jsonl with --map and --as.")],
    source: Annotated[Path, typer.Argument(help="The set's file of JSON lines, packed (.gz) or not.")],
    out: Annotated[Path, typer.Option("--out", help="The task file to write, .json.", metavar="FILE.json")],
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="The first prompts alone.")] = None,
    mapping: Annotated[
        str | None, typer.Option("--map", help="prompt=FIELD,answer=FIELD,id=FIELD", metavar="FIELDS")
    ] = None,
    judged: Annotated[str, typer.Option("--as", help="How answers of jsonl are judged: text or number.")] = "text",
    category: Annotated[str | None, typer.Option("--category", help="Call the task so.")] = None,
    licence: Annotated[str | None, typer.Option("--licence", help="Under which licence you have it.")] = None,
) -> None:
    """Make a task file of a public set that you have; run it with `joulebox bench run --tasks FILE.json`."""
    from joulebox.bench.importing import KINDS, as_file, imported, mapped
    from joulebox.errors import JouleboxError

    if kind != "jsonl" and kind not in KINDS:
        raise JouleboxError("bad_request", f"There is no kind {kind}: choose among {', '.join([*KINDS, 'jsonl'])}.")
    if out.suffix != ".json":
        raise JouleboxError("bad_request", f"A task file of this kind ends in .json: {out.with_suffix('.json')}.")
    pairs = dict(pair.partition("=")[::2] for pair in _names(mapping))
    chosen = KINDS[kind] if kind != "jsonl" else mapped(pairs, judged)
    made = imported(chosen, source, limit=limit, category=category, licence=licence)
    out.write_text(as_file(made.task), encoding="utf-8")
    for told in made.left_out[:5]:
        say(f"left out: {told}", error=True)
    say(f"{out}: {made.prompts} prompts, {len(made.left_out)} lines left out.")


def _names(text: str | None) -> list[str]:
    """Names that were written with commas, each once."""
    return list(dict.fromkeys(name.strip() for name in (text or "").split(",") if name.strip()))
