"""A plug that was there during calibration tells how far the counters may be off, and no more than it can know."""

from dataclasses import replace
from pathlib import Path

import pytest

from agreeing import CPU_U, PLUGS, Lab
from joulebox.accounting import account
from joulebox.accounting.figures import grade
from joulebox.agreement import label
from joulebox.model import Channel, Receipt
from joulebox.node.calibration import Calibration, calibrate, calibrated
from joulebox.node.recorder import Recorder
from joulebox.node.together import compare
from joulebox.node.wall_gain import gains
from lab import campaign
from traces import PLACEMENT, factors


def stated(lab: Lab) -> float:
    """The share of a further watt at the plug that reaches the zones."""
    return 1 / (1 + lab.wall.parameters.loss_ratio)


def channels_of(lab: Lab) -> list[Channel]:
    """All of the lab."""
    return [*lab.zones.channels(), *lab.plug.channels()]


def receipts_of(lab: Lab, calibration: Calibration, folder: Path) -> list[tuple[Receipt, float]]:
    """Receipts of the counters alone, the plug taken away, with what the zones truly drew."""
    (meter,), ref = calibrated([lab.zones], calibration)
    recorder = Recorder([meter], lab.clock, reading_hz=10.0)
    recorder.start()
    runs = list(
        campaign(lab.clock, recorder, lab.machine.activity, lambda: lab.machine, folder, 1, 7.3, durations_s=(3.0, 6.0))
    )
    recorder.stop()
    again = [replace(one.trace, calibration=ref(lab.clock.utc())) for one in runs]
    receipts = [account(run, factors(), receipt_id="r", placement=PLACEMENT) for run in again]
    return [(receipt, one.truth_j) for receipt, one in zip(receipts, runs, strict=True)]


def test_what_the_plug_tells_of_the_counters_holds() -> None:
    """Over machines drawn from seeds the counters' true error lies within what calibration says of it, whether the
    supply's efficiency is known or only its range."""
    inside = {True: 0, False: 0}
    for seed in range(30):
        lab = Lab(seed, PLUGS["10 Hz wall meter"])
        found = compare([lab.zones, lab.plug], lab.clock, lab.load)
        for known in inside:
            gain = gains(channels_of(lab), found, stated(lab) if known else None, "2026-11-22")
            own = gain.get(label(lab.zones.channels()[0]))
            inside[known] += abs(1 / lab.zones.gain - 1) <= (own.u_ratio if own else CPU_U)
    print(inside)
    assert min(inside.values()) >= 28


def test_counters_calibrated_at_the_wall_reach_grade_b(tmp_path: Path) -> None:
    """Counters that are right, and known to be so to 5 %, have grade B after the plug is gone; the receipt says why,
    and the truth is in the interval."""
    lab = Lab(7, PLUGS["10 Hz wall meter"])
    lab.zones.gain = lab.plug.gain = 1.0
    calibration = calibrate([lab.zones, lab.plug], lab.clock, lab.load, lambda _: None, supply_efficiency=stated(lab))
    for receipt, truth_j in receipts_of(lab, calibration, tmp_path):
        answer = receipt.energy.answer
        assert answer is not None
        assert (receipt.energy.scope, answer.grade) == ("cpu+dram", "B")
        assert abs(answer.j - truth_j) <= answer.u <= 0.05 * answer.j
        assert receipt.meters[0].accuracy.startswith("calibrated at the wall on 2026-")


def test_without_the_supplys_efficiency_nothing_is_claimed(tmp_path: Path) -> None:
    """A plug alone does not tell the counters' scale from the supply's losses: what the driver claims stays."""
    lab = Lab(7, PLUGS["10 Hz wall meter"])
    lab.zones.gain = 1.0
    calibration = calibrate([lab.zones, lab.plug], lab.clock, lab.load, lambda _: None)
    assert [one.gain for one in calibration.channels] == [None, None, None]
    receipts = receipts_of(lab, calibration, tmp_path)
    assert {receipt.energy.answer.grade for receipt, _ in receipts if receipt.energy.answer} == {"C"}


def test_counters_that_claim_too_much_are_told(tmp_path: Path) -> None:
    """Counters that show a third too little contradict the plug even where the supply is not known: the interval
    widens until it holds the truth, and the receipt says what they showed."""
    lab = Lab(8, PLUGS["10 Hz wall meter"])
    lab.zones.gain = 0.65
    calibration = calibrate([lab.zones, lab.plug], lab.clock, lab.load, lambda _: None)
    for receipt, truth_j in receipts_of(lab, calibration, tmp_path):
        answer = receipt.energy.answer
        assert answer is not None
        assert abs(answer.j - truth_j) <= answer.u
        assert "where it claims 10 %" in receipt.meters[0].accuracy


@pytest.mark.parametrize(("scope", "u", "wanted"), [("cpu+dram", 5.0, "B"), ("cpu+dram", 5.1, "C"), ("wall", 5.0, "B")])
def test_the_grade_of_calibrated_counters(scope: str, u: float, wanted: str) -> None:
    """Grade B for counters ends at 5 %."""
    assert grade(scope, 100.0, u, calibrated=True) == wanted
