"""The house rules, held by a test: sizes, names, units, clocks, docstrings, codes, links (after TigerBeetle's tidy)."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from joulebox.errors import REGISTRY

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "joulebox"
FUNCTION_LINES_MAX = 70
FUNCTION_LINES_P95 = 35
FILE_LINES_MAX = 800
FILE_BYTES_MAX = 1_000_000
BANNED_MODULES = {"utils", "util", "common", "helpers", "helper", "manager", "managers", "misc"}
BANNED_WORDS = {"worker": "node", "workers": "node", "sample": "reading", "samples": "reading", "manager": "a noun"}
THE_FIELDS_OWN_WORD = {"bench"}
"""Packages where a sample is one item of a task, as in Inspect."""
BANNED_UNITS = re.compile(
    r"_(mj|kj|uj|mw|kw|uw|ms|us|sec|secs|seconds|minutes|hours|joules|watts|celsius|millis|micros|wh|tons|grams)$"
)
INSTRUMENTS = ("src/joulebox/node/meters/", "src/joulebox/node/sysfs.py", "src/joulebox/rig/")
"""Where the instruments' own units are spoken, e.g. the kernel's microjoules."""
CONSTANTS = {3_600, 3_600_000, 86_400, 31_536_000}
ELSEWHERE = re.compile(
    r"(?<![\w.~:/])/(?:work|root|home/\w+|Users/\w+|opt/pypi|opt/wheels)/|extra-index-url|--find-links"
)


@dataclass(frozen=True, kw_only=True)
class Function:
    """A function as the rules see it."""

    where: str
    node: ast.FunctionDef | ast.AsyncFunctionDef
    lines: int


def python_files(*folders: Path) -> list[Path]:
    """All Python files of the folders."""
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def relative(path: Path) -> str:
    """The path as people write it."""
    return path.relative_to(ROOT).as_posix()


def functions(*folders: Path) -> Iterator[Function]:
    """All functions of the folders; a docstring does not count as length."""
    for path in python_files(*folders):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0]
                documented = ast.get_docstring(node) is not None
                doc_lines = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
                length = (node.end_lineno or 0) - node.lineno + 1 - doc_lines
                yield Function(where=f"{relative(path)}:{node.lineno} {node.name}", node=node, lines=length)


def bound_names(path: Path) -> Iterator[tuple[int, str]]:
    """Names that a file gives to things: modules, classes, functions, arguments, variables, attributes."""
    yield 1, path.stem
    for node in ast.walk(tree(path)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.arg(arg=name):
                yield node.lineno, name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name


def words(name: str) -> list[str]:
    """The words of a name in either case style."""
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower().split("_")


def one_a_line(wrong: list[str]) -> str:
    """What breaks a rule, as a person wants to read it."""
    return "\n  ".join(["", *wrong])


def text_files() -> Iterator[tuple[Path, str]]:
    """Every text file of the project."""
    ours = [path for path in ROOT.glob("*") if path.is_file() and path.name != ".git"]
    tops = [path for path in ours if not path.name.startswith("demo-receipt")]
    below = [
        path for folder in ("src", "tests", "docs", ".ci") for path in (ROOT / folder).rglob("*") if path.is_file()
    ]
    for path in sorted(tops + below):
        if "__pycache__" in path.parts:
            continue
        try:
            yield path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def test_no_function_is_longer_than_a_screen() -> None:
    """A function has at most 70 lines without its docstring, in the product and in the tests."""
    wrong = [
        f"{each.where}: {each.lines}" for each in functions(SRC, ROOT / "tests") if each.lines > FUNCTION_LINES_MAX
    ]
    assert not wrong, one_a_line(wrong)


def test_most_functions_are_short() -> None:
    """95 of 100 functions of the product have at most 35 lines."""
    lengths = sorted(each.lines for each in functions(SRC))
    assert lengths[int(len(lengths) * 0.95)] <= FUNCTION_LINES_P95


def test_no_file_is_too_long() -> None:
    """A Python file has at most 800 lines, and nothing in the tree is over a megabyte."""
    lengths = {
        relative(path): path.read_text(encoding="utf-8").count("\n") for path in python_files(SRC, ROOT / "tests")
    }
    assert {path: lines for path, lines in lengths.items() if lines > FILE_LINES_MAX} == {}
    wrong = [relative(path) for path, _ in text_files() if path.stat().st_size > FILE_BYTES_MAX]
    assert not wrong, one_a_line(wrong)


def test_every_argument_and_result_has_a_type() -> None:
    """All functions say the types of what they take and give, `self` and `cls` apart."""
    bare = []
    for each in functions(SRC, ROOT / "tests", ROOT / "docs"):
        arguments = each.node.args
        named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        named += [star for star in (arguments.vararg, arguments.kwarg) if star is not None]
        untyped = [
            argument.arg for argument in named if argument.annotation is None and argument.arg not in ("self", "cls")
        ]
        if untyped or each.node.returns is None:
            bare.append(f"{each.where}: {', '.join(untyped) or 'result'}")
    assert not bare, one_a_line(bare)


def test_every_module_says_what_it_is() -> None:
    """Each Python file begins with a docstring."""
    files = python_files(SRC, ROOT / "tests", ROOT / "docs")
    wrong = [relative(path) for path in files if not ast.get_docstring(tree(path))]
    assert not wrong, one_a_line(wrong)


def test_no_module_is_a_drawer_for_anything() -> None:
    """No module or folder is called utils, common, helpers or manager."""
    paths = [path.relative_to(SRC) for path in python_files(SRC)]
    wrong = [path.as_posix() for path in paths if BANNED_MODULES & set(path.with_suffix("").parts)]
    assert not wrong, one_a_line(wrong)


def test_one_word_for_one_thing() -> None:
    """A node is never a worker and a reading never a sample, in any name the product makes."""
    wrong = [
        f"{relative(path)}:{line} {name}: say {BANNED_WORDS[word]}"
        for path in python_files(SRC)
        if not THE_FIELDS_OWN_WORD & set(path.relative_to(SRC).parts)
        for line, name in bound_names(path)
        for word in words(name)
        if word in BANNED_WORDS
    ]
    assert not wrong, one_a_line(wrong)


def test_units_stand_last_and_are_the_plain_ones() -> None:
    """Names end in j, w, s, ns, g, kg, c or the units ISO asks for, never in milli-, kilo- or spelled-out units."""
    wrong = [
        f"{relative(path)}:{line} {name}"
        for path in python_files(SRC)
        if not relative(path).startswith(INSTRUMENTS)
        for line, name in bound_names(path)
        if BANNED_UNITS.search(name.lower()) and "_per_" not in name.lower()
    ]
    assert not wrong, one_a_line(wrong)


def test_conversion_constants_live_in_one_place() -> None:
    """Seconds an hour, joules a kilowatt hour and their like are written in units.py alone."""
    wrong = [
        f"{relative(path)}:{node.lineno} {node.value}"
        for path in python_files(SRC)
        if path.name != "units.py"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and type(node.value) in (int, float) and node.value in CONSTANTS
    ]
    assert not wrong, one_a_line(wrong)


def test_only_clock_py_reads_clocks() -> None:
    """No other module imports `time`, so that a handed-in clock is the only time there is."""
    readers = {
        relative(path)
        for path in python_files(SRC)
        for node in ast.walk(tree(path))
        if (isinstance(node, ast.Import) and any(alias.name == "time" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and node.module == "time")
    }
    assert readers == {"src/joulebox/clock.py"}


def test_every_test_says_what_it_shows() -> None:
    """Each test's docstring is one sentence of behaviour."""
    wrong = []
    for each in functions(ROOT / "tests"):
        if each.node.name.startswith("test_"):
            sentence = ast.get_docstring(each.node) or ""
            if not sentence.endswith(".") or re.search(r"[.!?]\s+[A-Z]|\n\n", sentence):
                wrong.append(each.where)
    assert not wrong, one_a_line(wrong)


def test_error_codes_are_registered_and_used() -> None:
    """Every code that is raised stands in the registry, and every code of the registry is used somewhere."""
    raised: dict[str, str] = {}
    written: set[str] = set()
    for path in python_files(SRC):
        if path.name == "errors.py":
            continue
        for node in ast.walk(tree(path)):
            match node:
                case ast.Call(func=ast.Name(id="JouleboxError"), args=[ast.Constant(value=str(code)), *_]):
                    raised[code] = f"{relative(path)}:{node.lineno}"
                case ast.Constant(value=str(code)):
                    written.add(code)
    assert {code: where for code, where in raised.items() if code not in REGISTRY} == {}
    unused = sorted(set(REGISTRY) - written - set(raised))
    assert not unused, one_a_line(unused)


def test_nothing_of_one_machine_is_committed() -> None:
    """No file names an absolute path of a developer's machine or a package host's option."""
    wrong = [
        f"{relative(path)}: {found.group()}"
        for path, text in text_files()
        if path != Path(__file__)
        if (found := ELSEWHERE.search(text))
    ]
    assert not wrong, one_a_line(wrong)


def test_readme_begins_with_the_two_commands() -> None:
    """Whoever opens the README meets `make demo` and `make test` within its first 25 lines."""
    top = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:25])
    wrong = [command for command in ("make demo", "make test") if command not in top]
    assert not wrong, one_a_line(wrong)


@pytest.mark.parametrize("page", sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]), ids=relative)
def test_relative_links_lead_somewhere(page: Path) -> None:
    """Each link and picture of a page that is not an address names a file that is there."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(<?([^)\s>]+)", text) + re.findall(r"(?:src|href)=\"([^\"]+)\"", text)
    local = [target.partition("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)]
    wrong = [target for target in local if not (page.parent / target).exists()]
    assert not wrong, one_a_line(wrong)


def test_changelog_knows_this_version() -> None:
    """The version of pyproject.toml has its heading in the changelog, or stands under Unreleased."""
    version = re.search(
        r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert version is not None
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{version.group(1)}]" in changelog or "## [Unreleased]" in changelog
