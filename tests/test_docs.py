"""Every block of README and docs is run or read by a program, so that what the pages say works; pages keep rules."""

import ast
import configparser
import importlib
import json
import re
import shlex
import subprocess
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.main import get_command

import doc_blocks
import website
from doc_blocks import MADE, REASONS, ROOT, SHELL, Block, blocks, pages, run_by
from joulebox.cli import app
from joulebox.errors import REGISTRY
from joulebox.settings import Settings, load_settings
from reference import VARIABLES

COMMANDS: Any = get_command(app)
BLOCKS = [block for page in pages() for block in blocks(page)]
WRITTEN = [page for page in pages() if MADE not in page.read_text("utf-8") and page.name != "CHANGELOG.md"]
LANGUAGES = (
    *(*SHELL, "python", "toml", "json", "jsonl", "ini", "yaml", "env", "text", "http", "sql", "promql"),
    *("nginx", "caddyfile", "dockerfile"),
)
NOT_RUN_SHARE = 0.5
"""At most so many of the shell blocks are only looked at."""


def name_of(value: Path | Block) -> str:
    """A page or block as a test's name."""
    return value.where if isinstance(value, Block) else value.relative_to(ROOT).as_posix()


def test_every_block_says_what_it_is() -> None:
    """Each fence has a language that is known here, each comment before it is understood, and each reason is one."""
    wrong = [
        f"{block.where}: write what this block is after the fence: {', '.join(LANGUAGES)}."
        for block in BLOCKS
        if block.language not in LANGUAGES
    ]
    wrong += [
        f"{block.where}: the comment {mark!r} is not understood; tests/doc_blocks.py says which are."
        for block in BLOCKS
        for mark in block.marks
        if mark not in {"not run", "fails", "prints", "shortened", "server stopped"} and not mark.startswith("run by")
    ]
    wrong += [
        f"{block.where}: say why it is not run, beginning with one of: {', '.join(REASONS)}."
        for block in BLOCKS
        if block.not_run is not None and not block.not_run.startswith(REASONS)
    ]
    assert not wrong, "\n  ".join(["", *wrong])


def test_few_blocks_are_not_run() -> None:
    """What people type is run, but for a small part, each with its reason (`pytest -s` lists them)."""
    typed = [block for block in BLOCKS if block.language in (*SHELL, "python")]
    left = [block for block in typed if block.not_run is not None]
    reasons = Counter(next(one for one in REASONS if (block.not_run or "").startswith(one)) for block in left)
    print(f"\n{len(typed)} blocks to type, {len(left)} of them not run: {dict(reasons)}")
    print(*(f"  {block.where}: {block.not_run}" for block in left), sep="\n")
    told = "\n  ".join(f"{block.where}: {block.not_run}" for block in left)
    assert len(left) <= NOT_RUN_SHARE * len(typed), f"too many are not run; let some be:\n  {told}"


def test_a_page_run_by_a_test_of_its_own_names_one() -> None:
    """The test that a page says it is run by exists and knows the page."""
    wrong = [
        f"{name_of(page)}: {test} does not run it."
        for page in pages()
        if (test := run_by(page)) is not None
        and not ((ROOT / test).is_file() and page.name in (ROOT / test).read_text("utf-8"))
    ]
    assert not wrong, "\n  ".join(["", *wrong])


def test_shell_blocks_are_well_formed() -> None:
    """Bash can read each block of commands."""
    for block in BLOCKS:
        if block.language in SHELL:
            done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{block.where}: {done.stderr}"


PYTHON = [block for block in BLOCKS if block.language == "python" and run_by(block.page) is None]


@pytest.mark.parametrize("block", PYTHON, ids=name_of)
def test_python_blocks_are_well_formed(block: Block) -> None:
    """Each block of Python can be read, and what it takes from Joulebox is there."""
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "joulebox":
            module = importlib.import_module(node.module or "")
            missing = [one.name for one in node.names if not hasattr(module, one.name)]
            assert not missing, f"{block.where}: {node.module} has no {', '.join(missing)}"


@pytest.mark.parametrize(
    "block", [one for one in BLOCKS if one.language in ("toml", "json", "jsonl", "ini", "yaml", "env")], ids=name_of
)
def test_data_blocks_can_be_read(block: Block, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """TOML, JSON, INI and YAML are what they say; settings in them are settings with values that can be used."""
    if "shortened" in block.marks:
        return
    match block.language:
        case "toml":
            values = tomllib.loads(block.text)
            if block.file == "joulebox.toml":
                (tmp_path / "joulebox.toml").write_text(block.text)
                monkeypatch.chdir(tmp_path)
                assert load_settings().model_fields_set >= set(values)
        case "json":
            json.loads(block.text)
        case "jsonl":
            assert all(isinstance(json.loads(line), dict) for line in block.text.splitlines())
        case "yaml":
            assert all(part is not None for part in yaml.safe_load_all(block.text))  # type: ignore[no-untyped-call]
        case "ini":
            parser = configparser.ConfigParser(strict=False, allow_no_value=True, interpolation=None)
            parser.read_string(block.text)
        case _:
            for line in block.text.splitlines():
                name, equals, value = line.partition("=")
                assert equals or not line.strip(), f"{block.where}: {line} is no NAME=value"
                if not name.endswith("_FILE"):
                    monkeypatch.setenv(name, value.strip('"'))
            monkeypatch.chdir(tmp_path)
            load_settings()


def commands_of(page: Path) -> list[str]:
    """What a page's blocks have people type: each `joulebox ...` up to whatever else the shell is told."""
    text = page.read_text("utf-8").replace("\\\n", "")
    fenced = r"^ *```(?:bash|sh)\n.*?^ *```$"
    lines: list[str] = re.findall(fenced, text, re.DOTALL | re.MULTILINE)
    without = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)
    lines += re.findall(r"^ {4}\S.*$", without, re.MULTILINE)
    typed = r"""(?<![\w./-])(?<!install )joulebox (?!joulebox)[a-z](?:"[^"]*"|'[^']*'|[^"'|&;>)#`\n])*"""
    return re.findall(typed, "\n".join(lines))


@pytest.mark.parametrize("page", [page for page in pages() if commands_of(page)], ids=name_of)
def test_the_commands_of_a_page_are_there(page: Path) -> None:
    """Every command that a page has people type is one, and takes the arguments that stand behind it."""
    for typed in commands_of(page):
        command = COMMANDS
        words = shlex.split(typed)[1:]
        while (deeper := getattr(command, "commands", {}).get(words[0] if words else "")) is not None:
            command, words = deeper, words[1:]
        assert command is not COMMANDS, typed
        try:
            command.make_context(command.name, words)
        except typer.TyperException as error:
            raise AssertionError(f"{name_of(page)}: {typed}: {error}") from error


def test_pages_have_commands() -> None:
    """The search for commands finds them in blocks with and without a shell's name, and in lines of code."""
    found = {page.name: commands_of(page) for page in pages()}
    assert any("joulebox tokens create $name" in one for one in found["run-a-fleet.md"])
    assert "joulebox doctor" in found["clean-machine.md"]


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_names_on_a_page_are_names(page: Path) -> None:
    """Every variable and every command in a line of code is one."""
    text = page.read_text("utf-8")
    known = {*VARIABLES, *(f"JOULEBOX_{name.upper()}" for name in Settings.model_fields)}
    named = {re.sub(r"_FILE$", "", name) for name in re.findall(r"\bJOULEBOX_[A-Z][A-Z0-9_]*[A-Z0-9]\b", text)}
    assert sorted(name for name in named if name not in known and f"{name}_FILE" not in known) == []
    for words in re.findall(r"`joulebox ([a-z]+)", text):
        assert words in COMMANDS.commands, f"`joulebox {words}` is no command"


def test_pages_are_in_the_navigation_once() -> None:
    """Each page of the site stands under one heading, made from its folder, and its links lead to pages or files."""
    listed = [name for names in website.navigation().values() for name in names]
    assert [name for name, count in Counter(listed).items() if count > 1] == []
    below = {page.name for page in website.pages() if page.name.startswith(website.WITHIN)}
    assert {page.name for page in website.pages()} - {"index"} == (set(listed) | below) - {"decisions/index"}


def test_a_page_in_no_folder_of_the_navigation_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that the navigation would leave out ends the build with a sentence that names it."""
    lost = website.Page(source=ROOT / "README.md", place="elsewhere/lost.md")
    monkeypatch.setattr(website, "pages", lambda: [lost])
    with pytest.raises(SystemExit, match="In no navigation: elsewhere/lost"):
        website.navigation()


def test_the_pages_are_laid_out_with_links_that_lead_somewhere(tmp_path: Path) -> None:
    """Laid out for the generator, every relative link names a file that lies there, and no comment is left."""
    website.lay_out(tmp_path)
    wrong = []
    for page in sorted(tmp_path.rglob("*.md")):
        if "files" in page.relative_to(tmp_path).parts:
            continue
        text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
        targets = re.findall(r"\]\(<?([^)\s>#]+)", text)
        wrong += [
            f"{page.relative_to(tmp_path)}: {target}"
            for target in targets
            if not re.match(r"[a-z]+:", target) and not (page.parent / target).exists()
        ]
        assert "<!--" not in text, page
    assert not wrong, "\n  ".join(["", *wrong])


def test_the_glossary_has_every_word_of_the_receipt() -> None:
    """Each term has one sentence and a source, and the words of ISO 21031 and of the phases are among them."""
    terms = website.terms()
    wanted = {"SCI", "O", "E", "I", "M", "TE", "EL", "TiR", "RR/ToR", "R", "TTFT", "TPOT", "lease", "rescue", "attempt"}
    wanted |= {"node", "meter", "reading", "scope", "trace", "settle", "prefill", "decode", "tail", "answer energy"}
    wanted |= {"active energy", "full energy", "measured", "modelled", "simulated", "receipt", "engine", "guard"}
    assert sorted(wanted - set(terms)) == []
    assert [term for term, (sentence, source) in terms.items() if not sentence.endswith(".") or not source] == []


def test_links_to_elsewhere_are_https() -> None:
    """Addresses of other sites are well formed and go over TLS, unless they are of this machine or an example."""
    wrong = []
    for page in WRITTEN:
        text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text("utf-8"), flags=re.DOTALL)
        found = re.findall(r"(?<=[(<])http://(?!127\.0\.0\.1|localhost)[^)>\s]+", text)
        wrong += [f"{name_of(page)}: {link}" for link in found]
    assert not wrong, "\n  ".join(["", *wrong])


def test_error_codes_in_text_are_codes() -> None:
    """A page that names the code of an answer names one that there is."""
    for page in WRITTEN:
        for status, code in re.findall(r"\b(4\d\d|5\d\d)\s+`([a-z_]+)`", page.read_text("utf-8")):
            assert REGISTRY[code].status == int(status), f"{name_of(page)}: {status} `{code}`"


def test_the_receipt_of_the_readme_was_printed() -> None:
    """The receipt that the README shows is the one that `make pictures` printed."""
    (shown,) = [block.text for block in BLOCKS if block.page == ROOT / "README.md" and block.language == "text"]
    assert shown == (ROOT / "docs/images/receipt.txt").read_text("utf-8")


def test_an_example_is_compared_line_by_line() -> None:
    """What a page shows is found in what was printed, figures apart, and what is not there is named."""
    printed = "smollm2  Q4_1  file 98 MB\nThis machine has 8.1 GB of memory for a model.\n"
    assert doc_blocks.unlike("smollm2 Q4_1 file 12 MB\n...\n", printed) == []
    assert doc_blocks.unlike("This machine has 1 GB of memory.\n", printed) == ["This machine has 1 GB of memory."]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", [page for page in pages() if doc_blocks.runs(page)], ids=name_of)
def test_a_page_word_for_word(page: Path, tmp_path: Path, smollm2: Path) -> None:
    """The blocks of a page, in their order, in an empty folder, do what they say: the real service and a real model."""
    code, printed, said = doc_blocks.carried_out(page, tmp_path, smollm2)
    assert code == 0, said
    before: Block | None = None
    for block in blocks(page):
        if "prints" in block.marks:
            assert before is not None, f"{block.where}: no block before it prints anything"
            missing = doc_blocks.unlike(block.text, printed[before.line])
            assert not missing, f"{block.where} was not printed: {missing}; but:\n{printed[before.line]}"
        elif block.line in printed:
            before = block
