"""Thirty prompts in real time on the rig's powercap tree: the receipts' answer energy beside the truth."""

import subprocess
import sys
import tempfile
from pathlib import Path

from accuracy_page import Section
from joulebox.clock import SystemClock
from joulebox.node.meters import open_meters
from joulebox.node.recorder import Recorder
from joulebox.rig.serve import Sender, truth_of
from lab import PROMPTS, RANGE_UJ, Compared, campaign, summary

RIG = """
import pathlib, sys
from joulebox.rig.powercap_tree import TreeParameters
from joulebox.rig.serve import run
run(pathlib.Path(sys.argv[1]), 1, 'socket', TreeParameters(range_uj=int(sys.argv[2])))
"""
MEDIAN_ERROR_MAX = 0.01
INSIDE_MIN = 26
TEXT = """## In real time

The rig writes a powercap tree a thousand times a second, in a process of its own; the node's recorder, driver and
files are the real ones. Counters wrap every 30 J.

"""


def section() -> Section:
    """Run the campaign: the median error is to be at most 1 %, and 26 of 30 intervals are to hold the truth."""
    compared = _compared()
    lines = summary(compared)
    print(lines)
    errors = sorted(one.error_ratio for one in compared)
    inside = sum(abs(one.j - one.truth_j) <= one.u_j for one in compared)
    missed = []
    if errors[len(errors) // 2] > MEDIAN_ERROR_MAX:
        missed.append(f"in real time: the median error is {errors[len(errors) // 2]:.2%}, not {MEDIAN_ERROR_MAX:.0%}")
    if inside < INSIDE_MIN:
        missed.append(f"in real time: {inside} of {PROMPTS} intervals hold the truth, not {INSIDE_MIN}")
    return Section(markdown=TEXT + "".join(f"- {line}\n" for line in lines.splitlines()), missed=tuple(missed))


def _compared() -> list[Compared]:
    folder = Path(tempfile.mkdtemp(prefix="joulebox-"))
    command = [sys.executable, "-c", RIG, str(folder), str(RANGE_UJ)]
    compared: list[Compared] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as rig:
        assert rig.stdout is not None
        meters = open_meters(rig.stdout.readline().split('"')[1].split())
        clock = SystemClock()
        recorder = Recorder(meters, clock, reading_hz=10.0)
        recorder.start()
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
    return compared
