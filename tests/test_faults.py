"""Faults of every instrument at every point of a run: a correct receipt, or a verdict that names the fault."""

import os
import random
from collections import Counter

import pytest

from faults import FAULTS, SETUPS, Case, Lasts, cases, outcome, problem_of

EVERYDAY = 36
QUICK = ("powercap", "powercap that wraps", "mcp39f511n", "feed", "gpu counter, 100 ms", "wall, mean over 100 ms")


def _everyday() -> list[Case]:
    chosen = [case for case in cases() if case.setup in QUICK and not FAULTS[case.fault].waits]
    return random.Random(3).sample(chosen, EVERYDAY)


@pytest.mark.parametrize("case", _everyday(), ids=str)
def test_some_faults(case: Case) -> None:
    """A seeded choice of all cases ends well, and the next prompt is valid again."""
    assert not problem_of(case)


@pytest.mark.parametrize(
    ("setup", "fault", "point", "lasts"),
    [
        ("modbus", "value stands", "prefill", "while"),
        ("shelly", "shows things late", "settle", "ever"),
        ("shelly", "shows things late", "first token", "ever"),
        ("shelly", "shows things late", "load", "while"),
        ("powercap that wraps", "recorder held up", "load", "ever"),
    ],
)
def test_slow_meters_that_stand_or_lag(setup: str, fault: str, point: str, lasts: Lasts) -> None:
    """A plug that stands while the work begins, or is late from then on, and a recorder held up for a whole prompt."""
    assert not problem_of(Case(setup=setup, fault=fault, point=point, lasts=lasts))


def _nightly(setup: str) -> list[Case]:
    """Every fault at every point, lasting as long as chance says; with JOULEBOX_FAULTS=all (`make faults`) of every
    length."""
    found: dict[tuple[str, str], list[Case]] = {}
    for case in cases():
        if case.setup == setup:
            found.setdefault((case.fault, case.point), []).append(case)
    if os.environ.get("JOULEBOX_FAULTS") == "all":
        return [case for each in found.values() for case in each]
    chance = random.Random(setup)
    return [chance.choice(each) for each in found.values()]


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("setup", SETUPS)
def test_every_fault_at_every_point(setup: str) -> None:
    """Each fault of an instrument at each point of a run ends well; few truths lie outside the intervals."""
    verdicts: Counter[str] = Counter()
    outside, problems = 0, []
    for case in _nightly(setup):
        problem, asked = outcome(case)
        if problem and (problem := problem_of(case)):
            problems.append(f"{case}: {problem}")
        if asked.receipt.energy.answer is None:
            verdicts["no figure"] += 1
        else:
            verdicts[asked.receipt.verdict] += 1
            outside += asked.receipt.verdict == "valid" and asked.outside
    print(f"{setup}: {dict(verdicts)}, {outside} valid ones outside their interval (simulated)")
    assert not problems
    assert outside <= 0.08 * verdicts["valid"]


def test_a_calendar_that_is_set_is_named() -> None:
    """A calendar clock set during the run makes the receipt suspect and leaves the joules alone; before, nothing."""
    for point, verdict in (("idle", "valid"), ("decode", "suspect")):
        problem, asked = outcome(Case(setup="powercap", fault="calendar +1 h", point=point, lasts="once"))
        assert (problem, asked.receipt.verdict) == ("", verdict)
        assert asked.codes == (frozenset() if verdict == "valid" else {"clock_step"})
