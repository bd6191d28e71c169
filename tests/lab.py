"""Thirty prompts on the rig: real recorder, driver and files, a scripted engine, and a truth to compare with."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from joulebox.accounting import account
from joulebox.clock import Clock
from joulebox.model import Message, ModelFile, Prompt, Receipt, Trace, UncertaintyPart
from joulebox.node.engine import Event, LocalModel, Token
from joulebox.node.engines.scripted import Activity, Script, Scripted
from joulebox.node.measurement import Machine, measure
from joulebox.node.recorder import Recorder
from joulebox.protocol import Lease
from joulebox.rig.physics import Machine as SimulatedMachine
from joulebox.rig.physics import Zone
from joulebox.units import nanoseconds
from traces import PLACEMENT, factors

PROMPTS = 30
SHORTEST_S, LONGEST_S = 0.3, 5.0
RANGE_UJ = 30_000_000
"""So small that a package at 40 W wraps every 0.75 s: some windows hold several wraps."""
ZONES: tuple[Zone, ...] = ("package-0", "package-0/dram")


Drawn = Callable[[SimulatedMachine, int], float]
"""Joules drawn until a moment, of whatever scope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One receipt beside the truth; `u_rest_j` is the interval without the gain, in which the rig does not err.
    `origin_ns` is the trace's zero on the machine's clock."""

    receipt: Receipt
    trace: Trace
    machine: SimulatedMachine
    origin_ns: int
    truth_j: float
    j: float
    u_j: float
    u_rest_j: float
    wraps: int

    @property
    def error_ratio(self) -> float:
        return abs(self.j - self.truth_j) / self.truth_j


class Watched(Scripted):
    """A scripted engine that remembers when, on the clock's own time, its last token came."""

    last_ns = 0

    def generate(self, prompt: Prompt) -> Iterator[Event]:
        for event in super().generate(prompt):
            if isinstance(event, Token):
                self.last_ns = event.t_ns
            yield event


def campaign(
    clock: Clock,
    recorder: Recorder,
    activity: Activity,
    truth: Callable[[], SimulatedMachine],
    folder: Path,
    seed: int,
    idle_s: float = 4.0,
    drawn: Drawn | None = None,
    durations_s: Sequence[float] = (),
    first_s: float = 20.0,
) -> Iterator[Compared]:
    """Receipts of `PROMPTS` seeded answers of 0.3 to 5 s (or of `durations_s`), each compared with what the machine
    really drew; `drawn` tells that for another scope than `ZONES`."""
    chance = random.Random(seed)
    path = folder / "scripted.gguf"
    path.touch()
    file = ModelFile(
        id="scripted", digest="sha256:0", quantization="none", size_bytes=1, memory_bytes=1, context_tokens=4096
    )
    engine = Watched(clock, activity=activity)
    quiet_since_ns = clock.now_ns()
    clock.sleep_until(quiet_since_ns + nanoseconds(first_s))
    random_s = [SHORTEST_S * (LONGEST_S / SHORTEST_S) ** chance.random() for _ in range(PROMPTS)]
    for number, duration_s in enumerate(durations_s or random_s):
        engine.script = script_of(duration_s, chance)
        lease = Lease(
            token=f"t{number}",
            job_id=f"job{number}",
            attempt=1,
            prompt=Prompt(
                model="scripted", messages=(Message(role="user", content=f"Question {number}"),), seed=number
            ),
            queued_s=0.0,
            placement_reason="",
        )
        measured = measure(
            lease,
            LocalModel(file=file, path=path),
            Machine(node="rig", zone="DE", cores=2, memory_bytes=8_000_000_000),
            engine,
            recorder,
            clock,
            lambda *_, **__: None,
            quiet_since_ns,
        )
        quiet_since_ns = clock.now_ns()
        yield compare(measured.trace, engine.last_ns - measured.trace.tokens[-1].t_ns, truth(), drawn or zones_j)
        clock.sleep_until(clock.now_ns() + nanoseconds(idle_s))


def script_of(duration_s: float, chance: random.Random) -> Script:
    tokens = max(3, round(duration_s * 20))
    prefill_s = duration_s * chance.uniform(0.1, 0.4)
    return Script(
        prefill_s=prefill_s,
        token_s=(duration_s - prefill_s) / (tokens - 1),
        tokens=tokens,
        prefill_level=chance.uniform(0.8, 1.0),
        decode_level=chance.uniform(0.4, 0.8),
    )


def zones_j(machine: SimulatedMachine, t_ns: int) -> float:
    """What package and memory have drawn."""
    return sum(machine.energy_j(zone, t_ns) for zone in ZONES)


def compare(trace: Trace, origin_ns: int, truth: SimulatedMachine, drawn: Drawn = zones_j) -> Compared:
    """The trace's receipt beside the truth between the very same two moments."""
    receipt = account(trace, factors(), receipt_id="r", placement=PLACEMENT)
    answer = trace.span("answer")
    assert answer is not None
    assert receipt.energy.answer is not None
    ends_ns = (origin_ns + answer.start_ns, origin_ns + answer.end_ns)
    truth_j = drawn(truth, ends_ns[1]) - drawn(truth, ends_ns[0])
    return Compared(
        receipt=receipt,
        trace=trace,
        machine=truth,
        origin_ns=origin_ns,
        truth_j=truth_j,
        j=receipt.energy.answer.j,
        u_j=receipt.energy.answer.u,
        u_rest_j=_rest(receipt.energy.uncertainty),
        wraps=sum(
            later < earlier
            for one in trace.series
            if one.channel.wrap_raw
            for t, earlier, later in zip(one.t_ns, one.raw, one.raw[1:], strict=False)
            if answer.start_ns <= t <= answer.end_ns
        ),
    )


def errors(one: Compared, idle: SimulatedMachine) -> dict[str, tuple[float, float]]:
    """Error and interval of each figure, made without the gain. `idle` is the same machine, which was never asked: what
    the asked one drew beyond it is the truth of `active` and `tail`."""
    plain = tuple(replace(each, channel=replace(each.channel, gain_u_ratio=0.0)) for each in one.trace.series)
    energy = account(replace(one.trace, series=plain), factors(), receipt_id="r", placement=PLACEMENT).energy
    answer = one.trace.span("answer")
    assert answer is not None

    def drawn_j(machine: SimulatedMachine, start_ns: int, end_ns: int) -> float:
        ends_ns = (one.origin_ns + start_ns, one.origin_ns + end_ns)
        return sum(machine.energy_j(zone, ends_ns[1]) - machine.energy_j(zone, ends_ns[0]) for zone in ZONES)

    def added_j(start_ns: int, end_ns: int) -> float:
        return drawn_j(one.machine, start_ns, end_ns) - drawn_j(idle, start_ns, end_ns)

    tail_ns = nanoseconds(energy.phases["tail"].s or 0.0)
    truth = {
        "answer": (energy.answer, drawn_j(one.machine, answer.start_ns, answer.end_ns)),
        "active": (energy.active, added_j(answer.start_ns, answer.end_ns)),
        "tail": (energy.tail, added_j(answer.end_ns, answer.end_ns + tail_ns)),
        "full": (energy.full, drawn_j(one.machine, one.trace.leased_ns, one.trace.released_ns)),
    }
    found = {name: (figure.j - truth_j, figure.u) for name, (figure, truth_j) in truth.items() if figure}
    for span in one.trace.spans:
        phase = energy.phases.get(span.name)
        if phase and phase.j is not None and phase.u is not None:
            found[span.name] = (phase.j - drawn_j(one.machine, span.start_ns, span.end_ns), phase.u)
    return found


def _rest(parts: Sequence[UncertaintyPart]) -> float:
    return 2.0 * math.sqrt(sum(part.j * part.j for part in parts if not part.source.startswith("gain")))


def summary(compared: Sequence[Compared]) -> str:
    """What a campaign showed, in lines."""
    errors = sorted(one.error_ratio for one in compared)
    inside = sum(abs(one.j - one.truth_j) <= one.u_j for one in compared)
    rest = sum(abs(one.j - one.truth_j) <= one.u_rest_j for one in compared)
    return (
        f"{len(compared)} prompts, {sum(one.wraps for one in compared)} counter wraps inside answers (simulated)\n"
        f"error of answer energy: median {median(errors):.3%}, worst {errors[-1]:.3%}\n"
        f"truth inside the interval: {inside} of {len(compared)}; inside the interval without gain: {rest}"
    )
