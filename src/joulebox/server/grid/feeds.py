"""What live sources are asked and how their answers read: Electricity Maps v4, carbonintensity.org.uk, Energy-Charts.

Each asks once and reads strictly: what is no number of the zone and time that were asked for is left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatch
from itertools import pairwise
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from joulebox.model import Quality
from joulebox.server.grid.chain import GridValue, SourceName
from joulebox.settings import Settings

if TYPE_CHECKING:
    from joulebox.client import Web, WebAnswer

HOUR: Final = timedelta(hours=1)
HISTORY: Final = timedelta(hours=24)
G_PER_KWH_MAX: Final = 5_000.0
"""No grid emits more; a greater figure is a mistake."""
NOTE_MAX: Final = 64
DEFAULT_URLS: Final = {"gb": "https://api.carbonintensity.org.uk", "energy-charts": "https://api.energy-charts.info"}
ENERGY_CHARTS_ZONES: Final = frozenset(
    "AT BE BG CH CZ DE EE ES FI FR GR HR HU IE LT LU LV ME MK NL PL PT RO RS SI SK".split()  # noqa: SIM905
)
"""Countries that are one zone of the table."""

TroubleKind = Literal["refused", "throttled", "broken"]


class Trouble(Exception):
    """A source that cannot be used now: it `refused` the key, asks for patience, or is broken."""

    def __init__(self, kind: TroubleKind, sentence: str, retry_s: float | None = None) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.retry_s = retry_s


class Feed(Protocol):
    """A live source."""

    name: SourceName
    web: "Web"

    def serves(self, zone: str) -> bool:
        """Whether it may know anything of a zone."""

    async def values(self, zone: str, start: datetime, until: datetime, now: datetime) -> Sequence[GridValue]:
        """What it says of a zone between two moments, as far as it says anything. Raises `Trouble`."""


def feeds_of(settings: Settings) -> list[Feed]:
    """The live sources that the settings turn on, in the order they are asked; the HTTP client is only loaded where
    there are any."""
    if settings.electricity_maps_key is None and not settings.grid_live:
        return []
    from joulebox.client import Web

    web = Web()
    found: list[Feed] = []
    if settings.electricity_maps_key is not None:
        key = settings.electricity_maps_key.get_secret_value()
        found.append(ElectricityMaps(web, settings.electricity_maps_url, key))
    live = {name: url for name, _, url in (one.partition("=") for one in settings.grid_live)}
    if "gb" in live:
        found.append(GreatBritain(web, live["gb"] or DEFAULT_URLS["gb"]))
    if "energy-charts" in live:
        found.append(EnergyCharts(web, live["energy-charts"] or DEFAULT_URLS["energy-charts"]))
    return found


class ElectricityMaps:
    """https://api.electricitymaps.com/v4: the last hour, hours past, hours to come, as far as the key's plan goes.

    The plan is asked for once (`/zones` lists what the key may ask of each zone). A 401 for one request means that the
    plan lacks it, not that the key is wrong.
    """

    name: SourceName = "electricity-maps"

    def __init__(self, web: "Web", url: str, key: str) -> None:
        self.web = web
        self._url = url
        self._headers = {"auth-token": key}
        self._access: Mapping[str, Any] | None = None
        self._lacking: set[tuple[str, str]] = set()

    def serves(self, zone: str) -> bool:
        """Whether the plan has the zone; before anybody has asked, it may."""
        return any(self._may(zone, request) for request in ("latest", "history", "past-range", "forecast"))

    async def values(self, zone: str, start: datetime, until: datetime, now: datetime) -> Sequence[GridValue]:
        """What the plan gives of the time: measured or estimated hours, then forecasts. Raises `Trouble`."""
        if self._access is None:
            self._access = await self._probe()
        found: list[GridValue] = []
        this_hour = _hour(now)
        if until > this_hour + HOUR and self._may(zone, "forecast"):
            found += await self._ask(zone, "forecast", {"horizonHours": "24"})
        if start < this_hour and self._may(zone, "past-range"):
            window = {"start": _stamp(_hour(start)), "end": _stamp(min(_hour(until) + HOUR, this_hour))}
            found += await self._ask(zone, "past-range", window)
        elif start < this_hour and until > this_hour - HISTORY and self._may(zone, "history"):
            found += await self._ask(zone, "history", {})
        if until >= this_hour and self._may(zone, "latest"):
            found += await self._ask(zone, "latest", {})
        return found

    def _may(self, zone: str, request: str) -> bool:
        if (zone, request) in self._lacking:
            return False
        if not self._access:
            return True
        allowed = (self._access.get(zone) or {}).get("access", ["*"]) if zone in self._access else []
        return any(fnmatch(f"carbon-intensity/{request}", str(entry)) for entry in allowed)

    async def _probe(self) -> Mapping[str, Any]:
        answer = await _get(self.web, f"{self._url}/zones", {}, self._headers)
        if answer.status in (401, 403):
            raise Trouble("refused", "it refuses the key")
        _fail_unless_fine(answer)
        zones = answer.data
        if isinstance(zones, list):
            zones = {_of(zone, "zone") or _of(zone, "zoneKey"): zone for zone in zones}
        if not isinstance(zones, dict):
            raise Trouble("broken", "its list of zones cannot be read")
        return {str(key): value for key, value in zones.items() if isinstance(value, dict)}

    async def _ask(self, zone: str, request: str, more: Mapping[str, str]) -> list[GridValue]:
        # without disableCallerLookup an unknown zone is silently answered with that of the caller's address
        params = {"zone": zone, "disableCallerLookup": "true", "temporalGranularity": "hourly", **more}
        answer = await _get(self.web, f"{self._url}/carbon-intensity/{request}", params, self._headers)
        if answer.status in (401, 403):
            told = str(answer.data.get("error", "")) if isinstance(answer.data, dict) else ""
            if not self._access and "zone" not in told.lower():
                raise Trouble("refused", "it refuses the key")
            self._lacking.add((zone, request))
            return []
        if answer.status in (400, 404):
            return []
        _fail_unless_fine(answer)
        if not isinstance(answer.data, dict) or answer.data.get("zone") != zone:
            raise Trouble("broken", f"its answer for {request} is not of zone {zone}")
        return list(self._read(zone, request, answer.data))

    def _read(self, zone: str, request: str, data: Mapping[str, Any]) -> Iterator[GridValue]:
        rows = [data] if request == "latest" else data.get("data") or data.get("history") or data.get("forecast")
        for row in rows if isinstance(rows, list) else []:
            at, g_per_kwh = _moment(_of(row, "datetime")), _number(_of(row, "carbonIntensity"))
            if at is None or g_per_kwh is None:
                continue
            quality: Quality = "measured" if _of(row, "isEstimated") is False else "estimated"
            if request == "forecast":
                quality = "forecast"
            note = _note(_of(row, "estimationMethod")) if quality == "estimated" else ""
            yield GridValue(
                zone=zone,
                source=self.name,
                start=_hour(at),
                until=_hour(at) + HOUR,
                g_per_kwh=g_per_kwh,
                quality=quality,
                note=f"estimated by {note}" if note else "",
            )


class GreatBritain:
    """https://api.carbonintensity.org.uk: half hours of Great Britain, forecast and, once they are over, actual."""

    name: SourceName = "gb"

    def __init__(self, web: "Web", url: str) -> None:
        self.web = web
        self._url = url.rstrip("/")

    def serves(self, zone: str) -> bool:
        """Great Britain alone."""
        return zone == "GB"

    async def values(self, zone: str, start: datetime, until: datetime, now: datetime) -> Sequence[GridValue]:
        """Half hours from `start` to `until`. Raises `Trouble`."""
        begin, end = (at - timedelta(minutes=at.minute % 30) for at in (start, until))
        url = f"{self._url}/intensity/{_stamp(begin)}/{_stamp(end + HOUR / 2)}"
        answer = await _get(self.web, url, {}, {})
        if answer.status in (400, 404):
            return []
        _fail_unless_fine(answer)
        rows = _of(answer.data, "data")
        if not isinstance(rows, list):
            raise Trouble("broken", "its answer cannot be read")
        return [value for row in rows if (value := self._read(row)) is not None]

    def _read(self, row: object) -> GridValue | None:
        start, until, told = _moment(_of(row, "from")), _moment(_of(row, "to")), _of(row, "intensity")
        actual, forecast = _number(_of(told, "actual")), _number(_of(told, "forecast"))
        g_per_kwh = actual if actual is not None else forecast
        if start is None or until is None or g_per_kwh is None or not start < until <= start + HOUR:
            return None
        quality: Quality = "measured" if actual is not None else "forecast"
        return GridValue(zone="GB", source=self.name, start=start, until=until, g_per_kwh=g_per_kwh, quality=quality)


class EnergyCharts:
    """https://api.energy-charts.info: quarters of an hour of European countries, with a forecast of the day."""

    name: SourceName = "energy-charts"

    def __init__(self, web: "Web", url: str) -> None:
        self.web = web
        self._url = url.rstrip("/")

    def serves(self, zone: str) -> bool:
        """Countries that are one zone of the table."""
        return zone in ENERGY_CHARTS_ZONES

    async def values(self, zone: str, start: datetime, until: datetime, now: datetime) -> Sequence[GridValue]:
        """Quarters of an hour around the time. Raises `Trouble`."""
        window = {"start": _stamp(_hour(start)), "end": _stamp(_hour(until) + HOUR)}
        answer = await _get(self.web, f"{self._url}/co2eq", {"country": zone.lower()} | window, {})
        if answer.status in (400, 404, 422):
            return []
        _fail_unless_fine(answer)
        times, actual, forecast = (_of(answer.data, key) for key in ("unix_seconds", "co2eq", "co2eq_forecast"))
        if not isinstance(times, list) or not isinstance(actual, list):
            raise Trouble("broken", "its answer cannot be read")
        stamps = [time for time in times if isinstance(time, int) and 0 < time < 2**33]
        step_s = min((later - earlier for earlier, later in pairwise(stamps) if later > earlier), default=0)
        if len(stamps) != len(times) or len(actual) != len(times) or not 0 < step_s <= HOUR.total_seconds():
            raise Trouble("broken", "its answer cannot be read")
        expected = forecast if isinstance(forecast, list) and len(forecast) == len(times) else [None] * len(times)
        found = []
        for stamp, known, foreseen in zip(stamps, actual, expected, strict=True):
            g_per_kwh = _number(known) if known is not None else _number(foreseen)
            if g_per_kwh is not None:
                at = datetime.fromtimestamp(stamp, UTC)
                quality: Quality = "measured" if known is not None else "forecast"
                until = at + timedelta(seconds=step_s)
                value = GridValue(
                    zone=zone, source=self.name, start=at, until=until, g_per_kwh=g_per_kwh, quality=quality
                )
                found.append(value)
        return found


# --- reading strictly -------------------------------------------------------------------------------------------------


async def _get(web: "Web", url: str, params: Mapping[str, str], headers: Mapping[str, str]) -> "WebAnswer":
    from joulebox.client import WebFault

    try:
        return await web.get(url, params, headers)
    except WebFault as fault:
        raise Trouble("broken", f"it gives {fault}") from fault


def _fail_unless_fine(answer: "WebAnswer") -> None:
    if answer.status == 429:
        raise Trouble("throttled", "it asks for patience (429)", _retry_s(answer.retry_after))
    if answer.status != 200:
        raise Trouble("broken", f"it answers {answer.status}", _retry_s(answer.retry_after))
    if answer.data is None:
        raise Trouble("broken", "its answer is not JSON")


def _retry_s(header: str | None) -> float | None:
    """Seconds of a `Retry-After`; a date is left to the back-off, since only the server's own clock could read it."""
    text = (header or "").strip()
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 9 else None


def _of(data: object, key: str) -> Any:
    return data.get(key) if isinstance(data, dict) else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if isfinite(value) and 0 <= value <= G_PER_KWH_MAX else None


def _moment(value: object) -> datetime | None:
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
        return at.astimezone(UTC) if at is not None and at.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def _note(value: object) -> str:
    return value[: NOTE_MAX - 13] if isinstance(value, str) and value.isascii() and value.isprintable() else ""


def _hour(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)


def _stamp(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%MZ}"
