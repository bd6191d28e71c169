"""Meters that must agree are held against one another in every receipt: alarms that are false are rare, true ones come.

Machines, gains, phases and lags are drawn from seeds; what the supply loses and the board takes, too.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from agreeing import CPU_U, PLUGS, Lab, Plug
from joulebox.accounting import account
from joulebox.model import CalibrationRef, MetersFit, Reason, Trace
from joulebox.node.meter import Meter
from joulebox.node.recorder import Recorder
from joulebox.node.together import compare
from joulebox.rig.physics import Machine
from joulebox.rig.wall import Wall
from lab import campaign
from traces import PLACEMENT, factors

DURATIONS_S = (3.0, 6.0)
OFF: dict[str, tuple[float, tuple[float, ...]]] = {
    "10 Hz wall meter": (0.12, DURATIONS_S),
    "1 Hz plug": (0.12, DURATIONS_S),
    "plug that looks": (0.20, (20.0, 30.0)),
}
"""By how much a meter is off, and in answers of which length that can be told."""
AT = "2026-11-22T08:00:00+00:00"


def fits_of(lab: Lab) -> tuple[MetersFit, ...]:
    """What calibration finds of the lab's meters."""
    found = compare([lab.zones, lab.plug], lab.clock, lab.load)
    return tuple(one.fit for one in found if one.fit is not None)


def traces_of(
    lab: Lab,
    folder: Path,
    meters: Sequence[Meter],
    fits: tuple[MetersFit, ...] = (),
    durations_s: Sequence[float] = DURATIONS_S,
    idle_s: float = 7.3,
) -> list[Trace]:
    """Answers of the lab's machine as these meters see them."""
    recorder = Recorder(meters, lab.clock, reading_hz=10.0)
    recorder.start()
    runs = campaign(
        lab.clock,
        recorder,
        lab.machine.activity,
        lambda: lab.machine,
        folder,
        lab.seed,
        idle_s,
        durations_s=durations_s,
    )
    found = [replace(one.trace, calibration=CalibrationRef(id="c", at=AT, fits=fits)) for one in runs]
    recorder.stop()
    return found


def found_in(run: Trace) -> list[Reason]:
    """What the receipt says of its meters' agreement."""
    reasons = account(run, factors(), receipt_id="r", placement=PLACEMENT).reasons
    return [one for one in reasons if one.code in ("closure", "swapped")]


@pytest.mark.parametrize("name", PLUGS)
def test_false_alarms_are_rare_and_a_meter_gone_wrong_is_told(tmp_path: Path, name: str) -> None:
    """Of receipts of honest meters at most one in twenty is called contradictory, with a calibrated line or without; a
    plug or counters that show more or less than when they were calibrated (by 12 %, behind a plug that only looks 20 %
    in long answers) are told nearly always."""
    honest = alone = wrong = runs = 0
    ratio, durations_s = OFF[name]
    for seed in range(8):
        lab = Lab(seed, PLUGS[name])
        fits = fits_of(lab)
        plain = traces_of(lab, tmp_path, [lab.zones, lab.plug], fits, durations_s)
        runs += len(plain)
        honest += sum(bool(found_in(run)) for run in plain)
        alone += sum(bool(found_in(replace(run, calibration=None))) for run in plain)
        off = lab.zones if seed % 2 else lab.plug
        off.gain *= 1 + ratio if seed % 4 < 2 else 1 - ratio
        told = [found_in(run) for run in traces_of(lab, tmp_path, [lab.zones, lab.plug], fits, durations_s)]
        wrong += sum(bool(each) for each in told)
        assert {one.code for each in told for one in each} <= {"closure"}
    print(f"{name}: {honest} and {alone} false alarms, {wrong} true ones, of {runs}")
    assert (honest <= 0.05 * runs, alone <= 0.05 * runs, wrong >= 0.9 * runs) == (True, True, True)


@pytest.mark.parametrize("name", PLUGS)
def test_a_plug_of_another_machine_makes_the_receipt_invalid(tmp_path: Path, name: str) -> None:
    """A plug that measures another machine does not follow the answer while the counters do: swapped, calibrated or
    not, and the sentence names both; just after loading, without an idle record, it contradicts them at least."""
    lab = Lab(2, PLUGS[name])
    other = Plug(Wall(Machine(77)), lab.clock, PLUGS[name], 1.0)
    for fits in ((), fits_of(lab)):
        first, *runs = traces_of(lab, tmp_path, [lab.zones, other], fits, (6.0, 6.0, 6.0))
        assert found_in(first)
        for run in runs:
            assert [(one.code, one.level) for one in found_in(run)] == [("swapped", "invalid")]
            assert "plug plug (wall) rose by" in found_in(run)[0].sentence


def test_parts_cannot_take_more_than_the_whole(tmp_path: Path) -> None:
    """Without a calibration counters that say more than the plug around them, beyond what both may err, are told; at
    the end of what they may err they are not."""
    lab = Lab(3, PLUGS["10 Hz wall meter"])
    lab.wall.parameters = replace(lab.wall.parameters, rest_w=0.5, loss_w=0.2, loss_ratio=0.02)
    for gain, codes in ((1 + CPU_U, set()), (1.6, {"closure"})):
        lab.zones.gain = gain
        runs = traces_of(lab, tmp_path, [lab.zones, lab.plug])
        assert {one.code for run in runs for one in found_in(run)} == codes


def test_two_meters_at_one_plug(tmp_path: Path) -> None:
    """Two meters at one plug must say the same, to within what both say of themselves."""
    for gain, codes in ((1.005, set()), (1.1, {"closure"})):
        lab = Lab(4, PLUGS["10 Hz wall meter"])
        lab.plug.gain = 1.0
        second = Plug(lab.wall, lab.clock, PLUGS["1 Hz plug"], gain, address="other:rig")
        runs = traces_of(lab, tmp_path, [lab.plug, second])
        assert {one.code for run in runs for one in found_in(run)} == codes


def test_what_hangs_on_the_plug_besides_is_told(tmp_path: Path) -> None:
    """A lamp of 15 W that came to the plug after the calibration is told from the idle machine as from the answer."""
    lab = Lab(5, PLUGS["10 Hz wall meter"])
    fits = fits_of(lab)
    lab.wall.parameters = replace(lab.wall.parameters, loss_w=lab.wall.parameters.loss_w + 15)
    for run in traces_of(lab, tmp_path, [lab.zones, lab.plug], fits):
        (reason,) = found_in(run)
        assert (reason.code, "2026-11-22" in reason.sentence) == ("closure", True)


def test_without_an_idle_record_only_the_answer_is_held_against_the_line(tmp_path: Path) -> None:
    """Just after loading nothing is known of the machine at rest: honest meters agree, a lamp is told all the same."""
    lab = Lab(5, PLUGS["10 Hz wall meter"])
    fits = fits_of(lab)
    for more_w, codes in ((0, []), (15, ["closure"])):
        lab.wall.parameters = replace(lab.wall.parameters, loss_w=lab.wall.parameters.loss_w + more_w)
        for run in traces_of(lab, tmp_path, [lab.zones, lab.plug], fits):
            fresh = replace(run, spans=tuple(span for span in run.spans if span.name != "idle"))
            assert [one.code for one in found_in(fresh)] == codes
