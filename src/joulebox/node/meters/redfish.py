"""`redfish:https://HOST`: the power a server's BMC tells by Redfish, DMTF's web interface for machines.

`EnvironmentMetrics` where a chassis has it, with its energy counter where there is one; else the older `Power`.
"""

import asyncio
import json
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2

from joulebox.errors import JouleboxError
from joulebox.model import Channel, ReadingKind, Sampling
from joulebox.node.meter import MeterFault
from joulebox.node.options import TIMEOUT_OPTION, choice, number, refused, secret, timeout_s
from joulebox.units import J_PER_KWH

WHERE: Final = ""
LOOKS_FOR: Final = "a BMC with Redfish; networks are never searched, name its address"
OPTIONS: Final[Mapping[str, str]] = {
    "user": "the BMC's user",
    "password": "its password (better: password_file)",
    "password_file": "a file whose first line is the password",
    "chassis": "Id of the chassis to read (needed where several tell their power)",
    "verify": "off: take any certificate; or a file with the certificates to trust (the system's)",
    "scope": "platform, or wall where the maker says that it is measured at the supply's input (platform)",
    "accuracy": "the meter's error in percent, as the maker or a calibration says (10)",
    "tick": "seconds after which the BMC shows something new (1)",
    "timeout": TIMEOUT_OPTION,
}
_ROOT: Final = "/redfish/v1/Chassis"
_CHASSIS_MAX: Final = 32
_BODY_BYTES_MAX: Final = 1_000_000
_POWER_MOST_W: Final = 1e7
_ENERGY_MOST_KWH: Final = 1e9
_DIGITS_MAX: Final = 6
_SIMULATED_MAKER: Final = "Joulebox rig"


@dataclass(frozen=True, slots=True)
class Figure:
    """A number in a resource: the way to it, and what one of it is in watts or joules."""

    kind: ReadingKind
    keys: tuple[str | int, ...]
    scale: float


ENVIRONMENT: Final = (
    Figure(ReadingKind.POWER_W, ("PowerWatts", "Reading"), 1.0),
    Figure(ReadingKind.ENERGY_J, ("EnergykWh", "Reading"), J_PER_KWH),
)
POWER: Final = (Figure(ReadingKind.POWER_W, ("PowerControl", 0, "PowerConsumedWatts"), 1.0),)
_RESOURCES: Final = (("EnvironmentMetrics", ENVIRONMENT), ("Power", POWER))


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a chassis tells its power, and what it told first."""

    chassis: str
    path: str
    figures: tuple[Figure, ...]
    steps: tuple[float, ...]
    simulated: bool


class RedfishMeter:
    """Watts at this moment, and the energy counter where there is one."""

    missing: Sequence[str] = ()

    def __init__(self, url: str, options: Mapping[str, str]) -> None:
        """Find the chassis and ask once. Raises `JouleboxError`: `bad_setting`, `meter_unreadable`."""
        tick_s = number(options, "tick", 1.0, most=600.0)
        percent = number(options, "accuracy", 10.0, most=100.0)
        scope = choice(options, "scope", "platform", ("platform", "wall"))
        user, password = options.get("user"), secret(options, "password")
        limit_s = timeout_s(options)
        trust = _trust(options.get("verify"))
        self._limit_s = limit_s
        self._loop = asyncio.new_event_loop()
        self._web = httpx2.AsyncClient(
            base_url=url,
            auth=httpx2.BasicAuth(user, password or "") if user else None,
            verify=trust,
            timeout=limit_s,
            trust_env=False,
        )
        try:
            self._source = self._find(url, options.get("chassis"))
        except MeterFault as fault:
            self.close()
            raise JouleboxError(
                "meter_unreadable",
                f"The BMC at {url} does not tell its power by Redfish: {fault}. Check address, user and password, or "
                "leave it out.",
            ) from fault
        except JouleboxError:
            self.close()
            raise
        self.address = f"redfish:{url},chassis={self._source.chassis}"
        # The schema says what the chassis draws, not where in it this is measured, nor how well, nor how often.
        accuracy = (
            f"as the operator says: {percent:g} %" if "accuracy" in options else "not stated by Redfish: 10 % taken"
        )
        self._channels = tuple(
            Channel(
                name="power" if figure.kind is ReadingKind.POWER_W else "energy",
                meter=self.address,
                kind=figure.kind,
                sampling=Sampling.SNAPSHOT if figure.kind is ReadingKind.POWER_W else Sampling.COUNTER,
                scope=scope,
                step=step,
                tick_s=tick_s,
                gain_u_ratio=percent / 100,
                accuracy=accuracy,
                simulated=self._source.simulated,
            )
            for figure, step in zip(self._source.figures, self._source.steps, strict=True)
        )

    def channels(self) -> Sequence[Channel]:
        """One a figure of the chassis."""
        return self._channels

    def read(self) -> Sequence[int | None]:
        """Whole steps; `None` where the BMC says null: it has no value at this moment."""
        source = self._source
        values = values_of(self._get(source.path), source.figures)
        return tuple(
            None if value is None else round(value * figure.scale / step)
            for value, figure, step in zip(values, source.figures, source.steps, strict=True)
        )

    def close(self) -> None:
        """Close the connection."""
        if not self._loop.is_closed():
            self._loop.run_until_complete(self._web.aclose())
        self._loop.close()

    def _get(self, path: str) -> Any:
        """The JSON at `path`. Raises `MeterFault`."""
        if self._loop.is_closed():
            raise MeterFault("the meter is closed")
        try:  # the limit is for the whole answer: a byte now and then would outlive httpx2's own limits
            status, body = self._loop.run_until_complete(asyncio.wait_for(self._fetch(path), self._limit_s))
        except httpx2.ConnectError as error:
            raise MeterFault(f"it cannot be reached ({_reason(error)})") from error
        except (httpx2.TimeoutException, TimeoutError) as error:
            raise MeterFault(f"it did not answer within {self._limit_s:g} s") from error
        except httpx2.HTTPError as error:
            raise MeterFault(f"it broke off its answer to {path} ({_reason(error)})") from error
        if status in (401, 403):
            raise MeterFault(f"it refuses user and password ({status} to {path})")
        if status != 200:
            raise MeterFault(f"it answers {path} with status {status}")
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise MeterFault(f"it answers {path} with something that is not JSON") from error

    async def _fetch(self, path: str) -> tuple[int, bytes]:
        body = bytearray()
        async with self._web.stream("GET", path, headers={"Accept": "application/json"}) as reply:
            async for piece in reply.aiter_bytes():
                body += piece
                if len(body) > _BODY_BYTES_MAX:
                    raise MeterFault(f"it answers {path} with more than {_BODY_BYTES_MAX} bytes")
            return reply.status_code, bytes(body)

    def _find(self, url: str, wanted: str | None) -> _Source:
        """The one chassis that tells its power. Raises `MeterFault`, or `bad_setting` where there are several."""
        paths = [path for member in _list(self._get(_ROOT), "Members") if (path := _link(member))]
        if wanted is not None:
            paths = [path for path in paths if path.rstrip("/").rpartition("/")[2] == wanted]
        found = [source for path in paths[:_CHASSIS_MAX] if (source := self._source_of(path))]
        if len(found) > 1:
            names = ", ".join(source.chassis for source in found)
            raise JouleboxError(
                "bad_setting", f"Several chassis of {url} tell their power: choose one of {names} with chassis=NAME."
            )
        if not found:
            which = f"chassis {wanted!r}" if wanted is not None else "no chassis"
            raise MeterFault(f"{which} {'does not tell' if wanted is not None else 'tells'} its power")
        return found[0]

    def _source_of(self, path: str) -> _Source | None:
        chassis = self._get(path)
        for name, figures in _RESOURCES:
            where = _link(chassis.get(name) if isinstance(chassis, dict) else None)
            if where is None:
                continue
            values = values_of(self._get(where), figures)
            told = [(figure, value) for figure, value in zip(figures, values, strict=True) if value is not None]
            if told:
                steps = tuple(_step(value) * figure.scale for figure, value in told)
                figures_told = tuple(figure for figure, _ in told)
                simulated = chassis.get("Manufacturer") == _SIMULATED_MAKER
                return _Source(path.rstrip("/").rpartition("/")[2], where, figures_told, steps, simulated)
        return None


def open(address: str, options: Mapping[str, str]) -> RedfishMeter:  # noqa: A001 - the name every driver offers
    """The BMC at `https://HOST[:PORT]`. Raises `JouleboxError`: `bad_setting`, `meter_unreadable`."""
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("https", "http") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    else:
        usable = usable and not (parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc)
    if not usable or not address.isascii() or not address.isprintable() or " " in address:
        raise JouleboxError(
            "bad_setting", "A Redfish meter cannot be used: write redfish:https://HOST, user and password as options."
        )
    return RedfishMeter(address.rstrip("/"), options)


def values_of(resource: Any, figures: Sequence[Figure]) -> list[float | None]:
    """The figures of a resource, `None` for one that is not there or null. Raises `MeterFault`."""
    values: list[float | None] = []
    for figure in figures:
        value = resource
        for key in figure.keys:
            if isinstance(key, int):
                value = value[key] if isinstance(value, list) and len(value) > key else None
            else:
                value = value.get(key) if isinstance(value, dict) else None
        most = _POWER_MOST_W if figure.kind is ReadingKind.POWER_W else _ENERGY_MOST_KWH
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise MeterFault(f"its {figure.keys[0]} is no number")
        if value is not None and not (0 <= value <= most and isfinite(value)):
            raise MeterFault(f"its {figure.keys[0]} is {value}, which cannot be")
        values.append(None if value is None else float(value))
    if not isinstance(resource, dict):
        raise MeterFault("its answer is no Redfish resource")
    return values


def _step(value: float) -> float:
    """Redfish does not say how fine a figure is: as fine as the decimals it shows."""
    decimals = f"{value:.{_DIGITS_MAX}f}".rstrip("0").partition(".")[2]
    return 10.0 ** -len(decimals)


def _trust(verify: str | None) -> ssl.SSLContext | bool:
    if verify is None or verify == "off":
        return verify is None
    try:
        return ssl.create_default_context(cafile=verify)
    except OSError as error:
        raise refused(
            "verify", verify, f"write off, or a file with certificates ({error.strerror or error})"
        ) from error


def _list(resource: Any, key: str) -> list[Any]:
    found = resource.get(key) if isinstance(resource, dict) else None
    return found if isinstance(found, list) else []


def _link(member: Any) -> str | None:
    path = member.get("@odata.id") if isinstance(member, dict) else None
    return path if isinstance(path, str) and path.startswith("/redfish/") else None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
