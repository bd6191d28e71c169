"""Equivalents: each by hand, in proportion, nothing where nothing is known, and never times a population by itself."""

import html
import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulebox.accounting.equivalents import equivalents, lamp_s
from joulebox.server.pages import alike, render_receipt
from page_stage import powercap_receipt

amounts = st.floats(1e-6, 1e12)


@pytest.mark.parametrize(
    ("key", "energy_j", "carbon_g", "value"),
    [
        ("lamp", 600.0, None, 60.0),  # ten watts for a minute
        ("phone", 11.6 * 3600, None, 100.0),  # 11.6 Wh: one charge
        ("kettle", 4.186 * 80 * 250, None, 250.0),  # a cup from 20 °C
        ("car", None, 170.0, 1000.0),
        ("train", None, 35.0, 1000.0),
    ],
)
def test_by_hand(key: str, energy_j: float | None, carbon_g: float | None, value: float) -> None:
    """Each comparison gives the amount worked out by hand."""
    found = {one.key: one for one in equivalents(energy_j, carbon_g)}
    assert found[key].value == pytest.approx(value)


def test_light_comes_first() -> None:
    """The first comparison is seconds of an LED lamp, the same the receipt's headline names."""
    first = equivalents(86.4, 0.02)[0]
    assert (first.key, first.unit, first.value) == ("lamp", "s", lamp_s(86.4))


def test_every_one_has_formula_and_source() -> None:
    """A name, a formula and a source stand with each."""
    for one in equivalents(86.4, 0.02):
        assert one.name
        assert one.formula
        assert one.source


@pytest.mark.parametrize("nothing", [None, 0.0, -3.0])
def test_nothing_is_like_nothing(nothing: float | None) -> None:
    """What is unknown, zero or below is compared with nothing."""
    assert equivalents(nothing, nothing) == ()


@given(energy_j=amounts, carbon_g=amounts, times=st.floats(1e-3, 1e9))
def test_in_proportion(energy_j: float, carbon_g: float, times: float) -> None:
    """Twice as much is twice as much of everything, and only the reader's number multiplies."""
    once, more = equivalents(energy_j, carbon_g), equivalents(energy_j, carbon_g, times)
    for one, many in zip(once, more, strict=True):
        assert many.value == pytest.approx(one.value * times)


@pytest.mark.parametrize("times", [0.0, -1.0, float("nan")])
def test_a_number_of_nothing_is_refused(times: float) -> None:
    """Zero, negative or no number of times is refused in one sentence."""
    with pytest.raises(ValueError, match="nothing to compare with"):
        equivalents(1.0, 1.0, times)


def test_the_page_shows_formula_and_source_beside_each() -> None:
    """On the receipt's page every comparison has its formula and source, in sight and on hover; light is first."""
    receipt = json.loads(json.dumps(asdict(powercap_receipt())))
    page = html.unescape(render_receipt(receipt))
    for one in alike(receipt):
        assert f'title="{one.formula}; {one.source}"' in page
        assert f"{one.formula} · {one.source}" in page
    assert "10 W LED lamp" in page[: page.index("What that is like")]
    receipt["energy"]["answer"] = receipt["carbon"]["total"] = None
    assert "LED" not in render_receipt(receipt)


def test_the_page_tells_each_as_it_is_worked_out() -> None:
    """Name, formula and source of each, in the order of the page's table; units are the smallest of their kind."""
    text = (Path(__file__).parents[1] / "docs/explanation/carbon.md").read_text(encoding="utf-8")
    _, _, part = text.partition("## What a joule is like\n")
    rows = [tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in part.splitlines() if line[:1] == "|"]
    found = equivalents(1.0, 1.0)
    assert [(one.name, one.formula, one.source) for one in found] == rows[2:]
    assert [(one.key, one.unit) for one in found] == [
        ("lamp", "s"),
        ("phone", "%"),
        ("kettle", "g"),
        ("car", "m"),
        ("train", "m"),
    ]


def test_less_than_one_joule_and_gram_are_like_something() -> None:
    """A quarter of a joule lights 10 W for 25 ms; a quarter of a gram is 1.47 m in a car of 170 g a km, 7.14 m in a
    train of 35 g."""
    found = {one.key: one.value for one in equivalents(0.5, 0.5, 0.5)}
    assert found["lamp"] == 0.025
    assert found["car"] == pytest.approx(0.25 / 170 * 1000)
    assert found["train"] == pytest.approx(0.25 / 35 * 1000)
    assert found["phone"] == pytest.approx(100 * 0.25 / (11.6 * 3600))
    assert found["kettle"] == pytest.approx(0.25 / 334.88)


def test_nothing_times_says_why() -> None:
    """The sentence names the number."""
    with pytest.raises(ValueError, match=r"^0\.0 times something is nothing to compare with$"):
        equivalents(1.0, 1.0, 0.0)
