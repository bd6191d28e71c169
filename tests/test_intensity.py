"""Grams of a run that crosses slots of the grid: the sum of each stretch's energy at its own intensity."""

import json
from dataclasses import replace
from datetime import timedelta
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulebox.accounting import account, receipt_bytes
from joulebox.accounting.figures import Metered
from joulebox.accounting.intensity import over
from joulebox.console import show_receipt
from joulebox.model import CarbonFactors, DatedIntensity, Intensity, IntensitySlot, Quality, Receipt
from joulebox.server.pages import render_receipt
from joulebox.units import J_PER_KWH
from metered import PLAIN, curve, metered
from traces import PLACEMENT, S, channel, factors, series, trace, work

COUNTER = series(channel(), work(10.0, 50.0, 30.0, 31.0), 40.0)
"""50 W in the first second of the answer, 10 W in the second."""
RUN = trace(COUNTER)


def grid(g_per_kwh: float, quality: Quality = "measured") -> Intensity:
    return replace(
        factors(g_per_kwh).intensity, low=g_per_kwh * 0.8, high=g_per_kwh * 1.2, quality=quality, source=quality
    )


def changing(*steps: tuple[float, Intensity]) -> CarbonFactors:
    """Factors whose intensity is the first one, and from each further second on another."""
    (_, first), *rest = steps
    later = tuple(
        DatedIntensity(
            start=(RUN.origin + timedelta(seconds=at_s)).isoformat(),
            until=(RUN.origin + timedelta(hours=1)).isoformat(),
            intensity=one,
        )
        for at_s, one in rest
    )
    return factors(intensity=first, later=later)


def receipt_of(chosen: CarbonFactors) -> Receipt:
    return account(RUN, chosen, receipt_id="r", placement=PLACEMENT)


def test_each_stretch_counts_at_its_own_intensity() -> None:
    """50 J at 100 g/kWh and 10 J at 700 make 60 J of 200 g/kWh, which neither mean of both would give."""
    carbon = receipt_of(changing((0.0, grid(100.0)), (31.0, grid(700.0)))).carbon
    assert carbon.operational is not None
    assert carbon.operational.g == pytest.approx((50 * 100 + 10 * 700) / J_PER_KWH, rel=1e-4)
    assert carbon.intensity.g_per_kwh == pytest.approx(200.0, rel=1e-4)
    slots = carbon.intensity.slots
    assert [slot.g_per_kwh for slot in slots] == [100.0, 700.0]
    assert [slot.energy_share for slot in slots] == pytest.approx([5 / 6, 1 / 6], rel=1e-4)
    assert [slot.start[17:] for slot in slots] == ["30.000+00:00", "31.000+00:00"]
    assert slots[0].end == slots[1].start


def test_each_boundary_has_its_own_mean() -> None:
    """All the time reserved draws otherwise than the answer, so its mean intensity is another."""
    sci = receipt_of(changing((0.0, grid(100.0)), (31.0, grid(700.0)))).sci
    assert sci.answer.I_g_per_kwh == pytest.approx(200.0, rel=1e-4)
    assert sci.reserved.I_g_per_kwh == pytest.approx((51 * 100 + 21 * 700) / 72, rel=1e-4)


def test_a_mean_is_as_good_as_its_worst_slot() -> None:
    """Of measured and forecast the mean is a forecast, and the sources of both are named."""
    mean = receipt_of(changing((0.0, grid(100.0)), (31.0, grid(100.0, "forecast")))).carbon.intensity
    assert (mean.quality, mean.source) == ("forecast", "measured; forecast")


def test_what_changes_outside_the_run_changes_nothing() -> None:
    """Slots that end before the run or begin after it leave every byte of the receipt as it is."""
    plain = receipt_of(factors(intensity=grid(300.0)))
    around = receipt_of(changing((0.0, grid(1.0)), (5.0, grid(300.0)), (3600.0, grid(2.0))))
    assert receipt_bytes(around) == receipt_bytes(plain)
    assert plain.carbon.intensity.slots[0].energy_share == 1.0


def test_without_energy_time_weighs() -> None:
    """A run without a meter still tells the mean intensity of its time."""
    bare = trace()
    chosen = changing((0.0, grid(100.0)), (31.5, grid(300.0)))
    mean = account(bare, chosen, receipt_id="r", placement=PLACEMENT).carbon.intensity
    assert mean.g_per_kwh == pytest.approx(150.0)


@given(
    st.lists(st.tuples(st.floats(-10, 50), st.floats(1, 1000)), min_size=1, max_size=6, unique_by=lambda step: step[0])
)
def test_shares_make_a_whole_and_the_mean_lies_within(steps: list[tuple[float, float]]) -> None:
    """Whatever the slots, the shares sum to 1, the mean lies between the extremes, and slots join without a gap."""
    receipt = receipt_of(changing(*((at_s, grid(g)) for at_s, g in sorted(steps))))
    mean = receipt.carbon.intensity
    values = [slot.g_per_kwh for slot in mean.slots]
    assert sum(slot.energy_share for slot in mean.slots) == pytest.approx(1.0, abs=1e-12)
    assert min(values) - 1e-9 <= mean.g_per_kwh <= max(values) + 1e-9
    assert mean.low <= mean.g_per_kwh <= mean.high
    assert all(one.end == other.start for one, other in zip(mean.slots, mean.slots[1:], strict=False))
    assert receipt.energy == receipt_of(factors()).energy


def slots(chosen: CarbonFactors, end_s: float, *meters: Metered, start_s: float = 0.0) -> tuple[IntensitySlot, ...]:
    """The slots of a stretch of the run."""
    return over(chosen, RUN, meters, (round(start_s * S), round(end_s * S))).intensity.slots


def test_beyond_its_readings_a_meter_idles_as_its_guards_did() -> None:
    """Readings from 10 s to 40 s of a stretch from 0 to 50 s: 20 mJ/s before and 70 mJ/s after are the guards', and the
    meter's own offset and slope make joules of each part."""
    line = curve((10.0, 0.0), (20.0, 0.1), (30.0, 0.2), (40.0, 0.5))
    scale = replace(PLAIN, offset_w=0.001, slope=0.1)
    meter = metered(line, scale, idle_rate=0.02, after_rate=0.07)
    drawn_j = (
        0.006 + 0.1 * 0.02 * 6,  # idle alone
        0.009 + 0.1 * (0.02 * 4 + 0.05),
        0.020 + 0.1 * (0.05 + 0.1 + 0.15),  # readings alone
        0.011 + 0.1 * (0.15 + 0.07 * 6),
        0.004 + 0.1 * 0.07 * 4,
    )
    cuts = [(at_s, grid(100.0)) for at_s in (0.0, 6.0, 15.0, 35.0, 46.0)]
    found = [slot.energy_share for slot in slots(changing(*cuts), 50.0, meter)]
    assert found == pytest.approx([each / sum(drawn_j) for each in drawn_j], rel=1e-12)
    both = [slot.energy_share for slot in slots(changing(*cuts), 50.0, meter, metered(line))]
    plain_j = (0.0, 0.05, 0.3, 0.15, 0.0)
    every_j = [one + other for one, other in zip(drawn_j, plain_j, strict=True)]
    assert both == pytest.approx([each / sum(every_j) for each in every_j], rel=1e-12)


def test_a_stretch_without_energy_has_no_share() -> None:
    """Where nothing was drawn the share is zero, not below, and the slot is still told."""
    line = curve((0.0, 0.0), (10.0, 0.0), (20.0, 1.0))
    found = slots(changing((0.0, grid(100.0)), (10.0, grid(300.0))), 20.0, metered(line))
    assert [str(slot.energy_share) for slot in found] == ["0.0", "1.0"]


@pytest.mark.parametrize(("at_s", "g_per_kwh"), [(5.0, [300.0]), (5.001, [100.0, 300.0]), (9.0, [100.0])])
def test_a_change_at_an_edge_makes_no_empty_slot(at_s: float, g_per_kwh: list[float]) -> None:
    """An intensity that changes as the stretch begins holds for all of it, one that changes as it ends for nothing."""
    found = slots(changing((0.0, grid(100.0)), (at_s, grid(300.0))), 9.0, start_s=5.0)
    assert [slot.g_per_kwh for slot in found] == g_per_kwh


def test_a_slot_never_reaches_beyond_the_run() -> None:
    """Moments are cut to milliseconds, never rounded up."""
    (slot,) = slots(factors(), 2.9999999, start_s=0.9999999)
    assert (slot.start[17:], slot.end[17:]) == ("00.999+00:00", "02.999+00:00")


def test_a_mean_is_of_the_time_its_first_slot_is_of() -> None:
    """The mean says from when its first intensity is, and its range is each stretch's own."""
    first, second = replace(grid(100.0), at="07:00"), replace(grid(700.0, "forecast"), at="08:00")
    mean = over(changing((0.0, first), (5.0, second)), RUN, (), (0, 20 * S)).intensity
    assert (mean.at, mean.quality, mean.source) == ("07:00", "forecast", "measured; forecast")
    assert (mean.g_per_kwh, mean.low, mean.high) == pytest.approx((550.0, 440.0, 660.0))
    assert [(slot.at, slot.quality) for slot in mean.slots] == [("07:00", "measured"), ("08:00", "forecast")]


def test_a_reader_sees_every_slot() -> None:
    """Page and terminal show the mean with its slots, and a receipt made before there were slots is still shown."""
    receipt = json.loads(receipt_bytes(receipt_of(changing((0.0, grid(100.0)), (31.0, grid(700.0, "forecast"))))))
    page = render_receipt(receipt)
    for part in ("from 07:00", "100 g/kWh", "83.3 % of the energy", "700 g/kWh", "16.7 % of the energy"):
        assert part in page
    shown = StringIO()
    show_receipt(receipt, shown)
    assert "2 slots" in shown.getvalue()
    del receipt["carbon"]["intensity"]["slots"]
    assert "of the energy" not in render_receipt(receipt)
    show_receipt(receipt, shown)
