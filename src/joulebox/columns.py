"""Receipts and readings as tables: which columns, of what kind, in which unit, and where each value stands. Pure.

Units are in the names, as everywhere. A cell is `None` where the receipt has `null`: absent is never zero.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from joulebox.model import Trace

Kind = Literal["text", "int", "float", "bool", "time"]
Row = Sequence[Any]
DANGEROUS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""A spreadsheet takes a text that begins so for a formula."""
NEXT_CELL: Final = re.compile(r"(?<=[;\t\r\n])(?=\s*[-=+@＝＋－＠])")
"""The same behind what parts cells where the comma parts the digits of numbers."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `path` leads to its value; `[]` in it goes through a list, whose values are joined by spaces."""

    name: str
    kind: Kind
    path: str
    meaning: str


def _figure(name: str, meaning: str) -> tuple[Column, ...]:
    return (
        Column(f"{name}_j", "float", f"energy.{name}.j", f"{meaning}, joules."),
        Column(f"{name}_u_j", "float", f"energy.{name}.u", "Its expanded uncertainty (k = 2), joules."),
        Column(f"{name}_grade", "text", f"energy.{name}.grade", "Its grade, A to D."),
    )


def _emissions(name: str, path: str, meaning: str) -> tuple[Column, ...]:
    return (
        Column(f"{name}_g", "float", f"{path}.g", f"{meaning}, grams of CO2e, central."),
        Column(f"{name}_low_g", "float", f"{path}.low", "The least it may be."),
        Column(f"{name}_high_g", "float", f"{path}.high", "The most it may be."),
    )


RECEIPT: Final[tuple[Column, ...]] = (
    Column("receipt_id", "text", "id", "The receipt."),
    Column("prompt_id", "text", "prompt_id", "The prompt it is of."),
    Column("revision", "int", "revision", "1 as first made; what is newer has a higher one."),
    Column("created", "time", "created", "When the machine was released, UTC."),
    Column("schema", "text", "schema", "The form of the receipt."),
    Column("method_version", "text", "method_version", "The method that made it."),
    Column("purpose", "text", "purpose", "prompt, or control: a node's control prompt."),
    Column("simulated", "bool", "simulated", "Whether any meter was a simulated one."),
    Column("verdict", "text", "verdict", "valid, suspect or invalid."),
    Column("reasons", "text", "reasons[].code", "Codes of what speaks against it."),
    Column("model", "text", "model.name", "The model that answered."),
    Column("model_digest", "text", "model.digest", "Its file."),
    Column("quantization", "text", "model.quantization", "How its weights are stored."),
    Column("engine", "text", "engine.name", "The program that ran it."),
    Column("engine_version", "text", "engine.version", "Its version."),
    Column("node", "text", "node", "The machine."),
    Column("zone", "text", "zone", "The grid zone it stands in."),
    Column("seed", "int", "seed", "Seed of the choice of tokens."),
    Column("finish_reason", "text", "finish_reason", "Why the answer ended."),
    Column("input_tokens", "int", "usage.input_tokens", "Tokens read."),
    Column("cached_tokens", "int", "usage.cached_tokens", "Of them from a cache."),
    Column("output_tokens", "int", "usage.output_tokens", "Tokens written."),
    Column("reasoning_tokens", "int", "usage.reasoning_tokens", "Of them reasoning."),
    Column("queued_s", "float", "times.queued_s", "Seconds in the line."),
    Column("settle_s", "float", "times.settle_s", "Seconds of waiting for the machine to come to rest."),
    Column("load_s", "float", "times.load_s", "Seconds of loading the model."),
    Column("time_to_first_token_s", "float", "times.time_to_first_token_s", "Seconds to the first token."),
    Column("time_per_output_token_s", "float", "times.time_per_output_token_s", "Seconds of each token after it."),
    Column("duration_s", "float", "times.duration_s", "Seconds from the request to the last token."),
    Column("scope", "text", "energy.scope", "What the energy covers: wall, cpu+dram, modelled and so on."),
    Column("missing", "text", "energy.missing[]", "Big parts that no meter covers."),
    *_figure("answer", "Energy of the answer, idle included: the headline"),
    *_figure("active", "Of it above idle"),
    *_figure("tail", "Above idle after the answer"),
    *_figure("full", "All of the attempt, lease to release, with earlier attempts"),
    Column("load_j", "float", "energy.phases.load.j", "Energy of loading the model, joules."),
    Column("prefill_j", "float", "energy.phases.prefill.j", "Energy of reading the prompt, joules."),
    Column("decode_j", "float", "energy.phases.decode.j", "Energy of writing the answer, joules."),
    Column("mean_w", "float", "power.mean_w", "Mean power of the answer, watts."),
    Column("idle_w", "float", "power.idle_w", "Idle power before it, watts."),
    Column("peak_w", "float", "power.peak_w", "Highest power seen, watts."),
    *_emissions("operational", "carbon.operational", "O: emissions of its electricity"),
    *_emissions("embodied", "carbon.embodied", "M: its share of making the machine"),
    *_emissions("total", "carbon.total", "Both"),
    Column("pue", "float", "carbon.pue", "Power usage effectiveness that energy was multiplied with."),
    Column("intensity_g_per_kwh", "float", "carbon.intensity.g_per_kwh", "Carbon intensity of the grid."),
    Column("intensity_low_g_per_kwh", "float", "carbon.intensity.low", "The least it may be."),
    Column("intensity_high_g_per_kwh", "float", "carbon.intensity.high", "The most it may be."),
    Column("intensity_zone", "text", "carbon.intensity.zone", "The zone it is of."),
    Column("intensity_at", "text", "carbon.intensity.at", "The time it is of."),
    Column("intensity_source", "text", "carbon.intensity.source", "Where it comes from."),
    Column("intensity_quality", "text", "carbon.intensity.quality", "measured, estimated, forecast, yearly or static."),
    Column("sci_answer_g", "float", "sci.answer.per_answer_g", "SCI of the answer alone, grams per answer."),
    Column("sci_reserved_g", "float", "sci.reserved.per_answer_g", "SCI of all the reserved time, grams per answer."),
    Column("sci_output_token_g", "float", "sci.answer.per_output_token_g", "SCI of the answer, grams per token."),
    Column("water_l", "float", "water.l", "Litres of water, modelled."),
    Column("saved_g", "float", "placement.saved_g", "What choosing place and time saved, grams."),
    Column("placement", "text", "placement.policy", "How place and time were chosen."),
    Column("meters", "text", "meters[].name", "The meters' channels."),
    Column("calibration_id", "text", "calibration.id", "The calibration they were read by."),
)
READING: Final[tuple[Column, ...]] = (
    Column("channel", "text", "", "Which stream of readings."),
    Column("scope", "text", "", "What it covers."),
    Column("kind", "text", "", "What a value is, with its unit: power_w, energy_j, temperature_c or busy_ratio."),
    Column("t_ns", "int", "", "Nanoseconds since the trace's origin, on the node's monotonic clock."),
    Column("raw", "int", "", "As the meter gave it."),
    Column("value", "float", "", "raw times the channel's step, in the unit of kind."),
)


def receipt_row(receipt: Mapping[str, Any]) -> Row:
    """A receipt's cells, in the order of `RECEIPT`."""
    return [_cell(column, receipt) for column in RECEIPT]


def _cell(column: Column, receipt: Mapping[str, Any]) -> Any:
    found = _at(receipt, column.path.split("."))
    if isinstance(found, list):
        return " ".join(str(one) for one in found)
    return float(found) if column.kind == "float" and found is not None else found


def _at(found: Any, path: Sequence[str]) -> Any:
    for place, part in enumerate(path):
        if not isinstance(found, Mapping):
            return None
        found = found.get(part.removesuffix("[]"))
        if part.endswith("[]"):
            return [_at(one, path[place + 1 :]) for one in found or ()]
    return found


def reading_rows(trace: Trace) -> Iterable[Row]:
    """A trace's readings, one a row, in the order of `READING`."""
    for series in trace.series:
        channel = series.channel
        for t_ns, raw in zip(series.t_ns, series.raw, strict=True):
            yield (channel.name, channel.scope, channel.kind.value, t_ns, raw, raw * channel.step)


def safe(cell: Any) -> Any:
    """A cell that no spreadsheet runs: a text that could be a formula has an apostrophe before it. Numbers stay."""
    if not isinstance(cell, str):
        return cell
    text = NEXT_CELL.sub("'", cell)
    return f"'{text}" if text.lstrip().startswith(DANGEROUS) or text.startswith(DANGEROUS) else text


def moment(cell: Any) -> datetime | None:
    """A time as the receipt writes it, in UTC and without saying so."""
    return datetime.fromisoformat(cell).astimezone(UTC).replace(tzinfo=None) if cell is not None else None
