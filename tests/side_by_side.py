"""Several tools measure the same simulated machine in turn, and each finding is laid beside the truth.

The rig writes a powercap tree in a process of its own; every tool runs in a process and an environment of its own, and
those that look only at the kernel's place find the tree there, in a mount namespace. Windows come in a seeded random
order, so that what disturbs this machine disturbs all tools alike. Truth is the rig's closed form between the moment
the tool's begin returned and the moment its end was called.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from joulebox.clock import Clock, SimulatedClock
from joulebox.rig.physics import MachineParameters, Zone
from joulebox.rig.powercap_tree import RigPowercap, TreeParameters
from joulebox.rig.serve import SOCKET, Sender, late_in, truth_of
from joulebox.units import nanoseconds, seconds

HERE = Path(__file__).parent
RUNNER = HERE / "peers" / "runner.py"
AT_SYS = HERE / "peers" / "at_sys.sh"
KERNELS_PLACE = "/sys/class/powercap"
NOISE_W = 0.3
"""Of the simulated idle machine."""
LATE_MAX_S = 0.001
LATE_AROUND_S = 0.1
"""A window is thrown away when the rig wrote a tick later than `LATE_MAX_S` in it or so shortly before or after."""
WAVE_S = 0.137
"""Period of the work's power: in no whole proportion to any duration. High for half of it."""
HIGH, LOW = 0.9, 0.3
CALM_S = 0.002
"""Work ends so long before the window, as it does where a call to a tool follows it: a level takes up to 1 ms."""
PAUSE_S = (0.05, 0.15)
FIRST_S = 0.2
ANSWER_MAX_S = 60.0
RIG = """
import json, os, pathlib, signal, sys, threading
from joulebox.rig.physics import MachineParameters
from joulebox.rig.powercap_tree import TreeParameters
from joulebox.rig.serve import run
def end_with_the_harness():
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=end_with_the_harness, daemon=True).start()
folder, seed, tree, machine = sys.argv[1:]
tree, machine = TreeParameters(**json.loads(tree)), MachineParameters(**json.loads(machine))
run(pathlib.Path(folder), int(seed), "socket", tree, machine)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """How a tool is started: whose Python, whether it needs the tree at the kernel's place, and what it measures."""

    name: str
    python: Path
    at_sys: bool = False
    zones: tuple[Zone, ...] = ("package-0", "package-0/dram")
    environment: Mapping[str, str] = field(default_factory=dict)
    hz: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One window of one tool. `late`: the rig was, so it does not count. `wraps` are those of its counters inside."""

    tool: str
    duration_s: float
    first: bool
    truth_j: float
    j: float
    beside_j: float
    wraps: int
    range_j: float
    late: bool
    begin_s: float
    calls_cpu_s: float
    during_cpu_s: float

    @property
    def error_ratio(self) -> float:
        """Signed."""
        return (self.j - self.truth_j) / self.truth_j

    @property
    def lost(self) -> int:
        """Whole counter ranges that are missing or too many."""
        return round(abs(self.j - self.truth_j) / self.range_j)


@dataclass(slots=True, kw_only=True)
class Session:
    """What a session showed. `failed`: what tools raised; `setup_cpu_s`: of their import and set-up."""

    found: list[Found] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    setup_cpu_s: dict[str, float] = field(default_factory=dict)
    late_max_s: float = 0.0
    took_s: float = 0.0


def namespace_refused() -> str | None:
    """Why this user can have no mount namespace of their own; `None` where they can."""
    if shutil.which("unshare") is None:
        return "there is no `unshare` here"
    try:
        subprocess.run([*_unshared(), "true"], check=True, capture_output=True, text=True, timeout=10)
    except subprocess.CalledProcessError as error:
        return str(error.stderr).strip().splitlines()[-1]
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None


def _unshared() -> list[str]:
    return ["unshare", "-m" if os.geteuid() == 0 else "-rm", "--propagation", "private"]


class Rig:
    """The rig in a process of its own."""

    def __init__(self, folder: Path, seed: int, tree: TreeParameters) -> None:
        self.folder, self.tree = folder, tree
        self.powercap = folder / "powercap"
        parameters = [json.dumps(asdict(one)) for one in (tree, MachineParameters(noise_w=NOISE_W))]
        command = [sys.executable, "-c", RIG, str(folder), str(seed), *parameters]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        if not self._process.stdout.readline().startswith("JOULEBOX_METERS="):
            raise RuntimeError(f"the rig did not start in {folder}")
        self.send = Sender(folder)

    def package_uj(self) -> int:
        """What the counter of the package shows."""
        return int((self.powercap / "intel-rapl:0" / "energy_uj").read_text())

    def stop(self) -> None:
        """End it; its records are whole then."""
        self.send.close()
        self._process.terminate()
        self._process.communicate()


class Runner:
    """A tool in a process of its own, which answers orders."""

    def __init__(self, tool: Tool, rig: Rig) -> None:
        self.tool = tool
        command = [tool.python, RUNNER, tool.name, rig.powercap, rig.folder / SOCKET]
        if tool.at_sys:
            shadow = rig.folder / f"shadow-{tool.name}"
            shadow.mkdir(exist_ok=True)
            command[3] = KERNELS_PLACE
            command = [*_unshared(), "sh", AT_SYS, rig.powercap, shadow, *command]
        command += [str(tool.hz)] if tool.hz else []
        self._log = (rig.folder / f"{tool.name}.log").open("w", encoding="utf-8")
        self._process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=rig.folder,
            env={**os.environ, **tool.environment},
        )

    def answer(self) -> dict[str, Any]:
        """The next line. Raises `ToolEnded` where none comes."""
        assert self._process.stdout is not None
        timer = threading.Timer(ANSWER_MAX_S, self._process.kill)
        timer.start()
        line = self._process.stdout.readline()
        timer.cancel()
        if not line:
            said = Path(self._log.name).read_text(encoding="utf-8").strip().splitlines()
            raise ToolEnded(said[-1] if said else "it ended without a word")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, levels: Sequence[tuple[float, float]], duration_s: float) -> dict[str, Any]:
        """One window. Raises `ToolEnded`."""
        return self._order({"levels": levels, "duration_s": duration_s})

    def pair_cpu_s(self, count: int) -> float | None:
        """CPU seconds of a begin and its end, the mean of so many right after one another; `None` where the tool
        failed. Raises `ToolEnded`."""
        found: float | None = self._order({"pairs": count}).get("pair_cpu_s")
        return found

    def _order(self, order: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise ToolEnded("it ended by itself") from error
        return self.answer()

    def stop(self) -> None:
        """Let it end, or end it."""
        try:
            self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._log.close()


class ToolEnded(Exception):
    """A tool's process is gone; its last words."""


def wave(duration_s: float, chance: random.Random) -> list[tuple[float, float]]:
    """Levels of the work from its start on, beginning anywhere in the wave; calm at the end."""
    half, until_s = divmod(chance.uniform(0.0, WAVE_S), WAVE_S / 2)
    steps, offset_s, high = [], 0.0, half > 0
    while offset_s < duration_s - CALM_S:
        steps.append((offset_s, HIGH if high else LOW))
        offset_s, until_s, high = offset_s + until_s, WAVE_S / 2, not high
    return [*steps, (duration_s - CALM_S, 0.0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a session measures: how many windows of each duration a tool has. `wraps`: the machine works before each
    window until the package's counter is about to wrap within it. `prepare` is called with the tree before the tools
    begin. `steady`: the work is one level, so that sending levels costs nothing beside a tool that records."""

    windows: Mapping[float, Callable[[str], int]]
    wraps: bool = False
    prepare: Callable[[Path], None] | None = None
    steady: bool = False

    def order(self, tools: Sequence[str], chance: random.Random) -> list[tuple[str, float, bool]]:
        """Tool, duration and whether it is the tool's first window, which stands apart."""
        first = [(tool, FIRST_S, True) for tool in tools]
        rest = [(tool, s, False) for tool in tools for s, count in self.windows.items() for _ in range(count(tool))]
        chance.shuffle(first)
        chance.shuffle(rest)
        return first + rest


def session(clock: Clock, folder: Path, seed: int, tree: TreeParameters, tools: Sequence[Tool], plan: Plan) -> Session:
    """Run every tool's windows in random order on one tree, then compare each with the truth."""
    result, answers = Session(), list[tuple[Tool, float, bool, dict[str, Any]]]()
    began_ns = clock.now_ns()
    with ExitStack() as stack:
        rig = Rig(folder, seed, tree)
        stack.callback(rig.stop)
        if plan.prepare is not None:
            plan.prepare(rig.powercap)
        runners = {tool.name: Runner(tool, rig) for tool in tools}
        for runner in runners.values():
            stack.callback(runner.stop)
        for name in list(runners):
            _try(name, runners, result, partial(_ready, runners[name], result))
        turns = _Turns(clock, rig, random.Random(seed), plan)
        for name, duration_s, first in plan.order(list(runners), turns.chance):
            if name in runners:
                runner = runners[name]
                answer = _try(name, runners, result, partial(turns.turn, runner, duration_s))
                if answer is not None:
                    answers.append((runner.tool, duration_s, first, answer))
    result.found = list(_compared(folder, tree, answers))
    result.late_max_s = max((seconds(written - due) for due, written in late_in(folder)), default=0.0)
    result.took_s = seconds(clock.now_ns() - began_ns)
    return result


def _ready(runner: Runner, result: Session) -> dict[str, Any]:
    answer = runner.answer()
    result.setup_cpu_s[runner.tool.name] = answer["setup_cpu_s"]
    return answer


def _try(
    name: str, runners: dict[str, Runner], result: Session, ask: Callable[[], dict[str, Any]]
) -> dict[str, Any] | None:
    """The answer, or `None` where the tool failed, which is noted; one that ended is asked no more."""
    try:
        answer = ask()
    except ToolEnded as ended:
        runners.pop(name).stop()
        result.failed.append((name, str(ended)))
        return None
    if "error" in answer:
        result.failed.append((name, answer["error"]))
        return None
    return answer


class _Turns:
    """One window after the other. `leads_s`: how long each tool took to begin, last time."""

    def __init__(self, clock: Clock, rig: Rig, chance: random.Random, plan: Plan) -> None:
        self.chance = chance
        self._clock, self._rig, self._plan = clock, rig, plan
        self._leads_s: dict[str, float] = {}

    def turn(self, runner: Runner, duration_s: float) -> dict[str, Any]:
        """Wait a little, come close to a wrap where that is wanted, and have the tool measure a window."""
        clock, name = self._clock, runner.tool.name
        clock.sleep_until(clock.now_ns() + nanoseconds(self.chance.uniform(*PAUSE_S)))
        levels = wave(duration_s, self.chance)
        if self._plan.steady:
            levels = [(0.0, HIGH), (duration_s - CALM_S, 0.0)]
        if self._plan.wraps and name in self._leads_s:
            self._approach(self._leads_s[name], self.chance.uniform(0.3, 0.7) * _package_j(levels, duration_s))
        asked_ns = clock.now_ns()
        answer = runner.ask(levels, duration_s)
        if "error" not in answer:
            self._leads_s[name] = seconds(answer["start_ns"] - asked_ns)
        return answer

    def _approach(self, lead_s: float, inside_j: float) -> None:
        """Come to where an idle machine, `lead_s` later, is `inside_j` before its package's wrap: by work, and the last
        of it by waiting, because then what will be drawn is known exactly."""
        clock, rig, range_uj = self._clock, self._rig, self._rig.tree.range_uj
        parameters = MachineParameters()
        idle_j = (lead_s + CALM_S) * (parameters.package_idle_w + NOISE_W) + parameters.tail_w * parameters.tail_s
        left_uj = (range_uj - rig.package_uj() - round((idle_j + inside_j) * 1e6)) % range_uj
        rig.send(0, 1.0)
        before_uj = rig.package_uj()
        while left_uj > 0:
            clock.sleep_until(clock.now_ns() + nanoseconds(0.002))
            now_uj = rig.package_uj()
            left_uj -= (now_uj - before_uj) % range_uj
            before_uj = now_uj
        rig.send(0, 0.0)
        clock.sleep_until(clock.now_ns() + nanoseconds(2 * CALM_S))
        machine = truth_of(rig.folder)
        now_ns, left_j = clock.now_ns(), (range_uj - rig.package_uj()) / 1e6
        wait_ns, now_j = 0, machine.energy_j("package-0", now_ns)
        while machine.energy_j("package-0", now_ns + wait_ns + nanoseconds(lead_s)) - now_j < left_j - inside_j:
            wait_ns += nanoseconds(0.002)
        clock.sleep_until(now_ns + wait_ns)


def _package_j(levels: Sequence[tuple[float, float]], duration_s: float) -> float:
    """About what the package draws in a window."""
    machine = MachineParameters()
    ends_s = [offset_s for offset_s, _ in levels[1:]] + [duration_s]
    worked_s = sum(level * (end_s - offset_s) for (offset_s, level), end_s in zip(levels, ends_s, strict=True))
    return machine.package_idle_w * duration_s + (machine.package_dynamic_w + machine.tail_w / 2) * worked_s


def _compared(
    folder: Path, tree: TreeParameters, answers: Sequence[tuple[Tool, float, bool, dict[str, Any]]]
) -> Iterator[Found]:
    machine, late = truth_of(folder), late_in(folder)
    counters = RigPowercap(SimulatedClock(), machine, folder / "again", tree)
    around_ns = nanoseconds(LATE_AROUND_S)
    for tool, duration_s, first, answer in answers:
        start_ns, end_ns = answer["start_ns"], answer["end_ns"]
        drawn_j = {zone: machine.energy_j(zone, end_ns) - machine.energy_j(zone, start_ns) for zone in tool.zones}
        wraps = sum(
            round((j * 1e6 - counters.count_uj(zone, end_ns) + counters.count_uj(zone, start_ns)) / tree.period_uj)
            for zone, j in drawn_j.items()
        )
        yield Found(
            tool=tool.name,
            duration_s=duration_s,
            first=first,
            truth_j=sum(drawn_j.values()),
            j=answer["j"],
            beside_j=answer["beside_j"],
            wraps=wraps,
            range_j=tree.range_uj / 1e6,
            late=any(
                seconds(written_ns - due_ns) > LATE_MAX_S
                and due_ns < end_ns + around_ns
                and written_ns > start_ns - around_ns
                for due_ns, written_ns in late
            ),
            begin_s=seconds(start_ns - answer["called_ns"]),
            calls_cpu_s=answer["calls_cpu_s"],
            during_cpu_s=answer["during_cpu_s"],
        )
    counters.close()
