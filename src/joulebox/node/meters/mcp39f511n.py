"""`mcp39f511n:/dev/ttyACM0`: Microchip's wall meter MCP39F511N (demonstration board ADM00706), by its serial bytes.

A question is `A5 LEN 41 ADDRESS(2) 4E COUNT SUM`, the answer `06 LEN DATA SUM`, or one byte: `15` not understood, `51`
sum wrong. LEN counts every byte of a frame, SUM is their sum without itself, DATA is little-endian. The settings are
read, never written: it averages over 2^N line cycles without gaps (from the factory 16 cycles, 0.32 s at 50 Hz), so
that readings a tick apart hold all the energy. N = 0 gives wrong power (Green Metrics Tool, pull request 732).
"""

import errno
import struct
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from joulebox.errors import JouleboxError
from joulebox.model import Channel, ReadingKind, Sampling
from joulebox.node.meter import MeterFault
from joulebox.node.options import TIMEOUT_OPTION, choice, timeout_s, whole
from joulebox.units import J_PER_WH

if TYPE_CHECKING:
    import serial

WHERE: Final = "/dev/serial/by-id"
LOOKS_FOR: Final = "a wall meter MCP39F511N on a serial port"
OPTIONS: Final[Mapping[str, str]] = {
    "outlet": "which of the board's two outlets the machine is plugged into: 1 or 2 (1)",
    "energy": "on reads the energy register too, which may count double: see the docs (off)",
    "timeout": TIMEOUT_OPTION,
}

_BAUD: Final = 115_200
_ACK, _NAK, _BAD_SUM = 0x06, 0x15, 0x51
_STATUS, _STATUS_BYTES = 0x0002, 28
"""Status, version, voltage, frequency, power factors, currents and both powers: all of one moment in one answer."""
_LINE: Final = struct.Struct("<HHHH12xII")
_CONFIGURATION, _CYCLES = 0x00A0, 0x00A8
_ENERGY: Final = (0x002E, 0x0036)
_RANGE: Final = (0x00AE, 0x00BE)
_SIGN: Final = (0x10, 0x40)
"""Bit of the status that is set while an outlet draws power, not feeds it back."""
_COUNTING: Final = (0x100, 0x200)
_COUNT_MAX: Final = 2**62
_SIMULATED_VERSION: Final = 0x4A42
_USB_ID: Final = ("04d8", "00dd")
_GAIN_U: Final = 0.005
_DOUBLE_U: Final = 0.5
"""Of what is shown: the truth may be half of it."""
_OFFSET_U_W: Final = 0.005
"""0.5 % of the smallest load in the 4000:1 range of a 15 A outlet at 230 V, 0.9 W."""
_LINE_MHZ: Final = range(40_000, 70_001)
_NOMINAL_MHZ: Final = 50_000


class Mcp39f511nMeter:
    """Active power of one outlet and, where asked for, its energy register."""

    missing: Sequence[str] = ()

    def __init__(self, path: str, options: Mapping[str, str]) -> None:
        """Open the port and ask how the meter is set. Raises `JouleboxError`: `bad_setting`, `meter_unreadable`."""
        self._path = path
        self._outlet = whole(options, "outlet", 1, least=1, most=2) - 1
        self._with_energy = choice(options, "energy", "off", ("off", "on")) == "on"
        # two waits a question, and at most two questions a reading
        self._wait_s = timeout_s(options) / (4 if self._with_energy else 2)
        self.address = f"mcp39f511n:{path}{',outlet=2' if self._outlet else ''}"
        self._closed = False
        self._port: serial.Serial | None = None
        try:
            self._port = _opened(path, self._wait_s)
            self._channels = self._ask_channels()
            self.read()
        except MeterFault as fault:
            self.close()
            raise JouleboxError(
                "meter_unreadable",
                f"The MCP39F511N at {path} cannot be read: {fault}. Check the cable and that no other program reads "
                "it, name another port (ls /dev/serial/by-id), or leave this meter out.",
                path=path,
            ) from fault

    def channels(self) -> Sequence[Channel]:
        """Power, and energy where asked for."""
        return self._channels

    def read(self) -> Sequence[int | None]:
        """Power in steps of the meter's own range, negative where the outlet feeds back; energy in mWh."""
        if self._closed:
            raise MeterFault("the meter is closed")
        if self._port is None:
            self._port = _opened(self._path, self._wait_s)
        try:
            status, _, _, _, *powers = _LINE.unpack(self._ask(_STATUS, _STATUS_BYTES))
            power = powers[self._outlet] if status & _SIGN[self._outlet] else -powers[self._outlet]
            if not self._with_energy:
                return (power,)
            count = int.from_bytes(self._ask(_ENERGY[self._outlet], 8), "little")
        except (OSError, termios.error) as error:
            self._hang_up()
            raise MeterFault(f"{self._path} is gone ({_reason(error)}): was the meter unplugged?") from error
        if count > _COUNT_MAX:
            raise MeterFault(f"the energy register shows {count}, which cannot be")
        return power, count

    def close(self) -> None:
        """Close the port."""
        self._closed = True
        self._hang_up()

    def _hang_up(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            try:
                port.close()
            except (OSError, termios.error):
                return

    def _ask_channels(self) -> tuple[Channel, ...]:
        """What the meter's settings mean for its readings. Raises `MeterFault`."""
        try:
            _, version, _, line_mhz, *_ = _LINE.unpack(self._ask(_STATUS, _STATUS_BYTES))
            configuration = int.from_bytes(self._ask(_CONFIGURATION, 4), "little")
            cycles_log2 = int.from_bytes(self._ask(_CYCLES, 2), "little")
            power_range = self._ask(_RANGE[self._outlet], 4)[2]
        except (OSError, termios.error) as error:
            raise MeterFault(f"{self._path} is gone ({_reason(error)})") from error
        if not 1 <= cycles_log2 <= 8 or power_range > 31:
            raise MeterFault(
                f"it averages over 2^{cycles_log2} line cycles at power range {power_range}; 2^1 to 2^8 and ranges up "
                "to 31 can be read: set the meter anew with Microchip's program"
            )
        if self._with_energy and not configuration & _COUNTING[self._outlet]:
            raise MeterFault(
                "its energy counting is off: switch it on with Microchip's program, or leave out energy=on"
            )
        tick_s = 2.0**cycles_log2 / ((line_mhz if line_mhz in _LINE_MHZ else _NOMINAL_MHZ) / 1_000)
        power = Channel(
            name="power",
            meter=self.address,
            kind=ReadingKind.POWER_W,
            sampling=Sampling.MEAN,
            scope="wall",
            step=0.01 * 2.0 ** (power_range - 19),
            tick_s=tick_s,
            gain_u_ratio=_GAIN_U,
            offset_u=_OFFSET_U_W,
            accuracy="data sheet DS20005473B: 0.5 % from 0.9 W up",
            simulated=version == _SIMULATED_VERSION,
        )
        energy = Channel(
            name="energy",
            meter=self.address,
            kind=ReadingKind.ENERGY_J,
            sampling=Sampling.COUNTER,
            scope="wall",
            step=J_PER_WH / 1_000,
            tick_s=tick_s,
            gain_u_ratio=_DOUBLE_U,
            accuracy="register of 1 mWh that may count double (one user halves it): not checked against the power",
            simulated=version == _SIMULATED_VERSION,
        )
        return (power, energy) if self._with_energy else (power,)

    def _ask(self, address: int, count: int) -> bytes:
        """The registers from `address` on. Raises `MeterFault`, or `OSError` where the port is gone."""
        assert self._port is not None
        self._port.reset_input_buffer()  # what came too late for the question before
        self._port.write(question(address, count))
        first = self._port.read(1)
        if first and first[0] == _ACK:
            return answered(first + self._port.read(count + 2), count)
        return answered(first, count)


def question(address: int, count: int) -> bytes:
    """The frame that asks for `count` bytes of registers from `address` on."""
    frame = bytes([0xA5, 8, 0x41, address >> 8, address & 0xFF, 0x4E, count])
    return frame + bytes([sum(frame) % 256])


def answered(frame: bytes, count: int) -> bytes:
    """The `count` bytes of registers in an answer. Raises `MeterFault` saying what is wrong with it."""
    if not frame:
        raise MeterFault("the meter does not answer")
    if frame[0] == _NAK:
        raise MeterFault("the meter does not understand the question (NAK)")
    if frame[0] == _BAD_SUM:
        raise MeterFault("the question reached the meter damaged (checksum failure)")
    if frame[0] != _ACK:
        raise MeterFault(f"the answer begins with {frame[0]:#04x}: this is no MCP39F511N, or the line is disturbed")
    if len(frame) > 1 and frame[1] != count + 3:
        raise MeterFault(f"the answer says that it has {frame[1]} bytes, not {count + 3}")
    if len(frame) < count + 3:
        raise MeterFault(f"the answer broke off after {len(frame)} of {count + 3} bytes")
    if sum(frame[:-1]) % 256 != frame[-1]:
        raise MeterFault("the answer came damaged (its checksum is wrong)")
    return frame[2:-1]


def open(address: str, options: Mapping[str, str]) -> Mcp39f511nMeter:  # noqa: A001 - the name every driver offers
    """The meter at the serial port `address`; where empty, the one with the board's USB id.

    Raises `JouleboxError`: `bad_setting`, `meter_unreadable`.
    """
    return Mcp39f511nMeter(address or look(), options)


def look(devices: Path = Path("/sys/class/tty")) -> str:
    """The first serial port with the USB id of the board's bridge; nothing is sent. Raises `meter_unreadable`."""
    for port in sorted(devices.glob("ttyACM*")):
        device = (port / "device").resolve().parent
        if (_text(device / "idVendor"), _text(device / "idProduct")) == _USB_ID:
            return f"/dev/{port.name}"
    raise JouleboxError(
        "meter_unreadable",
        f"No serial port has the USB id {':'.join(_USB_ID)} of the board ADM00706. Plug it in, or name its port: "
        "mcp39f511n:/dev/ttyACM0.",
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _opened(path: str, wait_s: float) -> "serial.Serial":
    """The port, held alone: two programs would take each other's answers. Raises `MeterFault`."""
    try:
        import serial
    except ImportError as error:
        raise JouleboxError(
            "meter_unreadable", "A serial meter needs pyserial: pip install 'joulebox[serial]'."
        ) from error
    try:
        return serial.Serial(path, _BAUD, timeout=wait_s, write_timeout=wait_s, exclusive=True)
    except (OSError, ValueError, termios.error) as error:
        raise MeterFault(f"the port cannot be opened ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    number = getattr(error, "errno", None)
    if number == errno.EACCES:
        return "permission denied: add this user to the group dialout"
    if number == errno.EAGAIN or "lock" in str(error):
        return "another program holds it"
    if number == errno.ENOENT:
        return "there is no such file"
    return "input or output failed" if number is None else str(getattr(error, "strerror", None) or error)
