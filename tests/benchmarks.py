"""`make bench`: Joulebox beside its peers, in one run on this machine; writes `docs/benchmarks.md` and keeps every
single figure in `docs/benchmarks.json`.

    python tests/benchmarks.py [--only PART ...] [--rounds 3] [--suite 'COMMAND']

A part that fails is named in the page and the others go on; the exit code is then 1.
"""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

import bench_page
import postgres_server
from bench_page import Json, Part
from costs import machine_use
from joulebox.clock import SystemClock
from joulebox.units import seconds

ROOT = Path(__file__).parents[1]
PAGE, RAW = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "benchmarks.json"
CLOCK = SystemClock()
PARTS = {
    "requests": "bench_requests",
    "tokens": "bench_tokens",
    "measuring": "bench_measuring",
    "answers": "bench_answers",
    "sizes": "bench_sizes",
    "pages": "bench_pages",
    "storage": "bench_storage",
    "suite": "bench_suite",
}
"""In the order in which they run; each is a module with a `part(rounds)`."""


def run(name: str, rounds: int, suite: str) -> Part:
    """One part, with how long it took and beside what."""
    module = import_module(PARTS[name])
    measure: Callable[[int], Part] = partial(module.part, suite=suite) if name == "suite" else module.part
    began_ns, told = CLOCK.now_ns(), machine_use()
    found = measure(rounds)
    took = f"Measured in {seconds(CLOCK.now_ns() - began_ns):.0f} s on {os.cpu_count()} cores, {told()}."
    return Part(rows=found.rows, text=f"{found.text}\n\n{took}", raw=found.raw)


def main() -> int:
    """Run the parts, and write each into the page as soon as it is done."""
    parser = argparse.ArgumentParser(description="Joulebox beside its peers.")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=" ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--suite", default="", help="the command that runs the everyday tests")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--raw", type=Path, default=RAW)
    given = parser.parse_args()
    raw: Json = json.loads(given.raw.read_text()) if given.raw.exists() else {}
    failed = []
    for name in given.only:
        print(f"--- {name}", flush=True)
        try:
            found = run(name, given.rounds, given.suite)
        except Exception:  # noqa: BLE001 - the other parts are measured all the same
            traceback.print_exc()
            failed.append(name)
            continue
        finally:
            postgres_server.end()
        print(found.text, flush=True)
        raw[name] = bench_page.kept(found)
        raw = {one: raw[one] for one in PARTS if one in raw}
        page = given.page.read_text(encoding="utf-8") if given.page.exists() else ""
        given.page.write_text(bench_page.written(page, raw, name, found.text), encoding="utf-8")
        given.raw.write_text(json.dumps(raw, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"Failed: {', '.join(failed)}." if failed else f"Written to {given.page}.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
