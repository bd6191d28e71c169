"""An MCP39F511N wall meter: its registers follow the machine's plug, its bytes come through a pseudo terminal.

The registers are those of the moment the clock shows when a question comes, so that on a simulated clock the same seed
gives the same bytes. Power is the mean over the last whole 2^N line cycles; energy counts at the end of each.
"""

import os
import random
import select
import struct
import threading
import tty
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from joulebox.clock import Clock
from joulebox.rig.wall import Wall
from joulebox.units import J_PER_WH, NS_PER_S

Fault = Literal["nak", "refused", "checksum", "silence", "truncated", "length", "noise"]
VERSION: Final = 0x4A42
"""Shown in the register of the firmware's version: a driver knows by it that the readings are simulated."""

_HEADER, _ACK, _NAK, _BAD_SUM = 0xA5, 0x06, 0x15, 0x51
_POINTER, _READ = 0x41, 0x4E
_COUNT_MAX: Final = 32
_FRAME_MAX: Final = 35
_RANGE_V, _RANGE_I = 18, 12
_POSITIVE: Final = 0x50
"""Bits 4 and 6 of the status: outlet 1 and outlet 2 draw power, they do not feed it back."""
_COUNTING: Final = 0x0300


@dataclass(frozen=True, slots=True, kw_only=True)
class McpParameters:
    """What kind of meter. Gain error 0.003: it shows 0.3 % more than the truth. `energy_factor` 2 shows the doubling of
    the energy register that one user of the chip met. `reversed`: wired the wrong way round, power is negative."""

    cycles_log2: int = 4
    line_hz: float = 50.0
    power_range: int = 19
    gain_error: float = 0.0
    energy_factor: float = 1.0
    counting: bool = True
    reversed: bool = False
    version: int = VERSION


class RigMcp39f511n:
    """The chip: bytes of a question in, bytes of the answer out."""

    def __init__(self, clock: Clock, wall: Wall, parameters: McpParameters | None = None) -> None:
        self._clock = clock
        self._wall = wall
        self.parameters = parameters or McpParameters()
        self.tick_ns: int = round(2**self.parameters.cycles_log2 / self.parameters.line_hz * NS_PER_S)
        source = random.Random(f"mcp39f511n {wall.machine.seed}")
        self._phase_ns = source.randrange(self.tick_ns)
        self._first_count = source.randrange(10_000)
        self.fault: Callable[[], Fault | None] = lambda: None
        """Asked at each question what goes wrong with it."""

    def answer(self, frame: bytes) -> bytes:
        """What the chip sends back for one whole frame."""
        fault = self.fault()
        if fault == "silence":
            return b""
        if fault == "nak":
            return bytes([_NAK])
        if fault == "refused" or sum(frame[:-1]) % 256 != frame[-1]:
            return bytes([_BAD_SUM])
        well_formed = len(frame) == 8 and frame[1] == 8 and frame[2] == _POINTER and frame[5] == _READ
        if not well_formed or not 0 < frame[6] <= _COUNT_MAX:
            return bytes([_NAK])
        address, count = int.from_bytes(frame[3:5], "big"), frame[6]
        reply = bytes([_ACK, count + 3]) + self._memory()[address : address + count].ljust(count, b"\0")
        reply += bytes([sum(reply) % 256])
        return _spoilt(reply, fault)

    def watts(self, t_ns: int) -> float:
        """What it would show at `t_ns` with endless digits: the mean over the last whole tick, with its gain error."""
        end_ns = self._last_tick_ns(t_ns)
        return self._wall.mean_w(end_ns - self.tick_ns, end_ns) * (1.0 + self.parameters.gain_error)

    def _last_tick_ns(self, t_ns: int) -> int:
        start_ns: int = self._wall.machine.start_ns
        return (t_ns - start_ns - self._phase_ns) // self.tick_ns * self.tick_ns + self._phase_ns + start_ns

    def _memory(self) -> bytes:
        own, now_ns = self.parameters, self._clock.now_ns()
        power = round(self.watts(now_ns) / (0.01 * 2.0 ** (own.power_range - 19)))
        counted_ns = max(self._last_tick_ns(now_ns), self._wall.machine.start_ns)
        shown_j = self._wall.energy_j(counted_ns) * (1.0 + own.gain_error) * own.energy_factor
        count = self._first_count + int(shown_j / J_PER_WH * 1_000)
        memory = bytearray(0xC2)
        status = 0x40 if own.reversed else _POSITIVE
        struct.pack_into("<HHHH", memory, 0x02, status, own.version, 2_301, round(own.line_hz * 1_000))
        struct.pack_into("<II", memory, 0x16, min(power, 2**32 - 1), 0)
        struct.pack_into("<QQ", memory, 0x2E, count if own.counting else 0, 0)
        struct.pack_into("<I", memory, 0xA0, _COUNTING if own.counting else 0)
        struct.pack_into("<H", memory, 0xA8, own.cycles_log2)
        struct.pack_into("<BBB", memory, 0xAE, _RANGE_V, _RANGE_I, own.power_range)
        struct.pack_into("<BBB", memory, 0xBE, 0, _RANGE_I, own.power_range)
        return bytes(memory)


class McpPort:
    """The chip behind a pseudo terminal: `path` is the serial port to name to a node."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        """`answer` is `RigMcp39f511n.answer`, or anything that takes a frame and gives bytes."""
        self._answer = answer
        self._port, self._node_end = os.openpty()
        tty.setraw(self._node_end)
        self.path = os.ttyname(self._node_end)
        self._wake, self._waker = os.pipe()
        self._thread = threading.Thread(target=self._serve, name="rig mcp39f511n", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        waiting = b""
        while True:
            ready, _, _ = select.select([self._port, self._wake], [], [])
            if self._wake in ready:
                return
            try:
                waiting += os.read(self._port, 256)
            except OSError:
                return
            while frame := _first_frame(waiting):
                waiting = waiting[waiting.index(_HEADER) + len(frame) :]
                os.write(self._port, self._answer(frame))

    def close(self) -> None:
        """Pull the plug: the path is gone, and a node that holds it open meets an input error."""
        if self._port < 0:
            return
        os.write(self._waker, b"x")
        self._thread.join()
        for descriptor in (self._node_end, self._port, self._wake, self._waker):
            os.close(descriptor)
        self._port = -1


def _first_frame(waiting: bytes) -> bytes:
    """The first whole frame, from its header on; empty while there is none."""
    start = waiting.find(_HEADER)
    if start < 0 or len(waiting) < start + 2:
        return b""
    length = min(max(waiting[start + 1], 4), _FRAME_MAX)
    frame = waiting[start : start + length]
    return frame if len(frame) == length else b""


def _spoilt(reply: bytes, fault: Fault | None) -> bytes:
    if fault == "checksum":
        return reply[:-1] + bytes([reply[-1] ^ 0xFF])
    if fault == "truncated":
        return reply[: len(reply) // 2]
    if fault == "length":
        return bytes([reply[0], reply[1] - 1]) + reply[2:]
    if fault == "noise":
        return b"\x00" + reply
    return reply
