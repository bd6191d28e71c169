"""`make accuracy`: receipts beside the truth of the simulated machine; writes `docs/accuracy.md`. About four minutes.

Thirty prompts in real time on the rig's powercap tree, then hundreds on a handed-in clock for each kind of instrument.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from intervals import INSTRUMENTS, Coverage, coverage
from joulebox.clock import SystemClock
from joulebox.node.meters import open_meters
from joulebox.node.recorder import Recorder
from joulebox.rig.serve import Sender, truth_of
from lab import RANGE_UJ, Compared, campaign, summary

RIG = "import pathlib, sys; from joulebox.rig.serve import run; run(pathlib.Path(sys.argv[1]), 1, 'socket', {})"


PAGE = Path(__file__).parents[1] / "docs" / "accuracy.md"
SEEDS = range(2000, 2008)
HEAD = """# Accuracy: receipts beside the truth

Written by `make accuracy`. Everything here is simulated: the rig's machine, whose true energy is known in closed
form, seen by instruments with their own tick, phase, lag and resolution. Its idle power is about 7.5 W behind a 1
ms counter and 21 W at the plug, with 0.15 W of idle noise and a tail of 4 W after the work. Gain errors are left
out here; a real meter's gain is in its interval besides. No hardware has been measured yet, and peers have not been
run beside it yet.

## In real time

The rig writes a powercap tree a thousand times a second, in a process of its own; the node's recorder, driver and
files are the real ones. Counters wrap every 30 J.

"""
BODY = """
## Intervals, by instrument

Answers of 50 ms, 200 ms, 1 s and 5 s (1 and 5 s for the averaging plug, 2.5 and 5 s for the one that looks), on a
handed-in clock; each seed draws the phase, and the lag within half of what is declared. Inside: how often the
interval (k = 2) holds the truth.

| Instrument | Figure | Runs | Inside | 95 % of errors below | Median U | Median error |
|---|---|--:|--:|--:|--:|--:|
"""


def row(one: Coverage) -> str:
    """A line of the table."""
    return (
        f"| {one.instrument} | {one.figure} | {one.runs} | {one.inside:.1%} | {one.error_95_j:.3f} J "
        f"| {one.median_u_j:.3f} J | {one.median_ratio:.3%} |\n"
    )


def main() -> int:
    """Run the campaign; 0 if the median error is at most 1 % and at least 26 of 30 intervals hold the truth."""
    folder = Path(tempfile.mkdtemp(prefix="joulebox-"))
    command = [sys.executable, "-c", RIG.format(RANGE_UJ), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as rig:
        assert rig.stdout is not None
        meters = open_meters(rig.stdout.readline().split('"')[1].split())
        clock = SystemClock()
        recorder = Recorder(meters, clock, reading_hz=10.0)
        recorder.start()
        compared: list[Compared] = []
        for one in campaign(clock, recorder, Sender(folder), lambda: truth_of(folder), folder, seed=1, idle_s=1.5):
            compared.append(one)
            print(
                f"{len(compared):2d}  {one.receipt.times.duration_s:5.2f} s  truth {one.truth_j:7.2f} J  "
                f"receipt {one.j:7.2f} ± {one.u_j:5.2f} J  error {one.error_ratio:.3%}",
                flush=True,
            )
        recorder.stop()
        rig.terminate()
        print(rig.stdout.read().strip())
    print(summary(compared))
    table = "".join(row(one) for name in INSTRUMENTS for one in coverage(name, SEEDS))
    print(table)
    lines = "".join(f"- {line}\n" for line in summary(compared).splitlines())
    PAGE.write_text(HEAD + lines + BODY + table, encoding="utf-8")
    errors = sorted(one.error_ratio for one in compared)
    inside = sum(abs(one.j - one.truth_j) <= one.u_j for one in compared)
    return 0 if errors[len(errors) // 2] <= 0.01 and inside >= 26 else 1


if __name__ == "__main__":
    sys.exit(main())
