"""Faults of every instrument at every point of a run: a correct receipt, or a verdict that names the fault."""

import random

import pytest

from faults import Case, cases, outcome

EVERYDAY = 40
QUICK = ("powercap", "powercap that wraps", "mcp39f511n")


def _everyday() -> list[Case]:
    chosen = [case for case in cases() if case.setup in QUICK and case.fault != "shows things late"]
    return random.Random(3).sample(chosen, EVERYDAY)


@pytest.mark.parametrize("case", _everyday(), ids=str)
def test_some_faults(case: Case) -> None:
    """A seeded choice of all cases ends well, and the next prompt is valid again."""
    problem, _ = outcome(case)
    assert not problem
