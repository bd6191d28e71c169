"""`make soak`: a steady stream of prompts through the real service, and what grows meanwhile; writes its part of
`docs/reliability.md`.

    python tests/soak.py [--minutes 30]

People ask without end: most watch to the receipt, some hang up in the middle, some cancel, some come by OpenAI's API
or look at pages. Every few seconds memory, descriptors and threads of server, node and engine are read, and the sizes
of database and log of writes. What grows with every prompt is a leak: the exit code is then 1.

A measured answer takes seconds, so that half an hour of them is too little to tell a leak of the server from its caches
that are not full yet. Two more nodes, whose engine is scripted and takes no time, therefore answer a crowd of prompts
meanwhile: the server's line is drawn over all prompts, the node's and its engine's over those that they answered.
"""

import argparse
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from statistics import fmean
from typing import Final

import costs
from accuracy_page import with_part
from chaos_stage import Rig
from joulebox.clock import SystemClock
from joulebox.errors import JouleboxError
from joulebox.node.fetch import DEFAULT, fetch
from joulebox.statistics.distributions import student_t_quantile
from joulebox.units import seconds
from stage import MODEL, Service, wait

CLOCK = SystemClock()
ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
EVERY_S = 5.0
PEOPLE = 3
PROCESSES: Final = ("server", "node", "engine")
CROWD, LONE, LONE_MODEL, REST_S = 2, 2, "m", 0.3
"""So many ask so many scripted nodes, with so long a rest after each answer."""
FULL: Final = 1_500
"""After so many prompts the server's caches are taken to be full: its database's, its pages', the allocator's."""
PAGES: Final = ("/", "/nodes", "/report/sci", "/metrics", "/api/v1/prompts?limit=20", "/api/v1/nodes", "/nowhere")
HOW: Final = ("watched", "watched", "watched", "hung up", "cancelled", "by OpenAI's API")
WARM_UP, WARM_UP_S = 1 / 3, 300.0
"""This share of the time, and at least so long, memory may find its level (a node keeps the readings of two minutes, a
server loads what it is first asked for); the slope is taken of the rest."""
BLOCKS: Final = 12
"""The rest is cut into so many stretches: means of neighbouring moments are alike, those of stretches hardly."""
LEAK_BYTES: Final = 4_096.0
"""What grows by more than this a prompt is a leak: a trace alone, kept by mistake, would be twenty times as much."""
WAL_MAX_BYTES: Final = 16e6
"""SQLite turns its log of writes over at 4 MB, later where somebody reads meanwhile."""
SETTINGS: Final = {
    "JOULEBOX_ZONE": "DE",
    "JOULEBOX_CONTROL_EVERY_S": "0",
    "JOULEBOX_PUBLIC": "read ask node",
    "JOULEBOX_LOG": "warning",
    **{f"JOULEBOX_{one}": "0" for one in ("ASKS_PER_MINUTE", "REQUESTS_PER_MINUTE", "OUTSTANDING_MAX")},
    "JOULEBOX_PROMPTS_PER_DAY": "0",
}


@dataclass(frozen=True, slots=True)
class Look:
    """What one process held at a moment, after so many prompts that it had to do with."""

    prompts: int
    memory_bytes: float
    descriptors: int
    threads: int


@dataclass(slots=True)
class Soaked:
    """All that was seen."""

    looks: dict[str, list[Look]] = field(default_factory=lambda: {name: [] for name in PROCESSES})
    wal_bytes: list[int] = field(default_factory=list)
    file_bytes: list[tuple[int, int]] = field(default_factory=list)
    rows: list[tuple[int, Mapping[str, int]]] = field(default_factory=list)
    ended: Counter[str] = field(default_factory=Counter)
    crowd: int = 0
    troubles: Counter[str] = field(default_factory=Counter)


class People:
    """Ask on and on, each in a thread of its own."""

    def __init__(self, service: Service, soaked: Soaked) -> None:
        self._service, self._soaked = service, soaked
        self._enough = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on, args=(n,), daemon=True) for n in range(PEOPLE)]
        self._threads += [threading.Thread(target=self._crowd, args=(n,), daemon=True) for n in range(CROWD)]
        for thread in self._threads:
            thread.start()

    def leave(self) -> None:
        """Nobody asks any more."""
        self._enough.set()
        for thread in self._threads:
            thread.join(120)

    def _ask_on(self, person: int) -> None:
        chance, number = random.Random(person), 0
        while not self._enough.is_set():
            number += 1
            how = chance.choice(HOW)
            try:
                self._one(how, 1_000_000 * person + number, chance)
                self._soaked.ended[how] += 1
            except (JouleboxError, OSError) as error:
                self._soaked.troubles[str(error)[:120]] += 1
                self._enough.wait(0.5)

    def _crowd(self, number: int) -> None:
        chance = random.Random(number)
        while not self._enough.is_set():
            try:
                self._one(chance.choice(HOW), 500_000_000 + self._soaked.crowd, chance, LONE_MODEL)
                self._soaked.crowd += 1
                self._enough.wait(REST_S)
            except (JouleboxError, OSError) as error:
                self._soaked.troubles[str(error)[:120]] += 1
                self._enough.wait(0.5)

    def _one(self, how: str, number: int, chance: random.Random, model: str = MODEL) -> None:
        service = self._service
        if how == "by OpenAI's API":
            _openai(service.url, model, number)
        else:
            words = f"Name {number % 90 + 2} fruits."
            prompt_id = service.ask(words, number, model=model, max_tokens=chance.randint(4, 40))
            for event in service.client.events(prompt_id):
                if how == "hung up" and event.name in ("token", "started"):
                    break
                if how == "cancelled" and event.name == "token":
                    service.client.cancel(prompt_id)
        with suppress(urllib.error.HTTPError), urllib.request.urlopen(service.url + chance.choice(PAGES)) as reply:
            reply.read()


def _openai(url: str, model: str, number: int) -> None:
    asked = {
        "model": model,
        "messages": [{"role": "user", "content": f"Say {number}."}],
        "max_tokens": 12,
        "stream": True,
    }
    head = {"content-type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(asked).encode(), head)
    with urllib.request.urlopen(request, timeout=300) as reply:
        reply.read()


def look(service: Service, soaked: Soaked) -> None:
    """Read everything once."""
    real = sum(soaked.ended.values())
    for name in PROCESSES:
        prompts, pid = real + (soaked.crowd if name == "server" else 0), service.pid(name)
        if pid is None:
            continue
        with suppress(FileNotFoundError):
            status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            open_ = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208
            memory_bytes = 1024.0 * int(status["RssAnon"].split()[0])
            soaked.looks[name].append(Look(prompts, memory_bytes, open_, int(status["Threads"])))
    file = service.folder / "joulebox.db"
    soaked.wal_bytes.append(file.with_name(file.name + "-wal").stat().st_size)
    soaked.file_bytes.append((real + soaked.crowd, file.stat().st_size))


def rows(service: Service) -> dict[str, int]:
    """How many rows each table has."""
    with closing(sqlite3.connect(f"file:{service.folder / 'joulebox.db'}?mode=ro", uri=True)) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}


# --- the verdicts -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Slope:
    """What a thing grows by with each prompt, with its 95 % interval."""

    central: float
    low: float
    high: float

    def verdict(self, bound: float) -> str:
        """Whether it grows by more than `bound`."""
        return "**grows**" if self.low > bound else "does not grow" if self.high < bound else "not known"


def slope(points: Sequence[tuple[float, float]]) -> Slope | None:
    """A straight line through the means of `BLOCKS` stretches; `None` where there is too little."""
    size = len(points) // BLOCKS
    if size == 0:
        return None
    blocks = [points[n * size : (n + 1) * size] for n in range(BLOCKS)]
    xs, ys = [fmean(x for x, _ in one) for one in blocks], [fmean(y for _, y in one) for one in blocks]
    mean_x, mean_y = fmean(xs), fmean(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    if spread == 0.0:
        return None
    central = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    left = sum((y - mean_y - central * (x - mean_x)) ** 2 for x, y in zip(xs, ys, strict=True))
    half = student_t_quantile(0.975, BLOCKS - 2) * sqrt(left / (BLOCKS - 2) / spread)
    return Slope(central, central - half, central + half)


def climbs(counts: Sequence[int]) -> bool:
    """Whether the last quarter is always above all of the first quarter: what is opened and never closed."""
    quarter = len(counts) // 4
    return quarter > 1 and min(counts[-quarter:]) > max(counts[:quarter])


def warm(name: str, looks: Sequence[Look]) -> Sequence[Look]:
    """What was seen after memory had found its level."""
    kept = looks[max(int(len(looks) * WARM_UP), min(int(WARM_UP_S / EVERY_S), len(looks) - 2)) :]
    return [one for one in kept if name != "server" or one.prompts >= FULL]


def process_rows(name: str, looks: Sequence[Look]) -> tuple[list[str], list[str]]:
    """One process' lines of the table, and what of it is a leak."""
    kept, leaks = warm(name, looks), []
    if not kept:
        seen = "too few prompts" if looks else "it was not there"
        return [f"| {name} | {seen} | | | | |"], [f"{name}: {seen}"]
    found = slope([(one.prompts, one.memory_bytes) for one in kept])
    first, last = kept[0], kept[-1]
    if found is None:
        told, verdict = "too short", "not known"
    else:
        told = f"{found.central:+.0f} ({found.low:+.0f} to {found.high:+.0f}) B"
        verdict = found.verdict(LEAK_BYTES)
    held = f"{first.memory_bytes / 1e6:.1f} MB | {last.memory_bytes / 1e6:.1f} MB"
    lines = [f"| {name} | memory | {held} | {told} | {verdict} |"]
    for what in ("descriptors", "threads"):
        counts = [int(getattr(one, what)) for one in kept]
        grows = climbs(counts)
        seen = f"{min(counts)} to {max(counts)}"
        lines.append(
            f"| {name} | {what} | {counts[0]} | {counts[-1]} | {seen} | {'**grows**' if grows else 'steady'} |"
        )
        leaks += [f"{name}: {what} {seen}"] if grows else []
    return lines, leaks + ([f"{name}: memory {told} a prompt"] if "grows**" in verdict else [])


def store_rows(soaked: Soaked) -> tuple[list[str], list[str]]:
    """The database's lines of the table, and what of it grows faster than the prompts."""
    kept = soaked.file_bytes[int(len(soaked.file_bytes) * WARM_UP) :]
    half = len(kept) // 2
    each = [(part[-1][1] - part[0][1]) / max(1, part[-1][0] - part[0][0]) for part in (kept[: half + 1], kept[half:])]
    faster = each[1] > 1.5 * each[0] + LEAK_BYTES
    wal = max(soaked.wal_bytes)
    sizes = f"{kept[0][1] / 1e6:.1f} MB | {kept[-1][1] / 1e6:.1f} MB"
    halves = f"{each[0] / 1e3:.1f} kB, then {each[1] / 1e3:.1f} kB"
    log = f"{soaked.wal_bytes[0] / 1e6:.1f} MB | {soaked.wal_bytes[-1] / 1e6:.1f} MB | at most {wal / 1e6:.1f} MB"
    lines = [
        f"| database | file | {sizes} | {halves} | {'**grows faster**' if faster else 'in step with what is kept'} |",
        f"| database | log of writes | {log} | {'steady' if wal <= WAL_MAX_BYTES else '**grows**'} |",
    ]
    leaks = ["the database grows faster and faster"] if faster else []
    return lines, leaks + (["the log of writes is not turned over"] if wal > WAL_MAX_BYTES else [])


def table_rows(soaked: Soaked) -> str:
    """Rows a prompt, of the tables that grew."""
    (first, before), (last, after) = soaked.rows[0], soaked.rows[-1]
    prompts = max(1, last - first)
    grew = {name: (after[name] - before.get(name, 0)) / prompts for name in after if after[name] > before.get(name, 0)}
    return ", ".join(f"{name} {more:.2f}" for name, more in sorted(grew.items(), key=lambda one: -one[1]))


def told(soaked: Soaked, took_s: float) -> tuple[str, list[str]]:
    """As Markdown, and what leaks."""
    lines = [
        "| Of | What | After the warm-up | At the end | A prompt, or from to | Verdict |",
        "|---|---|--:|--:|--:|---|",
    ]
    leaks: list[str] = []
    for name in PROCESSES:
        more, found = process_rows(name, soaked.looks[name])
        lines, leaks = lines + more, leaks + found
    more, found = store_rows(soaked)
    lines, leaks = lines + more, leaks + found
    ended = ", ".join(f"{count} {how}" for how, count in soaked.ended.most_common())
    troubles = ", ".join(f"{count} times: {what}" for what, count in soaked.troubles.most_common()) or "none"
    text = (
        f"{sum(soaked.ended.values())} prompts to the real model in {took_s / 60:.0f} minutes by {PEOPLE} people at "
        f"once ({ended}), a page looked at after each, and {soaked.crowd} in the same ways by {CROWD} more to {LONE} "
        f"nodes with a scripted engine; refused or failed: {troubles}. Memory is the processes' own (RssAnon), looked "
        f"at every {EVERY_S:g} s; the first third (at least {WARM_UP_S / 60:.0f} minutes, and for the server {FULL} "
        f"prompts) is warm-up. The slope is that of a line through {BLOCKS} stretches, with its 95 % interval, over "
        f"the prompts that a process had to do with; more than {LEAK_BYTES:.0f} B a prompt counts as growing. Rows a "
        f"prompt: {table_rows(soaked)}."
    )
    return "\n".join([*lines, "", text, *(f"- **Broken**: {one}." for one in leaks)]), leaks


@contextmanager
def lone(url: str, folder: Path, name: str) -> Iterator[None]:
    """A node with a scripted engine, in a process of its own."""
    folder.mkdir()
    program = str(Path(__file__).with_name("lone_node.py"))
    process = subprocess.Popen([sys.executable, program, url, str(folder), name, "0.01"])
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def soak(stack: ExitStack, minutes: float) -> Soaked:
    """The service under its stream, for so long."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="joulebox-soak-")))
    rig = Rig(folder / "rig")
    stack.callback(rig.stop)
    model = fetch(DEFAULT, ROOT / ".cache" / "models")
    (folder / "data").mkdir()
    service = Service(folder / "data", model, SETTINGS | {"JOULEBOX_METERS": rig.meters})
    stack.callback(service.stop)
    for number in range(LONE):
        stack.enter_context(lone(service.url, folder / f"lone{number}", f"lone{number}"))
    while LONE_MODEL not in {model["id"] for model in service.client.models()}:
        wait(0.1)
    soaked = Soaked()
    people = People(service, soaked)
    stack.callback(people.leave)
    begun_ns = CLOCK.now_ns()
    while (passed_s := seconds(CLOCK.now_ns() - begun_ns)) < 60.0 * minutes:
        wait(EVERY_S)
        look(service, soaked)
        if not soaked.rows or passed_s > 60.0 * minutes - 2 * EVERY_S:
            soaked.rows.append((sum(soaked.ended.values()) + soaked.crowd, rows(service)))
        if len(soaked.wal_bytes) % 12 == 0:
            held = ", ".join(
                f"{name} {each[-1].memory_bytes / 1e6:.1f} MB" for name, each in soaked.looks.items() if each
            )
            real, crowd = sum(soaked.ended.values()), soaked.crowd
            print(f"{passed_s / 60:.0f} min: {real} prompts, and {crowd} of the crowd; {held}", flush=True)
    people.leave()
    return soaked


def main() -> None:
    """Soak, and write the page's part."""
    parser = argparse.ArgumentParser(description="A steady stream of prompts, and what grows meanwhile.")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    busy, begun_ns = costs.machine_use(), CLOCK.now_ns()
    with ExitStack() as stack:
        soaked = soak(stack, given.minutes)
    text, leaks = told(soaked, seconds(CLOCK.now_ns() - begun_ns))
    text += f"\n\n{os.cpu_count()} cores, {busy()}."
    print(text, flush=True)
    page = given.page.read_text(encoding="utf-8") if given.page.exists() else "# Reliability\n"
    given.page.write_text(with_part(page, "Soak", text, "tests/soak.py"), encoding="utf-8")
    sys.exit(1 if leaks else 0)


if __name__ == "__main__":
    main()
