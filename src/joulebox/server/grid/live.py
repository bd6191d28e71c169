"""What is known of the grid, kept ready in memory: receipts and pages take what is there and never wait.

Live sources are asked by one task, one request at a time (`server.keeper`), when a prompt makes a zone matter or a
receipt may get better data; an idle server asks nobody and wakes for nothing.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, Protocol

from joulebox.clock import Clock
from joulebox.errors import JouleboxError
from joulebox.model import CarbonFactors, DatedIntensity, Intensity, MachineParts
from joulebox.server.grid import factors_for
from joulebox.server.grid.chain import RANK, GridValue, run_intensities, series
from joulebox.server.grid.feeds import HOUR, Feed, Trouble
from joulebox.server.grid.table import yearly, zone_of, zones
from joulebox.server.jobs import Recheck
from joulebox.settings import Settings

_log = logging.getLogger(__name__)

KEEP: Final = timedelta(hours=72)
"""So much of the past is kept in memory; all of it stays in the database."""
AHEAD: Final = timedelta(days=7)
DAY: Final = timedelta(hours=24)
ASK_EVERY: Final = timedelta(minutes=5)
"""A source is asked of one zone at most so often."""
PLAN_EVERY: Final = timedelta(minutes=30)
"""For the day ahead, so often."""
BACK_OFF: Final = timedelta(minutes=1)
BACK_OFF_MAX: Final = timedelta(hours=1)
PATIENCE_MAX: Final = timedelta(hours=24)
FOREVER: Final = datetime.max.replace(tzinfo=UTC)
When = Literal["now", "ahead", "past"]
LIVE: Final = ("measured", "static")
"""Qualities that nothing better replaces."""


class Shelf(Protocol):
    """What this needs of the store."""

    async def grid_values(self, zone: str | None, start: datetime, until: datetime) -> Sequence[GridValue]:
        """What live sources said of a zone, or of all, between two moments."""

    async def keep_grid_values(self, values: Sequence[GridValue], now: datetime) -> None:
        """Keep what a live source says."""


@dataclass(slots=True)
class _Gate:
    """Whether a source may be asked: not before `opens`, after so many failures in a row."""

    opens: datetime
    failures: int = 0


class Grid:
    """Intensities by zone and time: what is known now, at once; and what to ask live sources for."""

    def __init__(self, settings: Settings, clock: Clock, shelf: Shelf, feeds: Sequence[Feed] = ()) -> None:
        self.clock = clock
        self.bell = asyncio.Event()
        self.heard: Callable[[], None] = lambda: None
        """Called when a live source has said something new."""
        self.counts: Counter[str] = Counter()
        """How often each source was asked, and with what outcome: `gb asked`, `gb throttled`."""
        self._settings = settings
        self._shelf = shelf
        self._feeds = tuple(feeds)
        self._known: tuple[GridValue, ...] = ()
        self._wanted: dict[str, bool] = {}
        self._asked: dict[tuple[str, str, When], datetime] = {}
        self._gates = {feed.name: _Gate(opens=datetime.min.replace(tzinfo=UTC)) for feed in feeds}

    @property
    def live(self) -> bool:
        """Whether any live source is turned on."""
        return bool(self._feeds)

    @property
    def own_zone(self) -> str | None:
        """Where the server itself is, as far as its settings say."""
        return self._settings.zone

    def serves(self, zone: str | None) -> bool:
        """Whether a live source may know this zone."""
        return zone is not None and any(feed.serves(zone) for feed in self._feeds)

    async def open(self) -> None:
        """Take up what is known of the last days. Raises `JouleboxError("database")`."""
        now = self.clock.utc()
        self._known = tuple(await self._shelf.grid_values(None, now - KEEP, now + AHEAD))

    async def close(self) -> None:
        """Close the connections to live sources."""
        for feed in self._feeds:
            await feed.web.close()

    # --- at once ------------------------------------------------------------------------------------------------------

    def now(self, zone: str | None) -> Intensity:
        """What holds in a zone now, as far as is known; without one, in the world.

        Raises `JouleboxError("unknown_zone")`.
        """
        at = self.clock.utc()
        return run_intensities(zone, at, at, self._known, self._settings)[0].intensity

    def series(self, zone: str | None, start: datetime, until: datetime) -> tuple[DatedIntensity, ...]:
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

    def everywhere(
        self, start: datetime, until: datetime
    ) -> tuple[dict[str, tuple[DatedIntensity, ...]], dict[str, Intensity]]:
        """What live sources said of any zone between two moments, and the yearly mean of every zone."""
        known = {value.zone for value in self._known if value.start < until and value.until > start}
        hourly = {zone: self.series(zone, start, until) for zone in sorted(known)}
        return hourly, {zone.key: yearly(zone, start) for zone in zones()}

    def recheck(
        self, receipt_id: str, zone: str | None, run: tuple[datetime, datetime], factors: CarbonFactors
    ) -> Recheck | None:
        """When to look for better data for a receipt; `None` where none can come."""
        key = zone_of(zone).key if zone is not None else ""
        quality = min((factors.intensity, *(one.intensity for one in factors.later)), key=_rank).quality
        if quality in LIVE or not any(feed.serves(key) for feed in self._feeds):
            return None
        due = run[1] if quality == "yearly" else run[1] + HOUR
        return Recheck(receipt_id=receipt_id, zone=key, start=run[0], until=run[1], due=due)

    def expect(self, zone: str | None, *, ahead: bool = False) -> None:
        """A prompt may run in this zone soon (`ahead`: somebody plans the next day): have its intensity looked for."""
        try:
            key = zone_of(zone).key if zone is not None else None
        except JouleboxError:
            return
        if key is None or not any(feed.serves(key) for feed in self._feeds) or self._fresh(key, ahead=ahead):
            return
        self._wanted[key] = self._wanted.get(key, False) or ahead
        self.bell.set()

    def _fresh(self, zone: str, *, ahead: bool) -> bool:
        """Whether asking would bring nothing new: somebody just has, or the present hour is known."""
        now = self.clock.utc()
        times: tuple[When, ...] = ("ahead",) if ahead else ("now", "ahead")
        if any(self._too_soon((feed.name, zone, when), now) for feed in self._feeds for when in times):
            return True
        return not ahead and any(
            value.zone == zone and value.start <= now < value.until and value.quality != "forecast"
            for value in self._known
        )

    def _too_soon(self, asked: tuple[str, str, When], now: datetime) -> bool:
        at = self._asked.get(asked)
        return at is not None and now - at < (PLAN_EVERY if asked[2] == "ahead" else ASK_EVERY)

    # --- in the background --------------------------------------------------------------------------------------------

    async def look_up(self, zone: str | None, start: datetime, until: datetime) -> Sequence[DatedIntensity]:
        """The intensities of a run of any age, from the database.

        Raises `JouleboxError`: `unknown_zone`, `bad_setting`, `database`.
        """
        known = await self._shelf.grid_values(zone_of(zone).key, start, until) if zone is not None else ()
        return run_intensities(zone, start, until, known, self._settings)

    async def fetch_wanted(self) -> None:
        """Look for what was expected since the last time. Raises `JouleboxError("database")`."""
        wanted, self._wanted = self._wanted, {}
        now = self.clock.utc()
        for zone, ahead in wanted.items():
            await self.fetch(zone, now, now + DAY if ahead else now)

    async def fetch(self, zone: str, start: datetime, until: datetime) -> bool:
        """Ask the sources in order for a zone and time, until one answers; `False`: it is too soon to ask again.

        Raises `JouleboxError("database")`.
        """
        now = self.clock.utc()
        when: When = "ahead" if until > now + HOUR else "now" if start > now - HOUR else "past"
        for feed in self._feeds:
            gate, asked = self._gates[feed.name], (feed.name, zone, when)
            if not feed.serves(zone) or now < gate.opens:
                continue
            if self._too_soon(asked, now):
                return False
            self._asked[asked] = now
            self.counts[f"{feed.name} asked"] += 1
            try:
                values = await feed.values(zone, start, until, now)
            except Trouble as trouble:
                self._shut(feed.name, gate, trouble)
                continue
            gate.failures = 0
            await self._take(values, now)
            if values:
                break
        return True

    def _shut(self, name: str, gate: _Gate, trouble: Trouble) -> None:
        gate.failures += 1
        self.counts[f"{name} {trouble.kind}"] += 1
        wait = min(BACK_OFF * 2 ** min(gate.failures - 1, 10), BACK_OFF_MAX)
        if trouble.retry_s is not None:
            wait = max(wait, min(timedelta(seconds=trouble.retry_s), PATIENCE_MAX))
        gate.opens = FOREVER if trouble.kind == "refused" else self.clock.utc() + wait
        again = (
            "It is not asked again before a restart" if trouble.kind == "refused" else f"It is left alone for {wait}"
        )
        say = _log.warning if gate.failures == 1 else _log.info
        say("grid data: %s cannot be used: %s. %s; receipts say which source they took.", name, trouble, again)

    async def _take(self, values: Sequence[GridValue], now: datetime) -> None:
        """Keep what is new; what is measured is not replaced by what is estimated."""
        known = {(value.zone, value.source, value.start): value for value in self._known}
        fresh = []
        for value in values:
            old = known.get((value.zone, value.source, value.start))
            if old != value and (old is None or RANK[value.quality] >= RANK[old.quality]):
                known[value.zone, value.source, value.start] = value
                fresh.append(value)
        if fresh:
            await self._shelf.keep_grid_values(fresh, now)
            self._known = tuple(value for value in known.values() if value.until > now - KEEP)
            self.heard()


def _rank(intensity: Intensity) -> int:
    return RANK[intensity.quality]
