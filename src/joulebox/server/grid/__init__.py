"""Where grams come from: the grid's carbon intensity by zone and the machine's embodied emissions, each with its range.

`chain` chooses an intensity: the operator's, a live source's, the embedded table's (`table`). `feeds` asks the live
sources, `live` does so in the background and keeps what they said. No prompt ever waits for any of it.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from joulebox.accounting.embodied import embodied_of_parts
from joulebox.model import CarbonFactors, Embodied, MachineParts, WaterFactors
from joulebox.server.grid.chain import GridValue, run_intensities
from joulebox.server.grid.table import Zone, check_zone, zones
from joulebox.settings import Settings, is_loopback

__all__ = ["Zone", "check_zone", "embodied_of", "factors_for", "notices", "water_of", "zones"]


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
    """What making the machine emitted: what the operator set on the node, else on the server, else what its parts add
    up to, else a generic desktop computer's, saying so.

    Raises `JouleboxError("bad_setting")` where low, central and high are not in order, or central is missing.
    """
    own = parts.footprint if parts is not None else None
    return own or settings.footprint or embodied_of_parts(parts, settings.life_years)


def water_of(settings: Settings) -> WaterFactors | None:
    """The operator's water factors; `None` where there are none."""
    on_site, electricity = settings.water_on_site_l_per_kwh, settings.water_electricity_l_per_kwh
    if on_site is None and electricity is None:
        return None
    source = settings.water_source or "operator's setting"
    return WaterFactors(on_site_l_per_kwh=on_site, electricity_l_per_kwh=electricity, source=source)
