"""How often the intervals hold the truth, on each kind of instrument, each seed with its own phase and lag."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from instruments import Instrument, Kind
from joulebox.clock import SimulatedClock
from joulebox.model import Sampling
from joulebox.node.recorder import Recorder
from joulebox.rig.physics import Machine
from joulebox.rig.wall import Wall
from lab import Compared, campaign

DURATIONS_S = (0.05, 0.2, 1.0, 5.0)
EACH = 8
LAG_SPREAD = 0.5
"""A meter's true lag is drawn from its declared one, this much more or less."""
INSTRUMENTS: dict[str, tuple[Kind, tuple[float, ...]]] = {
    "counter, 1 ms (RAPL)": (Kind(sampling=Sampling.COUNTER, tick_s=0.001, step=1e-4), DURATIONS_S),
    "counter, 20 ms": (Kind(sampling=Sampling.COUNTER, tick_s=0.02, step=1e-3), DURATIONS_S),
    "counter, 100 ms (GPU)": (Kind(sampling=Sampling.COUNTER, tick_s=0.1, lag_s=0.05, step=1e-3), DURATIONS_S),
    "wall meter, mean over 100 ms": (Kind(sampling=Sampling.MEAN, tick_s=0.1, lag_s=0.05), DURATIONS_S),
    "plug, mean over 1 s": (Kind(sampling=Sampling.MEAN, tick_s=1.0, lag_s=0.5), (1.0, 5.0)),
    "plug, a look each 1 s": (Kind(sampling=Sampling.SNAPSHOT, tick_s=1.0, step=0.1), (2.5, 5.0)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """One figure on one instrument. `error_95_j`: 95 % of the errors are smaller."""

    instrument: str
    figure: str
    runs: int
    inside: float
    error_95_j: float
    median_u_j: float
    median_ratio: float
    """The median of error over energy."""


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


def coverage(name: str, seeds: Sequence[int]) -> Iterator[Coverage]:
    """Coverage of `answer` and `active` on the instrument of that name."""
    kind, durations_s = INSTRUMENTS[name]
    found: dict[str, list[tuple[float, float, float]]] = {"answer": [], "active": []}
    for seed in seeds:
        chance = random.Random(seed)
        lag_s = kind.lag_s * chance.uniform(1 - LAG_SPREAD, 1 + LAG_SPREAD)
        own = replace(kind, phase_s=chance.uniform(0, kind.tick_s), lag_s=lag_s, declared_lag_s=kind.lag_s)
        with TemporaryDirectory() as folder:
            for one in measured(Path(folder), seed, own, durations_s):
                for figure, error in _errors(one, Machine(seed)).items():
                    found[figure].append(error)
    for figure, errors in found.items():
        sizes = sorted(abs(error_j) for error_j, _, _ in errors)
        yield Coverage(
            instrument=name,
            figure=figure,
            runs=len(errors),
            inside=sum(abs(error_j) <= u_j for error_j, u_j, _ in errors) / len(errors),
            error_95_j=sizes[int(0.95 * len(sizes))],
            median_u_j=median(u_j for _, u_j, _ in errors),
            median_ratio=median(abs(error_j) / truth_j for error_j, _, truth_j in errors),
        )


def _errors(one: Compared, idle: Machine) -> dict[str, tuple[float, float, float]]:
    """Error, interval and truth of `answer` and `active`. `idle` is the same machine, which was never asked."""
    energy, answer = one.receipt.energy, one.trace.span("answer")
    assert answer is not None
    assert energy.answer is not None
    assert energy.active is not None
    start_ns, end_ns = one.origin_ns + answer.start_ns, one.origin_ns + answer.end_ns
    all_j = drawn_j(one.machine, end_ns) - drawn_j(one.machine, start_ns)
    added_j = all_j - (drawn_j(idle, end_ns) - drawn_j(idle, start_ns))
    return {
        "answer": (energy.answer.j - all_j, energy.answer.u, all_j),
        "active": (energy.active.j - added_j, energy.active.u, added_j),
    }
