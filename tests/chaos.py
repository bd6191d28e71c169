"""`make chaos`: faults of every kind over the real service, in a seeded order; writes the tables of
`docs/reliability.md`. `SEED=` chooses another order, `PART=sqlite` or `postgres` one database.

    python tests/chaos.py [--seed 1] [--turns 2] [--part sqlite|postgres] [--only NAME ...]

Server, node, engine with the small model and Postgres are the real ones, in processes of their own; the meters are
those of the simulated machine. Prompts wait and are watched at any time. After each fault somebody must have a further
answer, and at the end every prompt must have come to exactly one end, with evidence and receipt as they were when they
were first seen, and the receipt must come out of the evidence again to the last bit. The exit code is 1 where anything
of this does not hold.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import chaos_backup
import costs
from accuracy_page import with_part
from chaos_faults import FAULTS, Fault, Scene
from chaos_stage import Disk, Names, NotMadeError, Rig, Stage
from chaos_watch import Watch, wrongs
from joulebox.clock import SystemClock
from joulebox.node.fetch import DEFAULT, fetch
from joulebox.units import seconds
from postgres_server import PostgresServer
from stage import wait

CLOCK = SystemClock()
ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
BUILD = ROOT / "build"
PARTS: Final = {"sqlite": "SQLite", "postgres": "Postgres"}
MOVES_S = 240.0
"""A queue that does not move for so long after a fault is stuck, however much else the machine has to do."""
REST_S = 4.0
RSS_RATIO, RSS_MORE_BYTES, DESCRIPTORS_MORE = 1.3, 16e6, 8
"""So much more server and node may hold at the end than at the beginning."""
HELD: Final = (
    "**Held**: no prompt was lost or answered twice, every answer is the undisturbed one, evidence and receipts are at "
    "the end what they were at first, and each receipt comes out of its evidence again to the last bit."
)
INSIDE: Final = "CHAOS_INSIDE"
SETTINGS: Final = {
    "JOULEBOX_ATTEMPTS_MAX": "20",
    "JOULEBOX_ZONE": "DE",
    "JOULEBOX_CONTROL_EVERY_S": "0",
    "JOULEBOX_GRACE_S": "3",
    "JOULEBOX_PUBLIC": "read ask node",  # the node comes by another name than localhost
} | {f"JOULEBOX_{one}": "0" for one in ("ASKS_PER_MINUTE", "REQUESTS_PER_MINUTE", "OUTSTANDING_MAX", "PROMPTS_PER_DAY")}
Json = dict[str, Any]


@dataclass(slots=True)
class Seen:
    """What became of a kind of fault."""

    fault: Fault
    moved_s: list[float] = field(default_factory=list)
    again: int = 0
    breaks: int = 0
    not_made: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Outcome:
    """What was left at the end."""

    asked: int = 0
    answered: int = 0
    seen: dict[str, Seen] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    attempts: list[tuple[object, ...]] = field(default_factory=list)
    verdicts: list[tuple[object, ...]] = field(default_factory=list)
    held: str = ""
    backup: str = ""


def breaks() -> int:
    """How many failures nobody caught stand in the log of server and node so far."""
    said = Path("/proc/self/fd/2").read_text(encoding="utf-8", errors="replace")
    return said.count("Traceback (most recent call last)")


def begun_again(stage: Stage) -> int:
    """How many attempts gave no answer so far."""
    return int(str(stage.query("SELECT count(*) FROM attempts WHERE state IN ('lost', 'failed')")[0][0]))


def run(scene: Scene, watch: Watch, faults: Sequence[Fault], outcome: Outcome) -> None:
    """Every fault in its turn; after each somebody must have a further answer."""
    for fault in faults:
        wait(scene.chance.uniform(0.0, 2.0))
        seen = outcome.seen.setdefault(fault.name, Seen(fault))
        again, broke = begun_again(scene.stage), breaks()
        try:
            fault.act(scene)
        except NotMadeError as error:
            seen.not_made.add(str(error))
            continue
        over_ns, done = CLOCK.now_ns(), watch.done()
        while watch.done() <= done and seconds(CLOCK.now_ns() - over_ns) < MOVES_S and watch.broken is None:
            wait(0.05)
        moved_s = seconds(CLOCK.now_ns() - over_ns)
        seen.moved_s.append(moved_s)
        seen.again += begun_again(scene.stage) - again
        seen.breaks += breaks() - broke
        print(f"{os.environ[INSIDE]}: {fault.name}: the next answer after {moved_s:.1f} s", flush=True)
        print(f"--- {fault.name}: over", file=sys.stderr, flush=True)
        if moved_s >= MOVES_S:
            outcome.wrong.append(f"{fault.name}: nobody had an answer for {MOVES_S:.0f} s")
        if watch.broken is not None:
            outcome.wrong.append(f"{fault.name}: a prompt could not be asked: {watch.broken}")
            return


def held(stage: Stage) -> dict[str, tuple[int, int]]:
    """Resident bytes and open descriptors of server and node, at rest."""
    wait(REST_S)
    found = {}
    for name in ("server", "node"):
        pid = stage.pid(name)
        if pid is not None:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            found[name] = pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208
    return found


def grown(before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]]) -> tuple[str, list[str]]:
    """What server and node hold now and held before, in words; and what of it is too much."""
    told, wrong = [], []
    for name, (rss, open_) in after.items():
        rss_0, open_0 = before[name]
        text = f"the {name} {rss_0 / 1e6:.0f} MB and {open_0} descriptors, then {rss / 1e6:.0f} MB and {open_}"
        told.append(text)
        if rss > RSS_RATIO * rss_0 + RSS_MORE_BYTES or open_ > open_0 + DESCRIPTORS_MORE:
            wrong.append(f"at rest held {text}")
    return ", ".join(told), wrong


def broken(stack: ExitStack, seed: int, turns: int, only: Sequence[str], *, with_postgres: bool) -> Outcome:
    """One database's faults, and what came of them."""
    chosen = [one for one in FAULTS if (with_postgres or not one.only_postgres) and (not only or one.name in only)]
    chance, outcome = random.Random(seed), Outcome()
    order = [fault for _ in range(turns) for fault in chance.sample(chosen, len(chosen))]
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="joulebox-chaos-")))
    folder.chmod(0o755)
    disk, names = _disk(folder), _names(folder)
    if disk is not None:
        stack.callback(disk.close)
    rig = Rig(folder / "rig")
    stack.callback(rig.stop)
    model = folder / "model.gguf"
    model.write_bytes(fetch(DEFAULT, ROOT / ".cache" / "models").read_bytes())
    postgres = PostgresServer(disk.place if disk is not None else None) if with_postgres else None
    if postgres is not None:
        stack.callback(postgres.stop)
    stage = Stage(folder, model, SETTINGS | {"JOULEBOX_METERS": rig.meters}, postgres, disk, names)
    stack.callback(stage.stop)
    watch = Watch(stage, seed)
    watch.begin()
    before = held(stage)
    run(Scene(stage, rig, model, chance, watch.cancel), watch, order, outcome)
    outcome.backup, wrong = chaos_backup.saved(stage, watch, folder)
    ends = watch.ends(MOVES_S)
    may_end = {code for fault in chosen for code in fault.ends}
    outcome.wrong += wrong + wrongs(stage, ends, watch.undisturbed, may_end)
    outcome.asked, outcome.answered = len(ends), sum(one.status["state"] == "completed" for one in ends)
    outcome.attempts = stage.query("SELECT state, count(*) FROM attempts GROUP BY state ORDER BY state")
    outcome.held, wrong = grown(before, held(stage))
    outcome.wrong += wrong
    return outcome


def _disk(folder: Path) -> Disk | None:
    try:
        return Disk(folder / "disk.ext4", folder / "disk")
    except NotMadeError as error:
        print(f"no disk of its own: {error}", flush=True)
        return None


def _names(folder: Path) -> Names | None:
    try:
        return Names(folder)
    except NotMadeError as error:
        print(f"no names of its own: {error}", flush=True)
        return None


# --- the page ---------------------------------------------------------------------------------------------------------


def told(outcome: Outcome, seed: int, turns: int) -> str:
    """As Markdown."""
    lines = ["| Fault | What was done | Times | Next answer: median | worst | Attempts begun again |"]
    lines += ["|---|---|--:|--:|--:|--:|"]
    for seen in sorted(outcome.seen.values(), key=lambda one: FAULTS.index(one.fault)):
        name, moved = f"| {seen.fault.name} | {seen.fault.done} |", seen.moved_s
        if moved:
            lines.append(f"{name} {len(moved)} | {median(moved):.1f} s | {max(moved):.1f} s | {seen.again} |")
        else:
            lines.append(f"{name} not made here: {'; '.join(sorted(seen.not_made))} | | | |")
    attempts = ", ".join(f"{count} {state}" for state, count in outcome.attempts)
    ended = outcome.asked - outcome.answered
    summary = (
        f"Seed {seed}, each fault {turns} times in an order of its own. {outcome.asked} prompts asked: "
        f"{outcome.answered} answered, {ended} ended by a name that the fault explains. Attempts: {attempts}. "
        f"Held at rest, before and after all: {outcome.held}."
    )
    lines += ["", summary, "", outcome.backup, "", *([f"- **Broken**: {one}." for one in outcome.wrong] or [HELD])]
    return "\n".join(lines)


def begun(part: str) -> subprocess.Popen[bytes]:
    """One database's faults, in a process and a mount namespace of their own: no disk or name of this machine is in it.
    What server and node say goes into a log."""
    path = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    ours = {INSIDE: part, "PYTHONPATH": path}
    own = ["unshare", "-m", "--propagation", "private"] if os.geteuid() == 0 else []
    with (BUILD / f"chaos-{part}.log").open("w", encoding="utf-8") as log:
        return subprocess.Popen([*own, sys.executable, *sys.argv], env=os.environ | ours, stderr=log)


def inside(part: str, given: argparse.Namespace) -> bool:
    """In that process: whether everything held. The text for the page is left in a file."""
    begun_ns = CLOCK.now_ns()
    with ExitStack() as stack:
        outcome = broken(stack, given.seed, given.turns, given.only, with_postgres=part == "postgres")
    text = told(outcome, given.seed, given.turns) + f"\n\nTook {seconds(CLOCK.now_ns() - begun_ns):.0f} s."
    (BUILD / f"chaos-{part}.md").write_text(text, encoding="utf-8")
    return not outcome.wrong


def main() -> None:
    """Both databases at once: most of the time each waits."""
    parser = argparse.ArgumentParser(description="Faults of every kind over the real service.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--only", nargs="+", default=[], choices=[one.name for one in FAULTS], metavar="FAULT")
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args()
    if INSIDE in os.environ:
        sys.exit(0 if inside(os.environ[INSIDE], given) else 1)
    BUILD.mkdir(exist_ok=True)
    busy, parts = costs.machine_use(), [given.part] if given.part else list(PARTS)
    for part in parts:
        (BUILD / f"chaos-{part}.md").unlink(missing_ok=True)
    running = {part: begun(part) for part in parts}
    failed = [part for part, process in running.items() if process.wait()]
    for part in parts:
        left = BUILD / f"chaos-{part}.md"
        text = (
            left.read_text(encoding="utf-8") if left.exists() else f"- **Broken**: it ended early, see {left.stem}.log."
        )
        text += f" {os.cpu_count()} cores, {' and '.join(PARTS[one] for one in parts)} at once, {busy()}."
        print(f"--- {PARTS[part]}\n{text}", flush=True)
        page = given.page.read_text(encoding="utf-8") if given.page.exists() else "# Reliability\n"
        given.page.write_text(with_part(page, PARTS[part], text, "tests/chaos.py"), encoding="utf-8")
    if failed:
        print(f"What server and node said is in {', '.join(f'build/chaos-{part}.log' for part in failed)}.", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
