"""The intervals of every kind of instrument hold the truth as often as they say, and are no wider than they must be."""

import pytest

import intervals
from intervals import CAMPAIGNS, RUNS, coverage

EXCUSED = {("plug, a look each 1 s", "", "decode"): 3.0, ("plug, a look each 1 s", "", "active"): 1.5}
"""The rows that are wider than 1.3 times their errors, and how wide they may be. The simulated machine is as even at
work as idle, but of one that was looked at three times nobody knows: Student's t of two degrees of freedom alone is
2.15 times as wide as what a known spread would take, and one look tells nothing at all."""


@pytest.mark.parametrize("name", ["counter, 1 ms (RAPL)", "plug, mean over 1 s"])
def test_a_few_intervals_hold_the_truth(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of eighty seeded answers at most one in ten lies outside its interval, in every figure, with gain and without."""
    monkeypatch.setattr(intervals, "CALIBRATIONS", 3)  # they take most of the time
    for row in coverage(name, runs=80, processes=1):
        assert row.inside >= 0.9, row
        assert row.width <= 2.0, row


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "case"), CAMPAIGNS)
def test_intervals_hold_the_truth(name: str, case: str) -> None:
    """Over a thousand seeded runs the intervals of answer, active and decode hold the truth in 93 to 97 of 100 where
    noise makes them, in 95 at least elsewhere, and are at most 1.3 times as wide as the errors, but where it is said
    why not."""
    rows = list(coverage(name, case, RUNS))
    assert len(rows) >= 4
    for row in rows:
        print(row)
        if most := EXCUSED.get((row.instrument, row.case, row.figure)):
            assert row.inside >= 0.93
            assert row.width <= most
        else:
            assert not row.missed, row.missed
