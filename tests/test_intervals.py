"""The intervals of every kind of instrument hold the truth as often as they say: many runs, in `make test-all`."""

import pytest

from intervals import INSTRUMENTS, coverage


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", INSTRUMENTS)
def test_intervals_hold_the_truth(name: str) -> None:
    """Over four hundred seeded answers at least 90 % of the intervals of answer and active hold the truth."""
    _, durations_s = INSTRUMENTS[name]
    seeds = range(1000, 1000 + (13 if len(durations_s) == 4 else 25))
    for row in coverage(name, seeds):
        print(row)
        assert row.runs >= 400
        assert row.inside >= 0.9
