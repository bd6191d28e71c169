"""The pages that tell people how to do something are run, so that what they say works."""

import ast
import importlib.util
import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import typer
from typer.main import get_command

from joulebox.cli import app
from joulebox.node.meters import KINDS, open_meters
from joulebox.rig.physics import Machine
from joulebox.rig.wall import Wall

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "how-to" / "add-a-meter.md"
DRIVER, NAMES, TEST = (
    "src/joulebox/node/meters/watt_file.py",
    "src/joulebox/node/meters/__init__.py",
    "tests/test_meter_watt_file.py",
)

TELLS = [ROOT / "README.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]


def files_of(page: Path) -> dict[str, str]:
    """The Python that a page shows, by the file that it belongs in."""
    found = re.findall(
        r"^`([^`\n]+)`[^\n]*:\n\n```python\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    return dict(found)


def module_of(path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A file as the module of that name, while the test lasts."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder laid out as the page says, its driver registered."""
    for name, text in files_of(PAGE).items():
        path = tmp_path / "page" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for kind, module in ast.literal_eval("{" + files_of(PAGE)[NAMES] + "}").items():
        monkeypatch.setitem(KINDS, kind, module)
        module_of(tmp_path / "page" / DRIVER, module, monkeypatch)
    return tmp_path / "page"


def test_the_page_shows_driver_name_and_test() -> None:
    """The page holds the three files a new meter needs, and a driver as short as the rule asks."""
    files = files_of(PAGE)
    assert set(files) == {DRIVER, NAMES, TEST}
    assert files[DRIVER].count("\n") < 90


def test_the_driver_of_the_page_passes_the_test_of_the_page(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example, registered as the page says, conforms to what every driver must do."""
    shown = module_of(folder / TEST, "test_meter_watt_file", monkeypatch)
    tests = [each for name, each in inspect.getmembers(shown, inspect.isfunction) if name.startswith("test_")]
    assert len(tests) == 2
    assert set(shown.CONFORMS) <= set(KINDS)
    for each in tests:
        each(tmp_path)


def test_the_driver_of_the_page_reads_a_machine(folder: Path, tmp_path: Path) -> None:
    """What a program writes of the rig's wall power comes out of the driver in watts."""
    wall, path = Wall(Machine(1)), tmp_path / "watts"
    path.write_text(f"{wall.power_w(10):.6f}\n")
    (meter,) = open_meters([f"wattfile:{path}"])
    (raw,) = meter.read()
    assert raw is not None
    assert raw * meter.channels()[0].step == pytest.approx(wall.power_w(10), abs=0.001)
    meter.close()


def test_the_code_of_the_page_keeps_the_house_style(folder: Path) -> None:
    """Format and lint find nothing in the files of the page."""
    files = [str(folder / name) for name in (DRIVER, TEST)]
    for words in (["format", "--check"], ["check"]):
        line = [sys.executable, "-m", "ruff", *words, "--no-cache", "--config", str(ROOT / "pyproject.toml"), *files]
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


def commands_of(page: Path) -> list[str]:
    """What a page's blocks have people type: each `joulebox ...` up to whatever else the shell is told."""
    text = page.read_text("utf-8").replace("\\\n", "")
    fenced = r"^```(?:bash|sh|console)?\n.*?^```$"
    lines: list[str] = re.findall(fenced, text, re.DOTALL | re.MULTILINE)
    lines += re.findall(r"^ {4}\S.*$", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    typed = r"""(?<![\w./-])joulebox (?!joulebox)[a-z](?:"[^"]*"|'[^']*'|[^"'|&;>)#`\n])*"""
    return re.findall(typed, "\n".join(lines))


@pytest.mark.parametrize("page", TELLS, ids=lambda page: page.name)
def test_the_commands_of_a_page_are_there(page: Path) -> None:
    """Every command that a page has people type is one, and takes the arguments that stand behind it."""
    for typed in commands_of(page):
        command, words = get_command(app), shlex.split(typed)[1:]
        while (deeper := getattr(command, "commands", {}).get(words[0] if words else "")) is not None:
            command, words = deeper, words[1:]
        assert command.name != get_command(app).name, typed
        try:
            command.make_context(command.name, words)
        except typer.TyperException as error:
            raise AssertionError(f"{typed}: {error}") from error


def test_pages_have_commands() -> None:
    """The search for commands finds them in blocks with and without a shell's name, and in lines of code."""
    found = {page.name: commands_of(page) for page in TELLS}
    assert any("joulebox tokens create $name" in one for one in found["run-a-fleet.md"])
    assert "joulebox tokens audit" in found["expose-a-server.md"]
    assert "joulebox doctor" in found["clean-machine.md"]
