"""Prefill and decode behind a plug too slow to tell them apart: what calibration knows splits the answer."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from agreeing import PLUGS, Lab
from joulebox.accounting import account
from joulebox.clock import SimulatedClock
from joulebox.model import CalibrationRef, ModelFile, PhaseFigure, PhasePowers, Prompt, Trace
from joulebox.node.engine import Event, LocalModel
from joulebox.node.engines.scripted import Activity, Script, Scripted
from joulebox.node.measurement import Machine as MeasuredMachine
from joulebox.node.meter import Meter
from joulebox.node.recorder import Recorder
from joulebox.phase_powers import answers as answers_of
from joulebox.phase_powers import powers_of
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
    answer = one.trace.span("answer")
    assert answer is not None
    return phase_errors(lab, one.trace, one.origin_ns + answer.start_ns, phases)


def phase_errors(
    lab: Lab, run: Trace, begin_ns: int, phases: dict[str, PhaseFigure]
) -> list[tuple[float, float, float]]:
    """The same of an answer that began at a moment of the lab's clock."""
    answer, found = run.span("answer"), []
    assert answer is not None
    for span in run.spans:
        phase = phases.get(span.name)
        if span.name in ("prefill", "decode") and phase and phase.j is not None and phase.u is not None:
            ends_ns = (begin_ns + span.start_ns - answer.start_ns, begin_ns + span.end_ns - answer.start_ns)
            truth_j = lab.wall.energy_j(ends_ns[1]) - lab.wall.energy_j(ends_ns[0])
            found.append((phase.j - truth_j, phase.u, truth_j))
    return found


@pytest.mark.parametrize("name", SLOW)
def test_counters_split_what_a_slow_plug_saw(tmp_path: Path, name: str) -> None:
    """Behind a slow plug with counters beside it prefill and decode are told through the calibrated line, add up to the
    answer, and hold the truth in 95 of 100."""
    found = []
    for seed in range(8):
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
    assert len(found) >= 20
    assert inside >= 0.95 * len(found)


@pytest.mark.parametrize("name", SLOW)
def test_a_models_powers_split_what_a_lone_plug_saw(tmp_path: Path, name: str) -> None:
    """Without counters the node's calibration of the model splits the answer, at its own scope only."""
    inside = runs = 0
    for seed in range(8):
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
    assert runs
    assert runs - inside <= max(1, 0.05 * runs)  # behind a plug that looks few phases are not measured


class Reader(Scripted):
    """A scripted engine that reads 150 words a second and writes 20 tokens, and remembers when its answers began."""

    def __init__(self, clock: SimulatedClock, activity: Activity) -> None:
        super().__init__(clock, activity=activity)
        self.begun_ns: list[int] = []
        self._now_ns = clock.now_ns

    def generate(self, prompt: Prompt) -> Iterator[Event]:
        words = sum(len(message.content.split()) for message in prompt.messages)
        self.script = Script(
            prefill_s=0.2 + words / 150, token_s=0.05, tokens=prompt.max_tokens, prefill_level=0.9, decode_level=0.5
        )
        self.begun_ns.append(self._now_ns())
        yield from super().generate(prompt)


def test_a_models_powers_are_found_and_split_its_answers(tmp_path: Path) -> None:
    """Answers of several lengths give the ratio of a model's powers behind a slow plug, and by it prefill and decode
    of others are told, with the truth inside; of three answers nothing is concluded."""
    found, few = [], []
    for seed in range(6):
        lab = Lab(seed, PLUGS["1 Hz plug"])
        traces, begun_ns = planned(lab, tmp_path)
        few.append(powers_of(traces[:3]))
        powers = powers_of(traces[:6])
        assert powers is not None
        assert (powers.scope, powers.model) == ("wall", "sha256:0")
        assert powers.ratio == pytest.approx(0.9 / 0.5, abs=powers.u_ratio)
        calibration = CalibrationRef(id="c", at=AT, splits=(powers,))
        for run, begin_ns in list(zip(traces, begun_ns, strict=True))[6:]:
            told = replace(run, calibration=calibration)
            phases = account(told, factors(), receipt_id="r", placement=PLACEMENT).energy.phases
            found += phase_errors(lab, run, begin_ns, phases)
    inside = sum(abs(error_j) <= u_j for error_j, u_j, _ in found)
    print(f"{inside} of {len(found)} inside")
    assert set(few) == {None}
    assert inside >= 0.95 * len(found) > 0


def test_a_plug_that_looks_tells_a_models_powers_roughly_or_not_at_all(tmp_path: Path) -> None:
    """Behind a plug that looks once a second the ratio holds the truth where there is one."""
    for seed in range(8):
        lab = Lab(seed, PLUGS["plug that looks"])
        powers = powers_of(planned(lab, tmp_path)[0])
        assert powers is None or powers.ratio == pytest.approx(0.9 / 0.5, abs=powers.u_ratio)


def planned(lab: Lab, folder: Path) -> tuple[list[Trace], list[int]]:
    """The answers that calibration asks of a model, behind the lab's plug, and when each began on its clock."""
    recorder = Recorder([lab.plug], lab.clock, reading_hz=10.0)
    recorder.start()
    path = folder / "scripted.gguf"
    path.touch()
    file = ModelFile(id="m", digest="sha256:0", quantization="none", size_bytes=1, memory_bytes=1, context_tokens=4096)
    machine = MeasuredMachine(node="rig", zone="DE", cores=2, memory_bytes=8_000_000_000)
    reader = Reader(lab.clock, lab.machine.activity)
    model = LocalModel(file=file, path=path)
    traces = list(answers_of(model, reader, recorder, machine, lab.clock, lambda _: None))
    recorder.stop()
    return traces, reader.begun_ns
