"""What a window and recording cost beside codecarbon, zeus, pyJoules and landauer-gap (`make bench PART=measuring`)."""

import random
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from statistics import median

import costs
from accuracy_peers import BARE, ONCE, OURS, PEERS, SEED, TITLES, tools, version
from bench_page import Json, Part, Row, spread, table
from joulebox.clock import SystemClock
from joulebox.node.meters import open_meters
from joulebox.node.recorder import Recorder
from joulebox.rig.powercap_tree import TreeParameters
from side_by_side import Found, Plan, Rig, Runner, Tool, ToolEnded, session
from stage import wait

NEAREST = "landauer-gap"
SHARE_MAX = 0.5
PAIRS = 200
ROUNDS = 5
RECORD_HZ = (10.0, 100.0)
RECORD_S = 6.0
WAKES_S = 5.0
Recorded = dict[tuple[str, float], list[float]]


def windows(found: Sequence[Tool], rounds: int) -> dict[str, list[float]]:
    """Microseconds of CPU of a begin and an end right after one another, in turns. Ours waits for guards: its windows
    are timed in this process on a clock that does not wait."""
    took: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="joulebox-") as folder:
        rig = Rig(Path(folder), SEED, TreeParameters())
        runners = {tool.name: Runner(tool, rig) for tool in found}
        try:
            for name, runner in list(runners.items()):
                with suppress(ToolEnded):
                    runner.answer()
                    runner.pair_cpu_s(2)
                    continue
                runners.pop(name).stop()
            chance = random.Random(SEED)
            for _ in range(rounds):
                for name in chance.sample([*runners, OURS], len(runners) + 1):
                    if name == OURS:
                        took.setdefault(name, []).append(median(one.whole_us for one in costs.windows(3)))
                    elif (cpu_s := _pair(runners[name])) is not None:
                        took.setdefault(name, []).append(cpu_s * 1e6)
        finally:
            for runner in runners.values():
                runner.stop()
            rig.stop()
    return took


def _pair(runner: Runner) -> float | None:
    try:
        return runner.pair_cpu_s(PAIRS)
    except ToolEnded:
        return None


def recorded(found: Sequence[Tool], rounds: int) -> Recorded:
    """The share of a core that recording takes, at each rate, in turns."""
    shares: Recorded = {}

    def one(hz: float) -> list[Found]:
        at_hz = [
            Tool(name=t.name, python=t.python, at_sys=t.at_sys, zones=t.zones, hz=hz,
                 environment={**t.environment, "JOULEBOX_READING_HZ": f"{hz:g}"})
            for t in found if t.name not in (ONCE, "pyjoules")
        ]  # fmt: skip
        plan = Plan(windows={RECORD_S: lambda _: rounds}, steady=True)
        with tempfile.TemporaryDirectory(prefix="joulebox-") as folder:
            return session(SystemClock(), Path(folder), SEED - 1, TreeParameters(), at_hz, plan).found

    with ThreadPoolExecutor(len(RECORD_HZ)) as pool:
        for hz, seen in zip(RECORD_HZ, pool.map(one, RECORD_HZ), strict=True):
            for each in seen:
                if not each.first:
                    shares.setdefault((each.tool, hz), []).append(each.during_cpu_s / RECORD_S)
    return shares


def wakes(reading_hz: float) -> float:
    """How often the recorder's threads wake up in a second, by the kernel's count."""
    with costs.tree() as addresses:
        recorder = Recorder(open_meters(addresses), costs.CPU, reading_hz)
        before = _tasks()
        recorder.start()
        wait(0.5)
        own = _tasks() - before
        first = sum(map(_switches, own))
        wait(WAKES_S)
        found = (sum(map(_switches, own)) - first) / WAKES_S
        recorder.stop()
    return found


def _tasks() -> set[Path]:
    return set(Path("/proc/self/task").iterdir())


def _switches(task: Path) -> int:
    lines = (task / "status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)


def part(rounds: int) -> Part:
    """Windows, then recording, then wake-ups."""
    found, absent = tools()
    took = windows([tool for tool in found if tool.name not in (OURS, ONCE)], ROUNDS)
    shares = recorded(found, min(rounds, 2))
    woken = {hz: wakes(hz) for hz in RECORD_HZ}
    names = [BARE, OURS, *PEERS]
    lines = [
        (
            TITLES.get(name, name),
            version(name) or "-",
            spread(took.get(name, ()), "{:.0f}"),
            *(spread([share * 100 for share in shares.get((name, hz), ())]) for hz in RECORD_HZ),
        )
        for name in names
    ]
    head = ("Tool", "Version", "A window, µs of CPU", *(f"Recording at {hz:g} Hz, % of a core" for hz in RECORD_HZ))
    raw: Json = {
        "window_us": took,
        "shares": {f"{name}, {hz:g} Hz": each for (name, hz), each in shares.items()},
        "wakes_per_s": {f"{hz:g} Hz": each for hz, each in woken.items()},
    }
    text = TEXT + "\n" + table(head, lines, names=2)
    text += "\n\nThe recorder's threads wake up " + " and ".join(
        f"{woken[hz]:.1f} times a second at {hz:g} Hz" for hz in RECORD_HZ
    )
    text += " (one for the counters, one for the temperature, four times a second).\n"
    text += "".join(f"\n{sentence}\n" for sentence in absent)
    return Part(rows=_overview(took, shares, absent), text=text, raw=raw)


TEXT = f"""## Measuring, beside other tools

Every tool measures the same simulated counters (three that tick every millisecond) in a process of its own, in turns. A
window is a begin and an end right after one another, {PAIRS} times, readings and children of the process included.
Joulebox's windows also wait for guards, in which the recording goes on; the waits are left out. Recording is watched
for {RECORD_S:g} s; zeus only watches for wraps, at a rate of its own, and pyJoules has no such mode. Joulebox records
package, core and memory.
"""


def _overview(took: dict[str, list[float]], shares: Recorded, absent: Sequence[str]) -> list[Row]:
    def told(name: str, values: Sequence[float], form: str, unit: str) -> str:
        return f"{name} {spread(values, form)}{unit}" if values else f"{name}: {' '.join(absent) or 'failed'}"

    def row(what: str, ours: Sequence[float], others: dict[str, Sequence[float]], form: str, unit: str) -> Row:
        theirs = others[NEAREST]
        return Row(
            what=what,
            figure=f"{spread(ours, form)}{unit}",
            beside=", ".join(told(name, values, form, unit) for name, values in others.items()),
            target=f"<= {SHARE_MAX:g} of landauer-gap's",
            reached=median(ours) <= SHARE_MAX * median(theirs) if ours and theirs else None,
            why=f"It is {median(ours) / median(theirs):.2f} of it." if ours and theirs else "",
        )

    rows = [
        row(f"recording at {hz:g} Hz, of a core", [s * 100 for s in shares.get((OURS, hz), ())],
            {name: [s * 100 for s in shares.get((name, hz), ())] for name in (NEAREST, "codecarbon")}, "{:.2f}", " %")
        for hz in RECORD_HZ
    ]  # fmt: skip
    others: dict[str, Sequence[float]] = {
        name: took.get(name, []) for name in (NEAREST, "codecarbon", "zeus", "pyjoules")
    }
    return [*rows, row("a window", took[OURS], others, "{:.0f}", " µs")]
