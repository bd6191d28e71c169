"""The page on adding a meter is carried out: its driver passes its test, reads a machine and keeps the house style."""

import ast
import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

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
