"""Prefill and decode behind a plug too slow to tell them apart: what calibration knows splits the answer."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from agreeing import PLUGS, Lab
from joulebox.accounting import account
from joulebox.model import CalibrationRef, PhaseFigure, PhasePowers
from joulebox.node.meter import Meter
from joulebox.node.recorder import Recorder
from lab import Compared, campaign
from test_closure import AT, fits_of
from traces import PLACEMENT, factors

SLOW = ("1 Hz plug", "plug that looks")


def answers(
    lab: Lab, folder: Path, meters: Sequence[Meter], durations_s: Sequence[float] = (2.5, 3.0, 4.0, 6.0)
) -> list[Compared]:
    """Answers of the lab's machine as these meters see them."""
    recorder = Recorder(meters, lab.clock, reading_hz=10.0)
    recorder.start()
    found = list(
        campaign(
            lab.clock,
            recorder,
            lab.machine.activity,
            lambda: lab.machine,
            folder,
            lab.seed,
            25.0,
            durations_s=durations_s,
        )
    )
    recorder.stop()
    return found


def phases_of(one: Compared, calibration: CalibrationRef) -> tuple[dict[str, PhaseFigure], float]:
    """The phases of its receipt by this calibration, and its answer's energy."""
    energy = account(replace(one.trace, calibration=calibration), factors(), receipt_id="r", placement=PLACEMENT).energy
    assert energy.answer is not None
    return energy.phases, energy.answer.j


def errors(lab: Lab, one: Compared, phases: dict[str, PhaseFigure]) -> list[tuple[float, float, float]]:
    """Error, interval and truth of prefill and decode."""
    found = []
    for span in one.trace.spans:
        phase = phases.get(span.name)
        if span.name in ("prefill", "decode") and phase and phase.j is not None and phase.u is not None:
            ends_ns = (one.origin_ns + span.start_ns, one.origin_ns + span.end_ns)
            truth_j = lab.wall.energy_j(ends_ns[1]) - lab.wall.energy_j(ends_ns[0])
            found.append((phase.j - truth_j, phase.u, truth_j))
    return found


@pytest.mark.parametrize("name", SLOW)
def test_counters_split_what_a_slow_plug_saw(tmp_path: Path, name: str) -> None:
    """Behind a slow plug with counters beside it prefill and decode are told through the calibrated line, add up to the
    answer, and hold the truth in 95 of 100."""
    found = []
    for seed in range(16):
        lab = Lab(seed, PLUGS[name])
        calibration = CalibrationRef(id="c", at=AT, fits=fits_of(lab))
        for one in answers(lab, tmp_path, [lab.zones, lab.plug]):
            phases, answer_j = phases_of(one, calibration)
            bare, _ = phases_of(one, replace(calibration, fits=()))
            if bare["prefill"].u is not None and phases["prefill"].method == "measured":
                assert (phases["prefill"], phases["decode"]) == (bare["prefill"], bare["decode"])
                continue
            assert (phases["prefill"].method, phases["decode"].method) == ("calibrated_split", "calibrated_split")
            assert (phases["prefill"].j or 0) + (phases["decode"].j or 0) == pytest.approx(answer_j)
            found += errors(lab, one, phases)
    inside = sum(abs(error_j) <= u_j for error_j, u_j, _ in found)
    wide = sorted(u_j / truth_j for _, u_j, truth_j in found)
    print(f"{name}: {inside} of {len(found)} inside, median U {wide[len(wide) // 2]:.1%}")
    assert len(found) >= 40
    assert inside >= 0.95 * len(found)


@pytest.mark.parametrize("name", SLOW)
def test_a_models_powers_split_what_a_lone_plug_saw(tmp_path: Path, name: str) -> None:
    """Without counters the node's calibration of the model splits the answer, at its own scope only."""
    inside = runs = 0
    for seed in range(16):
        lab = Lab(seed, PLUGS[name])
        for one in answers(lab, tmp_path, [lab.plug]):
            assert one.trace.model is not None
            powers = PhasePowers(model=one.trace.model.digest, scope="wall", ratio=1.5, u_ratio=0.75, answers=6)
            calibration = CalibrationRef(id="c", at=AT, splits=(powers,))
            phases, answer_j = phases_of(one, calibration)
            if phases["prefill"].method == "measured":
                continue
            assert (phases["prefill"].j or 0) + (phases["decode"].j or 0) == pytest.approx(answer_j)
            for error_j, u_j, _ in errors(lab, one, phases):
                runs, inside = runs + 1, inside + (abs(error_j) <= u_j)
            for other in (replace(powers, model="sha256:1"), replace(powers, scope="platform")):
                assert phases_of(one, replace(calibration, splits=(other,)))[0]["prefill"].method != "calibrated_split"
    print(f"{name}: {inside} of {runs} inside")
    assert inside >= 0.95 * runs > 0
