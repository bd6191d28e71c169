"""What is told with a receipt, at the very edge of where it is: noise, budgets, looks, wraps, resets and remarks."""

from dataclasses import replace
from typing import Any

import pytest

from joulebox.accounting.attempts import Spent
from joulebox.accounting.figures import Reckoning, reckon
from joulebox.accounting.validity import _of_readings, _too_short, _wrap, judge
from joulebox.model import Budget, Figure, ReadingKind, Remark, Sampling, Trace
from test_shares import metered
from traces import S, channel, series, trace, work

RUN = trace(series(channel(), work(10.0, 50.0, 30.0, 32.0), 34.0))


def found(
    active: Figure | None = None, noise_j: float = 0.0, resets_ns: tuple[int, ...] = (), peak_w: float | None = None
) -> Reckoning:
    """The run's figures with some of them otherwise."""
    reckoning = reckon(RUN)
    (one,) = reckoning.metered
    one = replace(one, noise=replace(one.noise, active=noise_j), curve=replace(one.curve, resets_ns=resets_ns))
    energy = replace(reckoning.energy, active=active or reckoning.energy.active)
    return replace(reckoning, energy=energy, metered=(one,), power=replace(reckoning.power, peak_w=peak_w))


def told(reckoning: Reckoning, **changes: Any) -> list[tuple[str, str]]:
    """Codes and sentences."""
    return [(one.code, one.sentence) for one in judge(replace(RUN, **changes), reckoning, Spent())[1]]


@pytest.mark.parametrize(
    ("noise_j", "active_j", "words"),
    [
        (3.0, 12.0, None),
        (3.0, -12.0, None),
        (3.0, 11.9, "to within 6.0 J"),
        (3.0, -11.9, "to within 6.0 J"),
        (49.97, 100.0, "to within 99.9 J"),
        (50.0, 100.0, "to within 100 J"),
        (50.2, 100.0, "to within 100 J"),
    ],
)
def test_noise_is_told_from_half_of_what_lies_above_idle(noise_j: float, active_j: float, words: str | None) -> None:
    """Noise that leaves more than half of the energy above idle open is told, with a digit more below 100 J."""
    reasons = told(found(Figure(j=active_j, u=0.0, grade="C"), noise_j))
    assert [code for code, _ in reasons] == ([] if words is None else ["noisy_idle"])
    assert all((words or "") in sentence for _, sentence in reasons)


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (None, None),
        (Budget(max_energy_j=10.0), None),
        (Budget(max_energy_j=13.0), None),
        (Budget(max_energy_j=9.99), "9.99 J was spent: the answer took 12 J above idle"),
        (Budget(max_energy_j=9.99, judged_j=11.0), None),
    ],
)
def test_a_budget_was_missed_where_the_answer_surely_took_more(budget: Budget | None, words: str | None) -> None:
    """An answer that may have kept its budget within its interval, or was ended for it, is not told of."""
    reasons = told(found(Figure(j=12.0, u=2.0, grade="C")), budget=budget)
    assert [code for code, _ in reasons] == ([] if words is None else ["over_budget"])
    assert all((words or "") in sentence for _, sentence in reasons)


def test_the_worst_is_told_first() -> None:
    """What makes a receipt invalid comes first, then what makes it suspect, then notes, each as they were found."""
    marks = tuple(Remark(code=code, detail="d") for code in ("sensor_gap", "meter_gap", "meter_reset", "clock_step"))
    verdict, reasons = judge(replace(RUN, remarks=marks, calibration=None), found(), Spent(known=(1, 2), unknown=(3,)))
    assert verdict == "invalid"
    assert [one.code for one in reasons] == [
        *("meter_reset", "meter_gap", "clock_step"),
        *("sensor_gap", "uncalibrated", "failed_attempt", "unknown_attempt"),
    ]
    assert "(attempts 1, 2)" in reasons[5].sentence
    assert "(attempt 3)" in reasons[6].sentence
    assert judge(RUN, found(), Spent()) == ("valid", ())


def test_a_guard_without_readings_says_where_they_lack() -> None:
    """An answer whose guards hold too few readings is told so."""
    short = trace(series(channel(), work(10.0, 50.0, 30.0, 32.0), 31.5))
    assert "Readings are missing around the answer (too few before or after it)." in told(reckon(short))[0][1]


@pytest.mark.parametrize(
    ("end_s", "ticks_s", "words"),
    [
        (32.0, (1.0,), None),
        (32.5, (1.0, 0.5), None),
        (31.99, (1.0,), "The answer took 2 s, too short for a meter that looks every 1 s."),
        (31.5, (3.0, 0.7, 1.0), "The answer took 1.5 s, too short for a meter that looks every 3 s."),
        (31.5, (), None),
    ],
)
def test_an_answer_of_less_than_two_looks_is_too_short(
    end_s: float, ticks_s: tuple[float, ...], words: str | None
) -> None:
    """A meter that looks once a tick tells of answers of two ticks; the slowest is named where one is shorter."""
    looks = [channel(kind=ReadingKind.POWER_W, sampling=Sampling.SNAPSHOT, tick_s=tick_s) for tick_s in ticks_s]
    slow = channel(kind=ReadingKind.POWER_W, sampling=Sampling.MEAN, tick_s=9.0)
    reason = _too_short(trace(*(series(one, lambda _: 0.0, 1.0) for one in (*looks, slow)), end_s=end_s))
    assert (reason and reason.sentence.startswith(words or "?")) == (None if words is None else True)


@pytest.mark.parametrize(
    ("range_j", "peak_w", "may"),
    [
        (1200, 0.0, False),
        (1199, 0.0, True),
        (1205, 0.0, False),
        (1200, 100.0, False),
        (1200, 100.1, True),
        (1800, 150.0, False),
        (1799, 150.0, True),
    ],
)
def test_a_counter_may_go_round_at_twice_the_power_seen(range_j: int, peak_w: float, may: bool) -> None:
    """Read 6 s apart, a counter may have gone round where 200 W, or twice the power seen, would do it."""
    one = metered(channel(step=0.5, wrap_raw=2 * range_j))
    words = f"package-0 goes round every {range_j:.3g} J and was read 6 s apart"
    assert _wrap(one, peak_w) == (words if may else None)
    assert _wrap(replace(one, channel=replace(one.channel, wrap_raw=None)), peak_w) is None


def test_the_power_seen_counts_for_wraps() -> None:
    """A counter that 250 W would take round between two readings is told of where the machine drew 150 W."""
    reckoning = found(peak_w=150.0)
    (one,) = reckoning.metered
    brief = replace(one, channel=replace(one.channel, wrap_raw=25_000_000))
    run = replace(RUN, series=(replace(RUN.series[0], channel=brief.channel),))
    for peak_w, codes in ((150.0, ["meter_wrap"]), (125.0, []), (None, [])):
        power = replace(reckoning.power, peak_w=peak_w)
        reasons = _of_readings(run, replace(reckoning, metered=(brief,), power=power))
        assert [reason.code for reason in reasons] == codes


@pytest.mark.parametrize(
    ("t_ns", "leased_ns", "counts"),
    [
        (29 * S - 1, round(29.9 * S), False),
        (29 * S, round(29.9 * S), True),
        (31 * S, round(29.9 * S), True),
        (round(33.1 * S), round(29.9 * S), True),
        (round(33.1 * S) + 1, round(29.9 * S), False),
        (27 * S - 1, 27 * S, False),
        (27 * S, 27 * S, True),
    ],
)
def test_what_happened_from_guard_or_lease_to_release_counts(t_ns: int, leased_ns: int, counts: bool) -> None:
    """A reset or a remark counts between lease, or guard before, and release; what is older or younger does not."""
    mark = Remark(code="meter_gap", detail="the line was down", t_ns=t_ns)
    codes = [code for code, _ in told(found(resets_ns=(t_ns,)), remarks=(mark,), leased_ns=leased_ns)]
    assert codes == (["meter_reset", "meter_gap"] if counts else [])


def test_remarks_count_without_meters_and_without_a_moment() -> None:
    """Without a meter the guard is a second; a remark of no moment counts always, one of an unknown code never."""
    marks = (
        Remark(code="meter_gap", detail="early", t_ns=29 * S - 1),
        Remark(code="meter_gap", detail="in the guard", t_ns=29 * S),
        Remark(code="meter_gap", detail="some time"),
        Remark(code="nothing_known", detail="some time"),
    )
    bare: Trace = trace(remarks=marks, calibration=None)
    reasons = [reason.sentence for reason in _of_readings(bare, reckon(bare))]
    assert [words.split("(")[1].split(")")[0] for words in reasons] == ["in the guard", "some time"]
