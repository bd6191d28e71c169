"""How often the intervals hold the truth, and how wide they are, by instrument, as a table of the page."""

from accuracy_page import Section
from intervals import CAMPAIGNS, Coverage, coverage

TEXT = """## Intervals, by instrument

At least 1,000 runs each on a handed-in clock, answers of 50 ms, 200 ms, 1 s and 5 s (1 and 5 s for the averaging plug,
2.5, 5 and 20 s for the one that looks), after 5 to 20 s of idling. Every run draws its instrument anew: gain and offset
(normal, half the declared U), lag (even, within half of what is declared), phase (even over a tick), and how long the
machine works on after the last token's stamp (even, up to 1 ms). *Gain known*: the same machine and run, seen by an
instrument without gain and offset error that says so. The machine is the rig's, with 0.15 W of idle noise and a tail
of 4 W; where it says so with 0.3 W of noise, a tail of 30 W, or asked again at once after an answer.

*Inside*: how often the interval (k = 2) holds the truth. *U / 95 %*: the median U over the error that 95 % of the runs
stay below, by duration; the median of these. *Made of*: what most of the interval is: **class** (gain and offset),
**noise** of the idle machine, or **edges** (ticks, lag, stamps, tails, cuts: parts with bounds, so that they cover more
than 95 %). Bounds: 93 to 97 % inside where noise dominates, at least 95 % elsewhere; U / 95 % at most 1.3 (not asked
with a tail of 30 W). *Within chance*: beyond them by no more than twice what chance does in so many runs (1.4 % of
1,000). *Error*: the median, by duration.

| Instrument | Figure | Gain | Runs | Inside | 95 % of errors | Median U | U / 95 % | Made of | Error | Bounds |
|---|---|---|--:|--:|--:|--:|--:|---|---|---|
"""


def section() -> Section:
    """Run all campaigns."""
    rows, missed = [], []
    for name, case in CAMPAIGNS:
        found = list(coverage(name, case))
        rows += [_row(one) for one in found]
        missed += [each for one in found for each in one.missed]
        print("".join(rows[-len(found) :]), end="", flush=True)
    return Section(markdown=TEXT + "".join(rows), missed=tuple(missed))


def _row(one: Coverage) -> str:
    name = f"{one.instrument}, {one.case}" if one.case else one.instrument
    errors = ", ".join(f"{duration_s:g} s: {ratio:.2%}" for duration_s, ratio in sorted(one.ratios.items()))
    return (
        f"| {name} | {one.figure} | {one.of} | {one.runs} | {one.inside:.1%} | {one.error_95_j:.3f} J "
        f"| {one.median_u_j:.3f} J | {one.width:.2f} | {one.rule} | {errors} | {one.met} |\n"
    )
