"""Where grams come from: the grid's carbon intensity by zone and the machine's embodied emissions, each with its range.

`chain` chooses an intensity: the operator's, a live source's, the embedded table's (`table`). `feeds` asks the live
sources, `live` does so in the background and keeps what they said. No prompt ever waits for any of it.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Final

from joulebox.accounting.embodied import embodied_of_parts
from joulebox.errors import JouleboxError
from joulebox.model import CarbonFactors, Embodied, MachineParts, WaterFactors
from joulebox.server.grid.chain import GridValue, run_intensities
from joulebox.server.grid.table import Zone, check_zone, zones
from joulebox.settings import Settings, is_loopback

__all__ = ["Zone", "check_zone", "embodied_of", "factors_for", "notices", "water_of", "zones"]

CENTRAL_LOW_RATIO: Final = 0.5
CENTRAL_HIGH_RATIO: Final = 1.5
"""Where an operator gives one figure for embodied emissions: published product footprints differ by about this much."""


def factors_for(
    zone: str | None,
    settings: Settings,
    at: datetime,
    until: datetime | None = None,
    known: Iterable[GridValue] = (),
    parts: MachineParts | None = None,
) -> CarbonFactors:
    """Everything that turns joules of a run in `zone` from `at` to `until` into grams, with what live sources are
    `known` to have said of that time. `parts`: what the machine is made of.

    Raises `JouleboxError`: `unknown_zone` with near matches, `bad_setting` where embodied or grid figures contradict
    one another.
    """
    first, *later = run_intensities(zone, at, until or at, known, settings)
    factors = CarbonFactors(
        intensity=first.intensity, embodied=embodied_of(settings, parts), water=water_of(settings), later=tuple(later)
    )
    if "pue" in settings.model_fields_set:
        return replace(factors, pue=settings.pue, pue_source=settings.pue_source or "operator's setting")
    return factors


def notices(settings: Settings) -> list[str]:
    """What whoever starts a server with these settings should know of their sources' terms."""
    if settings.electricity_maps_key is None or is_loopback(settings.host):
        return []
    reach = "Others can reach this server, and Electricity Maps' free keys are for non-commercial use"
    return [f"{reach}: make sure that your plan allows it, or take the key out (docs/how-to/grid-data.md)."]


def embodied_of(settings: Settings, parts: MachineParts | None = None) -> Embodied:
    """What making the machine emitted: the operator's figures, else what its parts add up to, else a generic desktop
    computer's, saying so.

    Raises `JouleboxError("bad_setting")` where low, central and high are not in order, or central is missing.
    """
    low_kg, central_kg, high_kg = settings.embodied_low_kg, settings.embodied_kg, settings.embodied_high_kg
    if central_kg is None:
        if low_kg is not None or high_kg is not None:
            raise JouleboxError(
                "bad_setting",
                "embodied_low_kg and embodied_high_kg are a range around embodied_kg: set embodied_kg too.",
            )
        return embodied_of_parts(parts, settings.life_years)
    source = settings.embodied_source or "operator's setting"
    assumed = [
        text
        for given, text in ((low_kg, f"low x{CENTRAL_LOW_RATIO}"), (high_kg, f"high x{CENTRAL_HIGH_RATIO}"))
        if given is None
    ]
    low_kg = central_kg * CENTRAL_LOW_RATIO if low_kg is None else low_kg
    high_kg = central_kg * CENTRAL_HIGH_RATIO if high_kg is None else high_kg
    if not low_kg <= central_kg <= high_kg:
        raise JouleboxError(
            "bad_setting",
            f"Embodied emissions must rise: embodied_low_kg {low_kg:g}, embodied_kg {central_kg:g}, "
            f"embodied_high_kg {high_kg:g}. Put them in order.",
        )
    if assumed:
        source += f" (range assumed: {', '.join(assumed)})"
    return Embodied(
        low_kg=low_kg, central_kg=central_kg, high_kg=high_kg, life_years=settings.life_years, source=source
    )


def water_of(settings: Settings) -> WaterFactors | None:
    """The operator's water factors; `None` where there are none."""
    on_site, electricity = settings.water_on_site_l_per_kwh, settings.water_electricity_l_per_kwh
    if on_site is None and electricity is None:
        return None
    source = settings.water_source or "operator's setting"
    return WaterFactors(on_site_l_per_kwh=on_site, electricity_l_per_kwh=electricity, source=source)
