"""How often the intervals hold the truth, and how much wider they are than the errors, on each kind of instrument.

Every seeded run draws its instrument anew from the distributions that the budget states: gain and offset (normal, half
the declared expanded uncertainty), lag (even, within `LAG_DOUBT` of the declared one), phase (even over a tick), and
how long the machine works on after the last token's stamp (even, up to `STAMP_S`). The gains of all runs together are
spread over their distribution by equal shares, so that chance in them does not hide what the other parts do.
"""

import copy
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from math import sqrt
from multiprocessing import get_context
from pathlib import Path
from statistics import NormalDist, median
from tempfile import TemporaryDirectory

from instruments import Instrument, Kind
from joulebox.accounting.figures import Reckoning, reckon
from joulebox.accounting.uncertainty import STAMP_S
from joulebox.clock import SimulatedClock
from joulebox.metering import LAG_DOUBT, guard_s
from joulebox.model import CalibrationRef, Message, ModelFile, Prompt, Sampling, Trace, UncertaintyPart
from joulebox.node.calibration import calibrate
from joulebox.node.engine import LocalModel
from joulebox.node.engines.scripted import Scripted
from joulebox.node.measurement import Machine as Node
from joulebox.node.measurement import measure
from joulebox.node.recorder import Recorder
from joulebox.protocol import Lease
from joulebox.rig.physics import Machine, MachineParameters
from joulebox.rig.wall import Wall
from joulebox.units import nanoseconds
from lab import Compared, campaign, script_of

DURATIONS_S = (0.05, 0.2, 1.0, 5.0)
SLOW_S = (1.0, 5.0)
EACH = 8
RUNS = 1000
WIDTH_MOST = 1.3
RUNS_A_MACHINE = 12
CALIBRATIONS = 12
CALM_S = 12.0
"""So long after an answer the next instrument comes on: nothing is left of a tail."""
SETTLED_S = 4.0
LONGEST_IDLE_S = 20.0
"""The idle record is as long as the guard and `SETTLED_S` at least, as after a rest."""
RAPL = Kind(sampling=Sampling.COUNTER, tick_s=0.001, step=1e-4, gain_u_ratio=0.10)
FAST = Kind(sampling=Sampling.COUNTER, tick_s=0.02, step=1e-3, gain_u_ratio=0.01)
GPU = Kind(sampling=Sampling.COUNTER, tick_s=0.1, lag_s=0.05, step=1e-3, gain_u_ratio=0.05)
WALL = Kind(sampling=Sampling.MEAN, tick_s=0.1, lag_s=0.05, gain_u_ratio=0.005, offset_u_w=0.005)
PLUG = Kind(sampling=Sampling.MEAN, tick_s=1.0, lag_s=0.5, gain_u_ratio=0.02, offset_u_w=0.5)
LOOKS = Kind(sampling=Sampling.SNAPSHOT, tick_s=1.0, step=0.1, gain_u_ratio=0.05, offset_u_w=0.5)
INSTRUMENTS: dict[str, tuple[Kind, tuple[float, ...]]] = {
    "counter, 1 ms (RAPL)": (RAPL, DURATIONS_S),
    "counter, 20 ms": (FAST, DURATIONS_S),
    "counter, 100 ms (GPU)": (GPU, DURATIONS_S),
    "wall meter, mean over 100 ms": (WALL, DURATIONS_S),
    "plug, mean over 1 s": (PLUG, SLOW_S),
    "plug, a look each 1 s": (LOOKS, (2.5, 5.0, 20.0)),
}
NOISY = MachineParameters(noise_w=0.3)
TAILED = MachineParameters(tail_w=30.0)
AT_ONCE = "back to back"
CASES: dict[str, MachineParameters] = {
    "": MachineParameters(),
    AT_ONCE: MachineParameters(),
    "0.3 W noise": NOISY,
    "30 W tail": TAILED,
}
"""The machines: as the rig's is (0.15 W of idle noise), the same asked again as soon as the answer before is released,
with twice its noise, and with clocks that stay up."""
SLOW = ("counter, 20 ms", "counter, 100 ms (GPU)", "wall meter, mean over 100 ms")
SPREAD = ("counter, 1 ms (RAPL)", "wall meter, mean over 100 ms", "plug, mean over 1 s")
CAMPAIGNS: tuple[tuple[str, str], ...] = (
    *((name, "") for name in INSTRUMENTS),
    *((name, "0.3 W noise") for name in SLOW),
    *((name, "30 W tail") for name in SPREAD),
    *((name, AT_ONCE) for name in SPREAD),
)
FIGURES = ("answer", "active", "decode")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One figure of one run beside the truth. `shares`: of the interval's square, by kind of part."""

    figure: str
    known: bool
    """Whether the instrument had no gain and offset error, and said so."""
    duration_s: float
    error_j: float
    u_j: float
    truth_j: float
    shares: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """One figure on one instrument. `error_95_j`: 95 % of the errors are smaller. `width`: per duration the median U
    over that duration's own `error_95_j`; the median of these."""

    instrument: str
    case: str
    figure: str
    known: bool
    runs: int
    inside: float
    error_95_j: float
    median_u_j: float
    width: float
    median_ratio: float
    """The median of error over energy."""
    ratios: dict[float, float]
    """The same by duration."""
    widths: dict[float, float]
    rule: str
    """What the interval is made of most: noise, class (gain and offset), or edges (parts with bounds)."""

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which shares the truth is to lie inside."""
        return (0.93, 0.97) if self.rule == "noise" else (0.95, 1.0)

    @property
    def met(self) -> str:
        """Whether it keeps its bounds: a share of so many runs is known to within twice its own spread."""
        if self.missed:
            return "missed"
        return "met" if self.bounds[0] <= self.inside <= self.bounds[1] else "within chance"

    @property
    def missed(self) -> tuple[str, ...]:
        """What of the bounds it misses, in words."""
        least, most = self.bounds
        chance = 2 * sqrt(0.05 * 0.95 / self.runs)
        name = f"{self.instrument}{', ' + self.case if self.case else ''}: {self.figure}, {self.of}"
        found = []
        if not least - chance <= self.inside <= most + chance:
            found.append(f"{name}: {self.inside:.1%} inside, {self.rule} wants {least:.0%} to {most:.0%}")
        if self.width > WIDTH_MOST and self.case != "30 W tail":
            found.append(f"{name}: median U is {self.width:.2f} times the 95 % error")
        return tuple(found)

    @property
    def of(self) -> str:
        """Whose errors are in it."""
        return "gain known" if self.known else "as declared"


def drawn_j(machine: Machine, t_ns: int) -> float:
    """What the plug has drawn."""
    return Wall(machine).energy_j(t_ns)


def measured(folder: Path, seed: int, kind: Kind, durations_s: Sequence[float] = DURATIONS_S) -> list[Compared]:
    """`EACH` answers of each duration in seeded order, seen by one instrument at the plug."""
    clock, machine = SimulatedClock(), Machine(seed)
    recorder = Recorder([Instrument(Wall(machine), clock, kind)], clock, reading_hz=10.0)
    recorder.start()
    order = list(durations_s) * EACH
    random.Random(seed).shuffle(order)
    compared = list(
        campaign(clock, recorder, machine.activity, lambda: machine, folder, seed, 7.3, drawn_j, order, first_s=130.0)
    )
    recorder.stop()
    return compared


class Bench:
    """A machine that answers one prompt after another, each before instruments of its own."""

    def __init__(self, name: str, case: str, block: int, folder: Path) -> None:
        self.kind, self.durations_s = INSTRUMENTS[name]
        self.name, self.case, self.block = name, case, block
        self.machine = Machine(10_000 + block, parameters=CASES[case])
        self.idle = copy.deepcopy(self.machine)
        self.clock = SimulatedClock()
        self.engine = Scripted(self.clock, activity=self._activity)
        self._late_ns = 0
        path = folder / "scripted.gguf"
        path.touch()
        file = ModelFile(
            id="scripted", digest="sha256:0", quantization="none", size_bytes=1, memory_bytes=1, context_tokens=4096
        )
        self.model = LocalModel(file=file, path=path)
        self.engine.load(self.model)

    def _activity(self, t_ns: int, level: float) -> None:
        self.machine.activity(t_ns + (0 if level else self._late_ns), level)

    def run(self, number: int, share: float) -> Iterator[Outcome]:
        """The outcomes of one run: `share` says where in their distribution gain and offset lie (0 to 1)."""
        chance = random.Random(f"{self.name} {self.case} {number}")
        normal = NormalDist().inv_cdf
        kind = replace(
            self.kind,
            phase_s=chance.uniform(0, self.kind.tick_s),
            lag_s=self.kind.lag_s * chance.uniform(1 - LAG_DOUBT, 1 + LAG_DOUBT),
            declared_lag_s=self.kind.lag_s,
        )
        own = replace(
            kind,
            gain=normal(share) * kind.gain_u_ratio / 2,
            offset_w=chance.gauss(0, kind.offset_u_w / 2),
        )
        known = replace(kind, gain_u_ratio=0.0, offset_u_w=0.0, address="known:rig")
        self.clock.sleep_until(self.clock.now_ns() + nanoseconds(CALM_S + chance.random()))
        wall = Wall(self.machine)
        recorder = Recorder(
            [Instrument(wall, self.clock, own), Instrument(wall, self.clock, known)], self.clock, reading_hz=10.0
        )
        recorder.start()
        least_s = guard_s(kind.channel) + SETTLED_S
        began_ns = self.clock.now_ns()
        self.clock.sleep_until(began_ns + nanoseconds(least_s * (LONGEST_IDLE_S / least_s) ** chance.random()))
        if self.case == AT_ONCE:
            self._ask(number, self.durations_s[-1], chance, recorder, began_ns)
            began_ns = self.clock.now_ns()
        duration_s = self.durations_s[number % len(self.durations_s)]
        trace = self._ask(number, duration_s, chance, recorder, began_ns)
        recorder.stop()
        origin_ns = self.clock.now_ns() - trace.released_ns
        for series in trace.series:
            reckoned = reckon(replace(trace, series=(series,)))
            for figure, truth_j in self._truth(trace, origin_ns).items():
                if (found := _found(reckoned, figure)) is None:
                    continue
                j, u_j, parts = found
                yield Outcome(
                    figure=figure,
                    known=series.channel.meter.startswith("known"),
                    duration_s=duration_s,
                    error_j=j - truth_j,
                    u_j=u_j,
                    truth_j=truth_j,
                    shares=_shares(parts),
                )

    def _ask(self, number: int, duration_s: float, chance: random.Random, recorder: Recorder, quiet_ns: int) -> Trace:
        self.engine.script = script_of(duration_s, chance)
        self._late_ns = nanoseconds(chance.uniform(0, STAMP_S))
        ref = calibration(self.name, self.case, number % CALIBRATIONS)
        node = Node(node="rig", zone="DE", cores=2, memory_bytes=8_000_000_000, calibration=lambda _: ref)
        lease, nowhere = _lease(number), lambda *_, **__: None
        return measure(lease, self.model, node, self.engine, recorder, self.clock, nowhere, quiet_ns).trace

    def _truth(self, trace: Trace, origin_ns: int) -> dict[str, float]:
        answer = trace.span("answer")
        assert answer is not None
        start_ns, first_ns, end_ns = (
            origin_ns + t_ns for t_ns in (answer.start_ns, trace.tokens[0].t_ns, answer.end_ns)
        )
        all_j = drawn_j(self.machine, end_ns) - drawn_j(self.machine, start_ns)
        return {
            "answer": all_j,
            "active": all_j - (drawn_j(self.idle, end_ns) - drawn_j(self.idle, start_ns)),
            "decode": drawn_j(self.machine, end_ns) - drawn_j(self.machine, first_ns),
        }


def _lease(number: int) -> Lease:
    prompt = Prompt(model="scripted", messages=(Message(role="user", content=f"Question {number}"),), seed=number)
    return Lease(token=f"t{number}", job_id=f"job{number}", attempt=1, prompt=prompt, queued_s=0.0, placement_reason="")


def _found(reckoned: Reckoning, name: str) -> tuple[float, float, tuple[UncertaintyPart, ...]] | None:
    energy = reckoned.energy
    figure = energy.phases[name] if name in energy.phases else {"answer": energy.answer, "active": energy.active}[name]
    if figure is None or figure.j is None or figure.u is None:
        return None
    return figure.j, figure.u, reckoned.parts.get(name, reckoned.parts["answer"])


def _shares(parts: Iterable[UncertaintyPart]) -> dict[str, float]:
    """Of the interval's square: what gain and offset, noise, and parts with bounds have."""
    squares = {"class": 0.0, "noise": 0.0, "edges": 0.0}
    for part in parts:
        rule = part.source.partition(" ")[0]
        squares["class" if rule in ("gain", "offset") else "noise" if rule == "idle" else "edges"] += part.j**2
    return {rule: square / sum(squares.values()) for rule, square in squares.items()}


@cache
def calibration(name: str, case: str, which: int) -> CalibrationRef:
    """A calibration of such an instrument on such a machine: of it only how quiet the machine was is used."""
    clock, machine = SimulatedClock(), Machine(90_000 + which, parameters=CASES[case])
    chance = random.Random(f"{name} {case} calibration {which}")
    kind = INSTRUMENTS[name][0]
    own = replace(
        kind,
        phase_s=chance.uniform(0, kind.tick_s),
        lag_s=kind.lag_s * chance.uniform(1 - LAG_DOUBT, 1 + LAG_DOUBT),
        declared_lag_s=kind.lag_s,
        gain_u_ratio=0.0,
        offset_u_w=0.0,
        address="known:rig",
    )

    @contextmanager
    def work(level: float) -> Iterator[None]:
        machine.activity(clock.now_ns(), level)
        yield
        machine.activity(clock.now_ns(), 0.0)

    clock.sleep_until(nanoseconds(5.0))
    found = calibrate([Instrument(Wall(machine), clock, own)], clock, work, lambda _: None)
    ref = found.ref(found.marks, clock.utc())
    (idle,) = ref.idle
    return replace(ref, idle=(idle, replace(idle, meter=kind.address)))


def _block(task: tuple[str, str, int, int]) -> list[Outcome]:
    name, case, block, runs = task
    found: list[Outcome] = []
    kinds = len(INSTRUMENTS[name][1])
    with TemporaryDirectory() as folder:
        bench = Bench(name, case, block, Path(folder))
        for number in range(block * RUNS_A_MACHINE, min((block + 1) * RUNS_A_MACHINE, runs)):
            turns = -(-runs // kinds)
            found += bench.run(number, (number // kinds + 0.5) / turns)
    return found


def outcomes(name: str, case: str = "", runs: int = RUNS, processes: int = 2) -> list[Outcome]:
    """What `runs` seeded runs on that instrument and machine gave; the same ones every time."""
    tasks = [(name, case, block, runs) for block in range(-(-runs // RUNS_A_MACHINE))]
    if processes == 1:
        return [one for task in tasks for one in _block(task)]
    for which in range(CALIBRATIONS):
        calibration(name, case, which)  # once, before the processes part
    with get_context("fork").Pool(processes) as pool:
        return [one for found in pool.imap(_block, tasks) for one in found]


def coverage(name: str, case: str = "", runs: int = RUNS, processes: int = 2) -> Iterator[Coverage]:
    """Coverage of each figure on the instrument of that name, with its gain class and with gain and offset known."""
    found = outcomes(name, case, runs, processes)
    for known in (False, True):
        for figure in FIGURES:
            chosen = [one for one in found if (one.figure, one.known) == (figure, known)]
            if chosen:
                yield _coverage(name, case, chosen)


def _coverage(name: str, case: str, chosen: Sequence[Outcome]) -> Coverage:
    by_duration: dict[float, list[Outcome]] = {}
    for one in chosen:
        by_duration.setdefault(one.duration_s, []).append(one)
    widths = {
        duration_s: median(one.u_j for one in ones) / _error_95_j(ones) for duration_s, ones in by_duration.items()
    }
    shares = {rule: median(one.shares[rule] for one in chosen) for rule in chosen[0].shares}
    return Coverage(
        instrument=name,
        case=case,
        figure=chosen[0].figure,
        known=chosen[0].known,
        runs=len(chosen),
        inside=sum(abs(one.error_j) <= one.u_j for one in chosen) / len(chosen),
        error_95_j=_error_95_j(chosen),
        median_u_j=median(one.u_j for one in chosen),
        width=median(widths.values()),
        median_ratio=_ratio(chosen),
        ratios={duration_s: _ratio(ones) for duration_s, ones in by_duration.items()},
        widths=widths,
        rule=max(shares, key=lambda rule: shares[rule]),
    )


def _ratio(chosen: Sequence[Outcome]) -> float:
    return median(abs(one.error_j) / one.truth_j for one in chosen)


def _error_95_j(chosen: Sequence[Outcome]) -> float:
    sizes = sorted(abs(one.error_j) for one in chosen)
    return sizes[min(int(0.95 * len(sizes)), len(sizes) - 1)]
