"""One prompt under the meters: load, settle, answer between quiet guards, and the Trace of it all."""

import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from joulebox.clock import Clock
from joulebox.conversation import ToolCall
from joulebox.errors import JouleboxError
from joulebox.model import (
    Budget,
    CalibrationRef,
    Embodied,
    EngineInfo,
    MachineParts,
    NeighboursSeen,
    Prompt,
    Remark,
    Span,
    SpanName,
    TokenTime,
    Trace,
    Usage,
)
from joulebox.node.calibration import Load
from joulebox.node.cooling import StartBand, cool, warm_up
from joulebox.node.engine import Engine, Finished, LocalModel, Token
from joulebox.node.neighbours import Census, witnessed
from joulebox.node.parts import machine_parts
from joulebox.node.recorder import Record, Recorder
from joulebox.node.settle import restless, settle
from joulebox.plain import plain
from joulebox.protocol import EventKind, Lease
from joulebox.units import nanoseconds, seconds

UNFINISHED: Final = Finished(
    t_ns=0, finish_reason="failed", usage=Usage(input_tokens=None, cached_tokens=None, output_tokens=None)
)
CLOCK_STEP_S: Final = 1.0
"""The calendar clock is told to have been set when it parts so far from the one that measures; slewing is slower."""
ENERGY: Final = "energy"
"""How an answer ended whose energy budget was spent."""
HIDDEN_LOAD_S: Final = 0.5
"""An engine that has its model tells a few hundredths of a second of loading it."""
WAITED_S: Final = 0.05
"""Longer than this a prompt only waits in an engine that works for somebody else."""
QUICK_S: Final = 0.02
"""The person who asked does not wait longer than this for the word that the answer is complete."""


class Sink(Protocol):
    """Where a run's events go while it lasts."""

    def __call__(self, kind: EventKind, **data: Any) -> None:
        """One event; returns at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the node knows of itself."""

    node: str
    zone: str | None
    cores: int
    memory_bytes: int
    calibration: Callable[[datetime], CalibrationRef | None] = lambda _: None
    """By which calibration the meters are read at a moment; `None`: by none."""
    parts: MachineParts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Under which conditions answers are measured. `look` looks at the processes of the machine (without it nobody
    else is told apart); `server_pid` is a server's on this machine."""

    band: StartBand = field(default_factory=StartBand)
    look: Callable[[], Census] | None = None
    server_pid: int | None = None
    load: Load | None = None
    """What warms the processor up before quiet prompts."""
    engine: Callable[[], Collection[int]] = lambda: ()
    """The processes of an engine that is no child of this one."""
    cancelled: Callable[[], bool] = lambda: False
    judged: Callable[[], tuple[float, float] | None] = lambda: None
    """By what the server judged the energy budget spent, once it has: joules above idle, seconds after the request."""
    failed: Callable[[Trace], None] = lambda _: None
    """Told what a run has left that fails or is interrupted: a trace without an answer. What it drew is not lost."""


UNCONDITIONAL: Final = Conditions()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The answer and its evidence."""

    answer: str
    finish_reason: str
    trace: Trace
    tool_calls: tuple[ToolCall, ...]
    released_ns: int
    """The clock's own moment up to which the trace reaches."""


@dataclass(slots=True)
class Run:
    """The moments of a run as they pass, on the clock's own nanoseconds."""

    leased_ns: int
    quiet_from_ns: int
    leased_at: datetime | None = None
    """By the calendar, where it is to be watched."""
    spans: list[Span] = field(default_factory=list)
    tokens: list[TokenTime] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    finished: Finished | None = None
    released_ns: int = 0
    remarks: list[Remark] = field(default_factory=list)
    neighbours: NeighboursSeen | None = None
    judged: tuple[float, float] | None = None
    calls: tuple[ToolCall, ...] = ()

    def add(self, name: SpanName, start_ns: int, end_ns: int) -> None:
        """Note a stretch of time."""
        self.spans.append(Span(name=name, start_ns=start_ns, end_ns=end_ns))


def measure(
    lease: Lease,
    model: LocalModel | None,
    machine: Machine,
    engine: Engine,
    recorder: Recorder,
    clock: Clock,
    sink: Sink,
    quiet_since_ns: int,
    conditions: Conditions = UNCONDITIONAL,
) -> Measured:
    """Answer the lease's prompt under the meters. `quiet_since_ns`: since when the machine has been idle.

    Without a `model` any work stands in the answer's place, and the trace names neither model nor engine nor seed.
    Nothing is sent between request and last token but what `sink` does with the events it is given. Raises the engine's
    `JouleboxError`s.
    """
    leased_ns = recorder.read_now()
    recorder.hold(held=True)
    oldest_ns = recorder.oldest_ns()
    quiet_from_ns = max(quiet_since_ns, leased_ns if oldest_ns is None else oldest_ns)
    run = Run(leased_ns=leased_ns, leased_at=clock.utc(), quiet_from_ns=quiet_from_ns)
    try:
        _load(run, model, engine, recorder, clock, sink)
        before = _settle(run, lease, recorder, clock, sink, conditions)
        end_ns = _answer(run, lease, engine, recorder, sink, conditions)
        post_guard(run, end_ns, recorder, clock, sink)
        if before is not None and conditions.look is not None:
            after = conditions.look()
            run.neighbours = witnessed(before, after, os.getpid(), conditions.server_pid, conditions.engine())
        trace = _trace(run, lease, model, machine, engine, recorder, clock)
        return Measured(
            answer="".join(run.text),
            tool_calls=run.calls,
            finish_reason=trace.finish_reason,
            trace=trace,
            released_ns=run.released_ns,
        )
    except (Exception, KeyboardInterrupt):
        clock.sleep_until(clock.now_ns() + nanoseconds(recorder.slack_s))  # the last tick holds all that was drawn
        run.released_ns = recorder.read_now()
        conditions.failed(_trace(run, lease, model, machine, engine, recorder, clock))
        raise
    finally:
        recorder.hold(held=False)


def _load(run: Run, model: LocalModel | None, engine: Engine, recorder: Recorder, clock: Clock, sink: Sink) -> None:
    if model is None or engine.loaded == model:
        return
    sink("loading", model=model.file.id)
    start_ns = recorder.read_now()
    engine.load(model)
    loaded_ns = clock.now_ns()
    run.quiet_from_ns = recorder.read_now()
    run.add("load", start_ns, loaded_ns)


def _settle(
    run: Run, lease: Lease, recorder: Recorder, clock: Clock, sink: Sink, conditions: Conditions
) -> Census | None:
    """Wait until the machine is cool and calm. Before the calm the first look at who else is here: what it costs lies
    in the guard, as idling. Of a simulated machine this one's processes tell nothing."""
    start_ns = clock.now_ns()

    def tell(sensor: str, now_c: float, target_c: float, expected_s: float | None) -> None:
        sink("settling", sensor=sensor, now_c=now_c, target_c=target_c, expected_s=expected_s)

    band, cancelled = conditions.band, conditions.cancelled
    work = conditions.load if lease.prompt.mode == "quiet" else None
    if work is not None and warm_up(recorder, clock, band, work, tell, cancelled):
        run.quiet_from_ns = recorder.read_now()
    run.remarks += cool(recorder, clock, band, run.quiet_from_ns, tell, cancelled)
    simulated = any(channel.simulated for channel in recorder.channels)
    before = conditions.look() if conditions.look is not None and not simulated else None
    if restless(recorder, clock.now_ns(), run.leased_ns, run.quiet_from_ns):
        sink("settling", sensor=None, now_c=None, target_c=None, expected_s=round(recorder.guard_s, 2))
    run.spans.append(replace(settle(recorder, clock, run.quiet_from_ns), start_ns=start_ns))
    return before


def _answer(run: Run, lease: Lease, engine: Engine, recorder: Recorder, sink: Sink, conditions: Conditions) -> int:
    """From request to last token; its end in nanoseconds."""
    start_ns = recorder.read_now()
    run.add("idle", run.quiet_from_ns, start_ns)
    sink("started")
    for event in engine.generate(lease.prompt):
        if isinstance(event, Token):
            if not run.tokens:
                recorder.read_now()
            run.tokens.append(TokenTime(t_ns=event.t_ns, n=event.n))
            run.text.append(event.text)
            sink("token", text=event.text, n=event.n)
        elif isinstance(event, Finished):
            run.finished = event
    if run.finished is None:
        raise JouleboxError("engine_died", "The engine ended the answer without saying so. Ask again.")
    recorder.read_now()
    if run.finished.finish_reason == "cancelled" and not conditions.cancelled():
        run.judged = conditions.judged()
        run.finished = replace(run.finished, finish_reason=ENERGY) if run.judged else run.finished
    run.calls = tuple(
        ToolCall(id=f"call_{lease.job_id}_{number}", name=name, arguments=arguments)
        for number, (name, arguments) in enumerate(run.finished.calls)
    )
    run.remarks += _engine_remarks(run.finished)
    end_ns = run.finished.t_ns  # not the last text: the token that ends the answer is made, and counted, and not shown
    run.add("answer", start_ns, end_ns)
    if run.tokens:
        run.add("prefill", start_ns, run.tokens[0].t_ns)
        run.add("decode", run.tokens[0].t_ns, end_ns)
    return end_ns


def post_guard(run: Run, end_ns: int, recorder: Recorder, clock: Clock, sink: Sink) -> None:
    """The quiet after the answer: a reading as soon as the quick meters hold all of it, the word that it is complete,
    then idling to the end of the slowest meter's guard."""
    slack_ns = nanoseconds(recorder.slack_s)
    if recorder.channels:
        clock.sleep_until(end_ns + min(slack_ns, nanoseconds(QUICK_S)) + nanoseconds(0.0005))
        recorder.read_now()
    assert run.finished is not None
    sink("answer", finish_reason=run.finished.finish_reason, tool_calls=plain(run.calls))
    if recorder.guard_s:
        sink("measuring", expected_s=round(recorder.guard_s + seconds(slack_ns), 2))
        clock.sleep_until(end_ns + slack_ns + nanoseconds(recorder.guard_s))
    run.released_ns = clock.now_ns()
    recorder.read_now()
    run.add("post", end_ns, run.released_ns)


def _trace(
    run: Run,
    lease: Lease,
    model: LocalModel | None,
    machine: Machine,
    engine: Engine,
    recorder: Recorder,
    clock: Clock,
) -> Trace:
    record = recorded(run, recorder, clock)
    return trace_of(run, record, calendar(record, clock), lease, machine, recorder.missing, model, engine.info)


def recorded(run: Run, recorder: Recorder, clock: Clock) -> Record:
    """Everything from the first reading that is evidence of the run until now."""
    return recorder.record(recorder.reading_before(min(run.leased_ns, run.quiet_from_ns)), clock.now_ns())


def calendar(record: Record, clock: Clock) -> datetime:
    """When the record began, by the calendar."""
    return clock.utc() - timedelta(microseconds=(clock.now_ns() - record.start_ns) // 1_000)


def trace_of(
    run: Run,
    record: Record,
    origin: datetime,
    lease: Lease,
    machine: Machine,
    missing: tuple[str, ...],
    model: LocalModel | None = None,
    engine: EngineInfo | None = None,
) -> Trace:
    """Everything on one time line whose zero is the start of the record, which was at `origin`. A run that failed has
    no end."""
    finished = run.finished or UNFINISHED
    origin_ns = record.start_ns
    remarks = [*run.remarks, *_clock_step(run, origin_ns, origin)]
    shift = _shift(origin_ns)
    released_ns = run.released_ns - origin_ns
    return Trace(
        job_id=lease.job_id,
        attempt=lease.attempt,
        node=machine.node,
        zone=machine.zone,
        origin=origin,
        leased_ns=run.leased_ns - origin_ns,
        released_ns=released_ns,
        spans=tuple(shift(span) for span in run.spans),
        tokens=tuple(TokenTime(t_ns=token.t_ns - origin_ns, n=token.n) for token in run.tokens),
        series=record.series(),
        usage=finished.usage,
        finish_reason=finished.finish_reason,
        model=model.file if model else None,
        engine=engine if model else None,
        seed=lease.prompt.seed if model else None,
        cores=machine.cores,
        memory_bytes=machine.memory_bytes,
        missing=missing,
        remarks=record.remarks() + tuple(_since(one, origin_ns) for one in remarks),
        queued_s=lease.queued_s,
        calibration=machine.calibration(origin + timedelta(microseconds=released_ns // 1_000)),
        neighbours=run.neighbours,
        purpose=lease.purpose,
        control=lease.control,
        parts=machine.parts,
        budget=_budget(lease.prompt, run),
        engine_s=tuple(_engine_s(finished)),
    )


def _engine_remarks(finished: Finished) -> Iterator[Remark]:
    """What the engine did within the answer beside answering, as far as it tells."""
    if finished.load_s is not None and finished.load_s >= HIDDEN_LOAD_S:
        yield Remark(code="hidden_load", detail=f"{finished.load_s:.1f} s")
    if finished.queue_s is not None and finished.queue_s >= WAITED_S:
        yield Remark(code="engine_shared", detail=f"{finished.queue_s:.2g} s")


def _engine_s(finished: Finished) -> Iterator[tuple[str, float]]:
    """What the engine says of its own times, by its own clock. Receipts go by the node's, by which meters are read."""
    told = {"prefill": finished.prefill_s, "decode": finished.decode_s}
    for name, lasted_s in (told | {"load": finished.load_s, "queue": finished.queue_s}).items():
        if lasted_s is not None:
            yield name, lasted_s


def _budget(prompt: Prompt, run: Run) -> Budget | None:
    if prompt.max_energy_j is None:
        return None
    judged_j, judged_s = run.judged or (None, None)
    return Budget(max_energy_j=prompt.max_energy_j, judged_j=judged_j, judged_s=judged_s)


def _clock_step(run: Run, start_ns: int, origin: datetime) -> list[Remark]:
    """Whether the calendar clock was set during the run, or the machine slept while the other clock stood: `origin` is
    when the record began at `start_ns`, reckoned back from the end."""
    if run.leased_at is None:
        return []
    parted_s = (origin - run.leased_at).total_seconds() + seconds(run.leased_ns - start_ns)
    return [Remark(code="clock_step", detail=f"{parted_s:+.0f} s")] if abs(parted_s) >= CLOCK_STEP_S else []


def _shift(origin_ns: int) -> Callable[[Span], Span]:
    return lambda span: replace(span, start_ns=span.start_ns - origin_ns, end_ns=span.end_ns - origin_ns)


def _since(remark: Remark, origin_ns: int) -> Remark:
    return replace(remark, t_ns=None if remark.t_ns is None else remark.t_ns - origin_ns)


def this_machine(
    node: str,
    zone: str | None,
    calibration: Callable[[datetime], CalibrationRef | None] = lambda _: None,
    footprint: Embodied | None = None,
) -> Machine:
    """The machine the node runs on, as far as the operating system tells; `footprint` as far as its operator does."""
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(
        node=node,
        zone=zone,
        cores=os.cpu_count() or 1,
        memory_bytes=memory_bytes,
        calibration=calibration,
        parts=replace(machine_parts(), footprint=footprint),
    )
