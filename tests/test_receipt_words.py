"""What a receipt's grade and plan come to in words."""

import pytest

from joulebox import wording
from page_stage import RECEIPTS, as_json


@pytest.mark.parametrize(
    ("grade", "scope", "missing", "words"),
    [
        ("D", "modelled", (), "modelled, not measured"),
        ("D", "cpu", ("wall",), "measured, but too uncertain to rely on"),
        ("C", "cpu", ("wall",), "metered, but not the whole machine"),
        ("C", "wall", (), "metered, within 30 %"),
        ("B", "wall", (), "metered, within 10 %"),
        ("B", "cpu", (), "counters calibrated at the wall, within 5 %"),
        ("A", "wall", (), "a wall meter, within 2 %"),
    ],
)
def test_a_grade_comes_with_what_it_means(grade: str, scope: str, missing: tuple[str, ...], words: str) -> None:
    """A letter alone says nothing to who has not read the method."""
    receipt = as_json(RECEIPTS["powercap"]())
    receipt["energy"] |= {"scope": scope, "missing": list(missing)}
    receipt["energy"]["answer"] |= {"grade": grade}
    assert wording.grade_words(receipt) == f"Grade {grade} (A is best): {words}."
    assert wording.grade_words(as_json(RECEIPTS["nothing"]())) is None


def test_what_a_plan_saved_is_told_with_its_sign() -> None:
    """To have run elsewhere or later saved something, nothing, or cost something; without a plan nothing is said."""
    receipt = as_json(RECEIPTS["powercap"]())
    told = []
    for saved_g in (None, 0.0, 0.0213, -0.0213):
        receipt["placement"] |= {"saved_g": saved_g}
        told.append(wording.saved_words(receipt))
    assert told == [
        None,
        "That saved nothing: the grid is the one that the first free node has.",
        "That emitted 21 mg CO2e less than the grid of the first free node.",
        "That emitted 21 mg CO2e more than the grid of the first free node.",
    ]
