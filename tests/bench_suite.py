"""How long the everyday tests take (`make bench PART=suite`)."""

import re
import shlex
import subprocess
import sys

from bench_gateways import CLOCK
from bench_page import Part, Row
from joulebox.units import seconds

SUITE_MAX_S = 180.0
ALONE = "-m pytest -q -rs -n 4 --dist loadfile --no-loadscope-reorder -m 'not slow'"


def part(_: int, suite: str = "") -> Part:
    """Run them once; what failed is said."""
    command = shlex.split(suite or f"{sys.executable} {ALONE}")
    began_ns = CLOCK.now_ns()
    ran = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    took_s = seconds(CLOCK.now_ns() - began_ns)
    last = next((line for line in reversed(ran.stdout.splitlines()) if " passed" in line), "no test ran")
    said = re.sub(r"\s+in [\d.]+s.*", "", last.strip("= "))
    row = Row(
        what="whole everyday test suite (`make test`)",
        figure=f"{took_s:.0f} s ({said})",
        target=f"<= {SUITE_MAX_S:.0f} s on 2 cores",
        reached=took_s <= SUITE_MAX_S,
        why="Slow tests are marked and run by `make test-all`.",
    )
    text = f"## The tests\n\n`make test`, start of Python included: {took_s:.0f} s. {said}."
    return Part(rows=[row], text=text, raw={"took_s": took_s, "said": said})
