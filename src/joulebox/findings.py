"""What the terminal shows of machine and meters: the doctor's checks, what meters read, what a calibration found."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from joulebox.console import WIDTH_MAX, plain_console
from joulebox.node.calibration import Calibration
from joulebox.node.doctor import Check
from joulebox.node.meter_check import MeterCheck
from joulebox.node.together import Agreement
from joulebox.terminal import harmless
from joulebox.wording import plain, quantity

STATES: Final = {"bad": "red", "warn": "yellow", "unknown": "dim", "ok": "green"}
"""Worst first."""
NOT_TOLD: Final = "not told"


def show_checks(checks: Sequence[Check], stream: TextIO | None = None) -> None:
    """What the doctor found, worst first: why each matters and how to mend it, and a sentence on the whole."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    order = list(STATES)
    for each in sorted(checks, key=lambda check: order.index(check.state)):
        told = Text.assemble((each.name, "bold"), f": {harmless(each.found)}")
        if each.state != "ok":
            told.append(f"\n{each.why}", "dim")
        if each.mend:
            told.append(f"\nMend: {each.mend}")
        table.add_row(Text(each.state, style=STATES[each.state]), told)
    console = _console(stream)
    console.print(table)
    console.print(Text(f"\n{whole_words(checks)}"))


def whole_words(checks: Sequence[Check]) -> str:
    """One sentence on a machine."""
    count = {state: sum(check.state == state for check in checks) for state in STATES}
    if count["bad"]:
        things = "1 thing breaks" if count["bad"] == 1 else f"{count['bad']} things break"
        return f"{things} measurements here; {count['warn']} more make them less repeatable."
    if count["warn"]:
        things = "1 thing makes" if count["warn"] == 1 else f"{count['warn']} things make"
        return f"Nothing breaks measurements here; {things} them less repeatable."
    return "This machine is fit to measure."


def show_readings(
    checks: Sequence[MeterCheck], agreements: Sequence[Agreement] = (), stream: TextIO | None = None
) -> None:
    """What each channel of each meter read, what went wrong, and whether they make sense together."""
    console = _console(stream)
    for meter in checks:
        state = ("works", "green") if meter.ok else ("fails", "red")
        console.print(Text.assemble((harmless(meter.meter), "bold"), "  [", state, "]"), soft_wrap=True)
        for sentence, count in meter.faults:
            times = "once" if count == 1 else f"{count} times"
            console.print(Text(f"  {harmless(sentence)} ({times} in {plain(meter.window_s, 's')})"))
        table = _table("Channel", "Scope", "Value", "Mean", "Readings/s", "New ones/s")
        for one in meter.channels:
            value = plain(one.value, one.unit) if one.value is not None else "no value"
            mean = plain(one.mean, one.mean_unit) if one.mean is not None else "no change yet"
            table.add_row(
                harmless(one.name), one.scope, value, mean, plain(one.readings_per_s), plain(one.changes_per_s)
            )
        console.print(table)
    show_agreements(agreements, console)


def show_calibration(
    calibration: Calibration, path: Path, model: str | None = None, stream: TextIO | None = None
) -> None:
    """What was found of each channel and of `model`, if one was asked for, and where it is kept."""
    console = _console(stream)
    for meter in dict.fromkeys(one.meter for one in calibration.channels):
        console.print(Text(harmless(meter), style="bold"), soft_wrap=True)
        table = _table("Channel", "Idle", "Noise", "Tick", "Lag", "A reading takes")
        for one in calibration.channels:
            if one.meter == meter:
                figures = (
                    (one.idle_w, "W"),
                    (one.noise_w, "W"),
                    (one.tick_s, "s"),
                    (one.lag_s, "s"),
                    (one.read_s, "s"),
                )
                row = [NOT_TOLD if value is None else quantity(value, None, unit) for value, unit in figures]
                table.add_row(harmless(one.name), *row)
        console.print(table)
    show_agreements(calibration.agreements, console)
    for one in calibration.channels:
        if one.gain is not None:
            console.print(Text(f"{harmless(one.name)} is read as {harmless(one.gain.accuracy)}."))
    if model is not None:
        console.print(Text(_split_words(calibration, model)))
    if any(None in (one.tick_s, one.lag_s) for one in calibration.channels):
        console.print(Text("Not told: the readings do not show it; what the driver declares stands.", style="dim"))
    told = Text(f"\nCalibration {calibration.id} is kept in {path}: a node that starts now reads by it.")
    console.print(told, soft_wrap=True)


def _split_words(calibration: Calibration, model: str) -> str:
    if not calibration.splits:
        return f"What {harmless(model)} draws while reading and while writing could not be told apart."
    powers = calibration.splits[-1]
    return (
        f"{harmless(model)} draws {powers.ratio:.2f} ± {powers.u_ratio:.2f} times as much above idle while it reads as "
        f"while it writes ({powers.answers} answers, {powers.scope})."
    )


def show_agreements(agreements: Sequence[Agreement], console: Console) -> None:
    """Whether meters that look at the same machine agree, one sentence each."""
    styles = {"agrees": "green", "unknown": "dim", "closure": "yellow", "swapped": "red"}
    names = {"agrees": "agree", "unknown": "not told", "closure": "disagree", "swapped": "swapped"}
    for one in agreements:
        console.print(Text.assemble("[", (names[one.code], styles[one.code]), f"] {harmless(one.sentence)}"))


def _table(*labels: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for label in labels:
        table.add_column(label, overflow="fold", header_style="dim")
    return table


def _console(stream: TextIO | None) -> Console:
    console = plain_console(stream)
    return console if console.width <= WIDTH_MAX else plain_console(stream, WIDTH_MAX)
