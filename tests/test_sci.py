"""SCI as the standards ask for it: their examples recomputed, what moves a score, and the list of what meets what."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulebox.accounting import account
from joulebox.accounting.carbon import (
    ANSWER_BOUNDARY,
    OUTSIDE,
    RESERVED_BOUNDARY,
    WORK_BOUNDARY,
    embodied,
    operational,
    per_unit,
    sci,
)
from joulebox.accounting.chips import CHIPS, CPUS
from joulebox.accounting.embodied import _DIE_KG_PER_CM2, embodied_of_parts
from joulebox.accounting.equivalents import equivalents
from joulebox.model import CarbonFactors, Embodied, Figure, Intensity, Usage
from joulebox.units import G_PER_KG
from test_embodied import TOWER
from traces import PLACEMENT, channel, factors, series, trace, work

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "explanation" / "sci.md"
NAMED = re.compile(r"`(tests/[a-z0-9_]+\.py)::([a-z0-9_]+)`")
LINKED = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
MACHINE = Embodied(low_kg=900.0, central_kg=1000.0, high_kg=1300.0, life_years=4.0, source="by hand")
USAGE = Usage(input_tokens=100, cached_tokens=0, output_tokens=300)
grams = st.lists(st.floats(0, 1e9), min_size=1, max_size=20)


# --- the standards' own examples --------------------------------------------------------------------------------------


def test_iso_an_hour_of_four_years() -> None:
    """ISO/IEC 21031: 1000 kg over 1 h of 4 years is 28.54 g (the text says around 28)."""
    assert embodied(3600.0, factors(embodied=MACHINE)).g == pytest.approx(1000 * G_PER_KG / (4 * 365 * 24))
    assert embodied(3600.0, factors(embodied=MACHINE)).g == pytest.approx(28.54, abs=0.005)


def test_a_machine_of_1633_joules() -> None:
    """1633.09 J in 7.53 s at 385 g/kWh emit 0.1747 g; on the machine above M adds 0.0597 g."""
    figure = Figure(j=1633.09, u=0.0, grade="A")
    chosen = factors(385.0, embodied=MACHINE)
    assert operational(figure, chosen).g == pytest.approx(0.1747, rel=1e-3)
    assert embodied(7.53, chosen).g == pytest.approx(0.0597, rel=1e-3)
    score = sci((figure, 7.53, chosen), (figure, 7.53, chosen), USAGE).answer
    assert score.per_answer_g == pytest.approx(0.1747 + 0.0597, rel=1e-3)
    assert score.per_output_token_g == pytest.approx((0.1747 + 0.0597) / 300, rel=1e-3)
    assert score.per_token_g == pytest.approx((0.1747 + 0.0597) / 400, rel=1e-3)


def test_sci_for_ai_language_model() -> None:
    """SCI for AI 9.1: (5000 + 1500) kg for 50 billion tokens are 130 g a million; the text says 0.13, 1000 too few."""
    per_token_g = per_unit([5000e3, 1500e3], [50_000_000_000])
    assert per_token_g is not None
    assert per_token_g * 1e6 == pytest.approx(130.0)
    assert per_token_g * 1e3 == pytest.approx(0.13)


def test_sci_for_ai_training() -> None:
    """SCI for AI 9.1.2: 200 t for 5e22 FLOP are 4e-18 kg each, so 4 kg for 1e18; drafts say 4 g."""
    per_flop_g = per_unit([180_000e3, 20_000e3], [5 * 10**22])
    assert per_flop_g is not None
    assert per_flop_g / 1e3 == pytest.approx(4e-18)
    assert per_flop_g * 1e18 == pytest.approx(4000.0)


def test_sci_for_ai_vision() -> None:
    """SCI for AI 9.2: 3200 kg for 40 million inferences are 0.08 g; 75 t for 2.5 billion parameters are 30 000 kg a
    billion, where the ratified text says 3000 and drafts 30."""
    assert per_unit([3200e3], [40_000_000]) == pytest.approx(0.08)
    per_parameter_g = per_unit([75_000e3], [2_500_000_000])
    assert per_parameter_g is not None
    assert per_parameter_g * 1e9 / 1e3 == pytest.approx(30_000)


# --- what the numbers must do -----------------------------------------------------------------------------------------


@given(parts=grams, units=st.lists(st.integers(1, 10**9), min_size=1, max_size=20))
def test_many_runs_are_sum_by_sum(parts: list[float], units: list[int]) -> None:
    """The score of many runs is all grams by all units, in any order, and lies between the least and the most."""
    runs = list(zip(parts, units, strict=False))
    score = per_unit([g for g, _ in runs], [count for _, count in runs])
    assert score is not None
    assert score == pytest.approx(sum(g for g, _ in runs) / sum(count for _, count in runs))
    assert score == per_unit([g for g, _ in reversed(runs)], [count for _, count in reversed(runs)])
    ratios = [g / count for g, count in runs]
    assert min(ratios) * (1 - 1e-9) <= score <= max(ratios) * (1 + 1e-9)


def test_a_mean_of_ratios_would_be_wrong() -> None:
    """One gram for one token and one for 999 are 2 mg a token, not the 500 mg that the mean of both ratios is."""
    assert per_unit([1.0, 1.0], [1, 999]) == pytest.approx(0.002)


@pytest.mark.parametrize(
    ("parts", "units"), [([], []), ([1.0], [0]), ([None], [5]), ([1.0, None], [5, 5]), ([1.0], [None])]
)
def test_no_score_from_what_is_not_known(parts: list[float | None], units: list[int | None]) -> None:
    """Nothing counted, or anything unknown, gives no score: null, not zero."""
    assert per_unit(parts, units) is None


def score(energy_j: float, lasted_s: float, chosen: CarbonFactors) -> float:
    figure = Figure(j=energy_j, u=0.0, grade="A")
    found = sci((figure, lasted_s, chosen), (figure, lasted_s, chosen), USAGE).answer.per_answer_g
    assert found is not None
    return found


@given(
    energy_j=st.floats(1, 1e6),
    lasted_s=st.floats(0.1, 1e4),
    g_per_kwh=st.floats(10, 1000),
    less=st.floats(0.1, 0.9),
)
def test_every_saving_lowers_the_score(energy_j: float, lasted_s: float, g_per_kwh: float, less: float) -> None:
    """Less energy, cleaner electricity, less time, a lighter or longer used machine and a better building each lower
    it."""
    chosen = factors(g_per_kwh, embodied=MACHINE, pue=1.3)
    before = score(energy_j, lasted_s, chosen)
    grid = replace(chosen.intensity, g_per_kwh=g_per_kwh * less)
    lighter = replace(MACHINE, central_kg=MACHINE.central_kg * less)
    longer = replace(MACHINE, life_years=MACHINE.life_years / less)
    assert score(energy_j * less, lasted_s, chosen) < before
    assert score(energy_j, lasted_s * less, chosen) < before
    for saving in (
        replace(chosen, intensity=grid),
        replace(chosen, embodied=lighter),
        replace(chosen, embodied=longer),
        replace(chosen, pue=1.0),
    ):
        assert score(energy_j, lasted_s, saving) < before


def test_moving_does_not_move_what_is_built() -> None:
    """In a cleaner zone O falls and M stays to the last bit."""
    figure = Figure(j=1000.0, u=10.0, grade="A")
    here, there = factors(500.0, embodied=MACHINE), factors(50.0, embodied=MACHINE)
    at_home, away = (sci((figure, 9.0, one), (figure, 9.0, one), USAGE).answer for one in (here, there))
    assert away.M_g == at_home.M_g
    assert away.O_g == pytest.approx((at_home.O_g or 0.0) / 10)


def test_units_are_those_of_the_standard() -> None:
    """E stands in kWh, I in g/kWh, TE in kg, and O = E x I, M = TE x TiR/EL x RR/ToR give the score back in grams."""
    counter = series(channel(), work(10.0, 50.0, 30.0, 32.0), 34.0)
    receipt = account(trace(counter), factors(pue=1.5), receipt_id="r", placement=PLACEMENT)
    for one in (receipt.sci.answer, receipt.sci.reserved):
        assert one.E_kwh is not None
        assert one.per_answer_g is not None
        o_g = one.E_kwh * one.I_g_per_kwh
        m_g = one.TE_kg * 1000 * (one.TiR_s / (one.EL_years * 365 * 24 * 3600)) * (one.RR / one.ToR)
        assert one.O_g == pytest.approx(o_g)
        assert one.M_g == pytest.approx(m_g)
        assert one.per_answer_g == pytest.approx(o_g + m_g)


def test_boundaries_are_sentences_that_name_what_is_outside() -> None:
    """Each boundary says what it covers, idling included, and that training is outside."""
    for boundary in (ANSWER_BOUNDARY, RESERVED_BOUNDARY):
        assert OUTSIDE in boundary
        assert "embodied emissions" in boundary
    assert "idle included" in ANSWER_BOUNDARY
    assert "Training" in OUTSIDE
    assert "outside" in WORK_BOUNDARY


def test_there_is_no_room_for_certificates() -> None:
    """Offsets, certificates and green tariffs have no field among the factors: nothing market-based can lower a
    score."""
    fields = {*CarbonFactors.__dataclass_fields__, *Intensity.__dataclass_fields__, *Embodied.__dataclass_fields__}
    assert not {name for name in fields if re.search("offset|certificate|market|credit|tariff|ppa|rec_", name)}


# --- the list of requirements -----------------------------------------------------------------------------------------


def requirements() -> list[str]:
    """The rows of the page's tables: what a standard asks, and what meets it."""
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("|")]
    return [row for row in rows if not re.fullmatch(r"\|[-| :]+\|", row) and not row.startswith("| What it asks")]


def test_every_requirement_names_a_test_or_a_page() -> None:
    """No row of the list stands without something that meets it."""
    rows = requirements()
    assert len(rows) >= 25
    for row in rows:
        assert NAMED.search(row) or LINKED.search(row), row


def test_every_test_and_page_named_exists() -> None:
    """A test or page that the list names is there under that name."""
    text = PAGE.read_text("utf-8")
    for file, name in NAMED.findall(text):
        source = (ROOT / file).read_text("utf-8")
        assert re.search(rf"^(async )?def {name}\(", source, re.MULTILINE), f"{file}::{name}"
    for link in LINKED.findall(text):
        assert (PAGE.parent / link).exists(), link


@pytest.mark.parametrize("page", ["explanation/sci.md", "explanation/carbon.md", "how-to/disclose.md"])
def test_the_pages_link_to_what_is_there(page: str) -> None:
    """Links between the pages on carbon lead somewhere."""
    path = ROOT / "docs" / page
    for link in LINKED.findall(path.read_text("utf-8")):
        assert (path.parent / link).exists(), link


def test_the_page_on_carbon_tells_every_source_of_a_part() -> None:
    """Each source that a part of a machine can name is explained on the page."""
    text = (ROOT / "docs" / "explanation" / "carbon.md").read_text("utf-8")
    for words in ("ACT", "imec", "UBA", "Boavizta", "TechInsights", "Tannu", "R740", "HGX H100", "ADEME", "worldsteel"):
        assert words in text


def test_the_page_on_carbon_lists_what_is_not_confirmed() -> None:
    """Each area for which no publication was found stands in the page's table of those, and no other."""
    text = (ROOT / "docs" / "explanation" / "carbon.md").read_text("utf-8")
    table = text[text.index("**Not confirmed") : text.index("**Not checked again")]
    open_dies = [(one.name, die) for one in CPUS for die in one.dies if not die.confirmed]
    for name, die in open_dies:
        (row,) = [line for line in table.splitlines() if line.startswith("|") and name in line]
        assert f"{die.areas[0].mm2:g}" in row
        assert str(die.cores) in row
    open_chips = [name.removeprefix("two of ") for name, chip in CHIPS.items() if not chip.confirmed]
    assert all(f"| {name}" in table for name in open_chips)
    named = {name for name, _ in open_dies} | set(open_chips)
    listed = [line for line in table.splitlines()[4:] if line.startswith("|")]
    assert all(any(name in line for name in named) for line in listed)


def test_the_page_on_carbon_has_the_figures_of_the_code() -> None:
    """The table of silicon and the worked tower on the page are what the code gives, and each comparison is there."""
    text = (ROOT / "docs" / "explanation" / "carbon.md").read_text("utf-8")
    for process_nm in (5, 7, 10, 14):
        low, central, high = (f"{kg:.2f}" for kg in _DIE_KG_PER_CM2[process_nm])
        assert f"| – at {process_nm} nm | {low} | {central} | {high} |" in text
    tower = embodied_of_parts(TOWER, 4.0)
    assert f"comes to {tower.central_kg:.0f} kg ({tower.low_kg:.0f} to {tower.high_kg:.0f})" in text
    for one in equivalents(1.0, 1.0):
        assert f"| {one.name} |" in text
