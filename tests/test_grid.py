"""The grid table and the machine's embodied emissions: known values, honest ranges, sentences for what is not known."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulebox.errors import JouleboxError
from joulebox.server.grid import check_zone, embodied_of, factors_for, zones
from joulebox.settings import CENTRAL_HIGH_RATIO, CENTRAL_LOW_RATIO, Settings

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
ZONES = zones()
kilograms = st.floats(min_value=0.1, max_value=1e6)


@pytest.mark.parametrize(
    ("zone", "g_per_kwh"),
    [("FR", 31), ("DE", 342), ("SE", 21), ("PL", 565), ("US", 414), ("GB", 176), ("US-CAL-CISO", 208)],
)
def test_known_values_of_2025(zone: str, g_per_kwh: float) -> None:
    """The embedded table says what Electricity Maps published for 2025, average and life cycle."""
    intensity = factors_for(zone, Settings(), AT).intensity
    assert (g_per_kwh, zone, "2025") == (intensity.g_per_kwh, intensity.zone, intensity.at)
    assert (intensity.kind, intensity.factor, intensity.quality) == ("average", "lifecycle", "yearly")
    assert "Electricity Maps (ODbL)" in intensity.source


def test_every_zone_has_a_positive_value_inside_its_range() -> None:
    """All 352 zones have 0 < low < mean < high, and the range is wide, since one hour is not a year."""
    assert len(ZONES) == 352
    for zone in ZONES:
        intensity = factors_for(zone.key, Settings(), AT).intensity
        assert 0 < intensity.low <= 0.5 * intensity.g_per_kwh
        assert 1.5 * intensity.g_per_kwh <= intensity.high


def test_the_source_says_when_the_table_is_of_another_year() -> None:
    """A run of 2026 on the table of 2025 names both years; a run of 2025 needs no such remark."""
    assert "used for 2026" in factors_for("DE", Settings(), AT).intensity.source
    assert "used for" not in factors_for("DE", Settings(), AT.replace(year=2025)).intensity.source


def test_no_zone_means_the_world_with_a_range_that_holds_most_grids() -> None:
    """Without a zone the world mean is taken, its range holds 95 % of all zones, and the receipt says what to set."""
    intensity = factors_for(None, Settings(), AT).intensity
    inside = sum(intensity.low <= zone.g_per_kwh <= intensity.high for zone in ZONES)
    assert (intensity.zone, intensity.g_per_kwh, intensity.quality) == ("world", 458.0, "yearly")
    assert 0.95 <= inside / len(ZONES) < 0.98
    assert "JOULEBOX_ZONE" in intensity.source


@pytest.mark.parametrize("spelled", ["de", " DE ", "De"])
def test_a_zone_is_found_however_it_is_spelled(spelled: str) -> None:
    """Case and spaces around a zone do not matter; the table's own spelling is used from then on."""
    assert check_zone(spelled) == "DE"


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("Germany", "DE"),
        ("germny", "DE"),
        ("DEU", "DE"),
        ("UK", "GB"),
        ("USA", "US"),
        ("US-CAL", "US-CAL-CISO"),
        ("sweden", "SE"),
    ],
)
def test_an_unknown_zone_is_answered_with_what_was_meant(wrong: str, meant: str) -> None:
    """A country's name or a slip of the finger is refused with the zone that fits."""
    with pytest.raises(JouleboxError) as caught:
        check_zone(wrong)
    assert caught.value.code == "unknown_zone"
    assert wrong in caught.value.detail
    assert "Did you mean" in caught.value.detail
    assert meant in caught.value.detail


@pytest.mark.parametrize("wrong", ["", "  ", "QQ-99", "\x00", "x" * 500])
def test_nonsense_is_refused_without_a_guess(wrong: str) -> None:
    """Where nothing is near, the sentence still says what a zone looks like."""
    with pytest.raises(JouleboxError, match=r"such as DE, FR or US-CAL-CISO") as caught:
        factors_for(wrong, Settings(), AT)
    assert caught.value.extra == {"near": []}


@given(st.text(max_size=30))
def test_any_text_is_a_zone_or_an_unknown_zone(text: str) -> None:
    """Whatever is typed, the answer is a key of the table or `unknown_zone`, never another failure."""
    try:
        assert check_zone(text) in {zone.key for zone in ZONES}
    except JouleboxError as error:
        assert error.code == "unknown_zone"


def test_without_the_operators_figure_a_generic_desktop_is_taken_and_named() -> None:
    """The default is not this machine, says so, and names the setting that would be better."""
    embodied = embodied_of(Settings())
    assert (embodied.low_kg, embodied.central_kg, embodied.high_kg, embodied.life_years) == (196.0, 301.0, 490.0, 4.0)
    assert "generic" in embodied.source
    assert "JOULEBOX_EMBODIED_KG" in embodied.source


def test_the_operators_figures_win() -> None:
    """Given figures, their source and the years are taken as they are."""
    settings = Settings(
        embodied_low_kg=800, embodied_kg=1000, embodied_high_kg=1300, embodied_source="maker's PCF 2025", life_years=5
    )
    embodied = factors_for("DE", settings, AT).embodied
    assert (embodied.low_kg, embodied.central_kg, embodied.high_kg, embodied.life_years) == (800, 1000, 1300, 5)
    assert embodied.source == "maker's PCF 2025"


@given(central_kg=kilograms)
def test_a_central_figure_alone_gets_an_assumed_range(central_kg: float) -> None:
    """One figure is widened by half on either side, and the source says that the range is assumed."""
    embodied = embodied_of(Settings(embodied_kg=central_kg))
    assert embodied.low_kg == central_kg * CENTRAL_LOW_RATIO
    assert embodied.high_kg == central_kg * CENTRAL_HIGH_RATIO
    assert "range assumed: low x0.5, high x1.5" in embodied.source


@given(low_kg=st.none() | kilograms, central_kg=st.none() | kilograms, high_kg=st.none() | kilograms)
def test_embodied_figures_are_in_order_or_refused(
    low_kg: float | None, central_kg: float | None, high_kg: float | None
) -> None:
    """Whatever an operator sets, the outcome is 0 < low <= central <= high or a sentence that names the setting."""
    try:
        embodied = embodied_of(Settings(embodied_low_kg=low_kg, embodied_kg=central_kg, embodied_high_kg=high_kg))
    except JouleboxError as error:
        assert error.code == "bad_setting"
        assert "embodied_kg" in error.detail
    else:
        assert 0 < embodied.low_kg <= embodied.central_kg <= embodied.high_kg


def test_pue_says_whether_anybody_measured_it() -> None:
    """The default of 1.0 is marked as not metered; a set value, 1.0 included, is the operator's."""
    assert "not metered" in factors_for("DE", Settings(), AT).pue_source
    chosen = factors_for("DE", Settings(pue=1.0), AT)
    assert (chosen.pue, chosen.pue_source) == (1.0, "operator's setting")
    assert factors_for("DE", Settings(pue=1.4), AT).pue == 1.4
    told = factors_for("DE", Settings(pue=1.4, pue_source="the hall's meter, 2025"), AT)
    assert told.pue_source == "the hall's meter, 2025"


def test_water_is_counted_only_with_the_operators_factors() -> None:
    """Without factors there is no water; one factor alone leaves the other unknown; the source is told."""
    assert factors_for("DE", Settings(), AT).water is None
    alone = factors_for("DE", Settings(water_electricity_l_per_kwh=1.95, water_source="WRI, Germany"), AT).water
    assert alone is not None
    assert (alone.on_site_l_per_kwh, alone.electricity_l_per_kwh, alone.source) == (None, 1.95, "WRI, Germany")
    dry = factors_for("DE", Settings(water_on_site_l_per_kwh=0.0), AT).water
    assert dry is not None
    assert (dry.on_site_l_per_kwh, dry.source) == (0.0, "operator's setting")
