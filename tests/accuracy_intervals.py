"""How often the intervals hold the truth, by instrument, as a table of the page."""

from accuracy_page import Section
from intervals import INSTRUMENTS, Coverage, coverage

SEEDS = range(2000, 2008)
TEXT = """## Intervals, by instrument

Answers of 50 ms, 200 ms, 1 s and 5 s (1 and 5 s for the averaging plug, 2.5 and 5 s for the one that looks), on a
handed-in clock; each seed draws the phase, and the lag within half of what is declared. Inside: how often the
interval (k = 2) holds the truth.

| Instrument | Figure | Runs | Inside | 95 % of errors below | Median U | Median error |
|---|---|--:|--:|--:|--:|--:|
"""


def section() -> Section:
    """Run the seeds on every instrument."""
    rows = []
    for name in INSTRUMENTS:
        rows += [_row(one) for one in coverage(name, SEEDS)]
        print("".join(rows[-2:]), end="", flush=True)
    return Section(markdown=TEXT + "".join(rows))


def _row(one: Coverage) -> str:
    return (
        f"| {one.instrument} | {one.figure} | {one.runs} | {one.inside:.1%} | {one.error_95_j:.3f} J "
        f"| {one.median_u_j:.3f} J | {one.median_ratio:.3%} |\n"
    )
