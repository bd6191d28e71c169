"""Which intensity holds for a run: the operator's, a live source's that covers it, the table's, the world's."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulebox.errors import JouleboxError
from joulebox.model import CarbonFactors, Quality
from joulebox.server.grid import factors_for, notices
from joulebox.server.grid.chain import RANK, SOURCES, SPREAD, GridValue, SourceName, series
from joulebox.settings import Settings, load_settings

TEN = datetime(2026, 11, 23, 10, tzinfo=UTC)
NOTHING = Settings()


def value(
    g_per_kwh: float,
    *,
    hour: int = 0,
    source: SourceName = "electricity-maps",
    quality: Quality = "measured",
    zone: str = "DE",
) -> GridValue:
    start = TEN + timedelta(hours=hour)
    until = start + timedelta(hours=1)
    return GridValue(zone=zone, source=source, start=start, until=until, g_per_kwh=g_per_kwh, quality=quality)


def run(
    *known: GridValue, at: int = 50, lasts: int = 5, zone: str | None = "DE", own: Mapping[str, object] | None = None
) -> CarbonFactors:
    """The factors of a run that begins `at` minutes past ten."""
    start = TEN + timedelta(minutes=at)
    chosen = Settings.model_validate(own or {})
    return factors_for(zone, chosen, start, start + timedelta(minutes=lasts), known)


def test_a_live_value_of_the_hour_is_taken() -> None:
    """A value whose slot holds the run is the intensity, with zone, time, source, kind, factor and quality."""
    found = run(value(300.0), value(100.0, hour=1)).intensity
    assert (found.g_per_kwh, found.low, found.high) == (300.0, 255.0, 360.0)
    assert (found.zone, found.at) == ("DE", "2026-11-23T10:00+00:00")
    assert (found.kind, found.factor, found.quality) == ("average", "lifecycle", "measured")
    assert "Electricity Maps" in found.source


def test_a_run_over_the_hour_has_both_slots() -> None:
    """A run that crosses an hour gets the intensity of each, and from when on the second holds."""
    found = run(value(300.0), value(100.0, hour=1), lasts=20)
    assert (found.intensity.g_per_kwh, [one.intensity.g_per_kwh for one in found.later]) == (300.0, [100.0])
    assert found.later[0].start == (TEN + timedelta(hours=1)).isoformat()


def test_half_a_run_is_not_enough() -> None:
    """Where a source knows only part of a run, the next one of the chain that knows all of it is taken."""
    half = value(300.0)
    whole = [value(200.0, source="energy-charts"), value(210.0, source="energy-charts", hour=1)]
    assert run(half, *whole, lasts=20).intensity.g_per_kwh == 200.0
    assert run(half, lasts=20).intensity.quality == "yearly"


def test_sources_are_believed_in_order_and_never_mixed() -> None:
    """Electricity Maps goes before the keyless ones, whatever their quality; a GB figure says that it is direct."""
    forecast, actual = value(180.0, zone="GB", quality="forecast"), value(120.0, zone="GB", source="gb")
    assert run(actual, forecast, zone="GB").intensity.g_per_kwh == 180.0
    alone = run(actual, zone="GB").intensity
    assert (alone.g_per_kwh, alone.factor) == (120.0, "direct")
    assert "own emissions only" in alone.source
    assert "CC BY 4.0" in alone.source
    assert next(iter(SOURCES)) == "electricity-maps"


def test_another_zone_says_nothing() -> None:
    """A value of France is no value of Germany, and a node without a zone has the world's mean."""
    assert run(value(30.0, zone="FR")).intensity.quality == "yearly"
    assert run(value(30.0), zone=None).intensity.zone == "world"


def test_the_operators_figure_wins_in_its_zone() -> None:
    """It is taken before live ones, for nodes in the settings' zone, with its source; elsewhere the chain goes on."""
    own = {"grid_g_per_kwh": 20.0, "grid_source": "own hydro, 2026", "zone": "de"}
    found = run(value(300.0), own=own).intensity
    assert (found.g_per_kwh, found.low, found.high, found.quality) == (20.0, 10.0, 30.0, "static")
    assert found.source == "own hydro, 2026 (range assumed: low x0.5, high x1.5)"
    assert run(zone="FR", own=own).intensity.quality == "yearly"
    assert run(zone="FR", own={"grid_g_per_kwh": 20.0}).intensity.quality == "static"
    given_range = run(own={"grid_g_per_kwh": 20.0, "grid_low_g_per_kwh": 18.0, "grid_high_g_per_kwh": 21.0}).intensity
    assert (given_range.low, given_range.high, given_range.source) == (18.0, 21.0, "operator's setting")


@pytest.mark.parametrize("wrong", [{"grid_low_g_per_kwh": 5.0}, {"grid_g_per_kwh": 5.0, "grid_low_g_per_kwh": 6.0}])
def test_a_range_that_holds_nothing_is_refused(wrong: dict[str, float]) -> None:
    """A range without a figure, or beside it, is refused in one sentence that names the setting."""
    with pytest.raises(JouleboxError, match="grid_g_per_kwh") as refused:
        run(own=wrong)
    assert refused.value.code == "bad_setting"


def test_less_sure_is_never_narrower() -> None:
    """Ranges widen from measured over estimated and forecast to a year's mean, and ranks follow."""
    ordered: list[Quality] = ["measured", "estimated", "forecast"]
    ranges = [SPREAD[quality] for quality in ordered] + [(0.5, 1.5)]
    assert all(low >= wider_low and high <= wider_high for (low, high), (wider_low, wider_high) in pairwise(ranges))
    assert sorted(RANK, key=lambda quality: RANK[quality]) == ["yearly", "forecast", "estimated", "measured", "static"]


def test_a_series_is_what_is_known() -> None:
    """The values of a stretch of time come in order with their gaps; a zone of which nothing is known has the table."""
    known = [value(1.0, hour=3, quality="forecast"), value(2.0, hour=1), value(9.0, hour=40)]
    day = series("DE", TEN, TEN + timedelta(hours=24), known, NOTHING)
    assert [(one.start[11:16], one.intensity.g_per_kwh) for one in day] == [("11:00", 2.0), ("13:00", 1.0)]
    (table,) = series("FR", TEN, TEN + timedelta(hours=24), known, NOTHING)
    assert (table.intensity.quality, table.intensity.g_per_kwh) == ("yearly", 31.0)


@given(st.lists(st.tuples(st.integers(-3, 3), st.sampled_from(list(SOURCES))), max_size=8), st.integers(0, 200))
def test_any_knowledge_gives_a_whole_run(slots: list[tuple[int, SourceName]], lasts: int) -> None:
    """Whatever is known, a run gets intensities without a gap, of one source, or the table's for all of it."""
    found = run(*(value(100.0 + hour, hour=hour, source=source) for hour, source in slots), lasts=lasts)
    assert len({found.intensity.source, *(one.intensity.source for one in found.later)}) == 1
    edges = [found.later[0].start] if found.later else []
    for one in found.later:
        assert one.start == edges[-1]
        edges.append(one.until)
    if found.later:
        assert datetime.fromisoformat(edges[-1]) >= TEN + timedelta(minutes=50 + lasts)


def test_the_key_is_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A key comes from a file; neither the settings nor a refusal of it show it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").write_text("s3cret\n")
    monkeypatch.setenv("JOULEBOX_ELECTRICITY_MAPS_KEY_FILE", str(tmp_path / "key"))
    settings = load_settings()
    assert settings.electricity_maps_key is not None
    assert settings.electricity_maps_key.get_secret_value() == "s3cret"
    assert "s3cret" not in repr(settings) + settings.model_dump_json()
    (tmp_path / "key").write_text("s3cret of mine")
    with pytest.raises(JouleboxError, match="electricity_maps_key") as refused:
        load_settings()
    assert "s3cret" not in refused.value.detail
    assert refused.value.__cause__ is None


def test_a_server_that_others_reach_is_told_of_the_terms() -> None:
    """With a key and an address beyond this machine there is one notice, without either there is none."""
    key = {"electricity_maps_key": "k"}
    (notice,) = notices(Settings.model_validate(key | {"host": "0.0.0.0"}))
    assert "non-commercial" in notice
    assert [notices(Settings.model_validate(one)) for one in (key, {"host": "0.0.0.0"})] == [[], []]


@pytest.mark.parametrize(
    "wrong", [{"electricity_maps_url": "http://example.org"}, {"grid_live": "gb,french"}, {"grid_live": "entsoe"}]
)
def test_settings_of_sources_are_checked(wrong: dict[str, str]) -> None:
    """A key does not travel in the clear, and a source that is not there is refused with those that are."""
    with pytest.raises(JouleboxError, match=next(iter(wrong))) as refused:
        load_settings(**wrong)
    assert refused.value.code == "bad_setting"
