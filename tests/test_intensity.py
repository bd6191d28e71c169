"""Grams of a run that crosses slots of the grid: the sum of each stretch's energy at its own intensity."""

import json
from dataclasses import replace
from datetime import timedelta
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulebox.accounting import account, receipt_bytes
from joulebox.console import show_receipt
from joulebox.model import CarbonFactors, DatedIntensity, Intensity, Quality, Receipt
from joulebox.server.pages import render_receipt
from joulebox.units import J_PER_KWH
from traces import PLACEMENT, channel, factors, series, trace, work

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
