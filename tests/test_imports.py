"""The command line is quick because nothing heavy is imported before it is needed."""

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import pytest

import joulebox

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


def help_s() -> float:
    """Seconds from starting `joulebox --help` to its end."""
    started = time.perf_counter()
    done = subprocess.run([SCRIPT, "--help"], capture_output=True, text=True, check=True, timeout=60)
    assert "ask" in done.stdout
    return time.perf_counter() - started


@needs_cli
def test_help_is_instant() -> None:
    """`joulebox --help` takes under 0.3 s, median of 7, in one of three tries, since other tests share the machine."""
    medians = []
    for _ in range(3):
        medians.append(median(help_s() for _ in range(7)))
        if medians[-1] < 0.3:
            return
    pytest.fail(f"joulebox --help took {', '.join(f'{each:.2f} s' for each in medians)} (medians of 7)")
