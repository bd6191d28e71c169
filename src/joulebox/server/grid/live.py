"""What is known of the grid, kept ready in memory: receipts and pages take what is there and never wait."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol

from joulebox.clock import Clock
from joulebox.model import CarbonFactors, DatedIntensity, Intensity, MachineParts
from joulebox.server.grid import factors_for
from joulebox.server.grid.chain import GridValue, run_intensities, series
from joulebox.settings import Settings

KEEP: Final = timedelta(hours=72)
"""So much of the past is kept in memory; all of it stays in the database."""
AHEAD: Final = timedelta(days=7)


class Shelf(Protocol):
    """What this needs of the store."""

    async def grid_values(self, zone: str | None, start: datetime, until: datetime) -> Sequence[GridValue]:
        """What live sources said of a zone, or of all, between two moments."""


class Grid:
    """Intensities by zone and time."""

    def __init__(self, settings: Settings, clock: Clock, shelf: Shelf) -> None:
        self._settings = settings
        self.clock = clock
        self._shelf = shelf
        self._known: tuple[GridValue, ...] = ()

    async def open(self) -> None:
        """Take up what is known of the last days. Raises `JouleboxError("database")`."""
        now = self.clock.utc()
        self._known = tuple(await self._shelf.grid_values(None, now - KEEP, now + AHEAD))

    def now(self, zone: str) -> Intensity:
        """What holds in a zone now, as far as is known. Raises `JouleboxError("unknown_zone")`."""
        at = self.clock.utc()
        return run_intensities(zone, at, at, self._known, self._settings)[0].intensity

    def series(self, zone: str, start: datetime, until: datetime) -> tuple[DatedIntensity, ...]:
        """What is known of a zone between two moments, of one source, with its gaps; without any, its yearly mean.

        Raises `JouleboxError("unknown_zone")`.
        """
        return series(zone, start, until, self._known, self._settings)

    def factors(
        self, zone: str | None, start: datetime, until: datetime, parts: MachineParts | None = None
    ) -> CarbonFactors:
        """What turns a run from `start` to `until` on a machine of these parts into grams, as far as is known now.

        Raises `JouleboxError`: `unknown_zone`, `bad_setting`.
        """
        return factors_for(zone, self._settings, start, until, self._known, parts)

    async def look_up(self, zone: str | None, start: datetime, until: datetime) -> Sequence[DatedIntensity]:
        """The intensities of a run of any age, from the database.

        Raises `JouleboxError`: `unknown_zone`, `bad_setting`, `database`.
        """
        known = await self._shelf.grid_values(zone, start, until) if zone is not None else ()
        return run_intensities(zone, start, until, known, self._settings)
