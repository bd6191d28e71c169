"""`snmp:HOST:PORT`: a power distribution unit (PDU) that tells power and energy by SNMP v1 or v2c.

What a PDU averages over, and how often, is not in the makers' MIBs: power counts as a snapshot.
"""

import contextlib
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from math import isfinite
from typing import Any, Final

from joulebox.errors import JouleboxError
from joulebox.model import Channel, ReadingKind, Sampling
from joulebox.node.meter import MeterFault
from joulebox.node.options import TIMEOUT_OPTION, choice, host_and_port, number, refused, secret, timeout_s, whole
from joulebox.units import J_PER_KWH, J_PER_WH

WHERE: Final = ""
LOOKS_FOR: Final = "a PDU with SNMP; networks are never searched, name its address"
OPTIONS: Final[Mapping[str, str]] = {
    "preset": "objects of a known PDU: apc, gude or raritan",
    "outlet": "the outlet to read (without it: the PDU's inlet; gude: line 1)",
    "model": "gude: 1105, 1202, 8226, 8311 or 8340",
    "power": "OID of the power, in numbers",
    "scale": "watts of one count of power (1)",
    "energy": "OID of the energy counter, in numbers",
    "energy_scale": "kilowatt hours of one count of energy (1)",
    "community": "the community that may read (public)",
    "community_file": "a file whose first line is the community",
    "version": "1 or 2c (2c)",
    "accuracy": "the meter's error in percent, as its datasheet or calibration says (preset's, else 3)",
    "tick": "seconds after which the meter shows something new (1)",
    "timeout": TIMEOUT_OPTION,
}
_PORT: Final = 161
_POWER_MOST_W: Final = 1e7
_DATAGRAM_BYTES: Final = 65_535
_NO_SUCH_NAME: Final = 2
"""How SNMP v1 says that there is no such object."""

# APC PowerNet-MIB, Rack PDU 2G (AP84xx to AP89xx), FAQ FA156179: hundredths of a kilowatt, tenths of a kilowatt hour;
# single outlets in watts. -1: this model does not measure it. FAQ FA156074: 3 % and one digit, and zero below 0.5 A.
_APC: Final = "1.3.6.1.4.1.318.1.1.26"
# Raritan PDU2-MIB: sensors 5 (active power, W) and 8 (active energy, Wh) of inlet 1 or an outlet, each with its number
# of decimal digits. The 1 % is what the maker says of its PX models; we have not seen the certificate.
_RARITAN: Final = "1.3.6.1.4.1.13742.6"
# Gude's device MIBs (GUDEADS-*-MIB): watts and watt hours of a line, the same table below each model's own number.
_GUDE: Final = "1.3.6.1.4.1.28507"
_GUDE_MODELS: Final = {"1105": 69, "1202": 43, "8226": 58, "8311": 62, "8340": 54}
_ACCURACY: Final = {
    "apc": (0.03, "APC FA156074: 3 % and one digit; shows zero below 0.5 A"),
    "raritan": (0.01, "Raritan: 1 %, not verified"),
    "gude": (0.025, "Gude manuals: voltage 1 %, current 1.5 %, taken together"),
    "": (0.03, "meter not known: 3 % taken"),
}


@dataclass(frozen=True, slots=True)
class _Figure:
    """An object of the PDU: what one count is in watts or joules, and where its decimal digits stand."""

    kind: ReadingKind
    oid: str
    scale: float
    digits_oid: str | None = None


class SnmpMeter:
    """Power, energy, or both."""

    missing: Sequence[str] = ()

    def __init__(self, host: str, port: int, options: Mapping[str, str]) -> None:
        """Ask once. Raises `JouleboxError`: `bad_setting`, `meter_unreadable`."""
        preset = choice(options, "preset", "", ("", "apc", "gude", "raritan"))
        figures = _PRESETS[preset](options)
        if not figures or (preset and _named(options)):
            raise JouleboxError(
                "bad_setting", "An SNMP meter needs either preset=NAME, or power=OID, energy=OID or both."
            )
        part = "".join(f",{name}={options[name]}" for name in ("outlet", "power", "energy") if name in options)
        self.address = f"snmp:{host}:{port}{part}"
        tick_s = number(options, "tick", 1.0, most=600.0)
        gain_u_ratio, accuracy = _accuracy(options, preset)
        version = choice(options, "version", "2c", ("1", "2c"))
        community, limit_s = secret(options, "community") or "public", timeout_s(options)
        self._agent = _Agent(host, port, community, version, limit_s)
        try:
            self._figures = self._offered(figures, preset)
            self.read()
        except MeterFault as fault:
            self.close()
            raise JouleboxError(
                "meter_unreadable",
                f"The PDU at {host}:{port} cannot be read by SNMP: {fault}. Check its address, its community and that "
                "this machine may ask it, or leave it out.",
            ) from fault
        self._channels = tuple(
            Channel(
                name="power" if figure.kind is ReadingKind.POWER_W else "energy",
                meter=self.address,
                kind=figure.kind,
                sampling=Sampling.SNAPSHOT if figure.kind is ReadingKind.POWER_W else Sampling.COUNTER,
                scope="wall",
                step=figure.scale,
                tick_s=tick_s,
                gain_u_ratio=gain_u_ratio,
                offset_u=figure.scale if preset == "apc" and figure.kind is ReadingKind.POWER_W else 0.0,
                accuracy=accuracy,
                wrap_raw=2**32 if oid_type == "Counter32" else None,
            )
            for figure, oid_type in zip(self._figures, self._agent.types, strict=True)
        )

    def channels(self) -> Sequence[Channel]:
        """One a figure."""
        return self._channels

    def read(self) -> Sequence[int | None]:
        """One whole number of counts a figure."""
        return tuple(
            _plausible(count, figure)
            for count, figure in zip(self._counts([figure.oid for figure in self._figures]), self._figures, strict=True)
        )

    def close(self) -> None:
        """Close the socket."""
        self._agent.close()

    def _counts(self, oids: Sequence[str]) -> list[int]:
        counts = self._agent.get(oids)
        for oid, count in zip(oids, counts, strict=True):
            if count is None:
                raise MeterFault(f"it has no {oid}")
        return [count for count in counts if count is not None]

    def _offered(self, figures: Sequence[_Figure], preset: str) -> list[_Figure]:
        """What the PDU measures of a preset, with its decimal digits; own OIDs must all be there."""
        found: list[_Figure] = []
        for figure in figures:
            (count,) = self._agent.get([figure.oid])
            if count is None or (preset == "apc" and count == -1):
                if not preset:
                    raise MeterFault(f"it has no {figure.oid}")
                continue
            scale = figure.scale
            if figure.digits_oid is not None:
                scale /= 10 ** _digits(self._counts([figure.digits_oid])[0])
            found.append(_Figure(figure.kind, figure.oid, scale))
        if not found:
            raise MeterFault(f"it has none of {', '.join(figure.oid for figure in figures)}")
        return found


class _Agent:
    """The other side: whole numbers by OID, `None` for what it does not have. `types`: ASN.1 types of the last."""

    def __init__(self, host: str, port: int, community: str, version: str, limit_s: float) -> None:
        """Raises `JouleboxError("meter_unreadable")` without pysnmp or where there is no such host."""
        try:
            api: Any = import_module("pysnmp.proto.api")
            self._ber: Any = (import_module("pyasn1.codec.ber.encoder"), import_module("pyasn1.codec.ber.decoder"))
        except ImportError as error:
            raise JouleboxError(
                "meter_unreadable", "An SNMP meter needs pysnmp: pip install 'joulebox[snmp]'."
            ) from error
        self.types: list[str] = []
        self._limit_s = limit_s
        self._community = community
        self._asn1 = api.PROTOCOL_MODULES[api.SNMP_VERSION_1 if version == "1" else api.SNMP_VERSION_2C]
        try:
            family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        except OSError as error:
            raise JouleboxError(
                "meter_unreadable", f"There is no host {host}: check the PDU's name, give its address, or leave it out."
            ) from error
        self._socket: socket.socket | None = socket.socket(family, kind, protocol)
        self._where = where

    def get(self, oids: Sequence[str]) -> list[int | None]:
        """One request, one answer. Raises `MeterFault`."""
        if self._socket is None:
            raise MeterFault("the meter is closed")
        request = self._request(oids)
        answer = self._ask(self._socket, self._ber[0].encode(request))
        try:
            message, _ = self._ber[1].decode(answer, asn1Spec=self._asn1.Message())
            pdu = self._asn1.apiMessage.get_pdu(message)
            status, index = (int(number) for number in (pdu.getComponentByPosition(1), pdu.getComponentByPosition(2)))
            pairs = self._asn1.apiPDU.get_varbinds(pdu)
            values = [(str(oid), value) for oid, value in pairs]
            number = int(self._asn1.apiPDU.get_request_id(pdu))
        except Exception as error:  # what the library trips over in a spoilt answer is no one kind of error
            raise MeterFault("its answer is not SNMP, or cut off") from error
        asked = self._asn1.apiMessage.get_pdu(request)
        if number != int(self._asn1.apiPDU.get_request_id(asked)):
            raise MeterFault("it answered another question than this one")
        if status == _NO_SUCH_NAME:
            return [None] * len(oids)
        if status:
            named = oids[index - 1] if 0 < index <= len(oids) else oids[0]
            raise MeterFault(f"it refuses {named} (SNMP error {status})")
        if [oid for oid, _ in values] != list(oids):
            raise MeterFault("it answers with something else than it was asked")
        self.types = [type(value).__name__ for _, value in values]
        return [_whole(oid, value) for oid, value in values]

    def _request(self, oids: Sequence[str]) -> Any:
        pdu = self._asn1.GetRequestPDU()
        self._asn1.apiPDU.set_defaults(pdu)
        self._asn1.apiPDU.set_varbinds(pdu, [(oid, self._asn1.Null("")) for oid in oids])
        message = self._asn1.Message()
        self._asn1.apiMessage.set_defaults(message)
        self._asn1.apiMessage.set_community(message, self._community)
        self._asn1.apiMessage.set_pdu(message, pdu)
        return message

    def _ask(self, wire: socket.socket, request: bytes) -> bytes:
        try:
            wire.connect(self._where)  # answers of others are not heard
            wire.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while wire.recv(_DATAGRAM_BYTES):  # late answers to questions given up
                    pass
            wire.settimeout(self._limit_s)
            wire.send(request)
            return wire.recv(_DATAGRAM_BYTES)
        except TimeoutError as error:
            raise MeterFault(f"it did not answer within {self._limit_s:g} s") from error
        except OSError as error:
            raise MeterFault(f"it cannot be reached ({error.strerror})") from error

    def close(self) -> None:
        """Close the socket; a second call does nothing."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None


def open(address: str, options: Mapping[str, str]) -> SnmpMeter:  # noqa: A001 - the name every driver offers
    """The PDU at `HOST:PORT`. Raises `JouleboxError`: `bad_setting`, `meter_unreadable`."""
    return SnmpMeter(*host_and_port(address, "snmp:", _PORT), options)


def _apc(options: Mapping[str, str]) -> list[_Figure]:
    if "outlet" in options:
        row = f"{_APC}.9.4.3.1"
        outlet = whole(options, "outlet", 1, least=1, most=256)
        power = _Figure(ReadingKind.POWER_W, f"{row}.7.{outlet}", 1.0)
        return [power, _Figure(ReadingKind.ENERGY_J, f"{row}.11.{outlet}", J_PER_KWH / 10)]
    power = _Figure(ReadingKind.POWER_W, f"{_APC}.4.3.1.5.1", 10.0)
    return [power, _Figure(ReadingKind.ENERGY_J, f"{_APC}.4.3.1.9.1", J_PER_KWH / 10)]


def _raritan(options: Mapping[str, str]) -> list[_Figure]:
    values, digits = ("5.4.3.1.4", "3.5.4.1.7") if "outlet" in options else ("5.2.3.1.4", "3.3.4.1.7")
    part = whole(options, "outlet", 1, least=1, most=256)
    return [
        _Figure(kind, f"{_RARITAN}.{values}.1.{part}.{sensor}", scale, f"{_RARITAN}.{digits}.1.{part}.{sensor}")
        for kind, sensor, scale in ((ReadingKind.POWER_W, 5, 1.0), (ReadingKind.ENERGY_J, 8, J_PER_WH))
    ]


def _gude(options: Mapping[str, str]) -> list[_Figure]:
    model = _GUDE_MODELS[choice(options, "model", "", _GUDE_MODELS)]
    line = whole(options, "outlet", 1, least=1, most=256)
    row = f"{_GUDE}.{model}.1.5.1.2.1"
    return [
        _Figure(ReadingKind.POWER_W, f"{row}.4.{line}", 1.0),
        _Figure(ReadingKind.ENERGY_J, f"{row}.3.{line}", J_PER_WH),
    ]


def _named(options: Mapping[str, str]) -> list[_Figure]:
    found: list[_Figure] = []
    for name, kind, scale_name, unit in (
        ("power", ReadingKind.POWER_W, "scale", 1.0),
        ("energy", ReadingKind.ENERGY_J, "energy_scale", J_PER_KWH),
    ):
        if name in options:
            oid = options[name].removeprefix(".")
            parts = oid.split(".")
            if len(parts) < 3 or not all(part.isascii() and part.isdigit() for part in parts):
                raise refused(
                    name, options[name], "give the object's numbers, such as 1.3.6.1.4.1.318.1.1.26.4.3.1.5.1"
                )
            found.append(_Figure(kind, oid, number(options, scale_name, 1.0) * unit))
    return found


_PRESETS: Final = {"": _named, "apc": _apc, "raritan": _raritan, "gude": _gude}


def _accuracy(options: Mapping[str, str], preset: str) -> tuple[float, str]:
    if "accuracy" not in options:
        return _ACCURACY[preset]
    percent = number(options, "accuracy", 0.0, most=100.0)
    return percent / 100, f"as the operator says: {percent:g} %"


def _whole(oid: str, value: Any) -> int | None:
    """The number of an SNMP value, `None` for one that there is not. Raises `MeterFault`."""
    if type(value).__name__ in ("NoSuchObject", "NoSuchInstance", "EndOfMibView", "Null"):
        return None
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise MeterFault(f"{oid} is no number but {value.prettyPrint()[:40]!r}") from error


def _digits(count: int) -> int:
    if not 0 <= count <= 9:
        raise MeterFault(f"it says that a figure has {count} decimal digits")
    return count


def _plausible(count: int, figure: _Figure) -> int:
    value = count * figure.scale
    if not isfinite(value) or value < 0 or (figure.kind is ReadingKind.POWER_W and value > _POWER_MOST_W):
        raise MeterFault(f"{figure.oid} shows {count}, which cannot be")
    return count
