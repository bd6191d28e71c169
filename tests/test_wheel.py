"""What people install: the wheel holds everything and runs away from the repository."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WITHOUT_CODE = (
    "server/grid/intensity_yearly.csv",
    "server/grid/LICENSE-ODbL-notice",
    "server/docs/method.md",
    "server/templates/base.html",
    "server/static/app.js",
    "models.toml",
    "py.typed",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked wheel, which comes before the editable install on the path."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def run(site: Path, *arguments: str) -> str:
    """What a fresh Python prints that sees the unpacked wheel first and starts in an empty folder."""
    environment = os.environ | {"PYTHONPATH": str(site)}
    empty = site.parent / "empty"
    empty.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, *arguments], cwd=empty, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def test_the_wheel_holds_what_is_not_code(site: Path) -> None:
    """Grid table, licences, templates, page scripts and migrations travel with the code."""
    assert [name for name in WITHOUT_CODE if not (site / "joulebox" / name).is_file()] == []
    assert list((site / "joulebox/server/store/migrations").rglob("*.py")) != []
    assert list(site.glob("*.dist-info/licenses/**/LICENSE-ODbL-notice")) != []


def test_the_wheel_runs_outside_the_repository(site: Path) -> None:
    """The unpacked wheel answers from its own files, and the table is where the code looks for it."""
    code = "import joulebox; from joulebox.server.grid import zones; print(joulebox.__file__, len(zones()))"
    where, count = run(site, "-c", code).split()
    assert Path(where).is_relative_to(site)
    assert count == "352"


@pytest.mark.skipif(
    not (ROOT / "src/joulebox/cli.py").exists(), reason="the command line (joulebox.cli) is not built yet"
)
def test_the_command_line_of_the_wheel_starts(site: Path) -> None:
    """`python -m joulebox --help` of the wheel lists the commands."""
    listed = run(site, "-m", "joulebox", "--help")
    assert [command for command in ("up", "ask", "demo", "models", "meters") if command not in listed] == []
