"""What a model draws while it reads and while it writes, on this node: `joulebox meters calibrate --model M`.

Meters slower than a prefill cannot tell it from the decode that follows. So the model answers prompts of several
lengths, with answers of several lengths; the energy above idle of each whole answer is known well, and so are the
seconds of its two phases. The two powers that explain all of them best give the ratio by which later answers are split.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Final

from joulebox.accounting.figures import MODELLED, reckon
from joulebox.agreement import T95
from joulebox.clock import Clock, SystemClock
from joulebox.errors import JouleboxError
from joulebox.model import Message, PhasePowers, Prompt, Trace
from joulebox.node.calibration import FILE, calibrated, claimed, load_calibration, store_calibration
from joulebox.node.engine import Engine, LocalModel
from joulebox.node.measurement import Machine, measure, this_machine
from joulebox.node.meters import open_meters
from joulebox.node.recorder import Recorder
from joulebox.protocol import Lease
from joulebox.settings import Settings
from joulebox.units import nanoseconds, seconds

PLAN: Final = ((0.15, 8), (0.0, 120), (0.08, 60), (0.12, 16), (0.02, 120), (0.15, 40), (0.0, 60), (0.1, 8))
"""Per prompt the share of the model's context that its words fill, and the most tokens of its answer."""
WORDS: Final = ("stone", "river", "light", "paper", "house", "green", "water")
"""Short enough to be a token each."""
WORDS_MAX: Final = 2_000
IDLE_S: Final = 12.0
"""Between two answers: an idle record for each."""
ANSWERS_MIN: Final = 5
USELESS_U_RATIO: Final = 0.75
"""A ratio that is known no better than this splits nothing."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one answer took above idle, and how long its phases were."""

    scope: str
    active_j: float
    active_u_j: float
    prefill_s: float
    decode_s: float


def learn_here(settings: Settings, model: str, say: Callable[[str], None]) -> PhasePowers | None:
    """Find the powers of a model of this node, and keep them with its calibration; `None` where they cannot be told.

    Raises `JouleboxError`: `meters_in_use` where a node runs here, `meter_unreadable`, those of meters and engine.
    """
    from joulebox.node.driven import open_engine

    clock, path = SystemClock(), settings.data_dir / FILE
    spool = claimed(settings.data_dir)  # held to the end, so that no node begins in between
    driven = open_engine(settings, clock)
    engine, local = driven.engine, driven.model(model)
    calibration = load_calibration(path)
    if calibration is None:
        raise JouleboxError(
            "meter_unreadable", f"There is no calibration in {path} to keep it with: calibrate the meters first."
        )
    meters, ref = calibrated(open_meters(settings.meters), calibration)
    recorder = Recorder(meters, clock, settings.reading_hz)
    recorder.start()
    try:
        machine = this_machine(settings.node, settings.zone, ref)
        found = powers_of(list(answers(local, engine, recorder, machine, clock, say)))
    finally:
        engine.unload()
        recorder.stop()
        del spool
    if found is not None:
        others = [one for one in calibration.splits if (one.model, one.scope) != (found.model, found.scope)]
        store_calibration(path, replace(calibration, splits=(*others, found)))
    return found


def answers(
    model: LocalModel, engine: Engine, recorder: Recorder, machine: Machine, clock: Clock, say: Callable[[str], None]
) -> Iterator[Trace]:
    """The evidence of answers as planned, each after some idling. Raises the engine's `JouleboxError`s."""
    if engine.loaded != model:
        say(f"loading {model.file.id}")
        engine.load(model)
    for number, (share, max_tokens) in enumerate(PLAN, start=1):
        say(f"{model.file.id} answers {number} of {len(PLAN)} prompts")
        quiet_since_ns = clock.now_ns()
        clock.sleep_until(quiet_since_ns + nanoseconds(IDLE_S))
        words = min(round(share * model.file.context_tokens), WORDS_MAX)
        read = " ".join(WORDS[(index * number + number) % len(WORDS)] for index in range(words))
        content = f"{number}. {read} Count from 1 to 100."
        prompt = Prompt(model=model.file.id, messages=(Message(role="user", content=content),), max_tokens=max_tokens)
        lease = Lease(
            token="", job_id=f"calibration-{number}", attempt=1, prompt=prompt, queued_s=0.0, placement_reason=""
        )
        yield measure(lease, model, machine, engine, recorder, clock, lambda *_, **__: None, quiet_since_ns).trace


def powers_of(traces: Sequence[Trace]) -> PhasePowers | None:
    """The ratio of the two powers that explain these answers of one model; `None` where they do not tell it."""
    found = [answer for trace in traces if (answer := _answer(trace)) is not None]
    if len(found) < ANSWERS_MIN or len({one.scope for one in found}) > 1 or traces[0].model is None:
        return None
    solved = _solved(found)
    if solved is None or min(solved[0]) <= 0:
        return None
    (reading_w, writing_w), (reading_var, writing_var, together) = solved
    ratio, freedom = reading_w / writing_w, len(found) - 2
    variance = (reading_var + ratio**2 * writing_var - 2 * ratio * together) / writing_w**2
    u = T95[min(freedom - 3, len(T95) - 1)] * sqrt(variance)
    if u > USELESS_U_RATIO * ratio:
        return None
    return PhasePowers(model=traces[0].model.digest, scope=found[0].scope, ratio=ratio, u_ratio=u, answers=len(found))


def _solved(found: Sequence[_Answer]) -> tuple[tuple[float, float], tuple[float, float, float]] | None:
    """Watts of reading and of writing by least squares, weighted by what is known of each answer, with their variances
    and covariance: what the answers claim of themselves, or more where they scatter more."""
    weights = [4 / one.active_u_j**2 for one in found]
    both = list(zip(weights, found, strict=True))
    aa, bb = sum(w * one.prefill_s**2 for w, one in both), sum(w * one.decode_s**2 for w, one in both)
    ab = sum(w * one.prefill_s * one.decode_s for w, one in both)
    ay = sum(w * one.prefill_s * one.active_j for w, one in both)
    by = sum(w * one.decode_s * one.active_j for w, one in both)
    determinant = aa * bb - ab * ab
    if determinant <= 1e-6 * aa * bb:
        return None
    reading_w, writing_w = (bb * ay - ab * by) / determinant, (aa * by - ab * ay) / determinant
    off = sum(w * (one.active_j - reading_w * one.prefill_s - writing_w * one.decode_s) ** 2 for w, one in both)
    scale = max(1.0, off / (len(found) - 2)) / determinant
    return (reading_w, writing_w), (bb * scale, aa * scale, -ab * scale)


def _answer(trace: Trace) -> _Answer | None:
    energy, spans = reckon(trace).energy, (trace.span("prefill"), trace.span("decode"))
    prefill, decode = spans
    if energy.active is None or energy.scope in (None, MODELLED) or prefill is None or decode is None:
        return None
    prefill_s, decode_s = seconds(prefill.end_ns - prefill.start_ns), seconds(decode.end_ns - decode.start_ns)
    return _Answer(str(energy.scope), energy.active.j, energy.active.u, prefill_s, decode_s)
