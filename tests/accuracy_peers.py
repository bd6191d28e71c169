"""Joulebox beside codecarbon, zeus, pyJoules and landauer-gap: the same trees, the same run, the same truth.

Every peer has an environment of its own below `.cache/peers`, made from its pins in `tests/peers`. What cannot be had
here is named as absent.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median

from accuracy_page import Section
from joulebox.clock import SystemClock
from joulebox.rig.powercap_tree import RANGE_UJ, TreeParameters
from side_by_side import (
    LATE_AROUND_S,
    LATE_MAX_S,
    NOISE_W,
    WAVE_S,
    Found,
    Plan,
    Session,
    Tool,
    namespace_refused,
    session,
)

ROOT = Path(__file__).parents[1]
PINS = ROOT / "tests" / "peers"
CACHE = ROOT / ".cache" / "peers"
PEERS = ("codecarbon", "zeus", "pyjoules", "landauer-gap")
OURS = "joulebox"
ONCE = "joulebox-once"
BARE = "bare"
TITLES = {
    BARE: "two bare readings",
    OURS: "**Joulebox**, one session",
    ONCE: "**Joulebox**, opened for each task",
    "pyjoules": "pyJoules",
}
SEED = 20
MS_NS = 1_000_000
WRAP_UJ = 45_000_000
RECORD_HZ = (10.0, 100.0)
RECORD_S = 6.0
DURATIONS_S = (0.05, 0.2, 1.0, 5.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A kind of counter. `bounds`: what the median error of Joulebox may be there, by duration; without, what two bare
    readings err, and one step of the counter."""

    title: str
    parameters: TreeParameters
    bounds: Mapping[float, float] | None = None
    wraps: bool = False


COARSE = {0.05: 0.02, 1.0: 0.005}
TREES = (
    Tree(title="Counters that tick every 1 ms, like RAPL's; no wrap", parameters=TreeParameters(range_uj=RANGE_UJ)),
    Tree(
        title=f"The same, wrapping every {WRAP_UJ / 1e6:.0f} J: a wrap in each window, several in those of 5 s",
        parameters=TreeParameters(range_uj=WRAP_UJ),
        wraps=True,
    ),
    Tree(title="Counters that tick every 20 ms", parameters=TreeParameters(tick_ns=20 * MS_NS), bounds=COARSE),
    Tree(
        title="Counters that tick every 100 ms, like some GPUs'",
        parameters=TreeParameters(tick_ns=100 * MS_NS),
        bounds=COARSE,
    ),
)
COUNTS: Mapping[float, Mapping[str, int]] = {
    0.05: {OURS: 10, ONCE: 3, "": 20},
    0.2: {OURS: 10, ONCE: 3, "": 14},
    1.0: {OURS: 6, ONCE: 2, "": 6},
    5.0: {OURS: 2, ONCE: 0, "": 2},
}
"""Windows of a duration: of Joulebox, which first listens to the idle machine for seconds, and of each other tool."""
COUNTS_WRAP: Mapping[float, Mapping[str, int]] = {
    0.05: {ONCE: 0, "": 7},
    0.2: {ONCE: 0, "": 6},
    1.0: {ONCE: 0, "": 5},
    5.0: {ONCE: 0, "": 2},
}
"""Here the machine works before each window until its counter is close to a wrap."""


# --- the tools --------------------------------------------------------------------------------------------------------


def environment(name: str, also: Path | None = None) -> Path | None:
    """The Python of that peer's own environment, made if need be, with the checkout `also` beside it; `None` where it
    cannot be installed."""
    folder, pins = CACHE / name, PINS / f"{name}.txt"
    python, mark = folder / "bin" / "python", folder / "pins"
    wanted = hashlib.sha256(pins.read_bytes() + sys.version.encode() + str(also).encode()).hexdigest()
    if mark.is_file() and mark.read_text() == wanted and python.exists():
        return python
    print(f"making the environment of {name}", flush=True)
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv:
        commands = [
            [uv, "venv", "-q", "--clear", "--python", sys.executable, str(folder)],
            [uv, "pip", "install", "-q", "--compile-bytecode", "--python", str(python), "-r", str(pins)],
        ]
    else:
        commands = [
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [str(python), "-m", "pip", "install", "-q", "-r", str(pins)],
        ]
    if also is not None:
        install = [*commands[1][: commands[1].index("-r")], "--no-deps", "-e", str(also)]
        commands.append(install)
    for command in commands:
        if subprocess.run(command, check=False).returncode:
            return None
    mark.write_text(wanted)
    return python


def tools() -> tuple[list[Tool], list[str]]:
    """Every tool that can run here, and a sentence on each that cannot."""
    found = [
        Tool(name=BARE, python=Path(sys.executable)),
        Tool(name=OURS, python=Path(sys.executable), environment={"JOULEBOX_DATA_DIR": "data"}),
        Tool(name=ONCE, python=Path(sys.executable), environment={"JOULEBOX_DATA_DIR": "data"}),
    ]
    if refused := namespace_refused():
        sentence = (
            f"None of {', '.join(PEERS)} was run: they read the kernel's own folder, and this user may not have a "
            f"mount namespace that shows the rig there ({refused})."
        )
        return found, [sentence]
    absent = []
    for name in PEERS:
        python = environment(name)
        if python is None:
            absent.append(f"{name} could not be installed here and is absent.")
        else:
            alone = name == "codecarbon"  # it leaves a package's memory zone out
            tool = Tool(name=name, python=python, at_sys=True)
            found.append(replace(tool, zones=("package-0",)) if alone else tool)
    return found, absent


def version(name: str) -> str:
    """As pinned; of our own none."""
    if name not in PEERS:
        return ""
    lines = (PINS / f"{name}.txt").read_text().lower().splitlines()
    return next(line.partition("==")[2].split()[0] for line in lines if line.startswith(f"{name}=="))


def calibrate(tree: Path) -> None:
    """`joulebox meters calibrate`, as a user does who has a counter that ticks slowly."""
    command = [sys.executable, "-m", "joulebox", "meters", "calibrate", "--idle-s", "3"]
    options = ["--meter", f"powercap:{tree}", "--data-dir", str(tree.parent / "data")]
    subprocess.run([*command, *options], check=True, capture_output=True)


# --- the run ----------------------------------------------------------------------------------------------------------


def measured(found: Sequence[Tool]) -> list[Session]:
    """All trees at once: every session mostly waits. None begins before the slow counters are calibrated, which keeps
    the cores busy."""
    together = threading.Barrier(len(TREES))

    def one(number: int, tree: Tree) -> Session:
        def prepare(path: Path) -> None:
            if tree.bounds is not None:
                calibrate(path)
            together.wait(timeout=120.0)

        counts = COUNTS_WRAP if tree.wraps else COUNTS
        windows = {s: _count(count) for s, count in counts.items()}
        plan = Plan(windows=windows, wraps=tree.wraps, prepare=prepare)
        return _session(SEED + number, tree.parameters, found if number == 0 else _but(ONCE, found), plan)

    with ThreadPoolExecutor(len(TREES)) as pool:
        return list(pool.map(one, range(len(TREES)), TREES))


def _count(count: Mapping[str, int]) -> Callable[[str], int]:
    return lambda name: count.get(name, count[""])


def _but(name: str, found: Sequence[Tool]) -> list[Tool]:
    return [tool for tool in found if tool.name != name]


def recorded(found: Sequence[Tool]) -> dict[float, Session]:
    """Windows of `RECORD_S` in which the tools record at each rate."""

    def one(hz: float) -> Session:
        at_hz = [
            replace(tool, hz=hz, environment={**tool.environment, "JOULEBOX_READING_HZ": f"{hz:g}"})
            for tool in _but(ONCE, _but("pyjoules", found))
        ]
        plan = Plan(windows={RECORD_S: lambda _: 1}, steady=True)
        return _session(SEED - 1, TreeParameters(), at_hz, plan)

    with ThreadPoolExecutor(len(RECORD_HZ)) as pool:
        return dict(zip(RECORD_HZ, pool.map(one, RECORD_HZ), strict=True))


def _session(seed: int, tree: TreeParameters, found: Sequence[Tool], plan: Plan) -> Session:
    with tempfile.TemporaryDirectory(prefix="joulebox-") as folder:
        return session(SystemClock(), Path(folder), seed, tree, found, plan)


# --- the page ---------------------------------------------------------------------------------------------------------

TEXT = f"""## Beside other tools

Every tool measures the same simulated machine in the same run, one window after the other in seeded random order, each
in a process of its own. Each is used as its documentation says: `start_task`/`stop_task` (codecarbon),
`begin_window`/`end_window` (zeus), `EnergyMeter` (pyJoules), `Session` phases (landauer-gap), windows of one
`joulebox.session()`, and some of `joulebox.measure()`. *Two bare readings* are the least that can be done: each counter
read once at the beginning and once at the end. The peers look at the kernel's `/sys/class/powercap`; a mount namespace
of their own shows them the rig there.

The truth is the closed form of the machine's energy from the moment when the tool's begin returned to the moment when
its end was called, over the zones that the tool counts: package and memory, with codecarbon the package alone. In
between the machine works, its power going up and down with a period of {WAVE_S * 1e3:.0f} ms that fits no duration;
outside it idles, with {NOISE_W} W of noise. Idle power is about 7.5 W, work in the mean 30 W. What the tools themselves
draw is not simulated. A window is thrown away when the rig wrote a counter more than {LATE_MAX_S * 1e3:.0f} ms late in
it or {LATE_AROUND_S} s around it.

In each cell: median / 95 % of the sizes of the errors, bias (mean error), number of windows. Lost: windows with a wrap
that came out wrong by a whole range of the counter. On the slow counters `joulebox meters calibrate` was run first, as
their user would; no other tool has such a thing.

"""


COSTS = """### What they cost

CPU time of the tool's process with all its threads and children, on the tree that ticks every 1 ms. A window is its
begin and its end; Joulebox's holds about four seconds of listening to the idle machine before (three in a session) and
one after, at 10 readings a second. The first window of a process stands apart (200 ms long). Recording was watched for
6 s; zeus only watches for wraps, at a rate of its own, and pyJoules has no such mode. The first row is the task itself.

"""


def section() -> Section:
    """Run everything and lay it side by side; Joulebox is to lose no wrap and to keep the bounds of each tree."""
    found, absent = tools()
    sessions = measured(found)
    records = recorded(found)
    names = [tool.name for tool in found]
    missed: list[str] = []
    text = TEXT + "".join(f"{sentence}\n\n" for sentence in absent)
    bare = sessions[0]
    for tree, one in zip(TREES, sessions, strict=True):
        text += _tree(tree, one, names)
        missed += _missed(tree, one, bare)
    text += _costs(names, sessions[0], records)
    late = sum(found.late for one in sessions for found in one.found)
    text += (
        f"\n{late} of {sum(len(one.found) for one in sessions)} windows were thrown away because the rig was late; its "
        f"latest tick came {max(one.late_max_s for one in sessions) * 1e3:.1f} ms after its time.\n"
    )
    for name, said in {failure for one in [*sessions, *records.values()] for failure in one.failed}:
        text += f"\n{name} failed in a window: {said[:200]}\n"
    print(text[len(TEXT) :])
    print(f"sessions took {', '.join(f'{one.took_s:.0f} s' for one in [*sessions, *records.values()])}")
    return Section(markdown=text, missed=tuple(missed))


def _of(one: Session, name: str, duration_s: float) -> list[Found]:
    return [
        found
        for found in one.found
        if found.tool == name and found.duration_s == duration_s and not found.first and not found.late
    ]


def _sizes(windows: Sequence[Found]) -> list[float]:
    return sorted(abs(window.error_ratio) for window in windows)


def _at_95(sizes: Sequence[float]) -> float:
    return sizes[min(len(sizes) - 1, int(0.95 * len(sizes)))]


def _tree(tree: Tree, one: Session, names: Sequence[str]) -> str:
    text = f"### {tree.title}\n\n| Tool | " + " | ".join(map(_duration, DURATIONS_S)) + " |"
    text += " Windows with a wrap, lost |\n" if tree.wraps else "\n"
    text += "|---|" + "--:|" * (len(DURATIONS_S) + tree.wraps) + "\n"
    for name in names:
        if not any(found.tool == name for found in one.found):
            continue
        text += f"| {TITLES.get(name, name)} | " + " | ".join(_cell(_of(one, name, s)) for s in DURATIONS_S) + " |"
        if tree.wraps:
            wrapped = [found for s in DURATIONS_S for found in _of(one, name, s) if found.wraps]
            text += f" {len(wrapped)}, {sum(found.lost > 0 for found in wrapped)} |"
        text += "\n"
    return text + "\n"


def _duration(duration_s: float) -> str:
    return f"{duration_s:g} s" if duration_s >= 1 else f"{duration_s * 1e3:.0f} ms"


def _cell(windows: Sequence[Found]) -> str:
    if not windows:
        return "none"
    sizes = _sizes(windows)
    bias = fmean(window.error_ratio for window in windows)
    return f"{_percent(median(sizes))} / {_percent(_at_95(sizes))}, {_percent(bias, '+')}, {len(windows)}"


def _percent(ratio: float, sign: str = "") -> str:
    digits = 0 if abs(ratio) >= 1 else 1 if abs(ratio) >= 0.1 else 2 if abs(ratio) >= 0.001 else 3
    return f"{ratio * 100:{sign}.{digits}f} %"


def _missed(tree: Tree, one: Session, bare: Session) -> list[str]:
    missed = []
    for duration_s in DURATIONS_S:
        ours, theirs = (_sizes(_of(*each, duration_s)) for each in ((one, OURS), (bare, BARE)))
        if not ours or not theirs:
            missed.append(f"{tree.title}: too few windows of {_duration(duration_s)} to compare")
            continue
        if tree.bounds is None:
            step = tree.parameters.tick_ns / 1e9 / duration_s
            pairs = [(median(ours), median(theirs) + step)]
        else:
            pairs = [(median(ours), tree.bounds.get(duration_s, float("inf")))]
        missed += [
            f"{tree.title}, {_duration(duration_s)}: Joulebox errs by {_percent(error)}, not at most {_percent(most)}"
            for error, most in pairs
            if error > most
        ]
    lost = [found for found in one.found if found.tool == OURS and found.lost]
    if lost:
        missed.append(f"{tree.title}: Joulebox lost wraps in {len(lost)} windows")
    if tree.wraps and not any(found.wraps > 1 for found in one.found if found.tool == OURS and not found.late):
        missed.append(f"{tree.title}: no window of Joulebox held several wraps")
    return missed


def _costs(names: Sequence[str], one: Session, records: Mapping[float, Session]) -> str:
    rates = " | ".join(f"Recording at {hz:g} Hz, % of a core" for hz in records)
    text = f"{COSTS}| Tool | Version | Import, set-up | First window: its error, begin | A window, median | {rates} |\n"
    text += "|---|---|--:|--:|--:|" + "--:|" * len(records) + "\n"
    for name in names:
        rest = [found.calls_cpu_s for s in DURATIONS_S for found in _of(one, name, s)]
        firsts = [found for found in one.found if found.tool == name and found.first]
        shares = [
            next((x.during_cpu_s / RECORD_S for x in record.found if x.tool == name and not x.first), None)
            for record in records.values()
        ]
        cells = [
            TITLES.get(name, name),
            version(name),
            f"{one.setup_cpu_s[name]:.2f} s" if name in one.setup_cpu_s else "-",
            f"{_percent(firsts[0].error_ratio, '+')}, {firsts[0].begin_s:.2g} s" if firsts else "-",
            f"{median(rest) * 1e3:.2f} ms" if rest else "-",
            *("-" if share is None else f"{share * 100:.2f}" for share in shares),
        ]
        text += f"| {' | '.join(cells)} |\n"
    beside = [
        found.beside_j / found.duration_s for found in one.found if found.tool == "codecarbon" and not found.first
    ]
    if beside:
        text += (
            f"\nThe total that codecarbon reports holds {median(beside):.0f} W more, for memory, in every window: a "
            "constant of its own and no measurement. It is left out above.\n"
        )
    return text
