"""The thermal gate on the simulated machine: how long cooling takes, what is told meanwhile, what the receipt says."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from joulebox.accounting import account
from joulebox.clock import SimulatedClock
from joulebox.errors import JouleboxError
from joulebox.model import Channel, Message, Mode, ModelFile, Prompt, ReadingKind, Receipt, Remark, Sampling
from joulebox.node.cooling import RECORD_S, StartBand, cool, limit_c, predict_cooling_s, warm_up
from joulebox.node.engine import LocalModel
from joulebox.node.engines.scripted import Script, Scripted
from joulebox.node.measurement import Conditions, Machine, measure
from joulebox.node.recorder import Recorder
from joulebox.protocol import Lease
from joulebox.rig.physics import Machine as SimulatedMachine
from joulebox.settings import load_settings
from joulebox.units import nanoseconds, seconds
from traces import PLACEMENT, channel, factors

TARGET_C = 45.0
HOT_S = 60.0
"""So long the machine has worked at full power, from the clock's zero on; it comes to rest at 37.4 °C."""


class Board:
    """Package counter and temperature of a simulated machine; the sensor shows steps of `step_c`."""

    address = "powercap:test"
    missing: Sequence[str] = ()

    def __init__(self, clock: SimulatedClock, machine: SimulatedMachine, step_c: float = 0.001) -> None:
        self._clock, self._machine, self._step_c = clock, machine, step_c
        warmth: dict[str, object] = {"kind": ReadingKind.TEMPERATURE_C, "sampling": Sampling.SNAPSHOT, "step": step_c}
        self._channels = (channel(), channel("Package id 0", "cpu", **warmth))

    def channels(self) -> Sequence[Channel]:
        return self._channels

    def read(self) -> Sequence[int | None]:
        now_ns = self._clock.now_ns()
        joules, warmth_c = self._machine.energy_j("package-0", now_ns), self._machine.temperature_c(now_ns)
        return int(joules * 1e6), round(warmth_c / self._step_c)

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class Scene:
    """A machine that worked for a minute and has been idle for `idle_s`."""

    idle_s: float = 3.0
    step_c: float = 0.001
    told: list[tuple[float, str, float, float, float | None]] = field(default_factory=list)
    pulses: int = 0

    def __post_init__(self) -> None:
        self.clock = SimulatedClock()
        self.machine = SimulatedMachine(1)
        self.machine.activity(0, 1.0)
        self.machine.activity(nanoseconds(HOT_S), 0.0)
        self.recorder = Recorder([Board(self.clock, self.machine, self.step_c)], self.clock, 10.0)
        self.recorder.start()
        self.clock.sleep_until(nanoseconds(HOT_S + self.idle_s))

    @property
    def now_s(self) -> float:
        return seconds(self.clock.now_ns()) - HOT_S

    def tell(self, sensor: str, now_c: float, target_c: float, expected_s: float | None) -> None:
        self.told.append((self.now_s, sensor, now_c, target_c, expected_s))

    @contextmanager
    def load(self, share: float) -> Iterator[None]:
        self.machine.activity(self.clock.now_ns(), share)
        self.pulses += 1
        yield
        self.machine.activity(self.clock.now_ns(), 0.0)

    def cool(self, band: StartBand, cancel_s: float = 1e9) -> Remark | None:
        quiet_ns = nanoseconds(HOT_S)
        remarks = cool(self.recorder, self.clock, band, quiet_ns, self.tell, lambda: self.now_s >= cancel_s)
        assert len(remarks) <= 1
        return remarks[0] if remarks else None

    def cooled_s(self, target_c: float) -> float:
        """When the machine really is there, by its physics."""
        t_s = 0.0
        while self.machine.temperature_c(nanoseconds(HOT_S + t_s)) > target_c:
            t_s += 0.05
        return t_s


@pytest.mark.parametrize(("step_c", "idle_s", "off_ratio"), [(0.001, 5.0, 0.1), (0.001, 10.0, 0.05), (1.0, 10.0, 0.3)])
def test_the_prediction_agrees_with_the_physics(step_c: float, idle_s: float, off_ratio: float) -> None:
    """After a few seconds of cooling the time left is known, with a fine sensor and with one of whole degrees."""
    scene = Scene(idle_s=idle_s, step_c=step_c)
    readings = [(t_ns / 1e9, raw * step_c) for t_ns, raw in _warmth(scene)]
    left_s = scene.cooled_s(TARGET_C) - idle_s
    assert predict_cooling_s(readings, TARGET_C) == pytest.approx(left_s, rel=off_ratio)


def _warmth(scene: Scene) -> list[tuple[int, int]]:
    series = scene.recorder.series(nanoseconds(HOT_S), scene.clock.now_ns())[1]
    return list(zip(series.t_ns, series.raw, strict=True))


def test_what_cannot_be_predicted_is_not() -> None:
    """Too few readings, a machine that warms up, and one that comes to rest above the target have no such time."""
    falling = [(t / 10, 37.4 + 30.0 * 0.93 ** (t / 10)) for t in range(300)]
    assert predict_cooling_s(falling[:10], 45.0) is None
    assert predict_cooling_s(falling[:1], 45.0) is None
    assert predict_cooling_s(falling, 36.0) is None
    assert predict_cooling_s([(t, 40.0 + t) for t, _ in falling], 39.0) is None
    assert predict_cooling_s([(t, 50.0) for t, _ in falling], 45.0) is None
    assert predict_cooling_s(falling, 45.0) == 0.0


def test_a_band_is_told_scope_by_scope() -> None:
    """The server hears of each scope that has a limit, with the ends that it has."""
    told = StartBand(min_c={"cpu": 30.0}, max_c={"cpu": 45.0, "gpu1": 60.0}).bands
    assert [(one.scope, one.min_c, one.max_c) for one in told] == [("cpu", 30.0, 45.0), ("gpu1", None, 60.0)]


def test_a_cool_machine_does_not_wait() -> None:
    """In the band, without one and without a sensor nothing is waited for and nothing told."""
    for scene, band in ((Scene(), StartBand()), (Scene(120.0), StartBand(min_c={"cpu": 30.0}, max_c={"cpu": 45.0}))):
        began_s = scene.now_s
        assert scene.cool(band) is None
        assert (scene.now_s, scene.told) == (began_s, [])
    clock = SimulatedClock()
    bare = Recorder([], clock, 10.0)
    assert cool(bare, clock, StartBand(max_c={"cpu": 1.0}), 0, Scene().tell, lambda: False) == []
    assert clock.now_ns() == 0


def test_a_hot_machine_is_waited_for() -> None:
    """The wait ends when the band is reached, and the last prediction told was right."""
    scene = Scene(idle_s=1.0)
    assert scene.cool(StartBand(max_c={"cpu": TARGET_C})) is None
    assert scene.now_s == pytest.approx(scene.cooled_s(TARGET_C), abs=0.6)
    told_s, sensor, now_c, target_c, expected_s = scene.told[-1]
    assert (sensor, target_c) == ("Package id 0", TARGET_C)
    assert now_c > TARGET_C
    assert expected_s is not None
    assert told_s + expected_s == pytest.approx(scene.now_s, rel=0.25)


def test_predictions_are_told_sparingly() -> None:
    """At most once a second, only when the prediction has changed, and not within the guard."""
    scene = Scene(idle_s=0.2, step_c=1.0)
    scene.cool(StartBand(max_c={"cpu": TARGET_C}))
    times_s = [told[0] for told in scene.told]
    assert 2 <= len(times_s) <= 12
    assert min(later - earlier for earlier, later in pairwise(times_s)) >= 1.0
    assert times_s[-1] <= scene.now_s - scene.recorder.guard_s


def test_waiting_is_bounded_and_the_receipt_says_so() -> None:
    """A machine that does not reach the band begins too hot: the time was up, or the prompt was cancelled."""
    scene = Scene()
    began_s = scene.now_s
    remark = scene.cool(StartBand(max_c={"cpu": 30.0}, wait_max_s=40.0))
    assert remark is not None
    assert remark.code == "too_hot"
    assert "above 30 °C after 40 s" in remark.detail
    assert scene.now_s - began_s == pytest.approx(40.0)
    assert scene.told[-1][-1] is None
    cancelled = Scene()
    cancelled.cool(StartBand(max_c={"cpu": 30.0}), cancel_s=5.0)
    assert cancelled.now_s <= 5.5


def test_too_cold_is_marked() -> None:
    """A machine below the band begins at once, and the receipt says that it was too cold."""
    scene = Scene(120.0)
    remark = scene.cool(StartBand(min_c={"cpu": 50.0}))
    assert remark is not None
    assert (remark.code, scene.now_s) == ("too_cold", 120.0)
    assert "below 50 °C" in remark.detail


def test_only_processors_count() -> None:
    """The temperature of a plug or a room says nothing of the machine."""
    clock = SimulatedClock()
    board = Board(clock, SimulatedMachine(1))
    board._channels = (channel(), channel("room", "wall", kind=ReadingKind.TEMPERATURE_C, sampling=Sampling.SNAPSHOT))
    recorder = Recorder([board], clock, 10.0)
    recorder.start()
    clock.sleep_until(nanoseconds(RECORD_S))
    assert cool(recorder, clock, StartBand(max_c={"cpu": 0.0}), 0, Scene().tell, lambda: False) == []


def receipt_of(
    scene: Scene, folder: Path, band: StartBand, mode: Mode = "live"
) -> tuple[Receipt, list[tuple[str, dict[str, Any]]]]:
    """An answer measured in this band, with what was told."""
    (folder / "m.gguf").touch()
    file = ModelFile(id="m", digest="d", quantization="q", size_bytes=1, memory_bytes=1, context_tokens=4096)
    model = LocalModel(file=file, path=folder / "m.gguf")
    prompt = Prompt(model="m", messages=(Message(role="user", content="hi"),), mode=mode)
    lease = Lease(token="t", job_id="j", attempt=1, prompt=prompt, queued_s=0.0, placement_reason="")
    machine = Machine(node="rig", zone="DE", cores=2, memory_bytes=8_000_000_000)
    engine = Scripted(scene.clock, Script(load_s=0.5, tokens=5), activity=scene.machine.activity)
    told: list[tuple[str, dict[str, Any]]] = []
    measured = measure(
        lease,
        model,
        machine,
        engine,
        scene.recorder,
        scene.clock,
        lambda kind, **data: told.append((kind, data)),
        nanoseconds(HOT_S),
        Conditions(band=band, load=scene.load),
    )
    return account(measured.trace, factors(), receipt_id="r", placement=PLACEMENT), told


def test_an_answer_begins_in_the_band(tmp_path: Path) -> None:
    """The gate stands between load and answer: it begins cool, the wait counts as settling, watchers are told."""
    receipt, told = receipt_of(Scene(), tmp_path, StartBand(max_c={"cpu": TARGET_C}))
    assert receipt.temperature[0].start_c <= TARGET_C + 0.1
    assert receipt.times.settle_s > 10.0
    assert "too_hot" not in {reason.code for reason in receipt.reasons}
    kinds = [kind for kind, _ in told]
    assert kinds.index("loading") < kinds.index("settling") < kinds.index("started")
    assert set(dict(told)["settling"]) == {"sensor", "now_c", "target_c", "expected_s"}


def test_a_hot_answer_is_suspect(tmp_path: Path) -> None:
    """An answer that began above the band is suspect and says how hot it was."""
    receipt, _ = receipt_of(Scene(), tmp_path, StartBand(max_c={"cpu": 20.0}, wait_max_s=5.0))
    (reason,) = [reason for reason in receipt.reasons if reason.code == "too_hot"]
    assert receipt.verdict == "suspect"
    assert "above 20 °C after 5 s of waiting" in reason.sentence


COLD = StartBand(min_c={"cpu": 45.0}, max_c={"cpu": 52.0})


def test_a_cold_machine_is_warmed_up_before_a_quiet_prompt(tmp_path: Path) -> None:
    """It begins in the band; the work for it is settling: part of `full`, not of the answer, and not of the idle power
    either."""
    scene = Scene(120.0)
    receipt, told = receipt_of(scene, tmp_path, COLD, "quiet")
    assert 45.0 <= receipt.temperature[0].start_c <= 52.0
    assert not {"too_cold", "too_hot"} & {reason.code for reason in receipt.reasons}
    full, answer, load = receipt.energy.full, receipt.energy.answer, receipt.energy.phases["load"]
    assert full is not None
    assert answer is not None
    worked_s = scene.pulses * 3.0
    assert receipt.times.settle_s > worked_s
    assert full.j - answer.j - (load.j or 0.0) > worked_s * 34.0
    assert receipt.power.idle_w == pytest.approx(6.0, abs=0.7)
    (first, *_) = [data for kind, data in told if kind == "settling"]
    assert (first["target_c"], first["expected_s"]) == (45.0, None)


def test_nobody_waits_for_a_warm_up(tmp_path: Path) -> None:
    """A live prompt begins at once, and the receipt says that the machine was too cold."""
    scene = Scene(120.0)
    receipt, _ = receipt_of(scene, tmp_path, COLD)
    assert scene.pulses == 0
    assert receipt.times.settle_s < 2.0
    assert "too_cold" in {reason.code for reason in receipt.reasons}


@pytest.mark.parametrize(("warm_max_s", "cancel_s", "pulses"), [(10.0, 1e9, 3), (0.0, 1e9, 0), (60.0, 121.0, 1)])
def test_a_warm_up_is_bounded(warm_max_s: float, cancel_s: float, pulses: int) -> None:
    """What cannot be reached is tried once and for a while, or until the prompt is cancelled; then it is marked."""
    scene = Scene(120.0)
    band = StartBand(min_c={"cpu": 95.0}, warm_max_s=warm_max_s)
    began_s = scene.now_s
    warm_up(scene.recorder, scene.clock, band, scene.load, scene.tell, lambda: scene.now_s >= cancel_s)
    assert scene.pulses == pulses
    assert scene.now_s - began_s <= warm_max_s + 1.0
    remark = scene.cool(band)
    assert remark is not None
    assert remark.code == "too_cold"


def test_each_sensor_has_its_band() -> None:
    """The GPU that is above its own limit is waited for, though the processor may be as warm; a cold GPU is marked and
    nobody heats the processor for it."""
    scene = Scene(idle_s=1.0)
    (board,) = (log.meter for log in scene.recorder._logs)
    assert isinstance(board, Board)
    warmth: dict[str, object] = {"kind": ReadingKind.TEMPERATURE_C, "sampling": Sampling.SNAPSHOT, "step": 0.001}
    board._channels = (channel(), channel("GPU 0", "gpu0", **warmth))
    two = Recorder([board, Board(scene.clock, scene.machine)], scene.clock, 10.0)
    two.start()
    scene.clock.sleep_until(scene.clock.now_ns() + nanoseconds(1.0))
    band = StartBand(max_c={"cpu": 90.0, "gpu": TARGET_C})
    assert cool(two, scene.clock, band, nanoseconds(HOT_S), scene.tell, lambda: False) == []
    assert {told[1] for told in scene.told} == {"GPU 0"}
    assert scene.now_s == pytest.approx(scene.cooled_s(TARGET_C), abs=0.6)
    cold = StartBand(min_c={"gpu": 80.0})
    assert not warm_up(two, scene.clock, cold, scene.load, scene.tell, lambda: False)
    (remark,) = cool(two, scene.clock, cold, nanoseconds(HOT_S), scene.tell, lambda: False)
    assert (remark.code, remark.detail[:5], scene.pulses) == ("too_cold", "GPU 0", 0)


def test_the_longest_name_counts() -> None:
    """A limit of one GPU stands before that of all."""
    limits = {"gpu": 50.0, "gpu1": 60.0}
    assert [limit_c(limits, scope) for scope in ("cpu", "gpu0", "gpu1")] == [None, 50.0, 60.0]


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("45", {"cpu": 45.0, "gpu": 45.0}),
        (45, {"cpu": 45.0, "gpu": 45.0}),
        ("cpu=45, gpu1=50.5", {"cpu": 45.0, "gpu1": 50.5}),
        ({"gpu": 50}, {"gpu": 50.0}),
    ],
)
def test_limits_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: object, limits: object) -> None:
    """One number is for every processor; names are for theirs."""
    monkeypatch.chdir(tmp_path)
    assert load_settings(start_max_c=text).start_max_c == limits


@pytest.mark.parametrize("text", ["warm", "cpu=", "room=20", "cpu=45,,", "1e9", "cpu=nan"])
def test_limits_that_are_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    """Anything else is refused with a sentence that shows how to write it."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JouleboxError, match=r"start_max_c.*cpu=45,gpu=50"):
        load_settings(start_max_c=text)


def test_a_band_upside_down_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A highest temperature below the lowest is refused with a sentence that names both."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JouleboxError, match=r"start_max_c = 40\.0 .*start_min_c, which is 45"):
        load_settings(start_min_c=45.0, start_max_c=40.0)
