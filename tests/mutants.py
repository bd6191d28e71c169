"""`make mutants`: can the tests of the arithmetic fail? Changes the code a little, thousands of times, and looks.

Operators are mutmut's. Its own runner collects the tests anew for each mutant, leaves out properties and constants of
modules; this one collects once, forks, puts the changed code into the functions that are there, and runs the tests that
reach the changed statement, those that told most changes of that function before first. Property tests run without
chance, so that a score repeats. Changes that change nothing anybody could see stand in `mutants.toml`, each with its
reason; all others that no test told are printed, and the exit code is 1.

`FILE=energy` is one file, `SAMPLE=200` (and `SEED=1`) that many mutants of all by lot, with the interval of the score;
`python tests/mutants.py energy --again` tries only those that lived last time.
"""

import argparse
import ast
import hashlib
import json
import os
import random
import re
import signal
import sys
import time
import tomllib
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from math import sqrt
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import coverage
import libcst as cst
import pytest
from _pytest.runner import runtestprotocol
from hypothesis import settings
from libcst.metadata import ByteSpanPositionProvider, MetadataWrapper, PositionProvider
from mutmut.mutation.file_mutation import MutationVisitor
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
KEPT = ROOT / "build" / "mutants"
LIVED = "lived.json"
FILES = [
    f"joulebox/accounting/{name}.py"
    for name in (
        *("energy", "uncertainty", "split", "validity", "closure", "attempts", "carbon", "intensity", "embodied"),
        *("readings", "rounding", "figures", "__init__", "idle_drift", "surroundings", "fleet", "whatif", "water"),
        *("equivalents", "power_model", "chips"),
    )
] + ["joulebox/metering.py"]
TABLES = ("joulebox/accounting/chips.py", "joulebox/accounting/embodied.py", "joulebox/accounting/equivalents.py")
"""Their constants are published figures: a test could but write them down again."""
TESTS = (
    *(
        "accounting",
        "agreement",
        "attempts",
        "closure",
        "doubt",
        "embodied",
        "equivalents",
        "estimator",
        "faults",
        "idle_drift",
        "intensity",
    ),
    *(
        "interval_parts",
        "intervals",
        "metering",
        "method",
        "readings",
        "report",
        "sci",
        "shares",
        "slow_meters",
        "split",
        "statistics",
    ),
    *("surroundings", "unknown", "verdicts", "wall_gain", "whatif"),
    *("figures", "reading_limits", "receipt_fields", "rounding"),
)
CHILD_S = 5.0
QUICK_S, SLOWER = 0.3, 4
"""Tests that take longer tell hardly any change that a quick one does not: of these the quickest few are run."""


@dataclass(frozen=True)
class Mutant:
    """One change: `source` is the whole module with it, `was` and `now` the first line that differs."""

    file: str
    function: str
    first_line: int
    last_line: int
    was: str
    now: str
    source: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.file, self.function, self.was, self.now


_Visitor: Any = MutationVisitor


class _Changes(_Visitor):  # type: ignore[misc]
    """mutmut's changes, with where they are; properties too."""

    METADATA_DEPENDENCIES = (*_Visitor.METADATA_DEPENDENCIES, ByteSpanPositionProvider)

    def __init__(self) -> None:
        super().__init__(mutation_operators, IgnoredCode(set(), set(), set()))
        self.spans: list[tuple[int, int, int, str]] = []

    def _create_mutations(self, node: cst.CSTNode) -> None:
        before = len(self.mutations)
        super()._create_mutations(node)
        for mutation in self.mutations[before:]:
            span = self.get_metadata(ByteSpanPositionProvider, node)
            line = self.get_metadata(PositionProvider, node).start.line
            self.spans.append((span.start, span.length, line, cst.Module([]).code_for_node(mutation.mutated_node)))

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef) and node.decorators:
            return False
        return bool(super()._skip_node_and_children(node))


def mutants_of(file: str) -> list[Mutant]:
    """Every change of a file that compiles to something else."""
    text = (SOURCE / file).read_text()
    raw, lines, tree = text.encode(), text.splitlines(), ast.parse(text)
    changes = _Changes()
    MetadataWrapper(cst.parse_module(text)).visit(changes)
    own, found, seen = compile(text, file, "exec"), [], set()
    for start, length, line, code in changes.spans:
        function, first, last = _place(tree, line)
        old = raw[start : start + length].decode()
        if not function and (file in TABLES or not _is_number(old)):
            continue
        source = (raw[:start] + code.encode() + raw[start + length :]).decode()
        changed = source.splitlines()
        at = next((n for n, (a, b) in enumerate(zip(lines, changed, strict=False)) if a.strip() != b.strip()), None)
        if at is None or source in seen:
            continue
        seen.add(source)
        with suppress(SyntaxError):
            if _bytes(compile(source, file, "exec")) != _bytes(own):
                found.append(Mutant(file, function, first, last, lines[at].strip(), changed[at].strip(), source))
    return found


def _is_number(text: str) -> bool:
    return text.replace("_", "").replace(".", "").replace("e", "").replace("-", "").isdigit()


def _bytes(code: Any) -> Any:
    """What a code object does, without where it stands."""
    consts = tuple(_bytes(one) if hasattr(one, "co_code") else repr(one) for one in code.co_consts)
    return code.co_code, code.co_names, code.co_varnames, consts, code.co_exceptiontable


def _place(tree: ast.Module, line: int) -> tuple[str, int, int]:
    """The function a line is in ("" for none), and the first and last line of the innermost statement's head."""
    names: list[str] = []
    first, last = line, line
    for node in ast.walk(tree):
        if not isinstance(node, ast.stmt) or not node.lineno <= line <= (node.end_lineno or 0):
            continue
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
            if line < node.body[0].lineno:  # a default: whoever calls the function may use it
                first, last = node.lineno, node.end_lineno or line
        else:
            body = getattr(node, "body", None)
            first, last = node.lineno, body[0].lineno - 1 if body else node.end_lineno or line
    inside = any(
        isinstance(node, ast.FunctionDef) and node.lineno <= line <= (node.end_lineno or 0) for node in ast.walk(tree)
    )
    return ".".join(names) if inside else "", first, max(last, first)


# --- putting a change in ----------------------------------------------------------------------------------------------


def put_in(mutant: Mutant) -> None:
    """The changed code in the place of the code that is there, wherever it was imported to. Raises what the changed
    module raises when it is imported."""
    name = mutant.file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    module = import_module(name)
    changed = ModuleType(name)
    changed.__dict__.update(__file__=str(SOURCE / mutant.file), __path__=getattr(module, "__path__", []))
    exec(compile(mutant.source, mutant.file, "exec"), changed.__dict__)
    for key, new in list(vars(changed).items()):
        old = vars(module).get(key)
        if key.startswith("__") or old is new:
            continue
        if isinstance(old, FunctionType) and old.__module__ == name:
            _swap(old, new)
        elif isinstance(old, type) and old.__module__ == name:
            _swap_class(old, new)
        elif " at 0x" not in repr(new) and repr(new) != repr(old):
            _rebind(key, old, new)


def _swap(old: FunctionType, new: FunctionType) -> None:
    if old.__code__.co_freevars == new.__code__.co_freevars:
        old.__code__ = new.__code__
    old.__defaults__, old.__kwdefaults__ = new.__defaults__, new.__kwdefaults__


def _swap_class(old: type, new: type) -> None:
    for key, value in vars(new).items():
        there, fresh = vars(old).get(key), value
        for wrapper in ("fget", "__func__"):
            there, fresh = getattr(there, wrapper, there), getattr(fresh, wrapper, fresh)
        if isinstance(there, FunctionType) and isinstance(fresh, FunctionType):
            if there.__code__.co_filename.startswith("<"):  # made by dataclass
                there.__defaults__, there.__kwdefaults__ = fresh.__defaults__, fresh.__kwdefaults__
            else:
                _swap(there, fresh)


def _rebind(key: str, old: object, new: object) -> None:
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("joulebox") and vars(module).get(key) is old:
            setattr(module, key, new)


# --- which tests, and running them ------------------------------------------------------------------------------------


@dataclass
class Reached:
    """What a test reaches (lines by file), and how long it takes."""

    s: float
    lines: dict[str, list[int]]


def _hash(paths: Sequence[Path]) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(paths))).hexdigest()[:16]


def _standing_on(path: Path) -> list[Path]:
    """A test's file and what it imports of the other files here."""
    found, todo = {path}, [path]
    while todo:
        for name in re.findall(r"^(?:from|import) (\w+)", todo.pop().read_text(), re.MULTILINE):
            other = path.with_name(f"{name}.py")
            if other.exists() and other not in found:
                found.add(other)
                todo.append(other)
    return list(found)


def reached(items: Sequence[pytest.Item]) -> dict[str, Reached]:
    """What each test reaches; looked up where neither the test's file nor what it stands on has changed since."""
    KEPT.mkdir(parents=True, exist_ok=True)
    ground = _hash([*(SOURCE / "joulebox" / "accounting").glob("*.py"), SOURCE / "joulebox" / "metering.py"])
    found: dict[str, Reached] = {}
    for path in dict.fromkeys(item.path for item in items):
        kept = (
            KEPT / f"{path.stem}-{hashlib.sha256((ground + _hash(_standing_on(path))).encode()).hexdigest()[:16]}.json"
        )
        if not kept.exists():
            for old in KEPT.glob(f"{path.stem}-*.json"):
                old.unlink()
            if os.waitstatus_to_exitcode(_forked(lambda path=path, kept=kept: _look(items, path, kept), 600.0)):
                raise SystemExit(f"{path.name} fails as it is")
        found |= {key: Reached(**value) for key, value in json.loads(kept.read_text()).items()}
    return found


def _look(items: Sequence[pytest.Item], path: Path, kept: Path) -> int:
    looker = coverage.Coverage(
        data_file=None, include=[f"{SOURCE}/joulebox/accounting/*", f"{SOURCE}/joulebox/metering.py"]
    )
    warnings.simplefilter("ignore")
    looker.start()
    took: dict[str, float] = {}
    for item in (one for one in items if one.path == path):
        looker.switch_context(item.nodeid)
        begun_s = time.process_time()
        if not _passes(item):
            return 1
        took[item.nodeid] = time.process_time() - begun_s
    looker.stop()
    data, lines = looker.get_data(), defaultdict[str, dict[str, list[int]]](dict)
    for file in data.measured_files():
        for line, tests in data.contexts_by_lineno(file).items():
            for test in tests:
                lines[test].setdefault(str(Path(file).relative_to(SOURCE)), []).append(line)
    kept.write_text(json.dumps({test: {"s": s, "lines": lines[test]} for test, s in took.items()}))
    return 0


def _passes(item: pytest.Item) -> bool:
    reports = runtestprotocol(item, log=False, nextitem=None)
    return not any(report.failed for report in reports)


def _forked(work: Any, most_s: float) -> int:
    """The wait status of a child that does the work and ends with what it returns; killed after so long."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 3
        try:
            null = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(null, stream)
            code = work()
        finally:
            os._exit(code)
    until_s = time.monotonic() + most_s
    pause_s = 0.0005
    while time.monotonic() < until_s:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.3, 0.02)
    os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def _try(mutant: Mutant, tests: Sequence[pytest.Item], told: Path) -> int:
    """0 where all tests pass. What told it is written down."""
    try:
        put_in(mutant)
    except Exception as error:  # noqa: BLE001 - whatever a broken module raises
        told.write_text(f"import: {error!r}")
        return 1
    for item in tests:
        told.write_text(item.nodeid)
        if not _passes(item):
            return 1
    return 0


class Runner:
    """The place of pytest's loop over the tests that were collected."""

    def __init__(
        self, chosen: Sequence[Mutant], explained: Mapping[tuple[str, ...], str], given: argparse.Namespace
    ) -> None:
        self.chosen, self.explained, self.verbose, self.slow = chosen, explained, given.verbose, given.slow
        self.lived: list[Mutant] = []
        self.late = 0

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = [item for item in session.items if "where" not in getattr(item, "fixturenames", ())]
        reach = reached(items)
        by_id = {item.nodeid: item for item in items}
        kills: dict[str, Counter[str]] = defaultdict(Counter)
        told = KEPT / f"told-{os.getpid()}"
        for number, mutant in enumerate(self.chosen, 1):
            if mutant.key in self.explained:
                continue
            names = sorted(self._reaching(mutant, reach), key=lambda name: reach[name].s)
            quick = sum(reach[name].s <= QUICK_S for name in names)
            names = names if self.slow else names[: quick + SLOWER]
            names.sort(key=lambda name: -kills[mutant.function][name])
            most_s = CHILD_S + 10 * sum(reach[name].s for name in names)
            told.write_text("")
            status = _forked(lambda m=mutant, n=names: _try(m, [by_id[one] for one in n], told), most_s)
            if status == 0:
                self.lived.append(mutant)
                print(f"\nlives: {mutant.file}:{mutant.first_line} {mutant.function} ({len(names)} tests)")
                print(f"  - {mutant.was}\n  + {mutant.now}", flush=True)
            else:
                self.late += os.WIFSIGNALED(status)
                kills[mutant.function][told.read_text()] += 1
            if self.verbose and number % 100 == 0:
                print(f"\n{number} of {len(self.chosen)}", flush=True)
        told.unlink()
        return True

    def _reaching(self, mutant: Mutant, reach: Mapping[str, Reached]) -> list[str]:
        wanted = set(range(mutant.first_line, mutant.last_line + 1))
        found = []
        for name, one in reach.items():
            lines = one.lines.get(mutant.file, ())
            if (lines and not mutant.function) or not wanted.isdisjoint(lines):
                found.append(name)
        return found


# --- what comes out ---------------------------------------------------------------------------------------------------


def explained() -> dict[tuple[str, ...], str]:
    """The changes that change nothing anybody could see, each with its reason."""
    path = Path(__file__).with_name("mutants.toml")
    told = tomllib.loads(path.read_text()).get("same", []) if path.exists() else []
    return {
        (f"joulebox/{one['file']}", one["function"], one["was"], now): one["why"] for one in told for now in one["now"]
    }


def lived_last_time() -> list[list[str]]:
    """The keys of the changes that no test told when they were last tried."""
    path = KEPT / LIVED
    return json.loads(path.read_text()) if path.exists() else []


def keep_lived(tried: Sequence[Mutant], lived: Sequence[Mutant]) -> None:
    """Note which of those tried lived; what is known of others stays."""
    keys = {one.key for one in tried}
    kept = [key for key in lived_last_time() if tuple(key) not in keys] + [list(one.key) for one in lived]
    (KEPT / LIVED).write_text(json.dumps(kept, indent=0))


def interval(killed: int, tried: int) -> tuple[float, float]:
    """Wilson's, 95 %."""
    z, p = 1.96, killed / tried
    middle, half = p + z * z / (2 * tried), z * sqrt(p * (1 - p) / tried + z * z / (4 * tried * tried))
    return (middle - half) / (1 + z * z / tried), (middle + half) / (1 + z * z / tried)


def table(chosen: Sequence[Mutant], runner: Runner) -> Iterator[str]:
    yield f"{'file':34} {'mutants':>8} {'told':>6} {'same':>5} {'live':>5}"
    lived = Counter(one.file for one in runner.lived)
    same = Counter(one.file for one in chosen if one.key in runner.explained)
    for file, count in Counter(one.file for one in chosen).items():
        yield f"{file:34} {count:>8} {count - lived[file] - same[file]:>6} {same[file]:>5} {lived[file]:>5}"
    count, live, equal = len(chosen), lived.total(), same.total()
    yield f"{'all':34} {count:>8} {count - live - equal:>6} {equal:>5} {live:>5}"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("files", nargs="*", help="names of files, as `energy`; all by default")
    options.add_argument("--sample", type=int, help="so many mutants by lot")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--part", default="1/1", help="the n-th of m parts, as 1/2")
    options.add_argument("--again", action="store_true", help="only those that lived last time")
    options.add_argument("--slow", action="store_true", help=f"also by tests that take longer than {QUICK_S} s")
    options.add_argument("--without", action="append", default=[], help="a test file that is left out, as `method`")
    options.add_argument("--verbose", action="store_true")
    given = options.parse_args()
    wanted = [file for file in FILES if not given.files or Path(file).stem in given.files or file in given.files]
    every = [mutant for file in wanted for mutant in mutants_of(file)]
    if stale := [key for key in explained() if key[0] in wanted and key not in {one.key for one in every}]:
        raise SystemExit("These of mutants.toml are no changes of the code any more:\n" + "\n".join(map(str, stale)))
    chosen = random.Random(given.seed).sample(every, min(given.sample, len(every))) if given.sample else every
    part, parts = map(int, given.part.split("/"))
    chosen = chosen[part - 1 :: parts]
    if given.again:
        last = lived_last_time()
        chosen = [one for one in chosen if list(one.key) in last]
    runner = Runner(chosen, explained(), given)
    tests = [
        str(path)
        for name in TESTS
        if name not in given.without and (path := ROOT / "tests" / f"test_{name}.py").exists()
    ]
    settings.register_profile("mutants", deadline=None, derandomize=True, database=None)
    how = ["-q", "-p", "no:cacheprovider", "-o", "timeout=0", "-m", "not slow", "--hypothesis-profile=mutants"]
    code = pytest.main([*how, *tests], [runner])
    if code:
        return int(code)
    keep_lived(chosen, runner.lived)
    print("\n".join(("", *table(chosen, runner))))
    tried = [one for one in chosen if one.key not in runner.explained]
    print(f"{runner.late} were told because they never ended")
    if given.sample and tried:
        low, high = interval(len(tried) - len(runner.lived), len(tried))
        print(f"{given.sample} of {len(every)} by lot (seed {given.seed}): {low:.1%} to {high:.1%} (95 %) are told")
    return 1 if runner.lived else 0


if __name__ == "__main__":
    raise SystemExit(main())
