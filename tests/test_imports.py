"""The command line is quick because nothing heavy is imported before it is needed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import joulebox
from commands import uncounted

HEAVY = (
    "alembic",
    "fastapi",
    "granian",
    "httpx2",
    "jinja2",
    "numpy",
    "pydantic",
    "sqlalchemy",
    "starlette",
    "xllamacpp",
)
SCRIPT = Path(sys.executable).with_name("joulebox")
needs_cli = pytest.mark.skipif(
    not Path(joulebox.__file__).with_name("cli.py").exists(), reason="the command line (joulebox.cli) is not built yet"
)


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after `statement`."""
    code = f"import sys; {statement}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["joulebox", pytest.param("joulebox.cli", marks=needs_cli)])
def test_importing_loads_nothing_heavy(module: str) -> None:
    """Importing the package or the command line loads no web, database or model library."""
    assert loaded_by(f"import {module}").isdisjoint(HEAVY)


def import_s(statement: str) -> float:
    """Processor seconds of a fresh interpreter that does this and ends."""
    before = os.times()
    subprocess.run([sys.executable, "-c", statement], check=True, timeout=60)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def test_importing_the_package_is_instant() -> None:
    """`import joulebox` takes at most 0.1 s, the quickest of up to 10, and the client is there when it is asked for."""
    took_s: list[float] = []
    while len(took_s) < 10 and min(took_s, default=1.0) > 0.1:
        took_s.append(import_s("import joulebox") - import_s("pass"))
    assert min(took_s) <= 0.1
    assert "httpx2" in loaded_by("from joulebox import Client, JouleboxError")


def help_s() -> float:
    """Processor seconds of `joulebox --help`: on a machine with nothing else to do, how long it takes."""
    before = os.times()
    done = subprocess.run([SCRIPT, "--help"], env=uncounted(), capture_output=True, text=True, check=True, timeout=60)
    assert "ask" in done.stdout
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


@needs_cli
def test_help_is_instant() -> None:
    """`joulebox --help` takes under 0.3 s, the quickest of up to 14, since other tests share the machine's caches."""
    took_s: list[float] = []
    while len(took_s) < 14 and min(took_s, default=1.0) >= 0.3:
        took_s.append(help_s())
    assert min(took_s) < 0.3
