"""`make accuracy`: thirty prompts in real time on the rig's powercap tree, beside the truth. About three minutes."""

import subprocess
import sys
import tempfile
from pathlib import Path

from joulebox.clock import SystemClock
from joulebox.node.meters import open_meters
from joulebox.node.recorder import Recorder
from joulebox.rig.serve import Sender, truth_of
from lab import RANGE_UJ, Compared, campaign, summary

RIG = "import pathlib, sys; from joulebox.rig.serve import run; run(pathlib.Path(sys.argv[1]), 1, 'socket', {})"


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
    errors = sorted(one.error_ratio for one in compared)
    inside = sum(abs(one.j - one.truth_j) <= one.u_j for one in compared)
    return 0 if errors[len(errors) // 2] <= 0.01 and inside >= 26 else 1


if __name__ == "__main__":
    sys.exit(main())
