"""What the terminal shows: a prompt as it goes, and its receipt. Model output is hostile: control characters are taken
out."""

import sys
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from joulebox.client import ServerEvent
from joulebox.errors import JouleboxError
from joulebox.wording import grade_words, is_modelled, plain, quantity, ranged

WIDTH_MAX = 88
NOTE = "One prompt at a time; shared servers use less per token. Training is not included."
VERDICTS = {"valid": "green", "suspect": "yellow", "invalid": "red"}


def harmless(text: str) -> str:
    """Text without control characters, so that an answer cannot steer the terminal."""
    return "".join(sign for sign in text if sign in "\n\t" or (sign.isprintable()))


class Progress:
    """Tells on stderr what is going on: in place where that is a terminal, a line a change elsewhere."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._last = ""

    def say(self, text: str) -> None:
        """Show `text` in place of what stood there."""
        if text == self._last:
            return
        self._last = text
        if self._live:
            self._stream.write(f"\r\x1b[2K{text}")
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()

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
            _write(out, "\n")
        elif event.name == "receipt":
            progress.clear()
            return "".join(answer), dict(data)
        elif event.name in ("error", "cancelled"):
            progress.clear()
            raise JouleboxError(
                "cancelled" if event.name == "cancelled" else "too_many_attempts",
                str(data.get("detail") or "The prompt was cancelled."),
            )
        if (sentence := _told(event)) is not None:
            progress.say(sentence)
    raise JouleboxError("no_server", "The server ended the stream without a receipt. Ask again.")


def _write(out: TextIO | None, text: str) -> None:
    if out is not None:
        out.write(text)
        out.flush()


def _told(event: ServerEvent) -> str | None:
    data = event.data
    if event.name == "queued":
        return f"waiting: {data.get('reason') or 'in line'}"
    if event.name == "settling":
        return "letting the machine settle, so that the measurement starts from idle"
    if event.name == "phase":
        return {"loading": "loading the model", "measuring": "measuring the quiet after the answer"}.get(
            str(data.get("phase"))
        )
    if event.name == "started":
        return f"answering on {harmless(str(data.get('node')))}"
    return None


def receipt_panel(receipt: Mapping[str, Any]) -> Panel:
    """A receipt as a panel at most `WIDTH_MAX` columns wide."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for label, value in _rows(receipt):
        table.add_row(label, value)
    marks = [
        mark
        for mark in ("simulated" if receipt["simulated"] else "", "modelled" if is_modelled(receipt) else "")
        if mark
    ]
    title = f"Receipt {receipt['id']}" + (f" ({', '.join(marks)})" if marks else "")
    return Panel(table, title=Text(title), padding=(1, 2))


def show_receipt(receipt: Mapping[str, Any], stream: TextIO | None = None) -> None:
    """Print a receipt."""
    console = Console(file=stream or sys.stdout, highlight=False)
    if console.width > WIDTH_MAX:
        console = Console(file=stream or sys.stdout, highlight=False, width=WIDTH_MAX)
    console.print(receipt_panel(receipt))


def _rows(receipt: Mapping[str, Any]) -> Iterable[tuple[str, Text]]:
    energy, carbon, times = receipt["energy"], receipt["carbon"], receipt["times"]
    yield "Energy", _headline(receipt)
    for scope, figure in energy["scopes"].items():
        yield f"  {scope}", Text(quantity(figure["j"], figure["u"], "J"))
    for name, meaning in (("active", "above idle"), ("tail", "after the answer"), ("full", "with load and settling")):
        yield f"  {name}", _figure(energy[name], meaning, modelled=is_modelled(receipt))
    for name in ("load", "prefill", "decode"):
        phase = energy["phases"][name]
        if phase["s"] is not None:
            known = quantity(phase["j"], phase["u"], "J") if phase["j"] is not None else "too short for this meter,"
            yield f"  {name}", Text(f"{known} in {plain(phase['s'], 's')}")
    power = receipt["power"]
    yield "Mean power", Text(f"{plain(power['mean_w'], 'W')} (idle {plain(power['idle_w'], 'W')})")
    yield "CO2e", _carbon(carbon)
    yield "SCI", _sci(receipt)
    yield "Grid", _grid(carbon["intensity"])
    yield (
        "Time",
        Text(
            f"{plain(times['duration_s'], 's')}, first token after {plain(times['time_to_first_token_s'], 's')}, "
            f"in line {plain(times['queued_s'], 's')}"
        ),
    )
    usage = receipt["usage"]
    yield "Tokens", Text(f"{_count(usage['input_tokens'])} in, {_count(usage['output_tokens'])} out")
    yield "Temperature", _temperature(receipt["temperature"])
    yield "Model", Text(f"{receipt['model']['name']} {receipt['model']['quantization']} on {receipt['node']}")
    yield "Verdict", _verdict(receipt)
    yield "", Text(NOTE, style="dim")


def _headline(receipt: Mapping[str, Any]) -> Text:
    answer = receipt["energy"]["answer"]
    if answer is None:
        return Text("not measured", style="bold")
    modelled = is_modelled(receipt)
    words = grade_words(answer["grade"], modelled, bool(receipt["energy"]["missing"]))
    mark = " modelled" if modelled else ""
    return Text.assemble(
        (quantity(answer["j"], answer["u"], "J") + mark, "bold"), f"  grade {answer['grade']}: {words}"
    )


def _figure(figure: Mapping[str, Any] | None, meaning: str, *, modelled: bool) -> Text:
    if figure is None:
        return Text("not measured", style="dim")
    mark = " modelled" if modelled else ""
    return Text.assemble(f"{quantity(figure['j'], figure['u'], 'J')}{mark}", (f"  {meaning}", "dim"))


def _carbon(carbon: Mapping[str, Any]) -> Text:
    total = carbon["total"]
    if total is None:
        return Text("not known without energy")
    shown, span = ranged(total["g"], total["low"], total["high"], "g")
    return Text(shown + (f" ({span})" if span else ""))


def _sci(receipt: Mapping[str, Any]) -> Text:
    sci = receipt["sci"]["answer"]
    if sci["per_answer_g"] is None:
        return Text("not known without energy")
    o_g, m_g = plain_g(sci["O_g"]), plain_g(sci["M_g"])
    return Text(f"{plain_g(sci['per_answer_g'])} CO2e per answer = {o_g} operation (O) + {m_g} hardware (M)")


def plain_g(grams: float) -> str:
    """Grams with a prefix and three digits."""
    return quantity(grams, None, "g")


def _grid(intensity: Mapping[str, Any]) -> Text:
    low, high = f"{intensity['low']:.0f}", f"{intensity['high']:.0f}"
    return Text(
        f"{intensity['g_per_kwh']:.0f} g/kWh ({low} to {high}), zone {intensity['zone']}, "
        f"{intensity['quality']} mean of {intensity['at']}"
        if intensity["quality"] == "yearly"
        else f"{intensity['g_per_kwh']:.0f} g/kWh ({low} to {high}), zone {intensity['zone']}, {intensity['quality']}"
    )


def _temperature(found: list[Mapping[str, Any]]) -> Text:
    if not found:
        return Text("no sensor found", style="dim")
    return Text(", ".join(f"{one['sensor']} {one['start_c']:.0f} to {one['end_c']:.0f} °C" for one in found))


def _count(count: int | None) -> str:
    return "unknown" if count is None else str(count)


def _verdict(receipt: Mapping[str, Any]) -> Text:
    text = Text(receipt["verdict"], style=VERDICTS.get(receipt["verdict"], ""))
    for reason in receipt["reasons"]:
        text.append(f"\n{reason['sentence']}", style="dim")
    return text
