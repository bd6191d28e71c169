"""`modbus:tcp://HOST:PORT`: an energy meter with a Modbus register map, over TCP or a gateway from RS-485 to TCP.

The map is a preset's, or the operator's own. A SunSpec meter says itself where its registers are. Each register is read
once a reading; what the meter averages over is not documented by the makers, so power counts as a snapshot.
"""

import logging
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, ulp
from typing import Any, Final

from joulebox.errors import JouleboxError
from joulebox.model import Channel, ReadingKind, Sampling
from joulebox.node.meter import MeterFault
from joulebox.node.options import TIMEOUT_OPTION, choice, host_and_port, number, timeout_s, whole
from joulebox.units import J_PER_KWH, J_PER_WH

WHERE: Final = ""
LOOKS_FOR: Final = "an energy meter with Modbus; networks are never searched, name its address"
_FORMATS: Final = {
    "float32": ">f",
    "float64": ">d",
    "int16": ">h",
    "uint16": ">H",
    "int32": ">i",
    "uint32": ">I",
    "int64": ">q",
    "uint64": ">Q",
}
_TYPES: Final = ", ".join(_FORMATS)
OPTIONS: Final[Mapping[str, str]] = {
    "preset": "register map of a known meter: sdm120, sdm230, sdm630 or sunspec",
    "unit": "the meter's Modbus unit, 1 to 247 (1)",
    "table": "input or holding: the table the registers are in (input)",
    "power": "address of the power register, counted from 0, decimal or 0x",
    "type": f"how power is written: {_TYPES} (float32)",
    "scale": "watts of one count of power (1)",
    "energy": "address of the energy register",
    "energy_type": "how energy is written (as `type`)",
    "energy_scale": "kilowatt hours of one count of energy (1)",
    "order": "big or little: which of a number's registers comes first (big)",
    "accuracy": "the meter's error in percent, as its datasheet or calibration says (preset's, else 2)",
    "tick": "seconds after which the meter shows something new (1)",
    "timeout": TIMEOUT_OPTION,
}
_PORT: Final = 502
_POWER_STEP_W: Final = 0.01
_POWER_MOST_W: Final = 1e7
"""More is no machine's power but another type or order of registers."""
_ENERGY_MOST_J: Final = 1e18
_FLOAT_LEAST: Final = 1e-30
"""Less is what whole numbers, or the wrong order of registers, look like as a float."""
_FLOAT32_ULP: Final = 2.0**29
"""A float32 has 29 bits fewer behind its point than Python's number."""

# Eastron's Modbus protocol documents of the SDM120, SDM230 and SDM630: input registers, float32, high word first,
# watts at 0x000C (all phases of the SDM630: 0x0034), imported kWh at 0x0048. Class 1 of IEC 62053-21 is 1 %, and 1.5 %
# at currents below a tenth of the base current, where a single machine is.
_EASTRON: Final = (0.015, "Eastron data sheet: class 1 (IEC 62053-21), 1.5 % at small currents")
_PRESETS: Final = {
    "sdm120": {"power": "0x000C", "energy": "0x0048"},
    "sdm230": {"power": "0x000C", "energy": "0x0048"},
    "sdm630": {"power": "0x0034", "energy": "0x0048"},
}
# SunSpec meter models 201 to 204 (integers with scale factors): offsets from the model's first register.
_SUNSPEC_MARK: Final = [0x5375, 0x6E53]
_SUNSPEC_BASES: Final = (40_000, 0, 50_000)
_SUNSPEC_METERS: Final = range(201, 205)
_SUNSPEC_W: Final = (18, 22)
_SUNSPEC_WH: Final = (46, 54)
_SUNSPEC_NOT_MEASURED: Final = -(2**15)
_SUNSPEC_MODELS_MAX: Final = 64
_SUNSPEC_MAKER_WORDS: Final = 16
_SIMULATED_MAKER: Final = b"Joulebox rig"
_EXCEPTIONS: Final = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "device failure",
    6: "device busy",
    10: "gateway path unavailable",
    11: "gateway target does not answer",
}


@dataclass(frozen=True, slots=True)
class Register:
    """Where one figure stands, how it is written there, and what one count is in watts or joules."""

    kind: ReadingKind
    address: int
    format: str
    scale: float
    step: float
    order: str = "big"
    exponent_address: int | None = None
    """SunSpec: the register with the power of ten."""

    @property
    def count(self) -> int:
        last = self.address + struct.calcsize(self.format) // 2 - 1
        return max(last, self.exponent_address or 0) - self.address + 1


class ModbusMeter:
    """Power, imported energy, or both."""

    missing: Sequence[str] = ()

    def __init__(self, host: str, port: int, options: Mapping[str, str]) -> None:
        """Connect and read once. Raises `JouleboxError`: `bad_setting`, `meter_unreadable`."""
        self._unit = whole(options, "unit", 1, least=1, most=247)
        self.address = f"modbus:tcp://{host}:{port},unit={self._unit}"
        self._timeout_s = timeout_s(options)
        tick_s = number(options, "tick", 1.0, most=600.0)
        preset = choice(options, "preset", "", ("", *_PRESETS, "sunspec"))
        self._table = choice(options, "table", "holding" if preset == "sunspec" else "input", ("input", "holding"))
        gain_u_ratio, accuracy = _accuracy(options, preset)
        registers = [] if preset == "sunspec" else _own_map({**_PRESETS.get(preset, {}), **options})
        self._closed = False
        self._heard = b""
        self._simulated = False
        self._client = _client(host, port, self._timeout_s, self._hear)
        try:
            registers = registers or self._sunspec_map()
            self._registers = [self._with_step(register) for register in registers]
            self.read()
        except MeterFault as fault:
            self.close()
            raise JouleboxError(
                "meter_unreadable",
                f"The Modbus meter at {host}:{port} cannot be read: {fault}. Check its address, unit {self._unit} and "
                f"register map, or leave it out.",
            ) from fault
        self._channels = tuple(
            Channel(
                name="power" if register.kind is ReadingKind.POWER_W else "energy",
                meter=self.address,
                kind=register.kind,
                sampling=Sampling.SNAPSHOT if register.kind is ReadingKind.POWER_W else Sampling.COUNTER,
                scope="wall",
                step=register.step,
                tick_s=tick_s,
                gain_u_ratio=gain_u_ratio,
                accuracy=accuracy,
                wrap_raw=2**32 if register.kind is ReadingKind.ENERGY_J and register.exponent_address else None,
                simulated=self._simulated,
            )
            for register in self._registers
        )

    def channels(self) -> Sequence[Channel]:
        """One a register."""
        return self._channels

    def read(self) -> Sequence[int | None]:
        """One whole number of steps a register."""
        if self._closed:
            raise MeterFault("the meter is closed")
        try:
            return tuple(round(self._value(register) / register.step) for register in self._registers)
        except MeterFault:
            self._client.close()  # a late answer must not meet the next request
            raise

    def close(self) -> None:
        """Close the connection."""
        self._closed = True
        self._client.close()

    def _hear(self, sending: bool, packet: bytes) -> bytes:
        self._heard = b"" if sending else packet
        return packet

    def _with_step(self, register: Register) -> Register:
        """A float32 that has counted for long has coarser steps than the meter."""
        if register.kind is ReadingKind.POWER_W or register.format != ">f":
            return register
        own_step = ulp(self._value(register) / register.scale) * _FLOAT32_ULP * register.scale
        return replace(register, step=max(register.step, own_step))

    def _value(self, register: Register) -> float:
        return value_of(self._words(register.address, register.count), register)

    def _words(self, address: int, count: int) -> list[int]:
        """The registers from `address` on. Raises `MeterFault`."""
        from pymodbus.exceptions import ModbusException

        if not self._client.connect():
            raise MeterFault("it does not accept a connection")
        ask = self._client.read_input_registers if self._table == "input" else self._client.read_holding_registers
        self._heard = b""
        try:
            answer = ask(address, count=count, device_id=self._unit)
        except (ModbusException, OSError) as error:
            if not self._client.connected:
                raise MeterFault("it closed the connection without an answer") from error
            how = "answered only in part, or not as Modbus does," if self._heard else "did not answer"
            raise MeterFault(f"it {how} within {self._timeout_s:g} s") from error
        except Exception as error:  # what the library trips over in a spoilt answer is no one kind of error
            raise MeterFault("its answer is not as Modbus has it") from error
        if answer.isError():
            code = answer.exception_code
            raise MeterFault(f"it refuses register {address}: {_EXCEPTIONS.get(code, f'exception {code}')}")
        if len(answer.registers) != count:
            raise MeterFault(f"it gave {len(answer.registers)} registers, not {count}")
        return list(answer.registers)

    def _sunspec_map(self) -> list[Register]:
        """Where a SunSpec meter has its registers. Raises `MeterFault`."""
        base = next((base for base in _SUNSPEC_BASES if self._is_sunspec(base)), None)
        if base is None:
            raise MeterFault("it shows no SunSpec map")
        address = base + 2
        for _ in range(_SUNSPEC_MODELS_MAX):
            model, length = self._words(address, 2)
            if model == 1 and length >= _SUNSPEC_MAKER_WORDS:
                maker = self._words(address + 2, _SUNSPEC_MAKER_WORDS)
                self._simulated = struct.pack(f">{_SUNSPEC_MAKER_WORDS}H", *maker).rstrip(b"\0") == _SIMULATED_MAKER
            if model in _SUNSPEC_METERS:
                return [self._sunspec(address, *where) for where in (_SUNSPEC_W, _SUNSPEC_WH)]
            if model == 0xFFFF or address + length > 0xFF00:
                break
            address += 2 + length
        raise MeterFault("its SunSpec map has no meter of models 201 to 204")

    def _is_sunspec(self, base: int) -> bool:
        try:
            return self._words(base, 2) == _SUNSPEC_MARK
        except MeterFault as fault:
            if "refuses" in str(fault):
                return False
            raise

    def _sunspec(self, start: int, offset: int, exponent_offset: int) -> Register:
        exponent_address = start + exponent_offset
        step = 10.0 ** _exponent(self._words(exponent_address, 1)[0])
        if offset == _SUNSPEC_W[0]:
            return Register(ReadingKind.POWER_W, start + offset, ">h", 1.0, step, "big", exponent_address)
        return Register(ReadingKind.ENERGY_J, start + offset, ">I", J_PER_WH, J_PER_WH * step, "big", exponent_address)


def open(address: str, options: Mapping[str, str]) -> ModbusMeter:  # noqa: A001 - the name every driver offers
    """The meter at `tcp://HOST:PORT`. Raises `JouleboxError`: `bad_setting`, `meter_unreadable`."""
    plain = address.removeprefix("tcp://")
    if plain == address:
        raise JouleboxError("bad_setting", f"Meter modbus:{address} cannot be used: write modbus:tcp://HOST:PORT.")
    return ModbusMeter(*host_and_port(plain.removesuffix("/"), "modbus:tcp://", _PORT), options)


def value_of(words: Sequence[int], register: Register) -> float:
    """Watts or joules in the words from the register's address on. Raises `MeterFault`."""
    size = struct.calcsize(register.format) // 2
    own = words[:size] if register.order == "big" else words[:size][::-1]
    (count,) = struct.unpack(register.format, struct.pack(f">{size}H", *own))
    scale = register.scale
    if register.exponent_address is not None:
        scale *= 10.0 ** _exponent(words[register.exponent_address - register.address])
        if count == _SUNSPEC_NOT_MEASURED and register.kind is ReadingKind.POWER_W:
            raise MeterFault("it says that it does not measure power")
    value = float(count * scale)
    most, unit = (_POWER_MOST_W, "W") if register.kind is ReadingKind.POWER_W else (_ENERGY_MOST_J, "J")
    tiny = register.format in (">f", ">d") and 0 < count < _FLOAT_LEAST
    if tiny or not isfinite(value) or not 0 <= value <= most:
        raise MeterFault(
            f"register {register.address} shows {value:g} {unit}: type, order or scale is another, or the meter is "
            "wired the wrong way round"
        )
    return value


def _accuracy(options: Mapping[str, str], preset: str) -> tuple[float, str]:
    if "accuracy" in options:
        percent = number(options, "accuracy", 0.0, most=100.0)
        return percent / 100, f"as the operator says: {percent:g} %"
    return _EASTRON if preset in _PRESETS else (0.02, "meter not known: 2 % taken (class 2, IEC 62053-21)")


def _own_map(options: Mapping[str, str]) -> list[Register]:
    """The registers that options name, power first. Raises `JouleboxError("bad_setting")`."""
    order = choice(options, "order", "big", ("big", "little"))
    kind = choice(options, "type", "float32", _FORMATS)
    found: list[Register] = []
    if "power" in options:
        address = whole(options, "power", 0, most=0xFFFF)
        scale = number(options, "scale", 1.0)
        step_w = _POWER_STEP_W if kind.startswith("float") else scale
        found.append(Register(ReadingKind.POWER_W, address, _FORMATS[kind], scale, step_w, order))
    if "energy" in options:
        kind = choice(options, "energy_type", kind, _FORMATS)
        address = whole(options, "energy", 0, most=0xFFFF)
        scale = number(options, "energy_scale", 1.0) * J_PER_KWH
        # Meters of this class give 1000 pulses a kilowatt hour: finer figures would be made up.
        step_j = J_PER_WH if kind.startswith("float") else scale
        found.append(Register(ReadingKind.ENERGY_J, address, _FORMATS[kind], scale, step_j, order))
    if not found:
        raise JouleboxError(
            "bad_setting", "A Modbus meter needs preset=NAME, or power=ADDRESS, energy=ADDRESS or both."
        )
    return found


def _exponent(word: int) -> int:
    """A SunSpec scale factor: -10 to 10. Raises `MeterFault`."""
    exponent = word - 0x1_0000 if word >= 0x8000 else word
    if not -10 <= exponent <= 10:
        raise MeterFault("it says that it does not measure this (no scale factor)")
    return exponent


def _client(host: str, port: int, limit_s: float, hear: Callable[[bool, bytes], bytes]) -> Any:
    try:
        from pymodbus.client import ModbusTcpClient
    except ImportError as error:
        raise JouleboxError(
            "meter_unreadable", "A Modbus meter needs pymodbus: pip install 'joulebox[modbus]'."
        ) from error
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # what it logs comes as a fault too
    return ModbusTcpClient(host, port=port, timeout=limit_s, retries=0, trace_packet=hear)
