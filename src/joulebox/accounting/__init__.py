"""The whole method on one screen: `account` makes a Receipt of Trace and CarbonFactors. Pure, versioned, repeatable."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

from joulebox.accounting.attempts import spent_before, with_earlier
from joulebox.accounting.carbon import emissions, sci
from joulebox.accounting.figures import answer_window, reckon
from joulebox.accounting.intensity import over
from joulebox.accounting.split import with_split
from joulebox.accounting.validity import judge
from joulebox.accounting.water import water
from joulebox.metering import value_at
from joulebox.model import (
    Budget,
    CarbonFactors,
    EarlierAttempt,
    Figure,
    MeterInfo,
    ModelFile,
    ModelInfo,
    Placement,
    ReadingKind,
    Receipt,
    Temperature,
    Times,
    Trace,
)
from joulebox.plain import plain
from joulebox.units import seconds

SCHEMA: Final = "joulebox.receipt/1"
METHOD_VERSION: Final = "2026.11.27"


def account(
    trace: Trace,
    factors: CarbonFactors,
    *,
    receipt_id: str,
    placement: Placement,
    revision: int = 1,
    earlier: Sequence[EarlierAttempt] = (),
) -> Receipt:
    """What the run cost. The same evidence and factors give the same receipt, to the last bit. `earlier` are the
    attempts before this one that gave no answer: what they drew is part of `full`.

    Raises `ValueError` where the trace holds no answer.
    """
    start_ns, end_ns = answer_window(trace)
    duration_s = seconds(end_ns - start_ns)
    asked = trace.model is not None
    own = reckon(trace)
    spent = spent_before(earlier, own.energy.scope)
    reckoning = with_split(trace, with_earlier(own, spent))
    energy = reckoning.energy
    reserved_s = seconds(trace.released_ns - trace.leased_ns) + spent.reserved_s
    verdict, reasons = judge(trace, reckoning, spent)
    while_answering = over(factors, trace, reckoning.metered, (start_ns, end_ns))
    while_reserved = over(factors, trace, reckoning.metered, (trace.leased_ns, trace.released_ns))
    created = trace.origin + timedelta(microseconds=trace.released_ns // 1_000)
    return Receipt(
        schema=SCHEMA,
        id=receipt_id,
        prompt_id=trace.job_id if asked else None,
        revision=revision,
        method_version=METHOD_VERSION,
        created=created.isoformat(timespec="milliseconds"),
        simulated=any(series.channel.simulated for series in trace.series),
        model=_model(trace.model),
        engine=trace.engine,
        node=trace.node,
        zone=trace.zone,
        seed=trace.seed,
        finish_reason=trace.finish_reason,
        verdict=verdict,
        reasons=reasons,
        usage=trace.usage,
        times=_times(trace, start_ns, end_ns),
        energy=energy,
        power=reckoning.power,
        temperature=_temperatures(trace, start_ns, end_ns),
        carbon=emissions(energy.answer, duration_s, while_answering),
        sci=sci(
            (energy.answer, duration_s, while_answering),
            (energy.full, reserved_s, while_reserved),
            trace.usage,
            idle_w=reckoning.power.idle_w,
            asked=asked,
        ),
        meters=_meters(trace),
        water=water(energy.answer, factors),
        calibration=replace(trace.calibration, idle=(), fits=(), splits=()) if trace.calibration else None,
        placement=placement,
        purpose=trace.purpose if asked else "work",
        budget=_kept(trace.budget, energy.active),
    )


def _kept(budget: Budget | None, active: Figure | None) -> Budget | None:
    """How far the answer lies over its budget in the end."""
    if budget is None or active is None:
        return budget
    return replace(budget, overshoot_j=max(active.j - budget.max_energy_j, 0.0))


def receipt_bytes(receipt: Receipt) -> bytes:
    """The receipt as JSON, the same bytes for the same receipt."""
    return json.dumps(plain(receipt), ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _model(file: ModelFile | None) -> ModelInfo | None:
    return ModelInfo(name=file.id, digest=file.digest, quantization=file.quantization) if file else None


def _times(trace: Trace, start_ns: int, end_ns: int) -> Times:
    first_ns = trace.tokens[0].t_ns if trace.tokens else None
    output_tokens = trace.usage.output_tokens
    per_token_s = None
    if first_ns is not None and output_tokens is not None and output_tokens > 1:
        per_token_s = seconds(end_ns - first_ns) / (output_tokens - 1)
    lasted_s = {span.name: seconds(span.end_ns - span.start_ns) for span in trace.spans}
    return Times(
        queued_s=trace.queued_s,
        settle_s=lasted_s.get("settle", 0.0),
        load_s=lasted_s.get("load", 0.0),
        time_to_first_token_s=seconds(first_ns - start_ns) if first_ns is not None else None,
        time_per_output_token_s=per_token_s,
        duration_s=seconds(end_ns - start_ns),
    )


def _temperatures(trace: Trace, start_ns: int, end_ns: int) -> tuple[Temperature, ...]:
    found = []
    for series in trace.series:
        if series.channel.kind is ReadingKind.TEMPERATURE_C:
            start_c, end_c = value_at(series, start_ns), value_at(series, end_ns)
            if start_c is not None and end_c is not None:
                found.append(Temperature(sensor=series.channel.name, start_c=start_c, end_c=end_c))
    return tuple(found)


def _meters(trace: Trace) -> tuple[MeterInfo, ...]:
    return tuple(
        MeterInfo(
            name=f"{series.channel.meter} {series.channel.name}",
            kind=f"{series.channel.kind.value} {series.channel.sampling.value}",
            scope=series.channel.scope,
            tick_s=series.channel.tick_s,
            lag_s=series.channel.lag_s,
            accuracy=series.channel.accuracy,
        )
        for series in trace.series
    )
