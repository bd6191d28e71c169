"""The command line: wiring only. Everything heavy is imported where it is used, so that `--help` is instant."""

import json
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from joulebox.backup_commands import backup, restore
from joulebox.bench_commands import app as bench_app
from joulebox.command_help import Sectioned, Whole
from joulebox.compare_commands import compare
from joulebox.errors import JouleboxError
from joulebox.export_commands import receipts_export
from joulebox.feedback_commands import feedback
from joulebox.model_commands import DataOption, fetch_default_model, models_app, registry_of_settings
from joulebox.node_commands import NodeArgument, node_app
from joulebox.terminal import escaped, say, say_json, shown_json
from joulebox.token_commands import JsonOption, ServerOption, client_of, tokens_app

if TYPE_CHECKING:
    from joulebox.node.meter_host import MeterHost
    from joulebox.settings import Settings

app = typer.Typer(
    name="joulebox",
    cls=Sectioned,
    help="Pick an open model, put in a prompt, get the answer and its receipt: joules with an interval, CO2e, SCI.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
meters_app = typer.Typer(help="Meters of this machine.", no_args_is_help=True, rich_markup_mode=None, cls=Whole)
receipts_app = typer.Typer(help="Receipts of past prompts.", no_args_is_help=True, rich_markup_mode=None, cls=Whole)
report_app = typer.Typer(help="Reports of the whole service.", no_args_is_help=True, rich_markup_mode=None, cls=Whole)
control_app = typer.Typer(help="Control prompts of the nodes.", no_args_is_help=True, rich_markup_mode=None, cls=Whole)
db_app = typer.Typer(help="The server's database.", no_args_is_help=True, rich_markup_mode=None, cls=Whole)
rig_app = typer.Typer(help="The simulated lab.", no_args_is_help=True, rich_markup_mode=None, cls=Whole)
app.add_typer(node_app, name="node")
app.add_typer(models_app, name="models")
app.add_typer(meters_app, name="meters")
app.add_typer(receipts_app, name="receipts")
app.add_typer(control_app, name="control")
app.add_typer(db_app, name="db")
app.add_typer(report_app, name="report")
app.add_typer(tokens_app, name="tokens")
app.add_typer(bench_app, name="bench")
app.command()(compare)
app.command()(feedback)
app.command()(backup)
app.command()(restore)
app.add_typer(rig_app, name="rig")

PortOption = Annotated[int | None, typer.Option("--port", help="Port of the server; 0 takes any free one.")]
ZoneOption = Annotated[str | None, typer.Option("--zone", help="Grid zone, such as DE; without it, the world mean.")]
MeterOption = Annotated[
    list[str] | None, typer.Option("--meter", help="A meter, KIND:ADDRESS; repeatable.", metavar="KIND:ADDRESS")
]
ReceiptArgument = Annotated[str | None, typer.Argument(help="One receipt.", metavar="ID")]
AllOption = Annotated[bool, typer.Option("--all", help="All receipts.")]
SinceOption = Annotated[str | None, typer.Option("--since", help="Receipts from this day or moment on.", metavar="DAY")]
TokenFileOption = Annotated[
    Path | None, typer.Option("--token-file", help="A file that holds the token for the server.", metavar="FILE")
]


def main() -> NoReturn:
    """Run a command; a `JouleboxError` is one sentence on stderr and its exit code."""
    code: object = 0
    try:
        code = app(standalone_mode=False)  # Ctrl-C comes back as a number
    except JouleboxError as error:
        say(error.detail, error=True)
        sys.exit(error.failure.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except OSError as error:
        say(f"{error.filename or 'Something'} cannot be used: {error.strerror}.", error=True)
        sys.exit(1)
    except typer.Exit as leave:
        sys.exit(leave.exit_code)
    except Exception as error:  # noqa: BLE001 - whatever it says, it steers no terminal
        show = getattr(error, "show", None)  # a usage error of the command line library shows itself
        if show is None:
            say(traceback.format_exc(), error=True)
            sys.exit(1)
        show()
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


# --- the service ------------------------------------------------------------------------------------------------------


@app.command()
def up(
    port: PortOption = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    zone: ZoneOption = None,
    meter: MeterOption = None,
    data_dir: DataOption = None,
) -> None:
    """Start a server and one node on this machine, until Ctrl-C."""
    from joulebox.settings import load_settings

    settings = load_settings(port=port, zone=zone, meters=_meters(meter), data_dir=data_dir)
    _check(settings)
    _default_model(settings)
    service = _Service(settings)
    try:
        url = service.start()
        say(f"Joulebox is up: {url}  (Ctrl-C ends it)")
        say(f'Ask from another terminal: joulebox ask "What is the capital of France?"{_elsewhere(url)}')
        if open_page:
            from joulebox.console import open_in_browser

            open_in_browser(url)
        service.watch()
    finally:
        service.stop()


@app.command()
def serve(port: PortOption = None, data_dir: DataOption = None) -> None:
    """Start the server alone; nodes join it with `joulebox node`."""
    from joulebox.host import importing
    from joulebox.logs import configure

    with importing():
        from joulebox.server.app import serve as run
    from joulebox.server.grid import notices
    from joulebox.settings import load_settings
    from joulebox.supervisor import end_with_parent, say_ready

    settings = load_settings(port=port, data_dir=data_dir)
    _check(settings)
    for notice in notices(settings):
        say(notice, error=True)
    configure("server", settings.log, settings.log_format)
    end_with_parent()

    def ready(url: str) -> None:
        if not say_ready(url):
            say(f"Joulebox serves at {url}  (Ctrl-C ends it)")

    run(settings, ready)


@node_app.callback()
def node(
    context: typer.Context,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    zone: ZoneOption = None,
    meter: MeterOption = None,
    data_dir: DataOption = None,
) -> None:
    """Start a measuring node on this machine; it takes prompts from the server one at a time. With one of the commands
    below nothing is started: they speak to the server about its nodes."""
    if context.invoked_subcommand is not None:
        return
    from joulebox.host import importing

    with importing():
        from joulebox.node.run import run
    from joulebox.settings import load_settings
    from joulebox.supervisor import end_with_parent, parent_pid, say_ready

    token = token_file.read_text(encoding="utf-8").strip() if token_file is not None else None
    settings = load_settings(server=server, token=token, zone=zone, meters=_meters(meter), data_dir=data_dir)
    _check(settings)
    end_with_parent()
    run(settings, on_ready=say_ready, server_pid=parent_pid())


# --- asking -----------------------------------------------------------------------------------------------------------


@app.command()
def ask(
    prompt: Annotated[str, typer.Argument(help="What to ask; - reads it from stdin.")],
    model: Annotated[str | None, typer.Option("--model", help="Which model; see `joulebox models list`.")] = None,
    system: Annotated[str | None, typer.Option("--system", help="System prompt.")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", help="Longest answer in tokens.")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", help="0 repeats the same answer.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the choice of tokens.")] = None,
    max_energy_j: Annotated[
        float | None, typer.Option("--max-energy-j", help="Stop at so many joules above idle.", metavar="J")
    ] = None,
    placement: Annotated[
        str | None, typer.Option("--placement", help="fastest, greenest, zone:DE or node:NAME.", metavar="WHERE")
    ] = None,
    priority: Annotated[
        str | None, typer.Option("--priority", help="interactive, benchmark or deferrable.", metavar="CLASS")
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option("--deadline", help="Run it by then, in the greenest hours: 2026-11-24T06:00Z.", metavar="TIME"),
    ] = None,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a model: the answer as it comes, then its receipt."""
    from joulebox.console import question_of

    fields: dict[str, object] = {
        "prompt": question_of(prompt),
        "system": system,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "seed": seed,
        "max_energy_j": max_energy_j,
        "placement": placement,
        "priority": priority,
        "deadline": deadline,
    }
    with client_of(server) as client:
        _ask(client, {"model": model} | fields, as_json=as_json)


@app.command(context_settings={"allow_interspersed_args": False})
def measure(
    command: Annotated[list[str], typer.Argument(help="The command with its own options.", metavar="COMMAND...")],
    meter: MeterOption = None,
    zone: ZoneOption = None,
    idle_s: Annotated[float, typer.Option("--idle-s", help="Seconds of listening to the idle machine first.")] = 3.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the receipt as JSON, last on stdout.")] = False,
) -> None:
    """Run a command under the meters: its output and exit code as ever, then its receipt on stderr."""
    from joulebox.accounting import receipt_bytes
    from joulebox.console import show_receipt
    from joulebox.local import check_command, instruments, run_command

    check_command(command)
    code, receipt = run_command(command, instruments(meter or (), zone, idle_s), lambda text: say(text, error=True))
    body = receipt_bytes(receipt).decode()
    if as_json:
        say(f"\n{escaped(body)}")  # on a line of its own, whatever the command left behind
    else:
        show_receipt(json.loads(body), sys.stderr)
    raise typer.Exit(code)


def _ask(client: Any, fields: dict[str, object], *, as_json: bool) -> tuple[str, dict[str, Any]]:
    from joulebox.asking import some_model
    from joulebox.console import Progress, follow, show_receipt

    progress = Progress()
    fields["model"] = fields.get("model") or some_model(client)
    status = client.submit(**fields)
    try:
        answer, receipt = follow(client.events(status["id"]), progress, None if as_json else sys.stdout)
    except KeyboardInterrupt:
        client.cancel(status["id"])
        progress.clear()
        say("the prompt was cancelled.", error=True)
        raise
    if as_json:
        say_json({"answer": answer, "receipt": receipt})
    else:
        say("")
        show_receipt(receipt)
    return answer, receipt


@app.command()
def demo(folder: Annotated[Path, typer.Option("--folder", help="Where the receipt is left.")] = Path()) -> None:
    """Start the service, ask one real question, print answer and receipt, leave both as files, and stop."""
    from joulebox.asking import JOIN_WAIT_S, some_model
    from joulebox.client import Client
    from joulebox.console import Progress
    from joulebox.server.pages import render_receipt
    from joulebox.settings import load_settings

    if not folder.is_dir():
        raise JouleboxError("bad_request", f"There is no folder {folder}: make it first, or choose another --folder.")
    settings = load_settings(port=0)
    _default_model(settings)
    progress = Progress()
    progress.say("starting server and node")
    told = settings.log if "log" in settings.model_fields_set else "warning"
    service = _Service(settings.model_copy(update={"node": f"{settings.node}-demo", "log": told}), own="demo")
    try:
        url = service.start()
        question = "What is the capital of France?"
        with Client(url) as client:
            model = some_model(client, JOIN_WAIT_S)
            progress.clear()
            say(f"> {question}\n")
            _, receipt = _ask(client, {"prompt": question, "model": model, "max_tokens": 64}, as_json=False)
    finally:
        service.stop()
    page, data = folder / "demo-receipt.html", folder / "demo-receipt.json"
    page.write_text(render_receipt(receipt, standalone=True), encoding="utf-8")
    data.write_text(json.dumps(receipt, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    say(f"\nThe receipt is in {page} (open it in a browser) and {data}.")
    say("The page, the queue and the API: make up (or joulebox up).")


# --- meters, receipts, rig --------------------------------------------------------------------------------------------


@meters_app.command("list")
def meters_list(as_json: JsonOption = False) -> None:
    """What was found on this machine, what was not, and why."""
    from dataclasses import asdict

    from joulebox.node.meters import found

    findings = found()
    if as_json:
        say_json([asdict(finding) for finding in findings])
        return
    for finding in findings:
        mark = "used" if finding.used else "found" if finding.found else "not found"
        say(f"{finding.address}  [{mark}]\n  {finding.sentence}")
        for channel in finding.channels:
            say(f"    {channel.name}: {channel.kind.value}, scope {channel.scope}; {channel.accuracy}")


@meters_app.command("check")
def meters_check(meter: MeterOption = None, as_json: JsonOption = False) -> None:
    """Read the meters that a node would read for about two seconds each, and whether they make sense together; exit 1
    if one fails."""
    from dataclasses import asdict

    from joulebox.clock import SystemClock
    from joulebox.console import Progress
    from joulebox.findings import show_readings
    from joulebox.node.calibration import FILE, load_calibration
    from joulebox.node.meter_check import check, together
    from joulebox.node.meters import open_meters
    from joulebox.settings import load_settings

    settings = load_settings(meters=_meters(meter))
    meters, clock, progress = open_meters(settings.meters), SystemClock(), Progress()
    checks = []
    try:
        for one in meters:
            progress.say(f"reading {one.address}")
            checks.append(check(one, clock, settings.reading_hz))
    finally:
        for one in meters:
            one.close()
    progress.clear()
    if as_json:
        say_json([asdict(one) for one in checks])
    else:
        show_readings(checks, together(meters, checks, load_calibration(settings.data_dir / FILE), clock.utc()))
    if not checks or not all(one.ok for one in checks):
        raise typer.Exit(1)


@meters_app.command("calibrate")
def meters_calibrate(
    meter: MeterOption = None,
    data_dir: DataOption = None,
    idle_s: Annotated[
        float, typer.Option("--idle-s", min=3.0, max=600.0, help="Seconds of listening to the idle machine.")
    ] = 30.0,
    supply_efficiency: Annotated[
        float | None,
        typer.Option(
            "--supply-efficiency",
            min=0.5,
            max=1.0,
            help="Share of each further watt at the plug that reaches processor and memory, as the supply's "
            "certificate says (0.9): with it a wall meter tells the counters' own error.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Also find what this model draws while it reads and while it writes."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find idle power, noise, tick and lag of the meters while the machine rests and works, and whether they agree;
    about a minute each."""
    from dataclasses import asdict, replace

    from joulebox.clock import SystemClock
    from joulebox.console import Progress
    from joulebox.findings import show_calibration
    from joulebox.node.calibration import FILE, calibrate_node
    from joulebox.settings import load_settings

    settings = load_settings(meters=_meters(meter), data_dir=data_dir)
    progress = Progress()
    found = calibrate_node(settings.data_dir, settings.meters, SystemClock(), progress.say, idle_s, supply_efficiency)
    if model is not None:
        from joulebox.phase_powers import learn_here

        powers = learn_here(settings, model, progress.say)
        found = replace(found, splits=(powers,) if powers is not None else ())
    progress.clear()
    if as_json:
        say_json(asdict(found))
    else:
        show_calibration(found, settings.data_dir / FILE, model)


@meters_app.command("serve")
def meters_serve(
    host: Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for every network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes any free one.")] = 8090,
    meter: MeterOption = None,
) -> None:
    """Read the meters here for a node on another machine, until Ctrl-C."""
    import signal

    from joulebox.node.meter_host import serve
    from joulebox.settings import load_settings

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)

    def ready(served: "MeterHost") -> None:
        say(f'JOULEBOX_METERS="{served.addresses(host)}"')

    serve(load_settings(meters=_meters(meter)).meters, host, port, ready)


@app.command()
def doctor(meter: MeterOption = None, as_json: JsonOption = False) -> None:
    """What a measuring machine should be, and what this one is; exit 1 if something breaks measurements."""
    from dataclasses import asdict

    from joulebox.findings import show_checks
    from joulebox.node.doctor import broken, examine
    from joulebox.node.engine_check import check_engine
    from joulebox.settings import load_settings

    settings = load_settings(meters=_meters(meter))
    kind = (settings.engine or "").partition(":")[0] or None
    checks = [*examine(meters=settings.meters, engine=kind), check_engine(settings)]
    if as_json:
        say_json([asdict(check) for check in checks])
    else:
        show_checks(checks)
    if broken(checks):
        raise typer.Exit(1)


@receipts_app.command("show")
def receipts_show(
    receipt_id: Annotated[str, typer.Argument(help="A receipt.", metavar="ID")],
    revision: Annotated[int | None, typer.Option("--revision", min=1, help="This one, not the newest.")] = None,
    server: ServerOption = None,
    as_json: JsonOption = False,
    parts: Annotated[bool, typer.Option("--parts", help="Also what making the machine emitted, part by part.")] = False,
) -> None:
    """Print a receipt."""
    from joulebox.console import show_receipt

    with client_of(server) as client:
        receipt = client.receipt(receipt_id, revision)
        elsewhere = client.whatif(receipt_id) if not as_json else None
    if as_json:
        say_json(receipt)
    else:
        show_receipt(receipt, parts=parts)
        if elsewhere is not None:
            say(" ".join(elsewhere["sentences"]))


@receipts_app.command("erase")
def receipts_erase(
    one_id: Annotated[str, typer.Argument(help="A receipt, or a prompt that is over.", metavar="ID")],
    server: ServerOption = None,
) -> None:
    """Remove what you asked and what was answered; receipt and readings hold no text and stay."""
    with client_of(server) as client:
        say(client.erase(one_id)["detail"])


@receipts_app.command("recompute")
def receipts_recompute(
    receipt_id: ReceiptArgument = None,
    every: AllOption = False,
    since: SinceOption = None,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make receipts again of their evidence; what differs is a further revision, and earlier ones are kept."""
    from joulebox.console import recomputed_line

    outcomes = []
    with client_of(server, admin=True) as client:
        for one in _chosen(client, receipt_id, since, every=every):
            outcomes.append(client.recompute(one))
            if not as_json:
                say(recomputed_line(outcomes[-1]))
    if as_json:
        say_json(outcomes)
    elif not outcomes:
        say("There are no receipts.")


receipts_app.command("export")(receipts_export)


@report_app.callback()
def report() -> None:
    """Reports of the whole service."""


@report_app.command("sci")
def report_sci(
    start: Annotated[str | None, typer.Option("--from", help="First day or moment (UTC).", metavar="DAY")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Last day, or the moment it ends.", metavar="DAY")] = None,
    zone: Annotated[str | None, typer.Option("--zone", help="Only nodes of this grid zone.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Only this model, with its share of the rest.")] = None,
    as_json: JsonOption = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown (the default).")] = False,
    as_html: Annotated[bool, typer.Option("--html", help="Print a page fit to publish.")] = False,
    output: Annotated[Path | None, typer.Option("--output", help="Write it to this file.", metavar="FILE")] = None,
    server: ServerOption = None,
) -> None:
    """The service's SCI over a period: all electricity and all hardware, per token and per answer (SCI for AI)."""
    from joulebox.client import Client
    from joulebox.settings import load_settings

    if as_json + as_markdown + as_html > 1:
        raise JouleboxError("bad_request", "Choose one of --json, --markdown and --html.")
    form = "json" if as_json else "html" if as_html else "markdown"
    with Client(load_settings(server=server).server) as client:
        body = client.report(form, **{"from": start, "to": until, "zone": zone, "model": model})
    text = f"{shown_json(json.loads(body))}\n" if as_json else body.decode()
    if output is None:
        say(text, end="")
    else:
        output.write_text(text, encoding="utf-8", newline="")
        say(f"The report is in {output}.")


@control_app.command("show")
def control_show(server: ServerOption = None, as_json: JsonOption = False) -> None:
    """Print how each node's control prompt stands against its reference, and its newest runs."""
    from joulebox.console import control_lines

    with client_of(server) as client:
        nodes = client.nodes()
    if as_json:
        say_json({node["name"]: node["control"] for node in nodes})
    else:
        say("\n".join(line for node in nodes for line in control_lines(node)))


@control_app.command("rebaseline")
def control_rebaseline(
    node: NodeArgument,
    why: Annotated[str, typer.Option("--why", help="What was changed, and that it is to stay.")],
    server: ServerOption = None,
) -> None:
    """Begin a new reference for a node's control prompt, dated now; the old one stays in the database."""
    with client_of(server, admin=True) as client:
        found = client.rebaseline(node, why)
    say(f"{node}: a new reference begins; it needs {found['reference']['runs']} runs.")


@db_app.command("migrate")
def db_migrate(data_dir: DataOption = None) -> None:
    """Bring the database's schema up to date, making its tables where there are none. Servers do it when they start."""
    from joulebox.server.store import carry
    from joulebox.settings import load_settings

    carry.migrate(load_settings(data_dir=data_dir).database)
    say("The database has the newest schema.")


@db_app.command("copy")
def db_copy(
    target: Annotated[str, typer.Argument(help="The empty database to fill.", metavar="TARGET_URL")],
    source: Annotated[
        str | None, typer.Option("--from", help="The database to read; without it, the one of the settings.")
    ] = None,
    data_dir: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Carry all prompts, attempts, evidence and receipts to another, empty database. Stop the servers first."""
    from joulebox.console import Progress
    from joulebox.server.store import carry
    from joulebox.settings import load_settings

    progress = Progress()
    carried = carry.copy(
        source or load_settings(data_dir=data_dir).database,
        target,
        lambda table, done, total: progress.share(f"copying {table}", done, total),
    )
    progress.clear()
    if as_json:
        say_json({one.table: one.rows for one in carried}, None)
    else:
        say("\n".join(f"{one.table}: {one.rows}" for one in carried))
        say("Everything is there. Set JOULEBOX_DATABASE_URL to the new database and start the servers.")


@rig_app.command("run")
def rig_run(
    folder: Annotated[Path, typer.Option("--folder", help="Where the simulated meters are laid out.")] = Path("rig"),
    seed: Annotated[int, typer.Option("--seed", help="The same seed, the same machine.")] = 1,
    beside: Annotated[
        str,
        typer.Option(
            "--with",
            help="Instruments at its plug that answer too: mcp39f511n,shelly,tasmota,modbus,redfish.",
            metavar="NAMES",
        ),
    ] = "",
) -> None:
    """Serve the meters of a simulated machine whose power follows this machine's real work, until Ctrl-C."""
    from joulebox.rig.serve import run

    run(folder, seed, beside=[name.strip() for name in beside.split(",") if name.strip()])


# --- wiring shared by commands ----------------------------------------------------------------------------------------


class _Service:
    """Server and node of `up` and `demo` as watched processes. `own` gives them a data folder of that name."""

    def __init__(self, settings: "Settings", own: str = "") -> None:
        from joulebox.clock import SystemClock
        from joulebox.supervisor import Supervisor

        self._settings = settings
        self._data_dir = settings.data_dir / own if own else settings.data_dir
        self._supervisor = Supervisor(SystemClock())

    def start(self) -> str:
        """Start both; the server's address."""
        from joulebox.settings import LOCAL_TOKEN

        settings = self._settings
        common = {"JOULEBOX_DATA_DIR": str(self._data_dir), "JOULEBOX_MODELS_DIR": str(settings.models_folder)}
        common["JOULEBOX_LOG"] = settings.log
        if settings.zone:
            common["JOULEBOX_ZONE"] = settings.zone
        if settings.meters:
            common["JOULEBOX_METERS"] = " ".join(settings.meters)
        url = self._supervisor.start("server", ["serve", "--port", str(settings.port)], common)
        self._supervisor.keep_port("server", url)
        node = common | {"JOULEBOX_SERVER": url, "JOULEBOX_NODE": settings.node}
        node |= {"JOULEBOX_TOKEN": "", "JOULEBOX_TOKEN_FILE": str(self._data_dir / LOCAL_TOKEN)}
        self._supervisor.start("node", ["node"], node)
        return url

    def watch(self) -> None:
        """Keep them running until told to end."""
        import signal

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._supervisor.leave())
        self._supervisor.watch()

    def stop(self) -> None:
        """End both."""
        self._supervisor.stop()


def _chosen(client: Any, receipt_id: str | None, since: str | None, *, every: bool) -> Any:
    """The ids of the receipts that were asked for in one of three ways."""
    if (receipt_id is not None) + (since is not None) + every != 1:
        raise JouleboxError("bad_request", "Say which receipts: give one ID, or --all, or --since DAY.")
    return [receipt_id] if receipt_id is not None else client.receipt_ids(since)


def _check(settings: "Settings") -> None:
    """Refuse at once what would fail later: an unknown zone, a wrong carbon setting."""
    from datetime import UTC, datetime

    from joulebox.server.grid import factors_for

    factors_for(settings.zone, settings, datetime(2026, 1, 1, tzinfo=UTC))


def _default_model(settings: "Settings") -> None:
    """Fetch the default model where there is none yet and the engine is ours, showing how far it is."""
    from joulebox.node.engines import llamacpp

    registry = registry_of_settings(settings)
    if settings.engine is None and not registry.list():
        llamacpp.installed()
        fetch_default_model(registry)


def _meters(named: list[str] | None) -> tuple[str, ...] | None:
    return tuple(named) if named else None


def _elsewhere(url: str) -> str:
    return "" if url.endswith(":8080") else f" --server {url}"


if __name__ == "__main__":
    main()
