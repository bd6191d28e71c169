"""Any work on this machine gets a receipt, without a server: a command, or a block of Python.

The work stands where a prompt's answer stands: `node.measurement` waits for a quiet machine, marks the work's start and
end and waits out the quiet after it; `accounting.account` makes the receipt. What has no model has none in its receipt.
"""

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from types import TracebackType
from typing import Any, Final, Self

from joulebox.accounting import account
from joulebox.clock import Clock, SystemClock
from joulebox.errors import JouleboxError
from joulebox.model import CarbonFactors, EngineInfo, NeighboursSeen, Placement, Prompt, Trace, Usage
from joulebox.node.calibration import FILE, calibrated, load_calibration
from joulebox.node.cooling import cool, start_band
from joulebox.node.engine import Event, Finished, LocalModel, Started
from joulebox.node.measurement import (
    UNCONDITIONAL,
    Conditions,
    Machine,
    calendar,
    post_guard,
    recorded,
    this_machine,
    trace_of,
)
from joulebox.node.measurement import Run as Moments
from joulebox.node.measurement import measure as measured
from joulebox.node.meters import open_meters
from joulebox.node.neighbours import Census, scan, witnessed
from joulebox.node.parts import machine_parts
from joulebox.node.recorder import Record, Recorder
from joulebox.node.settle import settle
from joulebox.protocol import EventKind, Lease
from joulebox.receipt import Receipt, held
from joulebox.server.grid import factors_for
from joulebox.server.jobs import new_id
from joulebox.settings import load_settings
from joulebox.units import nanoseconds

IDLE_S: Final = 3.0
"""So long the idle machine is listened to before the work: the guard before it, and a record to tell the noise by."""
IDLE_MIN_S: Final = 1.0
IDLE_MAX_S: Final = 100.0
"""A recorder keeps little more than this of the time before a run."""
DONE: Final = "done"
_NO_TOKENS: Final = Usage(input_tokens=None, cached_tokens=None, output_tokens=None)
_PLACEMENT: Final = Placement(policy="here", reason="measured on this machine, without a server", saved_g=None)
_NOT_YET: Final = "There is no receipt before the measured block has ended."
_FORWARDED: Final = (signal.SIGTERM, signal.SIGHUP)
_SIGNALLED: Final = 128
"""What a shell adds to a signal's number to make an exit code."""

Work = Callable[[], tuple[str, int]]
"""Does the work; how it ended, and when on the monotonic clock."""
Say = Callable[[str], None]
"""Tells a person what is waited for."""


def _silent(_: str) -> None:
    return


class _WorkEngine:
    """Work where an engine would be. Nothing is loaded, no token comes."""

    info = EngineInfo(name="work", version="")
    takes_tools = False
    loaded: LocalModel | None = None

    def __init__(self, work: Work, clock: Clock) -> None:
        self._work = work
        self._clock = clock

    def load(self, model: LocalModel) -> None:
        """Nothing to load."""

    def unload(self) -> None:
        """Nothing to free."""

    def cancel(self) -> None:
        """Work ends by itself."""

    def generate(self, prompt: Prompt) -> Iterator[Event]:
        """The work, from its start to its end."""
        yield Started(t_ns=self._clock.now_ns())
        finish_reason, end_ns = self._work()
        yield Finished(t_ns=end_ns, usage=_NO_TOKENS, finish_reason=finish_reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruments:
    """What measuring here takes: the meters' recorder, not yet started, and where grams come from."""

    clock: Clock
    machine: Machine
    recorder: Recorder
    factors: CarbonFactors
    idle_s: float
    conditions: Conditions = UNCONDITIONAL

    def trace(self, work: Work, say: Say) -> Trace:
        """Listen, do the work under the meters, listen again; the meters are closed in the end.

        Raises what `work` raises.
        """
        self.recorder.start()
        try:
            quiet_since_ns = self.recorder.read_now()
            if self.recorder.channels:
                idle_s = max(self.idle_s, self.recorder.guard_s)
                say(f"listening to the idle machine for {idle_s:g} s")
                self.clock.sleep_until(quiet_since_ns + nanoseconds(idle_s))

            def sink(kind: EventKind, **data: Any) -> None:
                if kind == "settling" and data.get("sensor"):
                    say(f"{data['sensor']} is at {data['now_c']:.0f} °C: waiting for {data['target_c']:.0f} °C")
                elif kind == "settling":
                    say("letting the machine settle, so that the measurement starts from idle")
                elif kind == "measuring":
                    say("measuring the quiet after the work")

            engine = _WorkEngine(work, self.clock)
            return measured(
                _lease(), None, self.machine, engine, self.recorder, self.clock, sink, quiet_since_ns, self.conditions
            ).trace
        finally:
            self.recorder.stop()

    def receipt(self, trace: Trace) -> Receipt:
        """What the work cost."""
        return held(account(trace, self.factors, receipt_id=new_id(), placement=_PLACEMENT))


def _lease() -> Lease:
    nothing_asked = Prompt(model="", messages=())
    return Lease(token="", job_id=new_id(), attempt=1, prompt=nothing_asked, queued_s=0.0, placement_reason="")


def instruments(
    meters: Sequence[str] = (), zone: str | None = None, idle_s: float = IDLE_S, clock: Clock | None = None
) -> Instruments:
    """Open the meters (`KIND:ADDRESS`; without any, those of the settings, else what is found).

    Raises `JouleboxError`: `bad_setting`, `unknown_zone`, `unknown_meter`, `meter_unreadable`.
    """
    if not (isfinite(idle_s) and IDLE_MIN_S <= idle_s <= IDLE_MAX_S):
        raise JouleboxError(
            "bad_setting",
            f"The idle machine cannot be listened to for {idle_s:g} s: give {IDLE_MIN_S:g} to {IDLE_MAX_S:g} seconds.",
        )
    clock = clock or SystemClock()
    settings = load_settings(meters=tuple(meters) or None, zone=zone)
    factors = factors_for(settings.zone, settings, clock.utc(), parts=machine_parts())
    read, calibration = calibrated(open_meters(settings.meters), load_calibration(settings.data_dir / FILE))
    recorder = Recorder(read, clock, settings.reading_hz)
    machine = this_machine(settings.node, settings.zone, calibration)
    return Instruments(
        clock=clock,
        machine=machine,
        recorder=recorder,
        factors=factors,
        idle_s=idle_s,
        conditions=Conditions(band=start_band(settings), look=scan),
    )


# --- blocks of Python -------------------------------------------------------------------------------------------------


class Session:
    """Meters kept open for many measured blocks: `with session() as meters:`, then `with meters.measure() as window:`.

    Of what a block costs beyond its readings only the marks and the copy of the readings are paid at once. The receipt
    is made when it is asked for, and so are the looks at the machine's other processes: one when the session opens,
    then one at each receipt. A receipt tells who was at work between the looks on either side of its block.
    `calm`: each block waits, a while at most, until the machine is as quiet as it was.
    """

    def __init__(self, ready: Instruments, say: Say = _silent, *, calm: bool = False) -> None:
        self.instruments = ready
        self.looked: tuple[int, Census | None] | None = None
        self._say = say
        self._calm = calm
        self._taken = threading.Lock()

    def __enter__(self) -> Self:
        self.instruments.recorder.start()
        self.instruments.recorder.read_now()
        self.look()
        return self

    def __exit__(self, *_: object) -> None:
        self.instruments.recorder.stop()

    def measure(self) -> "Window":
        """A block to measure. One at a time."""
        return Window(self)

    def begin(self) -> tuple[Moments, int]:
        """Wait until the machine is cool enough, then listen to it while it is idle; what came before the block, and
        when it begins.

        Raises `RuntimeError` outside the session and inside another block.
        """
        if self.looked is None:
            raise RuntimeError("The meters are not open yet: `with session() as meters:` comes first.")
        if not self._taken.acquire(blocking=False):
            raise RuntimeError("A session measures one block at a time: end the one before, or open a second session.")
        here = self.instruments
        clock, recorder = here.clock, here.recorder
        try:
            recorder.hold(held=True)
            begun_ns = clock.now_ns()
            moments = Moments(leased_ns=begun_ns, quiet_from_ns=begun_ns)
            band, cancelled = here.conditions.band, here.conditions.cancelled
            moments.remarks += cool(recorder, clock, band, begun_ns, self._tell_heat, cancelled)
            if recorder.channels:
                idle_s = max(here.idle_s, recorder.guard_s)
                self._say(f"listening to the idle machine for {idle_s:g} s")
                clock.sleep_until(clock.now_ns() + nanoseconds(idle_s))
            if self._calm:
                moments.spans.append(settle(recorder, clock, begun_ns))
            start_ns = recorder.read_now()
        except BaseException:
            self.end()
            raise
        moments.add("idle", begun_ns, start_ns)
        return moments, start_ns

    def end(self) -> None:
        """The block is over, and what was read around it is kept."""
        self.instruments.recorder.hold(held=False)
        self._taken.release()

    def look(self) -> None:
        """At the processes of the machine. Of a simulated one this one's tell nothing."""
        here = self.instruments
        simulated = any(channel.simulated for channel in here.recorder.channels)
        seen = here.conditions.look() if here.conditions.look is not None and not simulated else None
        self.looked = (here.clock.now_ns(), seen)

    def neighbours(self, before: Census | None, end_ns: int) -> NeighboursSeen | None:
        """Who was at work since `before`; looks where nobody has looked since `end_ns`."""
        if self.looked is None or self.looked[0] < end_ns:
            self.look()
        after = self.looked[1] if self.looked is not None else None
        return witnessed(before, after, os.getpid(), None) if before is not None and after is not None else None

    def _tell_heat(self, sensor: str, now_c: float, target_c: float, _: float | None) -> None:
        self._say(f"{sensor} is at {now_c:.0f} °C: waiting for {target_c:.0f} °C")


class Window:
    """A block measured in a session. Entering returns after the idle machine was listened to, leaving once the quiet
    after the block is recorded. What the block raises passes through."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._moments: Moments | None = None
        self._before: Census | None = None
        self._start_ns = 0
        self._kept: tuple[Record, datetime] | None = None
        self._receipt: Receipt | None = None

    @property
    def receipt(self) -> Receipt:
        """What the block cost. Raises `RuntimeError` before its end."""
        if self._receipt is None:
            if self._moments is None or self._kept is None:
                raise RuntimeError(_NOT_YET)
            moments, (record, origin), here = self._moments, self._kept, self._session.instruments
            moments.neighbours = self._session.neighbours(self._before, moments.released_ns)
            trace = trace_of(moments, record, origin, _lease(), here.machine, here.recorder.missing)
            self._receipt = here.receipt(trace)
        return self._receipt

    def __enter__(self) -> Self:
        self._moments, self._start_ns = self._session.begin()
        self._before = self._session.looked[1] if self._session.looked is not None else None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        here, moments = self._session.instruments, self._moments
        assert moments is not None
        end_ns = here.clock.now_ns()
        moments.add("answer", self._start_ns, end_ns)
        reason = DONE if kind is None else kind.__name__
        moments.finished = Finished(t_ns=end_ns, usage=_NO_TOKENS, finish_reason=reason)
        try:
            post_guard(moments, end_ns, here.recorder, here.clock, lambda *_, **__: None)
            record = recorded(moments, here.recorder, here.clock)
            self._kept = (record, calendar(record, here.clock))
        finally:
            self._session.end()


class Run:
    """A measured block: `with measure() as run: ...`, then `run.receipt`.

    Entering returns once the machine is quiet, leaving once the quiet after the block is recorded. What the block
    raises passes through. Both marks are made by the block's own thread: a thread that hands over to another may be
    kept waiting by a busy machine, and that would be measured as work.
    """

    def __init__(self, ready: Instruments, say: Say = _silent) -> None:
        self._session = Session(ready, say, calm=True)
        self._window = self._session.measure()

    @property
    def receipt(self) -> Receipt:
        """What the block cost. Raises `RuntimeError` before its end."""
        return self._window.receipt

    def __enter__(self) -> Self:
        self._session.__enter__()
        try:
            self._window.__enter__()
        except BaseException:
            self._session.__exit__()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._window.__exit__(kind, error, trace)
            self._session.look()
        finally:
            self._session.__exit__()


def measure(*, meters: Sequence[str] = (), zone: str | None = None, idle_s: float = IDLE_S) -> Run:
    """Measure a block of Python: `with measure() as run: ...`, then `run.receipt`.

    `meters` are `KIND:ADDRESS` (without any, those of the settings, else what the machine has), `zone` is the grid's,
    `idle_s` how long the idle machine is listened to first. Raises `JouleboxError`: `bad_setting`, `unknown_zone`,
    `unknown_meter`, `meter_unreadable`.
    """
    return Run(instruments(meters, zone, idle_s))


def session(*, meters: Sequence[str] = (), zone: str | None = None, idle_s: float = IDLE_S) -> Session:
    """Open the meters once for many measured blocks; each costs little more than its readings.

    Takes and raises what `measure` does. `idle_s` is how long the idle machine is listened to before each block.
    """
    return Session(instruments(meters, zone, idle_s))


# --- a command --------------------------------------------------------------------------------------------------------


def run_command(command: Sequence[str], ready: Instruments, say: Say = _silent) -> tuple[int, Receipt]:
    """Run a command with this process's own stdin, stdout and stderr; its exit code and its receipt.

    Ctrl-C is the command's; SIGTERM and SIGHUP are handed on to it; a command that a signal ended has the code a shell
    would give it. Raises `JouleboxError("bad_request")` where it cannot be started. Only for the main thread.
    """
    codes: list[int] = []

    def work() -> tuple[str, int]:
        codes.append(_exit_code(command))
        end_ns = ready.clock.now_ns()
        return _finish_reason(codes[0]), end_ns

    trace = ready.trace(work, say)
    code = codes[0]
    return (code if code >= 0 else _SIGNALLED - code), ready.receipt(trace)


def check_command(command: Sequence[str]) -> None:
    """Refuse what cannot be started before anybody waits for a quiet machine.

    Raises `JouleboxError("bad_request")`.
    """
    if shutil.which(command[0]) is None:
        raise JouleboxError("bad_request", f"There is no program {command[0]} to run: check its name and your PATH.")


def _exit_code(command: Sequence[str]) -> int:
    with _signals_handed_on() as children:
        try:
            process = subprocess.Popen(command)
        except OSError as error:
            raise JouleboxError("bad_request", f"{command[0]} cannot be run: {error.strerror}.") from error
        children.append(process)
        return process.wait()


@contextmanager
def _signals_handed_on() -> Iterator[list["subprocess.Popen[bytes]"]]:
    """While a command runs, Ctrl-C is its own (a terminal sends it to both), and what asks this process to end is
    handed on."""
    children: list[subprocess.Popen[bytes]] = []

    def hand_on(number: int, _: object) -> None:
        for child in children:
            child.send_signal(number)

    handlers = {number: signal.signal(number, hand_on) for number in _FORWARDED}
    handlers[signal.SIGINT] = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield children
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _finish_reason(code: int) -> str:
    return f"exit {code}" if code >= 0 else f"signal {-code}"
