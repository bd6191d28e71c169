"""What the terminal shows: a prompt as it goes, and its receipt. Model output is hostile: control characters are taken
out."""

import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

import typer
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from joulebox.accounting.equivalents import LAMP_W, lamp_s
from joulebox.client import ServerEvent
from joulebox.errors import JouleboxError
from joulebox.terminal import cleaned, harmless, say
from joulebox.wording import (
    NOT_MEASURED,
    NOTE,
    PHASES,
    SCI,
    SIMULATED,
    TOO_SHORT,
    VERDICTS,
    WORK_NOTE,
    between,
    budget_words,
    calibration_words,
    grade_words,
    lasting,
    marks,
    plain,
    quantity,
    ranged,
    saved_words,
    scope_words,
)

WIDTH_MAX = 88
LABEL_WIDTH = 15
RUNS_SHOWN = 10
CUT = {"length": "cut at the limit", "energy": "stopped at its budget"}
COLOURS = {"valid": "green", "suspect": "yellow", "invalid": "red"}


class Progress:
    """Tells on stderr what is going on: in place where that is a terminal, a line a change elsewhere."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._last = ""

    def say(self, text: str) -> None:
        """Show `text` in place of what stood there."""
        text = harmless(text)
        if text == self._last:
            return
        self._last = text
        if self._live:
            width = shutil.get_terminal_size().columns - 1  # a line that wraps cannot be replaced
            self._stream.write(f"\r\x1b[2K{text[:width]}")
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def passing(self, text: str) -> None:
        """What is true for a moment only, and not worth a line of its own."""
        if self._live:
            self.say(text)

    def share(self, text: str, done: int, total: int) -> None:
        """Show how far something is; in steps of 10 % where lines cannot be replaced."""
        percent = 100 * done // max(total, 1)
        self.say(f"{text} {percent if self._live else percent // 10 * 10} %")

    def clear(self) -> None:
        """Leave an empty line to write on."""
        if self._live and self._last:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()
        self._last = ""


def follow(events: Iterable[ServerEvent], progress: Progress, out: TextIO | None) -> tuple[str, dict[str, Any]]:
    """Show a prompt's events until it ends; the answer and its receipt.

    `out` gets the answer as it comes, `None` nothing. Raises `JouleboxError` where the prompt failed or was cancelled.
    """
    answer: list[str] = []
    for event in events:
        data = event.data
        if event.name == "token":
            progress.clear()
            answer.append(harmless(str(data.get("text", ""))))
            _write(out, answer[-1])
        elif event.name == "restarted":
            answer.clear()
            _write(out, "\n(starting again: what stands above is void)\n")
        elif event.name == "answer":
            called = [harmless(f"{one['name']}({one['arguments']})\n") for one in data.get("tool_calls") or ()]
            _write(out, "\n" if any(answer) or not called else "")
            _write(out, "".join(called))
            answer += called
        elif event.name == "receipt":
            progress.clear()
            return "".join(answer), dict(data)
        elif event.name in ("error", "cancelled"):
            progress.clear()
            raise JouleboxError(
                "cancelled" if event.name == "cancelled" else "too_many_attempts",
                str(data.get("detail") or "The prompt was cancelled."),
            )
        if (sentence := event_words(event)) is not None:
            progress.say(sentence)
    raise JouleboxError("no_server", "The server ended the stream without a receipt. Ask again.")


def _write(out: TextIO | None, text: str) -> None:
    if out is not None:
        out.write(text)
        out.flush()


def event_words(event: ServerEvent) -> str | None:
    """What a person who waits is told of an event; `None`: nothing."""
    data = event.data
    if event.name == "queued":
        return f"waiting: {_waits(data)}"
    if event.name == "settling" and data.get("now_c") is not None:
        warms = (data.get("target_c") or 0) > data["now_c"]
        does = "is warmed up" if warms else "cools"
        cooling = f"{harmless(str(data.get('sensor')))} {does} from {data['now_c']} °C to {data.get('target_c')} °C"
        return cooling if data.get("expected_s") is None else f"{cooling}, about {float(data['expected_s']):.0f} s"
    if event.name == "settling":
        return "letting the machine settle, so that the measurement starts from idle"
    if event.name == "phase":
        return {"loading": "loading the model", "measuring": "measuring the quiet after the answer"}.get(
            str(data.get("phase"))
        )
    if event.name == "started":
        return f"answering on {harmless(str(data.get('node')))}"
    return None


def _waits(data: Mapping[str, Any]) -> str:
    """Place in the line, when it is expected to begin, and the cause."""
    told = [harmless(str(data.get("reason") or "in line"))]
    position, start = data.get("position"), data.get("expected_start")
    if position and "before yours" not in told[0]:
        told.insert(0, f"{position} before yours")
    if start is not None and "deferred to" not in told[0]:
        told.append(f"begins about {str(start)[:10]} {str(start)[11:19]} UTC")
    return "; ".join(told)


def receipt_panel(receipt: Mapping[str, Any]) -> Panel:
    """A receipt as a panel: what it cost and how sure that is, then every figure with its note."""
    table = Table.grid(padding=(0, 2))
    table.add_column(max_width=LABEL_WIDTH)
    table.add_column(no_wrap=True)
    table.add_column(style="dim", overflow="fold")
    for section in (_energy_rows, _carbon_rows, _run_rows):
        table.add_row()
        for label, figure, note in section(receipt):
            table.add_row(label, figure, note)
    parts: list[RenderableType] = [
        _headline(receipt),
        table,
        Text(),
        *_verdict(receipt),
        Text(f"\n{_made(receipt)}{_where(receipt)}"),
        Text(NOTE if receipt["model"] else WORK_NOTE, style="dim"),
    ]
    return Panel(Group(*parts), title=Text(f"Receipt {receipt['id']}"), padding=(1, 2))


def embodied_table(receipt: Mapping[str, Any]) -> Table | None:
    """What making the machine emitted, part by part; `None` where nobody told."""
    machine = receipt["carbon"].get("hardware")
    if not machine:
        return None
    table = Table.grid(padding=(0, 2))
    table.title, table.title_justify = Text(f"Making {harmless(str(receipt['node']))}"), "left"
    table.add_column()
    table.add_column(no_wrap=True, justify="right")
    table.add_column(style="dim", overflow="fold")
    for part in machine["parts"]:
        central = "unknown" if part["central_kg"] is None else plain(part["central_kg"], "kg", 2)
        span = f"{plain(part['low_kg'], '', 2)} to {plain(part['high_kg'], 'kg', 2)}"
        table.add_row(harmless(part["part"]), Text(central), f"{span}; {harmless(part['source'])}")
    total = f"{plain(machine['low_kg'])} to {plain(machine['high_kg'], 'kg')}; {harmless(machine['source'])}"
    table.add_row("TE, in all", Text(plain(machine["central_kg"], "kg")), total)
    return table


def plain_console(stream: TextIO | None = None, width: int | None = None) -> Console:
    """Where tables are printed. Square brackets are text: rich would make links of them."""
    return Console(file=stream or sys.stdout, width=width, highlight=False, markup=False, emoji=False)


def show_receipt(receipt: Mapping[str, Any], stream: TextIO | None = None, *, parts: bool = False) -> None:
    """Print a receipt, at most `WIDTH_MAX` columns wide; with `parts`, what making the machine emitted after it."""
    console, receipt = plain_console(stream), cleaned(receipt)
    if console.width > WIDTH_MAX:
        console = plain_console(stream, WIDTH_MAX)
    console.print(receipt_panel(receipt))
    if parts and (table := embodied_table(receipt)) is not None:
        console.print(table)


def show_comparison(found: Mapping[str, Any]) -> None:
    """Print what several models took for one prompt, and what each of them said."""
    console, found = plain_console(), cleaned(found)
    table = Table.grid(padding=(0, 2))
    for column in ("", "Energy", "CO2e", "Tokens", "Time", "Grade"):
        table.add_column(column, no_wrap=bool(column))
    table.show_header = True
    for one in found["answers"]:
        receipt = one["receipt"]
        answer, total = receipt["energy"]["answer"], receipt["carbon"]["total"]
        table.add_row(
            Text(harmless(one["model"]), style="bold"),
            _figure(receipt, answer),
            ranged(total["g"], total["low"], total["high"], "g")[0] if total else NOT_MEASURED,
            _count(receipt["usage"]["output_tokens"]),
            _duration(receipt["times"]["duration_s"]),
            Text(f"{answer['grade'] if answer else '-'}, {receipt['verdict']}", style=COLOURS[receipt["verdict"]]),
        )
    console.print(Text(harmless(found["headline"]), style="bold"), Text(), table, sep="\n")
    for one in found["answers"]:
        console.print(Text(f"\n{harmless(one['model'])}", style="bold"))
        console.print(Text(harmless(one["answer"])))
    beneath = f"On {harmless(found['node'])}, in this order (--order-seed {found['order_seed']}). {NOTE}"
    console.print(Text(f"\n{beneath}", style="dim"))


def question_of(prompt: str) -> str:
    """The prompt itself, or what stdin holds."""
    try:
        text = prompt if prompt != "-" else sys.stdin.read() if sys.stdin else ""
        text.encode()
    except UnicodeError as error:
        raise JouleboxError("bad_request", "The prompt is not UTF-8 text: convert it first.") from error
    return text


def node_lines(nodes: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """What each node does, since when and why."""
    if not nodes:
        yield "No node has joined. Start one with `joulebox node`."
    width = max((len(harmless(node["name"])) for node in nodes), default=0)
    for node in nodes:
        since = f" since {node['since'].replace('T', ' ')[:19]} UTC" if node["since"] else ""
        told = [
            f"grid {harmless(node['zone'])}" if node["zone"] else "",
            f"{len(node['models'])} model{'s' * (len(node['models']) != 1)}",
        ]
        where = ", ".join(filter(None, told))
        yield f"{harmless(node['name']):<{width}}  {node['state']}{since}: {harmless(node['reason'])} ({where})"


def idle_lines(idle: Mapping[str, Any]) -> Iterable[str]:
    """What a node does while nobody asks, and what it drew meanwhile."""
    policy = idle["idle_policy"] or {}
    unload_s, suspend_s = policy.get("unload_s"), policy.get("suspend_s")
    does = "keeps its model loaded" if unload_s is None else f"unloads its model after {lasting(unload_s)}"
    if suspend_s is not None:
        does += f" and suspends after {lasting(suspend_s)}"
        if idle.get("wake_s") is not None:
            does += f" (waking takes about {lasting(idle['wake_s'])})"
    yield f"{harmless(idle['name'])} {does}. Now {idle['state']}: {harmless(str(idle['reason']))}."
    if not idle["shares"]:
        yield f"Of the last {idle['hours']:g} hours it has told nothing that it drew between prompts."
    for share in idle["shares"]:
        loaded = {True: "with a model in memory", False: "without a model", None: "it did not say with what"}
        drawn = quantity(share["j"], share["u"], "J")
        mean = plain(share["mean_w"], "W")
        yield f"  {lasting(share['lasted_s'])} {loaded[share['loaded']]}: {drawn}, {mean} ({share['scope']})"


def control_lines(node: Mapping[str, Any]) -> Iterable[str]:
    """A node's control prompt: where it stands, and its newest runs."""
    control = node["control"]
    if control is None:
        yield f"{harmless(node['name'])}: no meter, so no control prompt."
        return
    yield f"{harmless(node['name'])}: {control['sentence']}"
    for run in control["runs"][:RUNS_SHOWN]:
        told = [run["at"], quantity(run["answer_j"], run["u_j"], "J")]
        if run["note"]:
            told.append(f"does not count: {run['note']}")
        elif run["high"] is not None:
            told.append(f"sums {run['high']:.1f} up, {run['low']:.1f} down of {control['limit']:g}")
        yield "  " + "  ".join(told)


def recomputed_line(outcome: Mapping[str, Any]) -> str:
    """What came of making a receipt again, on one line."""
    told = f"{outcome['id']}  revision {outcome['revision']}: "
    if not outcome["changed"]:
        return f"{told}the same, bit for bit (method {outcome['method_version']})"
    now, before = outcome["carbon"], outcome["carbon_before"]
    parts = [f"new {' and '.join(outcome['changed'])}", f"CO2e {_total(before)} -> {_total(now)}"]
    if "intensity" in outcome["changed"]:
        parts.append(f"grid {_grid(before['intensity'])} -> {_grid(now['intensity'])}")
    if "evidence" in outcome["changed"]:
        parts.append("with the same method and factors the evidence gives other figures: something is wrong here")
    return harmless(told + ", ".join(parts))


def _total(carbon: Mapping[str, Any]) -> str:
    return quantity(carbon["total"]["g"], None, "g") if carbon["total"] else NOT_MEASURED


def _grid(intensity: Mapping[str, Any]) -> str:
    return f"{plain(intensity['g_per_kwh'], 'g/kWh')} ({intensity['quality']})"


Row = tuple[str, Text, str]


def _headline(receipt: Mapping[str, Any]) -> Text:
    """The answer's energy, its interval in words, its grade."""
    answer, carbon = receipt["energy"]["answer"], receipt["carbon"]["total"]
    if answer is None:
        return Text.assemble(("Energy not measured", "bold"), ". Not zero: unknown.")
    told = [Text.assemble((quantity(answer["j"], answer["u"], "J"), "bold"), (_marked(receipt), "yellow"))]
    if carbon is not None:
        told.append(Text(f"{ranged(carbon['g'], carbon['low'], carbon['high'], 'g')[0]} CO2e"))
    told.append(Text(f"{_duration(receipt['times']['duration_s'])}"))
    sure = [between(answer["j"], answer["u"], "J"), grade_words(receipt)]
    if receipt["simulated"]:
        sure.append(SIMULATED)
    return Text("\n").join([Text("  ·  ").join(told), *(Text(words) for words in sure if words)])


def _marked(receipt: Mapping[str, Any]) -> str:
    return "".join(f" {word}" for word in marks(receipt))


def _figure(receipt: Mapping[str, Any], figure: Mapping[str, Any] | None, unit: str = "J") -> Text:
    """A figure with the words that must stand beside it."""
    if figure is None or figure["j"] is None:
        return Text(NOT_MEASURED, style="dim")
    return Text.assemble(quantity(figure["j"], figure["u"], unit), (_marked(receipt), "yellow"))


def _energy_rows(receipt: Mapping[str, Any]) -> Iterable[Row]:
    energy, power = receipt["energy"], receipt["power"]
    asked = receipt["model"] is not None
    whole = ("Answer", "prompt to last word") if asked else ("Work", "start to end")
    yield whole[0], _figure(receipt, energy["answer"]), f"{whole[1]}, idle included"
    for scope, figure in energy["scopes"].items():
        label, _, explained = scope_words(scope).rstrip(")").partition(" (")
        yield f"  {label}", _figure(receipt, figure), explained
    yield "Above idle", _figure(receipt, energy["active"]), f"what the {whole[0].lower()} added"
    yield "Tail", _figure(receipt, energy["tail"]), f"after the {'last word' if asked else 'end'}, until calm"
    yield "Everything", _figure(receipt, energy["full"]), f"{'loading and ' if asked else ''}settling included"
    if budget := receipt.get("budget"):
        yield "Budget", Text(plain(budget["max_energy_j"], "J")), budget_words(receipt) or "above idle"
    for name, (label, meaning) in PHASES.items():
        phase = energy["phases"].get(name)
        if name == "load" and asked and not receipt["times"]["load_s"]:
            yield label, Text("none", style="dim"), "already loaded, by an earlier prompt"
        if name == "tail" or phase is None or phase["s"] is None:
            continue
        figure = _figure(receipt, phase) if phase["j"] is not None else Text(TOO_SHORT, style="dim")
        yield label, figure, f"{_duration(phase['s'])}, {meaning[0].lower()}{meaning[1:]}"
    mean = {"j": power["mean_w"], "u": None}
    idle = f"{plain(power['idle_w'], 'W')} when idle" if power["idle_w"] is not None else ""
    yield "Mean power", _figure(receipt, mean, "W"), idle
    if energy["answer"] is not None and energy["answer"]["j"] > 0:
        yield "Like", Text(plain(lamp_s(energy["answer"]["j"]), "s", 2)), f"of a {LAMP_W:g} W LED lamp"


def _carbon_rows(receipt: Mapping[str, Any]) -> Iterable[Row]:
    carbon, sci = receipt["carbon"], receipt["sci"]["answer"]
    for label, name, note in (
        ("CO2e", "total", ""),
        ("  O", "operational", "electricity"),
        ("  M", "embodied", "making the machine"),
    ):
        grams = carbon[name]
        shown, span = ranged(grams["g"], grams["low"], grams["high"], "g") if grams else (NOT_MEASURED, None)
        yield label, Text(shown), ", ".join(part for part in (span, note) if part)
    yield "SCI", Text(quantity(sci["per_answer_g"], None, "g")), f"{SCI}, O + M"
    if sci.get("O_idle_g") is not None:
        yield "  O idle", Text(quantity(sci["O_idle_g"], None, "g")), "while only waiting, part of O"
    if machine := carbon.get("hardware"):
        te = ranged(machine["central_kg"], machine["low_kg"], machine["high_kg"], "kg")
        yield "  TE", Text(te[0]), f"{te[1] or 'no range'}, over {machine['life_years']:g} years"
    if water := receipt.get("water"):
        yield "Water", Text(quantity(water["l"], None, "L")), "modelled, for the electricity"
    grid = carbon["intensity"]
    kind = f"{grid['quality']} mean of {grid['at']}" if grid["quality"] == "yearly" else str(grid["quality"])
    slots = len(grid.get("slots", ()))
    spread = f"{plain(grid['low'])} to {plain(grid['high'])}, {kind}{f', {slots} slots' if slots > 1 else ''}"
    yield f"Grid {harmless(str(grid['zone']))}", Text(plain(grid["g_per_kwh"], "g/kWh")), spread


def _run_rows(receipt: Mapping[str, Any]) -> Iterable[Row]:
    if receipt["model"] is None:
        yield "Time", Text(_duration(receipt["times"]["duration_s"])), harmless(str(receipt["finish_reason"]))
    else:
        yield from _answer_rows(receipt)
    for one in receipt["temperature"]:
        ends = f"{plain(one['start_c'])} to {plain(one['end_c'], '°C')}"
        yield "Temperature", Text(ends), scope_words(harmless(str(one["sensor"])))
    if not receipt["temperature"]:
        yield "Temperature", Text("no sensor", style="dim"), ""
    if told := calibration_words(receipt):
        when, _, but = told.partition(", ")
        yield "Meters", Text(harmless(when)), harmless(but)


def _answer_rows(receipt: Mapping[str, Any]) -> Iterable[Row]:
    times, usage = receipt["times"], receipt["usage"]
    yield "Time", Text(_duration(times["duration_s"])), f"first word after {_duration(times['time_to_first_token_s'])}"
    yield "In line", Text(_duration(times["queued_s"])), ""
    per_token_s = times["time_per_output_token_s"]
    speed = f"{plain(1 / per_token_s)} tokens/s" if per_token_s else ""
    cut = CUT.get(receipt["finish_reason"], "")
    told = ", ".join(part for part in (speed, cut) if part)
    yield "Tokens", Text(f"{_count(usage['input_tokens'])} in, {_count(usage['output_tokens'])} out"), told


def _where(receipt: Mapping[str, Any]) -> str:
    """Why there and then, and what that saved, where that was planned and can be told."""
    saved, placed = saved_words(receipt), receipt["placement"]
    if not placed["reason"] or receipt["model"] is None:
        return ""
    return harmless(f"\nWhy there and then: {placed['reason']}. {saved or ''}").rstrip()


def _made(receipt: Mapping[str, Any]) -> str:
    model, engine = receipt["model"], receipt["engine"]
    if model is None or engine is None:
        return harmless(f"Measured on {receipt['node']}.")
    told = f"{model['name']} {model['quantization']}, {engine['name']} {engine['version']}, on {receipt['node']}."
    return harmless(told)


def _duration(time_s: float | None) -> str:
    return quantity(time_s, None, "s")


def _count(count: int | None) -> str:
    return "unknown" if count is None else str(count)


def _verdict(receipt: Mapping[str, Any]) -> Iterable[Text]:
    verdict = receipt["verdict"]
    yield Text(VERDICTS[verdict], style=COLOURS[verdict])
    for reason in receipt["reasons"]:
        yield Text(harmless(str(reason["sentence"])), style="dim")


def token_line(token: Mapping[str, Any]) -> str:
    """One token on one line."""
    over = f"revoked {token['revoked']}" if token["revoked"] else ""
    ends = f"ends {token['expires']}" if token["expires"] and not over else ""
    used = f"used {token['used']}" if token.get("used") else ""
    told = (token["id"], token["name"], ",".join(token["scopes"]), f"made {token['created']}", used, ends or over)
    return "  ".join(part for part in told if part)


def standing_lines(standing: Mapping[str, Any]) -> Iterable[str]:
    """What somebody may have and has used."""
    yield f"{harmless(standing['name'])}: {', '.join(standing['scopes']) or 'no scope'}"
    for name, what in (("outstanding", "prompts that wait or run"), ("prompts_24h", "prompts within 24 hours")):
        one = standing[name]
        yield f"{one['used']} of {'any number of' if one['max'] is None else one['max']} {what}"
    energy = standing["energy_24h"]
    most = "any number of" if energy["max_j"] is None else f"{energy['max_j']:,.0f}"
    coming = f", {energy['pending_j']:,.0f} J more expected" if energy["pending_j"] else ""
    unknown = f"; of {energy['unknown']} answers nobody knows them" if energy["unknown"] else ""
    yield f"{energy['used_j']:,.0f} of {most} J within 24 hours{coming}{unknown}"


def act_line(act: Mapping[str, Any]) -> str:
    """One line of the audit log."""
    told = (act["at"], act["name"], act["actor"], act["act"], act["subject"], act["detail"])
    return "  ".join(part for part in told if part)


def message_lines(message: Mapping[str, Any]) -> str:
    """A message to the operator, with when it came and where to answer."""
    answer = f", answer to {harmless(message['contact'])}" if message["contact"] else ""
    text = "\n".join(f"  {harmless(line)}" for line in message["message"].splitlines())
    return f"{message['number']}, {message['at']}{answer}\n{text}"


def open_in_browser(url: str) -> None:
    """Have the desktop show a page; where there is none, say so, rather than have a text browser take the terminal."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        say(f"there is no screen here: open {url} in a browser yourself.", error=True)
        return
    typer.launch(url)
