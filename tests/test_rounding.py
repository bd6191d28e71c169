"""Parts and their sum as they are shown: added up they are the sum, to the last digit."""

from collections.abc import Sequence
from decimal import Decimal
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulebox.accounting.rounding import Column, above, below, column, place_of

values = st.lists(st.floats(0, 1e7), min_size=1, max_size=12)
spans = st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1), st.floats(1, 5)), min_size=1, max_size=12)


@given(values, st.integers(1, 7))
def test_shown_parts_add_up_to_the_shown_sum(parts: list[float], digits: int) -> None:
    """Whatever the figures and the digits, the parts as they are printed add up to the sum as it is printed, and none
    is a whole unit off."""
    shown = column(parts, place_of(sum(parts), digits))
    texts = [Decimal(shown.text(one)) for one in shown.parts]
    assert sum(texts) == Decimal(shown.text(shown.total))
    unit = Decimal(1).scaleb(shown.place)
    assert abs(Decimal(shown.text(shown.total)) - sum(map(Decimal, parts))) <= unit * Decimal("0.51")
    assert all(abs(text - Decimal(part)) <= unit for text, part in zip(texts, parts, strict=True))


@given(spans, st.integers(1, 6))
def test_shown_ranges_add_up_and_hold_their_figure(parts: list[tuple[float, float, float]], digits: int) -> None:
    """Low and high ends add up too, and no rounding puts a low end above its figure or a high end below."""
    central = column([g for g, _, _ in parts], place_of(sum(g for g, _, _ in parts), digits))
    low = below([g * less for g, less, _ in parts], central)
    high = above([g * more for g, _, more in parts], central)
    assert sum(low.parts) == low.total <= central.total <= high.total == sum(high.parts)
    assert all(a <= b <= c for a, b, c in zip(low.parts, central.parts, high.parts, strict=True))
    assert all(part >= 0 for part in low.parts)


def test_a_third_each() -> None:
    """Three thirds of one are shown as 0.34, 0.33 and 0.33."""
    shown = column([1 / 3, 1 / 3, 1 / 3], -2)
    assert [shown.text(one) for one in (*shown.parts, shown.total)] == ["0.34", "0.33", "0.33", "1.00"]


@pytest.mark.parametrize(
    ("total", "digits", "place"),
    [(999.0, 3, 0), (1000.0, 3, 1), (1.0, 1, 0), (0.5, 2, -2), (0.0, 3, 0), (inf, 3, 0), (nan, 3, 0)],
)
def test_where_the_last_digit_is(total: float, digits: int, place: int) -> None:
    """A sum's last significant digit lies where one counts it by hand; of no sum it is the unit."""
    assert place_of(total, digits) == place


@pytest.mark.parametrize(
    ("values", "place", "parts"),
    [
        ([1.25, 2.5, 3.25], 0, (1, 3, 3)),
        ([1.5, 1.5], 0, (2, 1)),
        ([2.5], 0, (3,)),
        ([0.125, 0.25], -1, (1, 3)),
        ([120.0, 260.0], 2, (1, 3)),
        ([], 0, ()),
    ],
)
def test_who_loses_most_is_rounded_up(values: Sequence[float], place: int, parts: tuple[int, ...]) -> None:
    """Of the parts those that lose most by rounding down are rounded up, the first of equals first; halves of the sum
    go up."""
    assert column(values, place) == Column(place=place, parts=parts, total=sum(parts))


@pytest.mark.parametrize(
    ("values", "upper", "parts"),
    [
        ([1.25, 2.5, 3.25], (9, 9, 9), (1, 3, 3)),
        ([1.25, 2.5, 3.25], (9, 2, 9), (2, 2, 3)),
        ([1.5, 1.5, 1.5], (2, 1, 2), (2, 1, 2)),
        ([3.5, 1.0], (3, 1), (3, 1)),
        ([0.0, 0.25], (0, 5), (0, 0)),
    ],
)
def test_low_ends_stay_below(values: Sequence[float], upper: tuple[int, ...], parts: tuple[int, ...]) -> None:
    """Low ends are rounded the same way, among those that still have room below their own figure."""
    assert below(values, Column(place=0, parts=upper, total=sum(upper))) == Column(
        place=0, parts=parts, total=sum(parts)
    )


@pytest.mark.parametrize(
    ("values", "lower", "parts"),
    [
        ([1.25, 2.5, 3.25], (0, 0, 0), (1, 3, 3)),
        ([1.25, 2.5, 3.75], (2, 0, 0), (2, 2, 4)),
        ([1.5, 1.5, 1.5], (2, 1, 2), (2, 1, 2)),
        ([2.5, 1.0], (3, 1), (3, 1)),
        ([2.0, 1.0], (1, 0), (2, 1)),
    ],
)
def test_high_ends_stay_above(values: Sequence[float], lower: tuple[int, ...], parts: tuple[int, ...]) -> None:
    """High ends are rounded the same way, among those that still have room above their own figure."""
    assert above(values, Column(place=0, parts=lower, total=sum(lower))) == Column(
        place=0, parts=parts, total=sum(parts)
    )


def test_the_ends_belong_to_their_column() -> None:
    """Low and high ends are whole units of their figure's column, one for each part of it."""
    shown = Column(place=-1, parts=(3, 3), total=6)
    assert below([0.25, 0.25], shown) == Column(place=-1, parts=(3, 2), total=5)
    assert above([0.35, 0.35], shown) == Column(place=-1, parts=(3, 4), total=7)
    for end in (below, above):
        with pytest.raises(ValueError, match="argument 2"):
            end([1.0], shown)
