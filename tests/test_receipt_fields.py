"""Every field of a receipt says what the run's evidence says: field by field, of a run that has all there is."""

import json
from dataclasses import replace
from math import inf
from typing import Any

import pytest

from by_hand import readings
from joulebox.accounting import METHOD_VERSION, account, receipt_bytes
from joulebox.accounting.carbon import ANSWER_BOUNDARY, RESERVED_BOUNDARY, WORK_BOUNDARY, WORK_RESERVED_BOUNDARY
from joulebox.model import (
    Budget,
    CalibrationRef,
    IdleRecord,
    MeterInfo,
    MetersFit,
    ModelInfo,
    PhasePowers,
    ReadingKind,
    Receipt,
    Sampling,
    Span,
    Temperature,
    Times,
    TokenTime,
    Trace,
    Usage,
    WaterFactors,
)
from traces import PLACEMENT, S, channel, factors, series, trace, work

FIT = MetersFit(
    whole=("w",),
    parts=("p",),
    rest_w=1.0,
    slope=1.0,
    u_slope=0.1,
    centre_w=20.0,
    u_centre_w=1.0,
    low_w=10.0,
    high_w=30.0,
)
CALIBRATION = CalibrationRef(
    id="c1",
    at="2026-11-22T08:00:00+00:00",
    stale="old",
    fits=(FIT,),
    splits=(PhasePowers(model="other", scope="cpu", ratio=1.0, u_ratio=0.1, answers=9),),
    idle=(IdleRecord(meter="none", name="none", spreads=()),),
)
WATER = WaterFactors(on_site_l_per_kwh=0.5, electricity_l_per_kwh=3.0, source="by hand")


def furnished(**changes: Any) -> Trace:
    """A run of Köln with a sensor, a budget, a calibration and a stretch of settling; 80 J above idle."""
    sensor = channel("t", "cpu", kind=ReadingKind.TEMPERATURE_C, sampling=Sampling.SNAPSHOT, step=0.5, lag_s=0.25)
    counter = channel(accuracy="by its maker", simulated=True)
    run = trace(
        series(counter, work(10.0, 50.0, 30.0, 32.0), 34.0),
        readings(sensor, [29.9, 30.1, 31.9, 32.2], [80, 81, 90, 100]),
        node="Köln",
        released_ns=33_199_999_600,
        seed=7,
        queued_s=1.5,
        calibration=CALIBRATION,
        purpose="control",
        budget=Budget(max_energy_j=30.0, judged_j=31.0, judged_s=1.0),
    )
    settled = (Span(name="settle", start_ns=2 * S, end_ns=5 * S), Span(name="load", start_ns=0, end_ns=2 * S))
    return replace(run, spans=(*run.spans, *settled), **changes)


def receipt_of(run: Trace, **changes: Any) -> Receipt:
    given: dict[str, Any] = {"receipt_id": "r1", "placement": PLACEMENT, "revision": 3}
    return account(run, factors(water=WATER), **(given | changes))


def test_what_a_receipt_says_of_its_run() -> None:
    """Who answered, when, with what and why there stands in the receipt as it is in the evidence."""
    run = furnished()
    found = receipt_of(run)
    assert (found.schema, found.id, found.prompt_id, found.revision) == ("joulebox.receipt/1", "r1", "job", 3)
    assert found.method_version == METHOD_VERSION
    assert found.created == "2026-11-23T07:00:33.199+00:00"
    assert (found.simulated, found.node, found.zone, found.seed, found.finish_reason) == (True, "Köln", "DE", 7, "stop")
    assert found.model == ModelInfo(name="m", digest="sha256:0", quantization="Q4_1")
    assert (found.engine, found.usage, found.placement, found.purpose) == (run.engine, run.usage, PLACEMENT, "control")
    assert found.calibration == CalibrationRef(id="c1", at="2026-11-22T08:00:00+00:00", stale="old")
    assert found.water is not None
    assert found.water.factors == WATER
    assert found.meters == (
        MeterInfo(
            name="powercap:test package-0",
            kind="energy_j counter",
            scope="cpu",
            tick_s=0.001,
            lag_s=0.0,
            accuracy="by its maker",
        ),
        MeterInfo(
            name="powercap:test t", kind="temperature_c snapshot", scope="cpu", tick_s=0.001, lag_s=0.25, accuracy=""
        ),
    )


def test_the_times_of_a_run() -> None:
    """Waiting, settling, loading, the first token and the others are told apart; of the tokens after the first each
    took as long as the next."""
    times = receipt_of(furnished()).times
    assert times == Times(
        queued_s=1.5,
        settle_s=3.0,
        load_s=2.0,
        time_to_first_token_s=0.5,
        time_per_output_token_s=1.5 / 8,
        duration_s=2.0,
    )
    plain = trace(series(channel(), work(10.0, 50.0, 30.0, 32.0), 34.0))
    assert (receipt_of(plain).times.settle_s, receipt_of(plain).times.load_s) == (0.0, 0.0)


@pytest.mark.parametrize(("tokens", "each_s"), [(None, None), (0, None), (1, None), (2, 1.5), (4, 0.5)])
def test_how_long_each_token_took(tokens: int | None, each_s: float | None) -> None:
    """One token has none after it, and of tokens that nobody counted or saw nothing is told."""
    usage = Usage(input_tokens=27, cached_tokens=0, output_tokens=tokens)
    assert receipt_of(furnished(usage=usage)).times.time_per_output_token_s == each_s
    assert receipt_of(furnished(usage=usage, tokens=())).times.time_per_output_token_s is None
    assert receipt_of(furnished(tokens=())).times.time_to_first_token_s is None


def test_how_warm_it_was() -> None:
    """A sensor tells the readings nearest to the answer's ends, and nothing where one of them lacks."""
    run = furnished()
    assert receipt_of(run).temperature == (Temperature(sensor="t", start_c=40.0, end_c=45.0),)
    sensor = run.series[1].channel
    counter = series(channel(), work(10.0, 50.0, 30.0, 42.0), 45.0)
    for times_s in ([29.0, 31.0], [39.0, 43.0]):
        assert receipt_of(trace(counter, readings(sensor, times_s, [80, 81]), end_s=42.0)).temperature == ()


def test_a_budget_in_the_end() -> None:
    """What lies above the budget is told; what stayed below it is no overshoot of less than nothing."""
    found = receipt_of(furnished()).budget
    assert found is not None
    assert found.overshoot_j == pytest.approx(50.0, abs=0.1)
    assert replace(found, overshoot_j=None) == Budget(max_energy_j=30.0, judged_j=31.0, judged_s=1.0)
    kept = receipt_of(furnished(budget=Budget(max_energy_j=100.0))).budget
    assert kept == Budget(max_energy_j=100.0, overshoot_j=0.0)
    assert receipt_of(furnished(budget=None)).budget is None


def test_work_that_is_no_prompt() -> None:
    """Without a model there is no prompt, its purpose is work, whatever the evidence says, and so are SCI's bounds."""
    found = receipt_of(furnished(model=None, engine=None, seed=None, tokens=(TokenTime(t_ns=31 * S, n=1),)))
    assert (found.prompt_id, found.model, found.engine, found.purpose) == (None, None, None, "work")
    assert (found.sci.answer.boundary, found.sci.reserved.boundary) == (WORK_BOUNDARY, WORK_RESERVED_BOUNDARY)
    asked = receipt_of(furnished()).sci
    assert (asked.answer.boundary, asked.reserved.boundary) == (ANSWER_BOUNDARY, RESERVED_BOUNDARY)


def test_a_receipt_as_bytes() -> None:
    """JSON without spaces, letters as they are, and no number that JSON does not know."""
    found = receipt_of(furnished())
    text = receipt_bytes(found).decode()
    assert '"node":"Köln","zone":"DE"' in text
    assert json.loads(text)["seed"] == 7
    with pytest.raises(ValueError, match="not JSON compliant"):
        receipt_bytes(replace(found, times=replace(found.times, queued_s=inf)))
