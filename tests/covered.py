"""`make coverage`: which branches the everyday tests reach, in every process they start. Fails below what is asked.

The pure core is what the import contract "Arithmetic reaches no input or output" holds, and what is said on the wire.
A process that is killed (SIGKILL, which crash tests do on purpose) takes what it reached along; SIGTERM does not.
"""

import argparse
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from coverage import Coverage

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "joulebox"
ELSEWHERE = (
    "bench/cell.py",  # runs in an interpreter of its own that has nothing but the standard library
    "bench/inspect_bridge.py",  # needs Inspect; `pytest -m slow tests/test_inspect_bridge.py` runs it where it is
    "node/engines/transformers.py",  # need torch; `make engine-transformers` runs them
    "node/engines/transformers_process.py",
)
CONTRACT = "Arithmetic reaches"
WIRE = ("joulebox.columns", "joulebox.evidence", "joulebox.protocol")
CORE_MIN, ALL_MIN = 100.0, 95.0
PROCESSES = 4


def core() -> Iterator[str]:
    """The files of the pure core."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (pure,) = (one["source_modules"] for one in contracts if one["name"].startswith(CONTRACT))
    for name in (*pure, *WIRE):
        path = ROOT / "src" / name.replace(".", "/")
        yield str(path / "*") if path.is_dir() else f"{path}.py"


def main() -> int:
    """The tests under coverage, then the core file by file and the whole in one line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--report", action="store_true", help="only tell what the last run reached")
    given, rest = options.parse_known_args()  # the rest is pytest's
    failed = 0
    if not given.report:
        subprocess.run([sys.executable, "-m", "coverage", "erase"], cwd=ROOT, check=True)
        how = ["-q", "-rs", "-n", str(PROCESSES), "--dist", "loadfile", "--no-loadscope-reorder"]
        how += ["-m", "not slow", *rest]
        # By its folder: migrations are loaded under other names, and tests copy and install the package elsewhere.
        run = ["coverage", "run", "--source", str(SOURCE), "--omit", ",".join(str(SOURCE / one) for one in ELSEWHERE)]
        failed = subprocess.run([sys.executable, "-m", *run, "-m", "pytest", *how], cwd=ROOT, check=False).returncode
        subprocess.run([sys.executable, "-m", "coverage", "combine", "-q"], cwd=ROOT, check=True)
    looked = Coverage(config_file=str(ROOT / "pyproject.toml"), data_file=str(ROOT / ".coverage"))
    looked.load()
    print("\nthe pure core, lines and branches:")
    core_ratio = looked.report(include=list(core()), show_missing=True, skip_covered=True)
    print("\neverything:")
    whole_ratio = looked.report(skip_covered=True, sort="cover")
    print(f"\npure core {core_ratio:.2f} % (asked: {CORE_MIN:g} %), all {whole_ratio:.2f} % (asked: {ALL_MIN:g} %)")
    return failed or int(core_ratio < CORE_MIN or whole_ratio < ALL_MIN)


if __name__ == "__main__":
    raise SystemExit(main())
