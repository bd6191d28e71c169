"""What measuring costs: a window, the recording, tokens per second beside recording, live answers beside quiet ones.

`python tests/costs.py` prints the part of `docs/accuracy.md`; about four minutes. All costs are processor time, which
other work on the machine disturbs far less than durations.
"""

import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from statistics import median
from subprocess import PIPE, Popen

from accuracy_page import Section
from joulebox.clock import SystemClock
from joulebox.local import Session, instruments
from joulebox.model import Channel, Message, Prompt
from joulebox.node.engine import Finished, LocalModel
from joulebox.node.engines.llamacpp import LlamaCpp
from joulebox.node.fetch import DEFAULT, fetch
from joulebox.node.meter import Meter
from joulebox.node.meters import open_meters
from joulebox.node.models import Registry
from joulebox.node.neighbours import scan
from joulebox.node.recorder import Recorder
from joulebox.rig.physics import Machine, MachineParameters
from joulebox.rig.powercap_tree import RigPowercap
from joulebox.statistics import Interval, mean_interval, ratio_interval
from stage import Service, wait

WINDOW_MAX_US = 100.0
RECORDING_MAX = {10.0: 0.003, 100.0: 0.015}
"""Of one core, at so many readings a second of four channels."""
RATIO_MIN = 0.98
PAIRS = 16
LIVE_PAIRS = 8
TOKENS = 128
CPU = SystemClock()
QUESTIONS = (
    "Tell a long story about a lighthouse.",
    "Explain how bread is made, step by step.",
    "Write about the history of the sea.",
    "Describe a day in a small town.",
)


class Unwaiting(SystemClock):
    """The machine's clock, on which nobody waits."""

    def sleep_until(self, deadline_ns: int) -> None:
        """Return at once."""


class Counted:
    """A meter that counts its readings."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self.address, self.missing = meter.address, meter.missing
        self.readings = 0

    def channels(self) -> Sequence[Channel]:
        return self._meter.channels()

    def read(self) -> Sequence[int | None]:
        self.readings += 1
        return self._meter.read()

    def close(self) -> None:
        self._meter.close()


@contextmanager
def tree() -> Iterator[tuple[str, str]]:
    """The rig's powercap and hwmon folders, four channels, laid out once: no writer disturbs what is measured."""
    with tempfile.TemporaryDirectory(prefix="joulebox-") as folder:
        rig = RigPowercap(CPU, Machine(1, CPU.now_ns()), Path(folder))
        yield rig.addresses
        rig.close()


def cpu_us(work: Callable[[], object], times: int) -> float:
    """Processor time of this thread that one `work` takes, in microseconds."""
    before_ns = time.thread_time_ns()
    for _ in range(times):
        work()
    return (time.thread_time_ns() - before_ns) / times / 1e3


# --- a window ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowCost:
    """Microseconds of processor time."""

    whole_us: float
    readings_us: float

    @property
    def beyond_us(self) -> float:
        """What it costs beside its readings."""
        return self.whole_us - self.readings_us


def windows(batches: int) -> list[WindowCost]:
    """Twenty windows at a time of a session, one after the other without their waits, and the same number of readings
    alone. The pauses between keep the record as long as it is at ten readings a second."""
    costs = []
    with tree() as addresses:
        ready = instruments(addresses, clock=Unwaiting())
        meter = Counted(open_meters(addresses[:1])[0])
        recorder = Recorder([meter, *open_meters(addresses[1:])], Unwaiting(), 10.0)
        with Session(replace(ready, recorder=recorder)) as session:

            def window() -> None:
                with session.measure():
                    pass

            for _ in range(batches):
                wait(0.12)
                before = meter.readings
                whole_us = cpu_us(window, 20)
                readings = (meter.readings - before) / 20
                costs.append(WindowCost(whole_us=whole_us, readings_us=cpu_us(meter.read, 60) * readings))
    return costs


def waiting_windows(count: int) -> tuple[list[float], list[float]]:
    """Windows as they are used, waits included, in which the processor's caches grow cold: microseconds of each in all,
    readings and waking up included, and of each receipt."""
    wholes, receipts = [], []
    with tree() as addresses, Session(instruments(addresses, idle_s=1.0)) as session:
        for _ in range(count):
            before_ns = time.thread_time_ns()
            with session.measure() as window:
                pass
            wholes.append((time.thread_time_ns() - before_ns) / 1e3)
            receipts.append(cpu_us(lambda: window.receipt, 1))
    return wholes, receipts


# --- recording --------------------------------------------------------------------------------------------------------


def recording(reading_hz: float, stretch_s: float, stretches: int) -> list[float]:
    """The share of a core that recording four channels takes, in several stretches."""
    shares = []
    with tree() as addresses:
        recorder = Recorder(open_meters(addresses), CPU, reading_hz)
        recorder.start()
        wait(0.2)
        for _ in range(stretches):
            cpu_s, begun_ns = time.process_time(), CPU.now_ns()
            wait(stretch_s)
            shares.append((time.process_time() - cpu_s) / (CPU.now_ns() - begun_ns) * 1e9)
        recorder.stop()
    return shares


# --- tokens per second ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One answer of the real engine."""

    tokens_per_s: float
    cpu_s_per_token: float
    start_ns: int
    end_ns: int


def process_cpu_s(pid: int) -> float:
    """Processor seconds of a process and all its threads, in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def answer(engine: LlamaCpp, number: int, recorded: Sequence[str]) -> Answered:
    """The prompt of that number, with the meters recorded (none: without recording)."""
    recorder = Recorder(open_meters(recorded), CPU, 10.0) if recorded else None
    prompt = Prompt(
        model="smollm2",
        messages=(Message(role="user", content=QUESTIONS[number % len(QUESTIONS)]),),
        max_tokens=TOKENS,
        seed=number,
    )
    if recorder is not None:
        recorder.start()
    assert engine.pid is not None
    wait(0.3)
    cpu_s = time.process_time() + process_cpu_s(engine.pid)
    begun_ns = CPU.now_ns()
    finished = next(event for event in engine.generate(prompt) if isinstance(event, Finished))
    lasted_s = (finished.t_ns - begun_ns) / 1e9
    cpu_s = time.process_time() + process_cpu_s(engine.pid) - cpu_s
    if recorder is not None:
        recorder.stop()
    assert finished.usage.output_tokens
    return Answered(
        tokens_per_s=finished.usage.output_tokens / lasted_s,
        cpu_s_per_token=cpu_s / finished.usage.output_tokens,
        start_ns=begun_ns,
        end_ns=finished.t_ns,
    )


def in_pairs(engine: LlamaCpp, meters: Sequence[str], count: int) -> list[tuple[Answered, Answered]]:
    """Each prompt with the meters recorded and without, recorded first; which was asked first is drawn."""
    found, chance = [], random.Random(3)
    for number in range(count):
        ways: list[Sequence[str]] = [meters, ()]
        chance.shuffle(ways)
        both = {bool(way): answer(engine, number, way) for way in ways}
        found.append((both[True], both[False]))
    return found


def tokens(path: Path, pairs: int) -> list[tuple[Answered, Answered]]:
    """The same prompt with recording and without, in pairs whose order is drawn."""
    engine = LlamaCpp(CPU, None, 2048)
    with tempfile.TemporaryDirectory(prefix="joulebox-") as folder, tree() as addresses:
        model: LocalModel = Registry(Path(folder)).add(path, "smollm2", default_system="You are a helpful assistant.")
        engine.load(model)
        try:
            answer(engine, 0, ())
            return in_pairs(engine, addresses, pairs)
        finally:
            engine.unload()


# --- live beside quiet ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One job of the real service. `cpu_s` is of node and engine, from lease to delivery."""

    answer_j: float
    cpu_s: float
    duration_s: float


def ask(service: Service, number: int, mode: str) -> Asked:
    """The prompt of that number, live or quiet."""
    pids = [pid for victim in ("node", "engine") if (pid := service.pid(victim)) is not None]
    before_s = sum(process_cpu_s(pid) for pid in pids)
    question = QUESTIONS[number % len(QUESTIONS)]
    prompt_id = service.ask(question, number, mode=mode, max_tokens=TOKENS)
    while (status := service.status(prompt_id))["state"] != "completed":
        assert status["state"] in {"available", "running"}, status
        wait(0.5)
    wait(0.3)  # the delivery is acknowledged by then
    cpu_s = sum(process_cpu_s(pid) for pid in pids) - before_s
    receipt = service.client.receipt(status["receipt"]["id"] if "receipt" in status else status["receipt_id"])
    figure = receipt["energy"]["answer"]
    return Asked(answer_j=figure["j"], cpu_s=cpu_s, duration_s=receipt["times"]["duration_s"])


def live_and_quiet(path: Path, pairs: int) -> list[tuple[Asked, Asked]]:
    """The same prompt as a live and as a quiet job, in pairs whose order is drawn, on the service with everything real
    but the power: that follows the use of this machine's cores, server included."""
    chance = random.Random(4)
    with tempfile.TemporaryDirectory(prefix="joulebox-") as folder:
        command = [sys.executable, "-m", "joulebox", "rig", "run", "--folder", f"{folder}/rig"]
        with Popen(command, stdout=PIPE, text=True) as rig:
            assert rig.stdout is not None
            meters = rig.stdout.readline().split('"')[1]
            service: Service | None = None
            try:
                service = Service(Path(folder), path, {"JOULEBOX_METERS": meters, "JOULEBOX_ZONE": "DE"})
                ask(service, pairs, "live")  # loads the model; the same prompt again would be the same job
                found = []
                for number in range(pairs):
                    modes = ["live", "quiet"]
                    chance.shuffle(modes)
                    both = {mode: ask(service, number, mode) for mode in modes}
                    found.append((both["live"], both["quiet"]))
                    print(f"live {both['live'].answer_j:.2f} J, quiet {both['quiet'].answer_j:.2f} J", flush=True)
                return found
            finally:
                if service is not None:
                    service.stop()
                rig.terminate()


# --- the page ---------------------------------------------------------------------------------------------------------


def section() -> Section:
    """Measure everything and say it, with each bound that was missed."""
    machine = machine_use()
    parts = [_windows_part(), _recording_part(), *_model_parts()]
    head = f"{HEAD}\nMeasured on {os.cpu_count()} cores, {machine()}.\n"
    return Section(
        markdown=head + "".join(part.markdown for part in parts),
        missed=tuple(one for part in parts for one in part.missed),
    )


HEAD = """## What measuring costs

Processor time, on the rig's powercap and hwmon folders: three counters, and a temperature that changes once a second
and is read four times a second at any rate. Reading a real counter costs what the kernel's driver takes on top.
"""


def machine_use() -> Callable[[], str]:
    """Tells how busy the whole machine was since: what it was busy with beside this process and its ended children."""

    def seconds_of() -> tuple[float, float, float]:
        fields = [int(field) for field in Path("/proc/stat").read_text().split(maxsplit=8)[1:8]]
        busy = (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")
        own = os.times()
        return busy, own.user + own.system + own.children_user + own.children_system, own.elapsed

    before = seconds_of()

    def told() -> str:
        busy_s, own_s, lasted_s = (after - one for after, one in zip(seconds_of(), before, strict=True))
        return f"with {max(0.0, busy_s - own_s) / lasted_s:.2f} cores busy with other work"

    return told


def _windows_part() -> Section:
    print("windows", flush=True)
    batches = windows(15)
    wholes, receipts = waiting_windows(6)
    beyond_us = median(one.beyond_us for one in batches)
    text = f"""
A block measured in a session (`joulebox.session()`): its marks and the copy of its evidence take {beyond_us:.0f} µs
beyond the readings (which take {median(one.readings_us for one in batches):.0f} µs), one block right after the other,
the way the peers' start and stop were timed. With the waits for the guards, after which caches are cold, it is
{median(wholes):.0f} µs in all: readings, three sleeps and everything else. The receipt is made when it is asked for and
takes {median(receipts) / 1e3:.1f} ms more; with real meters comes a look at the machine's processes, here
{cpu_us(scan, 5) / 1e3:.1f} ms for {len(scan().processes)}.
"""
    missed = f"a window costs {beyond_us:.0f} µs beyond its readings, not {WINDOW_MAX_US:.0f}"
    return Section(markdown=text, missed=(missed,) if beyond_us > WINDOW_MAX_US else ())


def _recording_part() -> Section:
    print("recording", flush=True)
    lines, missed = [], []
    for reading_hz, most in RECORDING_MAX.items():
        shares = recording(reading_hz, 5.0, 4)
        lines.append(
            f"| {reading_hz:g} | {median(shares):.2%} | {min(shares):.2%} to {max(shares):.2%} | {most:.1%} |\n"
        )
        if median(shares) > most:
            missed.append(f"recording at {reading_hz:g} Hz costs {median(shares):.2%} of a core, not {most:.1%}")
    head = "\n| Readings a second | Of a core, median | Four stretches of 5 s | Bound |\n|--:|--:|--:|--:|\n"
    return Section(markdown=head + "".join(lines), missed=tuple(missed))


def _model_parts() -> list[Section]:
    """With the real model."""
    path = fetch(DEFAULT, Path(__file__).parents[1] / ".cache" / "models")
    return [_tokens_part(tokens(path, PAIRS)), _live_part(live_and_quiet(path, LIVE_PAIRS))]


def _tokens_part(found: Sequence[tuple[Answered, Answered]]) -> Section:
    rate = ratio_interval([(one.tokens_per_s, other.tokens_per_s) for one, other in found])
    cpu = ratio_interval([(one.cpu_s_per_token, other.cpu_s_per_token) for one, other in found])
    text = f"""
{DEFAULT.id} on llama.cpp, all cores, {TOKENS} tokens, {len(found)} pairs in drawn order, recording at 10 Hz against not
recording: tokens per second {_ratio(rate)}, processor time per token {_ratio(cpu)} (95 % intervals;
{median(other.tokens_per_s for _, other in found):.0f} tokens per second without).
"""
    print(text, flush=True)
    good = rate.low > RATIO_MIN or rate.low <= 1.0 <= rate.high
    return Section(markdown=text, missed=() if good else (f"tokens per second with recording are {_ratio(rate)}",))


def _live_part(found: Sequence[tuple[Asked, Asked]]) -> Section:
    energy_j = mean_interval([live.answer_j - quiet.answer_j for live, quiet in found])
    energy = ratio_interval([(live.answer_j, quiet.answer_j) for live, quiet in found])
    cpu_s = mean_interval([live.cpu_s - quiet.cpu_s for live, quiet in found])
    quiet = [quiet for _, quiet in found]
    core_w = MachineParameters().package_dynamic_w / (os.cpu_count() or 1)
    text = f"""
Live against quiet, {len(found)} pairs on the whole service, simulated power from the real use of this machine's cores,
server included: `answer` {_signed(energy_j, "J")} of {median(one.answer_j for one in quiet):.1f} J (ratio
{_ratio(energy)}) in {median(one.duration_s for one in quiet):.1f} s; processor time of node and engine from lease to
delivery {_signed(cpu_s, "s")} of {median(one.cpu_s for one in quiet):.2f} s, which other work on the machine hardly
disturbs: at the rig's {core_w:.0f} W a core {_signed(Interval(*(core_w * s for s in astuple(cpu_s))), "J")} (95 %
intervals).
"""
    print(text, flush=True)
    return Section(markdown=text)


def _ratio(one: Interval) -> str:
    return f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"


def _signed(one: Interval, unit: str) -> str:
    return f"{one.value:+.2f} {unit} ({one.low:+.2f} to {one.high:+.2f} {unit})"


if __name__ == "__main__":
    measured = section()
    print(measured.markdown)
    sys.exit(1 if measured.missed else 0)
