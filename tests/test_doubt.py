"""Small rules of the arithmetic, each held by itself: how spreads join, what is said with a receipt, who counts."""

from dataclasses import replace
from math import exp, log, sqrt
from typing import Any

import pytest

from joulebox.accounting import account
from joulebox.accounting.carbon import idle_share, operational, per_unit, sci
from joulebox.accounting.energy import TAIL_S, glowing
from joulebox.accounting.uncertainty import _looked_up, _spread, _widened, added, combined
from joulebox.model import Figure, IdleSpread, NodeControl, Receipt, UncertaintyPart, Usage
from joulebox.statistics.distributions import student_t_quantile
from traces import PLACEMENT, channel, factors, series, trace, work

OWN = IdleSpread(guard_s=1.0, length_s=2.0, rms_j=3.0, windows=30)


def then(length_s: float, rms_j: float, windows: int = 40) -> IdleSpread:
    return IdleSpread(guard_s=1.0, length_s=length_s, rms_j=rms_j, windows=windows)


def counted(**changes: Any) -> Receipt:
    """The receipt of a processor's counter."""
    seen = series(channel(), work(10.0, 40.0, 30.0, 32.0), 34.0)
    return account(trace(seen, **changes), factors(), receipt_id="r", placement=PLACEMENT)


def sentence(receipt: Receipt, code: str) -> tuple[str, str]:
    """A reason's level and sentence."""
    (found,) = (reason for reason in receipt.reasons if reason.code == code)
    return found.level, found.sentence


def test_students_t_stands_as_in_the_tables() -> None:
    """The factors by which few windows are widened are Student's t for 95 %, to two digits."""
    told = [round(student_t_quantile(0.975, freedom), 2) / 2 for freedom in range(1, 19)]
    assert [_widened(freedom) for freedom in range(1, 20)] == pytest.approx([*told, 1.0])


def test_a_record_and_a_calibration_join_by_their_windows() -> None:
    """What is as noisy as it was counts together, each as much as it has windows; what is clearly noisier as it is."""
    joined = sqrt((30 * 3.0**2 + 40 * 2.9**2) / 70)
    assert _spread(OWN, [then(2.0, 2.9)], 2.0, 0.0) == pytest.approx(joined)
    assert _spread(OWN, [then(2.0, 1.0)], 2.0, 0.0) == 3.0
    edge = 3.0 / exp(sqrt(2 / 30 + 2 / 40))
    assert _spread(OWN, [then(2.0, 0.99 * edge)], 2.0, 0.0) == 3.0
    assert _spread(OWN, [then(2.0, 1.01 * edge)], 2.0, 0.0) < 3.0
    few = replace(OWN, length_s=1.0, rms_j=exp(1.0), windows=4)
    assert _spread(few, [then(1.0, 1.0, 4)], 1.0, 0.0) == pytest.approx(sqrt((exp(2.0) + 1.0) / 2) * 2.31 / 2)


def test_a_spread_grows_with_its_length_and_few_windows_widen_it() -> None:
    """A record's spread is scaled to the length asked for; without any the rate that is known otherwise counts."""
    assert _spread(OWN, [], 4.0, 0.0) == 6.0
    assert _spread(replace(OWN, windows=5), [], 2.0, 0.0) == pytest.approx(3.0 * 2.57 / 2)
    assert _spread(None, [then(2.0, 2.9)], 2.0, 0.0) == 2.9
    assert _spread(None, [], 2.0, 0.7) == 1.4


def test_a_spread_between_two_lengths_lies_on_their_line() -> None:
    """Between two lengths kept the spread is a power of the length, beyond them it grows with the length, and it is as
    sure as the less sure of the two."""
    kept = [then(4.0, 3.0, 8), then(1.0, 1.0, 32)]
    found = _looked_up(kept, 2.0)
    assert found is not None
    assert found[0] == pytest.approx(2.0 ** (log(3.0) / log(4.0)))
    assert found[1] == 8
    assert _looked_up(kept, 1.0) == (1.0, 32)
    assert _looked_up(kept, 4.0) == (3.0, 8)
    assert _looked_up(kept, 8.0) == (6.0, 8)
    assert _looked_up(kept, 0.5) == (0.5, 32)
    assert _looked_up([then(1.0, 0.0), then(4.0, 3.0)], 2.0) == (0.0, 40)
    assert _looked_up([then(1.0, 1.0), then(4.0, 0.0)], 2.0) == (2.0, 40)
    assert _looked_up([], 1.0) is None


def test_parts_of_one_name_add_up_unless_they_are_independent() -> None:
    """Ticks of two counters are one error, their resolutions are two."""
    parts = [UncertaintyPart(source="tick", j=3.0), UncertaintyPart(source="resolution", j=3.0)]
    more = [UncertaintyPart(source="tick", j=4.0), UncertaintyPart(source="resolution", j=4.0)]
    together = added([parts, more])
    assert [(part.source, part.j) for part in together] == [("tick", 7.0), ("resolution", 5.0)]
    assert combined(together) == pytest.approx(2 * sqrt(49 + 25))


def test_a_tail_in_the_guard_fades_with_the_rest_before_it() -> None:
    """A machine that rested longer than its guard has less of other work's tail in it, by the tail's own pace."""
    assert glowing(1.0, 1.0 + TAIL_S) == pytest.approx(glowing(1.0, 1.0) / exp(1))
    assert glowing(1.0, 0.2) == glowing(1.0, 1.0)


@pytest.mark.parametrize(("cached", "level"), [(1, "note"), (2, "note"), (3, "suspect")])
def test_a_few_cached_tokens_are_a_note(cached: int, level: str) -> None:
    """Up to a twentieth of the input from the engine's cache is a note, more makes the receipt suspect."""
    told = sentence(counted(usage=Usage(input_tokens=40, cached_tokens=cached, output_tokens=9)), "engine_cache")
    assert told[0] == level
    assert told[1].startswith(f"{cached} input tokens came from the engine's cache")


def test_a_cache_nobody_tells_of_is_told() -> None:
    """An engine that does not say what it cached is a note for prompts and nothing for other work."""
    usage = Usage(input_tokens=None, cached_tokens=None, output_tokens=9)
    assert sentence(counted(usage=usage), "cache_unknown")[0] == "note"
    assert "cache_unknown" not in {reason.code for reason in counted(usage=usage, model=None).reasons}
    assert sentence(counted(usage=replace(usage, cached_tokens=1)), "engine_cache")[0] == "suspect"


@pytest.mark.parametrize(("ratio", "words"), [(0.061, "6.1 % above"), (-0.02, "2.0 % below"), (None, "0.0 % below")])
def test_a_node_that_drifted_says_which_way(ratio: float | None, words: str) -> None:
    """A drifted node's sentence says how far its control prompt lies from the reference, which way and of when."""
    control = NodeControl(state="drifted", since="2026-11-01T00:00:00+00:00", runs=12, off_ratio=ratio)
    assert f"takes energy {words} the reference of 2026-11-01." in sentence(counted(control=control), "node_drift")[1]


def test_a_boundary_says_what_stood_in_it() -> None:
    """A prompt's boundaries speak of tokens and failed attempts, those of other work do not."""
    nothing = (None, 1.0, factors())
    usage = Usage(input_tokens=1, cached_tokens=0, output_tokens=1)
    asked, other = sci(nothing, nothing, usage), sci(nothing, nothing, usage, asked=False)
    assert "from request to last token" in asked.answer.boundary
    assert "failed attempts included" in asked.reserved.boundary
    assert "from the start of the work to its end" in other.answer.boundary
    assert "from the end of listening" in other.reserved.boundary


def test_grams_of_very_little_are_not_nothing() -> None:
    """A figure below a joule, a score of one token and a share of a small energy are told like any other."""
    small = Figure(j=0.5, u=0.9, grade="D")
    assert operational(small, factors()).low == 0.0
    assert idle_share(small, 1.0, 0.25) == 0.5
    assert idle_share(replace(small, j=0.0), 1.0, 0.25) is None
    assert per_unit([2.0], [1]) == 2.0
    assert per_unit([2.0], [0]) is None
