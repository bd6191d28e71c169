"""Receipts are a pure function of evidence: worked examples by hand, properties, and absence that stays absent."""

import json
from dataclasses import replace
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulebox.accounting import account, receipt_bytes
from joulebox.accounting.carbon import embodied, operational
from joulebox.accounting.figures import grade
from joulebox.accounting.power_model import MEMORY_W_PER_GB, WATTS_PER_THREAD, profile_of
from joulebox.accounting.validity import RULES
from joulebox.accounting.water import water
from joulebox.evidence import decode_trace, encode_trace
from joulebox.model import (
    CalibrationRef,
    Embodied,
    Figure,
    PhaseFigure,
    ReadingKind,
    Receipt,
    Remark,
    Span,
    TokenTime,
    Trace,
    Usage,
    WaterFactors,
)
from joulebox.units import J_PER_KWH
from traces import CALIBRATION, PLACEMENT, S, channel, factors, series, trace, work


def receipt_of(run: Trace) -> Receipt:
    return account(run, factors(), receipt_id="r1", placement=PLACEMENT)


def test_answer_and_active() -> None:
    """A machine at 10 W that works at 50 W for 2 s draws 100 J, 80 J of them above idle."""
    counter = series(channel(), work(10.0, 50.0, 30.0, 32.0), 34.0)
    energy = receipt_of(trace(counter)).energy
    assert energy.answer is not None
    assert energy.active is not None
    assert energy.tail is not None
    assert energy.answer.j == pytest.approx(100.0, abs=0.01)
    assert energy.active.j == pytest.approx(80.0, abs=0.01)
    assert energy.tail.j == pytest.approx(0.0, abs=0.01)


def test_edges_between_readings() -> None:
    """An answer that begins and ends between readings is as right as one on them: the guards give what lies between."""
    counter = series(channel(), work(10.0, 50.0, 30.04, 31.97), 34.0)
    energy = receipt_of(trace(counter, start_s=30.04, end_s=31.97)).energy
    assert energy.answer is not None
    assert energy.answer.j == pytest.approx(50.0 * 1.93, rel=1e-3)


def test_wraps_inside_the_answer() -> None:
    """A counter that starts again at zero many times during the answer loses nothing."""
    plain = series(channel(), work(10.0, 50.0, 30.0, 32.0), 34.0)
    wrapping = series(channel(wrap_raw=7_000_000), work(10.0, 50.0, 30.0, 32.0), 34.0)
    expected, found = receipt_of(trace(plain)).energy, receipt_of(trace(wrapping)).energy
    assert found.answer == expected.answer
    assert found.full == expected.full


def test_scopes_are_not_added_to_the_whole() -> None:
    """With a platform counter the headline is the platform's, and packages stand beside it, never in it."""
    packages = series(channel(), work(10.0, 50.0, 30.0, 32.0), 34.0)
    dram = series(channel("dram", "dram"), work(1.0, 2.0, 30.0, 32.0), 34.0)
    cores = series(channel("core", "cpu", part_of="cpu"), work(5.0, 40.0, 30.0, 32.0), 34.0)
    both = receipt_of(trace(packages, dram, cores)).energy
    assert both.scope == "cpu+dram"
    assert both.answer is not None
    assert both.answer.j == pytest.approx(104.0, abs=0.01)
    platform = series(channel("psys", "platform"), work(20.0, 80.0, 30.0, 32.0), 34.0)
    whole = receipt_of(trace(packages, dram, cores, platform)).energy
    assert whole.scope == "platform"
    assert whole.answer is not None
    assert whole.answer.j == pytest.approx(160.0, abs=0.01)
    assert {name: round(figure.j, 1) for name, figure in whole.scopes.items()} == {
        "cpu": 100.0,
        "dram": 4.0,
        "platform": 160.0,
    }


def test_two_packages_are_one_scope() -> None:
    """Two sockets are added up, and their common gain error with them, not in quadrature."""
    one = series(channel(gain_u_ratio=0.1), work(10.0, 50.0, 30.0, 32.0), 34.0)
    two = series(channel("package-1", gain_u_ratio=0.1), work(10.0, 50.0, 30.0, 32.0), 34.0)
    energy = receipt_of(trace(one, two)).energy
    assert energy.answer is not None
    assert energy.answer.j == pytest.approx(200.0, abs=0.02)
    assert energy.answer.u == pytest.approx(20.0, rel=0.01)


def test_phases_sum_to_the_answer() -> None:
    """Prefill and decode are told apart at the first token and together are the answer."""
    counter = series(channel(), work(10.0, 50.0, 30.0, 32.0), 34.0)
    phases = receipt_of(trace(counter)).energy.phases
    assert phases["prefill"].j == pytest.approx(25.0, abs=0.1)
    assert phases["decode"].j == pytest.approx(75.0, abs=0.1)
    assert phases["prefill"].method == "measured"
    assert phases["load"].j is None


def test_coarse_ticks_give_no_phases() -> None:
    """A meter slower than the prefill says nothing of it rather than something wrong."""
    slow = channel(tick_s=0.5)
    counter = series(slow, work(10.0, 50.0, 30.0, 32.0), 35.0, period_s=0.5)
    phases = receipt_of(trace(counter)).energy.phases
    assert phases["prefill"].j is None
    assert phases["prefill"].s == pytest.approx(0.5)


def test_modelled_is_grade_d_and_says_so() -> None:
    """Without a meter the figure is watts by busy cores, grade D, scope modelled, with the published spread as
    interval."""
    busy = channel("busy", "machine", kind=ReadingKind.BUSY_RATIO, step=0.01, tick_s=0.01)
    counter = series(busy, work(0.02, 2.0, 30.0, 32.0), 34.0)
    receipt = receipt_of(trace(counter))
    energy = receipt.energy
    assert energy.scope == "modelled"
    assert energy.answer is not None
    assert {figure.grade for figure in (energy.answer, energy.active, energy.tail, energy.full) if figure} == {"D"}
    profile = profile_of(2, 8_000_000_000)
    assert energy.answer.j == pytest.approx(2.0 * profile.idle_w + 4.0 * profile.busy_core_w, rel=0.01)
    assert energy.answer.u > 0.4 * energy.answer.j
    assert energy.scopes == {}
    assert [reason.code for reason in receipt.reasons if reason.level == "note"] == ["modelled"]


def test_an_idle_machine_is_quite_idle() -> None:
    """Cores that were not busy at all around a long answer are readings like any other: its energy is known."""
    busy = channel("busy", "machine", kind=ReadingKind.BUSY_RATIO, step=0.01, tick_s=0.01)
    receipt = receipt_of(trace(series(busy, work(0.0, 2.0, 1.1, 4.1), 5.2), start_s=1.1, end_s=4.1))
    profile = profile_of(2, 8_000_000_000)
    assert receipt.energy.answer is not None
    assert receipt.energy.answer.j == pytest.approx(3.0 * profile.idle_w + 6.0 * profile.busy_core_w, rel=0.01)
    assert receipt.verdict == "valid"


def test_power_model_is_the_published_table() -> None:
    """The profile is the mean of the published watts per thread, its interval twice their standard deviation."""
    idle = [low for low, _ in WATTS_PER_THREAD.values()]
    profile = profile_of(4, 10_000_000_000)
    assert profile.idle_w == pytest.approx(4 * fmean(idle) + 10 * MEMORY_W_PER_GB)
    assert profile.idle_u_w == pytest.approx(8 * stdev(idle) + 10 * MEMORY_W_PER_GB)
    assert profile_of(0, 1_000_000_000).idle_w == MEMORY_W_PER_GB


def test_no_meter_gives_no_energy() -> None:
    """Without any channel every energy figure is null, never zero, and so are operational grams and SCI."""
    receipt = receipt_of(trace())
    energy = receipt.energy
    assert (energy.answer, energy.active, energy.tail, energy.full, energy.scope) == (None,) * 5
    assert receipt.carbon.operational is None
    assert receipt.carbon.embodied.g > 0
    assert receipt.sci.answer.per_answer_g is None
    assert receipt.power.mean_w is None


def test_silent_guard_gives_no_energy() -> None:
    """A meter that fell silent before the post-guard gives no figure, and the verdict names the gap."""
    counter = series(channel(), work(10.0, 50.0, 30.0, 32.0), 31.5)
    receipt = receipt_of(trace(counter))
    assert receipt.energy.answer is None
    assert receipt.verdict == "suspect"
    assert "meter_gap" in {reason.code for reason in receipt.reasons}


def test_gap_inside_is_told() -> None:
    """A hole in the readings during the answer keeps the counter's sum but makes the receipt suspect."""
    counter = series(channel(), work(10.0, 50.0, 30.0, 40.0), 42.0)
    kept = [(t, raw) for t, raw in zip(counter.t_ns, counter.raw, strict=True) if not 33 * S < t < 37 * S]
    holed = replace(counter, t_ns=tuple(t for t, _ in kept), raw=tuple(raw for _, raw in kept))
    receipt = receipt_of(trace(holed, end_s=40.0))
    assert receipt.energy.answer is not None
    assert receipt.energy.answer.j == pytest.approx(500.0, rel=1e-3)
    assert (receipt.verdict, receipt.reasons[0].code) == ("suspect", "meter_gap")


def test_reset_is_invalid() -> None:
    """A counter that starts anew during the answer makes the receipt invalid: the energy before is lost."""
    counter = series(channel(wrap_raw=10**15), work(10.0, 50.0, 30.0, 32.0), 34.0)
    raw = tuple(r if t < 31 * S else r - counter.raw[310] for t, r in zip(counter.t_ns, counter.raw, strict=True))
    receipt = receipt_of(trace(replace(counter, raw=raw)))
    assert (receipt.verdict, receipt.reasons[0].code) == ("invalid", "meter_reset")


@pytest.mark.parametrize("at_s", [29.5, 32.5])
def test_reset_in_a_guard_is_invalid(at_s: float) -> None:
    """A counter that starts anew beside the answer spoils what is taken off or the whole: invalid too."""
    counter = series(channel(wrap_raw=10**15), work(10.0, 50.0, 30.0, 32.0), 34.0)
    first = counter.raw[round(at_s * 10)]
    raw = tuple(r if t < at_s * S else r - first for t, r in zip(counter.t_ns, counter.raw, strict=True))
    assert receipt_of(trace(replace(counter, raw=raw))).reasons[0].code == "meter_reset"


def test_reset_long_before_is_harmless() -> None:
    """A counter that started anew in the idle record, away from the guard, leaves the receipt as it is."""
    counter = series(channel(wrap_raw=10**15), work(10.0, 50.0, 30.0, 32.0), 34.0)
    raw = tuple(r if t < 12 * S else r - counter.raw[120] for t, r in zip(counter.t_ns, counter.raw, strict=True))
    assert receipt_of(trace(replace(counter, raw=raw))).verdict == "valid"


@pytest.mark.parametrize(("range_j", "verdict"), [(262_144, "valid"), (30, "valid"), (3, "suspect")])
def test_wraps_that_may_be_missed_are_told(range_j: int, verdict: str) -> None:
    """A counter that can go round between two readings unseen, 3 J at 40 W, gives a receipt that says so."""
    counter = series(channel(wrap_raw=range_j * 1_000_000), work(7.5, 40.0, 30.0, 32.0), 34.0)
    receipt = receipt_of(trace(counter))
    assert receipt.verdict == verdict
    assert [reason.code for reason in receipt.reasons] == ([] if verdict == "valid" else ["meter_wrap"])
    assert receipt.energy.answer is not None
    assert (receipt.energy.answer.j == pytest.approx(80.0, abs=0.1)) == (verdict == "valid")


def test_one_token_is_all_prefill() -> None:
    """An answer of one token ends where it begins: its prefill is the whole answer and it has no decode phase."""
    counter = series(channel(), work(10.0, 50.0, 30.0, 32.0), 34.0)
    energy = receipt_of(trace(counter, tokens=(TokenTime(t_ns=32 * S, n=1),))).energy
    assert energy.answer is not None
    assert energy.phases["prefill"].j == pytest.approx(energy.answer.j, abs=0.05)
    assert energy.phases["decode"] == PhaseFigure(j=None, u=None, s=None, method=None)


def test_very_short_answer() -> None:
    """Forty milliseconds are measured all the same: the figure is right within its interval, and there is no peak."""
    total = work(10.0, 50.0, 30.02, 30.06)
    plain = series(channel(), total, 34.0)
    t_ns = tuple(sorted([*plain.t_ns, *(round(t_s * S) for t_s in (30.02, 30.03, 30.06, 30.062))]))
    counter = replace(plain, t_ns=t_ns, raw=tuple(int(total(t / S) * 1e6) for t in t_ns))
    receipt = receipt_of(trace(counter, start_s=30.02, end_s=30.06))
    assert receipt.energy.answer is not None
    assert abs(receipt.energy.answer.j - 2.0) <= receipt.energy.answer.u
    assert receipt.energy.phases["decode"].j == pytest.approx(1.5, abs=receipt.energy.phases["decode"].u)
    assert receipt.power.peak_w is None
    assert receipt.power.mean_w == pytest.approx(50.0, rel=0.02)


def test_work_that_outlasts_the_stamp() -> None:
    """An engine whose threads work on for half a millisecond after the last token does not leave the interval."""
    total = work(10.0, 50.0, 30.0, 32.0005)
    plain = series(channel(), total, 34.0)
    t_ns = tuple(sorted([*plain.t_ns, round(32.0015 * S)]))
    counter = replace(plain, t_ns=t_ns, raw=tuple(int(total(t / S) * 1e6) for t in t_ns))
    answer = receipt_of(trace(counter)).energy.answer
    assert answer is not None
    assert 0.01 < answer.j - 100.0 <= answer.u < 0.1


def test_long_answer_on_a_short_record() -> None:
    """Ten minutes of answer on two of idling: windows that long do not fit, and the interval grows for it."""
    noisy = series(channel(), lambda t: work(10.0, 50.0, 120.0, 720.0)(t) + 0.02 * ((t * 7.3 + 0.4) % 1.0), 722.0)
    active = receipt_of(trace(noisy, start_s=120.0, end_s=720.0)).energy.active
    assert active is not None
    assert active.j == pytest.approx(24_000.0, abs=active.u)
    assert active.u > 5.0


def test_the_peak_is_no_less_than_the_mean() -> None:
    """However short and uneven the answer, no mean over a part of it can lie below the mean over all of it."""
    for end_s in (30.07, 30.12, 30.31, 32.0):
        power = receipt_of(trace(series(channel(), work(10.0, 50.0, 30.0, end_s), 34.0), end_s=end_s)).power
        assert power.mean_w is not None
        assert power.peak_w is None or power.peak_w >= power.mean_w * 0.999


def test_load_of_no_time() -> None:
    """A load that took no time at all has no figure, and nothing breaks."""
    load = Span(name="load", start_ns=29 * S, end_ns=29 * S)
    run = trace(series(channel(tick_s=0.0), work(10.0, 50.0, 30.0, 32.0), 34.0))
    phases = receipt_of(replace(run, spans=(load, *run.spans))).energy.phases
    assert phases["load"].j is None


def test_full_without_a_reading_before_the_lease() -> None:
    """Where the record begins after the lease, `full` is null and the SCI of the reserved time has no energy."""
    counter = series(channel(), work(10.0, 50.0, 30.0, 32.0), 34.0)
    late = replace(counter, t_ns=counter.t_ns[280:], raw=counter.raw[280:])
    receipt = receipt_of(trace(late, leased_ns=27 * S))
    assert receipt.energy.answer is not None
    assert receipt.energy.full is None
    assert (receipt.sci.reserved.O_g, receipt.sci.reserved.E_kwh, receipt.sci.reserved.per_answer_g) == (None,) * 3
    assert receipt.sci.reserved.M_g > 0
    receipt_bytes(receipt)


def test_memory_alone_is_no_machine() -> None:
    """Where only memory has a counter the figure is called so and is no better than C."""
    counter = series(channel("dram", "dram"), work(1.0, 3.0, 30.0, 32.0), 34.0)
    receipt = receipt_of(trace(counter, missing=("wall", "cpu")))
    assert receipt.energy.scope == "dram"
    assert receipt.energy.answer is not None
    assert receipt.energy.answer.grade == "C"
    assert "wall, cpu" in receipt.reasons[0].sentence


def test_the_model_is_ignored_beside_a_counter() -> None:
    """Busy cores recorded beside a counter change nothing."""
    counter = series(channel(), work(10.0, 50.0, 30.0, 32.0), 34.0)
    busy = series(
        channel("busy", "machine", kind=ReadingKind.BUSY_RATIO, step=0.01, tick_s=0.01),
        work(0.0, 2.0, 30.0, 32.0),
        34.0,
    )
    assert receipt_of(trace(counter, busy)).energy == receipt_of(trace(counter)).energy


def test_faults_are_told_once_and_where_they_matter() -> None:
    """The same fault at every reading is one reason; one long before the answer, or of a temperature sensor, does not
    make the receipt suspect."""
    counter = series(channel(), work(10.0, 50.0, 30.0, 32.0), 34.0)
    often = tuple(Remark(code="meter_gap", detail="it fell silent", t_ns=31 * S + i * S // 10) for i in range(5))
    reasons = receipt_of(trace(counter, remarks=often)).reasons
    assert [reason.code for reason in reasons] == ["meter_gap"]
    early = Remark(code="meter_gap", detail="it fell silent", t_ns=5 * S)
    sensor = Remark(code="sensor_gap", detail="hwmon: no value", t_ns=31 * S)
    receipt = receipt_of(trace(counter, remarks=(early, sensor)))
    assert (receipt.verdict, [reason.code for reason in receipt.reasons]) == ("valid", ["sensor_gap"])


def test_negative_figures_stay() -> None:
    """A tail that comes out below zero is shown so, with its interval, and is graded as uncertain as it is."""
    less = series(channel(), lambda t: work(10.0, 50.0, 30.0, 32.0)(t) - 2.0 * max(t - 32.0, 0.0), 34.0)
    tail = receipt_of(trace(less)).energy.tail
    assert tail is not None
    assert tail.j == pytest.approx(-2.0, abs=0.1)
    flat = receipt_of(trace(series(channel(), work(10.0, 50.0, 30.0, 32.0), 34.0))).energy.tail
    assert flat is not None
    assert flat.grade == "D"


def test_cached_tokens_are_told() -> None:
    """Input tokens from the engine's cache make the receipt suspect."""
    counter = series(channel(), work(10.0, 50.0, 30.0, 32.0), 34.0)
    receipt = receipt_of(trace(counter, usage=Usage(input_tokens=27, cached_tokens=20, output_tokens=9)))
    assert "engine_cache" in {reason.code for reason in receipt.reasons}


def test_remarks_of_the_node_reach_the_verdict() -> None:
    """What the recorder noted while recording is a reason on the receipt."""
    counter = series(channel(), work(10.0, 50.0, 30.0, 32.0), 34.0)
    receipt = receipt_of(trace(counter, remarks=(Remark(code="meter_gap", detail="it fell silent", t_ns=31 * S),)))
    assert any("it fell silent" in reason.sentence for reason in receipt.reasons)


def test_gram_example() -> None:
    """1633.09 J at 385 g/kWh emit 0.1747 g (the original service's receipt, worked by hand)."""
    grams = operational(Figure(j=1633.09, u=0.0, grade="A"), factors(385.0))
    assert grams.g == pytest.approx(0.1747, rel=1e-3)


def test_embodied_example() -> None:
    """The worked example of ISO/IEC 21031: 1000 kg over 1 h of 4 years is 28.54 g."""
    te = Embodied(low_kg=1000.0, central_kg=1000.0, high_kg=1000.0, life_years=4.0, source="ISO/IEC 21031")
    assert embodied(3600.0, factors(embodied=te)).g == pytest.approx(28.54, abs=0.005)


@given(
    idle_w=st.floats(1, 100),
    more_w=st.floats(1, 400),
    lasted_s=st.floats(0.3, 20),
    g_per_kwh=st.floats(1, 1000),
)
def test_parts_sum_to_the_whole(idle_w: float, more_w: float, lasted_s: float, g_per_kwh: float) -> None:
    """For any run O + M is the SCI, low <= central <= high, and energy per unit fits the answer."""
    end_s = 30.0 + lasted_s
    counter = series(channel(gain_u_ratio=0.05), work(idle_w, idle_w + more_w, 30.0, end_s), end_s + 2)
    receipt = account(trace(counter, end_s=end_s), factors(g_per_kwh), receipt_id="r", placement=PLACEMENT)
    sci, carbon = receipt.sci.answer, receipt.carbon
    assert sci.O_g is not None
    assert sci.O_g + sci.M_g == sci.per_answer_g
    assert sci.per_output_token_g == pytest.approx(sci.per_answer_g / 9)
    assert sci.O_active_g is not None
    assert sci.O_idle_g is not None
    assert sci.O_active_g + sci.O_idle_g == pytest.approx(sci.O_g)
    assert sci.O_idle_g == pytest.approx(idle_w * lasted_s / J_PER_KWH * g_per_kwh, rel=0.02, abs=1e-6)
    assert carbon.operational is not None
    assert carbon.total is not None
    for grams in (carbon.operational, carbon.embodied, carbon.total):
        assert grams.low <= grams.g <= grams.high
    assert receipt.energy.answer is not None
    assert sci.E_kwh == pytest.approx(receipt.energy.answer.j / J_PER_KWH)
    assert receipt.energy.answer.j == pytest.approx((idle_w + more_w) * lasted_s, rel=0.02, abs=0.5)


def test_idle_part_on_both_boundaries() -> None:
    """A machine at 10 W that works at 50 W for 2 s of 3.2 s reserved: a fifth of the answer's O is idling, and all but
    80 J of the reserved one's."""
    receipt = receipt_of(trace(series(channel(), work(10.0, 50.0, 30.0, 32.0), 34.0)))
    answer, reserved = receipt.sci.answer, receipt.sci.reserved
    assert answer.O_g is not None
    assert reserved.O_g is not None
    assert answer.O_idle_g == pytest.approx(answer.O_g * 20 / 100, rel=1e-3)
    assert reserved.O_idle_g == pytest.approx(reserved.O_g * 32 / 112, rel=1e-3)
    assert reserved.O_active_g == pytest.approx(answer.O_active_g, rel=1e-3)


def test_no_energy_no_idle_part() -> None:
    """Without an energy figure neither part of O is known: null, not zero."""
    sci = receipt_of(trace()).sci.answer
    assert (sci.O_g, sci.O_active_g, sci.O_idle_g) == (None, None, None)
    assert sci.M_g > 0


def test_the_receipt_names_machine_and_building() -> None:
    """TE's range and source and the PUE with its source stand in the receipt, so that an auditor can recompute it."""
    chosen = factors(pue=1.2, pue_source="the building's meter")
    counter = series(channel(), work(10.0, 50.0, 30.0, 32.0), 34.0)
    carbon = account(trace(counter), chosen, receipt_id="r1", placement=PLACEMENT).carbon
    assert carbon.hardware == chosen.embodied
    assert (carbon.pue, carbon.pue_source) == (1.2, "the building's meter")


def test_water_example() -> None:
    """3.6 MJ at PUE 1.2 with 0.5 L/kWh on site and 3 L/kWh in the electricity take 0.5 + 3.6 = 4.1 litres."""
    litres = WaterFactors(on_site_l_per_kwh=0.5, electricity_l_per_kwh=3.0, source="by hand")
    found = water(Figure(j=3.6e6, u=0.36e6, grade="B"), factors(pue=1.2, water=litres))
    assert found is not None
    assert (found.l, found.low, found.high) == pytest.approx((4.1, 3.69, 4.51))
    assert (found.on_site_l, found.electricity_l) == pytest.approx((0.5, 3.6))
    assert found.method == "modelled"


def test_water_is_absent_or_partial_never_zero() -> None:
    """No factors or no energy give no water; a factor that is not known leaves its part null."""
    answer = Figure(j=3.6e6, u=0.0, grade="B")
    one = WaterFactors(on_site_l_per_kwh=None, electricity_l_per_kwh=3.0, source="by hand")
    assert water(answer, factors()) is None
    assert water(None, factors(water=one)) is None
    found = water(answer, factors(water=one))
    assert found is not None
    assert (found.l, found.on_site_l, found.electricity_l) == (3.0, None, 3.0)
    site = WaterFactors(on_site_l_per_kwh=0.5, electricity_l_per_kwh=None, source="by hand")
    vague = Figure(j=3.6e6, u=7.2e6, grade="D")
    found = water(vague, factors(pue=1.2, water=site))
    assert found is not None
    assert (found.l, found.on_site_l, found.electricity_l) == (0.5, 0.5, None)
    assert (found.low, found.high) == (0.0, 1.5)


def test_no_tokens_no_score() -> None:
    """An answer of no tokens has no energy per token: null, not zero."""
    counter = series(channel(), work(10.0, 50.0, 30.0, 32.0), 34.0)
    usage = Usage(input_tokens=None, cached_tokens=None, output_tokens=0)
    sci = receipt_of(trace(counter, usage=usage, tokens=())).sci.answer
    assert sci.per_answer_g is not None
    assert sci.per_output_token_g is None
    assert sci.per_token_g is None


def test_equal_bytes_every_time() -> None:
    """A trace stored and read again gives the same receipt, byte for byte."""
    counter = series(channel(), work(10.0, 50.0, 30.0, 32.0), 34.0)
    run = trace(counter)
    again = decode_trace(encode_trace(run))
    assert again == run
    assert receipt_bytes(receipt_of(run)) == receipt_bytes(receipt_of(again))
    assert json.loads(receipt_bytes(receipt_of(run)))["schema"] == "joulebox.receipt/1"


def test_grades() -> None:
    """Grades follow the scope and the interval."""
    assert [grade("wall", 100.0, u) for u in (1.0, 5.0, 20.0, 40.0)] == ["A", "B", "C", "D"]
    assert [grade("cpu+dram", 100.0, u) for u in (1.0, 20.0, 31.0)] == ["C", "C", "D"]
    assert grade("modelled", 100.0, 1.0) == "D"


def test_noisy_idle_is_told() -> None:
    """An idle machine whose power comes and goes leaves so much of the active energy open that the receipt says so."""

    def total(t_s: float) -> float:
        bursts_s = (t_s // 3.7) * 0.4 + min(t_s % 3.7, 0.4)
        return 10.0 * t_s + 60.0 * bursts_s + 2.0 * min(max(t_s - 30.0, 0.0), 2.0)

    receipt = receipt_of(trace(series(channel(), total, 34.0)))
    assert "noisy_idle" in {reason.code for reason in receipt.reasons}


@pytest.mark.parametrize(
    ("calibration", "verdict", "codes", "part"),
    [
        (CALIBRATION, "valid", [], ""),
        (None, "valid", ["uncalibrated"], "joulebox meters calibrate"),
        (replace(CALIBRATION, stale="the kernel has changed"), "suspect", ["stale_calibration"], "of 2026-11-22 may"),
    ],
)
def test_calibration_in_the_receipt(
    calibration: CalibrationRef | None, verdict: str, codes: list[str], part: str
) -> None:
    """A receipt names the calibration its meters were read by; none is a note, a stale one makes it suspect."""
    counter = series(channel(), work(10.0, 50.0, 30.0, 32.0), 34.0)
    receipt = receipt_of(decode_trace(encode_trace(trace(counter, calibration=calibration))))
    assert receipt.calibration == calibration
    assert (receipt.verdict, [reason.code for reason in receipt.reasons]) == (verdict, codes)
    assert all(part in reason.sentence for reason in receipt.reasons)


@pytest.mark.parametrize("stale", [None, "the kernel has changed"])
def test_calibration_matters_to_meters_alone(stale: str | None) -> None:
    """A modelled figure and a run without meters say nothing of calibration."""
    busy = channel("busy", "machine", kind=ReadingKind.BUSY_RATIO, step=0.01, tick_s=0.01)
    calibration = replace(CALIBRATION, stale=stale) if stale else None
    for run in (
        trace(series(busy, work(0.02, 2.0, 30.0, 32.0), 34.0), calibration=calibration),
        trace(calibration=calibration),
    ):
        assert not {"uncalibrated", "stale_calibration"} & {reason.code for reason in receipt_of(run).reasons}


def test_evidence_from_before_calibrations() -> None:
    """A trace stored before there were calibrations is read, and its meters count as uncalibrated."""
    blob = encode_trace(trace(series(channel(), work(10.0, 50.0, 30.0, 32.0), 34.0), calibration=None))
    size = int.from_bytes(blob[4:8], "big")
    head = json.loads(blob[8 : 8 + size])
    del head["trace"]["calibration"]
    old = json.dumps(head).encode()
    run = decode_trace(blob[:4] + len(old).to_bytes(4, "big") + old + blob[8 + size :])
    assert run.calibration is None
    assert receipt_of(run).energy.answer is not None


def test_every_rule_has_sentence_and_remedy() -> None:
    """Each verdict code says what is wrong and what to do."""
    for rule in RULES.values():
        assert rule.sentence.endswith((".", "}."))
        assert rule.remedy.endswith(".")


def test_times() -> None:
    """First token, pace and durations come from spans and tokens."""
    times = receipt_of(trace(series(channel(), work(10.0, 50.0, 30.0, 32.0), 34.0))).times
    assert times.time_to_first_token_s == pytest.approx(0.5)
    assert times.time_per_output_token_s == pytest.approx(1.5 / 8)
    assert times.duration_s == pytest.approx(2.0)
