"""Meters on the simulated machine's plug that are asked over the network: Modbus (Eastron's map, SunSpec) and Redfish.

Each answer is what the instrument shows at the clock's moment: its last tick, its own gain error and its own steps, so
that on a simulated clock the same seed gives the same answers. The servers are threads of this process.
"""

import asyncio
import json
import logging
import random
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from joulebox.clock import Clock
from joulebox.rig.wall import Wall
from joulebox.units import J_PER_KWH, J_PER_WH, NS_PER_S, nanoseconds

MAKER: Final = "Joulebox rig"
"""The manufacturer that SunSpec and Redfish show: drivers know by it that the readings are simulated."""
EASTRON_UNIT: Final = 1
SUNSPEC_UNIT: Final = 2
_SNAPSHOT_NS: Final = NS_PER_S // 50
"""A meter that shows one moment still measures over a cycle of the mains."""
_WAIT_S: Final = 5.0
_EASTRON_W, _EASTRON_KWH, _EASTRON_LAST = 0x0C, 0x48, 0x4F
_SUNSPEC_BASE, _COMMON_LENGTH, _METER_LENGTH = 40_000, 66, 105
_W_EXPONENT, _WH_EXPONENT = -1, 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlugParameters:
    """What kind of meter. Gain error 0.01: it shows 1 % more than the truth. Not `averaging`: one moment a tick."""

    tick_s: float = 1.0
    averaging: bool = True
    step_w: float = 0.1
    gain_error: float = 0.0


class Plug:
    """What a meter at the plug shows."""

    def __init__(self, clock: Clock, wall: Wall, parameters: PlugParameters | None = None) -> None:
        self._clock = clock
        self._wall = wall
        self.parameters = parameters or PlugParameters()
        self._tick_ns = nanoseconds(self.parameters.tick_s)
        source = random.Random(f"plug {wall.machine.seed}")
        self._phase_ns = source.randrange(self._tick_ns)
        self._first_j = source.randrange(1_000) * J_PER_KWH

    @property
    def tick_end_ns(self) -> int:
        """The end of the last tick, which is what is shown."""
        start_ns = self._wall.machine.start_ns
        since_ns = self._clock.now_ns() - start_ns - self._phase_ns
        return max(start_ns, start_ns + since_ns // self._tick_ns * self._tick_ns + self._phase_ns)

    @property
    def power_w(self) -> float:
        """Watts of the last tick, in the meter's steps."""
        end_ns = self.tick_end_ns
        long_ns = self._tick_ns if self.parameters.averaging else _SNAPSHOT_NS
        shown_w = self._wall.mean_w(end_ns - long_ns, end_ns) * (1.0 + self.parameters.gain_error)
        return round(shown_w / self.parameters.step_w) * self.parameters.step_w

    @property
    def energy_j(self) -> float:
        """The counter at the end of the last tick; it counted before this machine, too."""
        return self._first_j + self._wall.energy_j(self.tick_end_ns) * (1.0 + self.parameters.gain_error)


class ModbusPlug:
    """A Modbus server: unit 1 is an Eastron SDM230, unit 2 a SunSpec meter of model 201."""

    def __init__(self, plug: Plug, host: str = "127.0.0.1", port: int = 0) -> None:
        """Serve until `close`; port 0 takes a free one. Raises `OSError` where the port is taken."""
        logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
        self._plug = plug
        self._host = host
        self.port = port
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._failed: Exception | None = None
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="rig modbus", daemon=True)
        self._thread.start()
        self._ready.wait(_WAIT_S)
        if self._failed is not None:
            raise OSError(f"the rig cannot serve Modbus on {host}:{port}") from self._failed

    @property
    def address(self) -> str:
        """The meter to name to a node."""
        return f"modbus:tcp://{self._host}:{self.port},preset=sunspec,unit={SUNSPEC_UNIT}"

    def close(self) -> None:
        """Stop serving."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(_WAIT_S)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except Exception as error:  # noqa: BLE001 - told to the caller, who waits
            self._failed = error
        finally:
            self._loop.close()
            self._ready.set()

    async def _serve(self) -> None:
        from pymodbus.server import ModbusTcpServer

        server: Any = ModbusTcpServer(self._devices(), address=(self._host, self.port))
        await server.serve_forever(background=True)
        self.port = server.transport.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        await server.shutdown()

    def _devices(self) -> list[Any]:
        from pymodbus.simulator import DataType, SimData, SimDevice

        def device(unit: int, first: int, registers: Sequence[int]) -> Any:
            async def now(_code: int, start: int, *rest: Any) -> None:
                _, _, current, _ = rest
                fresh = eastron_registers(self._plug) if unit == EASTRON_UNIT else sunspec_registers(self._plug)
                current[first - start : first - start + len(fresh)] = fresh

            data = SimData(first, values=list(registers), datatype=DataType.REGISTERS, readonly=True)
            return SimDevice(unit, simdata=[data], action=now)

        eastron = device(EASTRON_UNIT, 0, eastron_registers(self._plug))
        return [eastron, device(SUNSPEC_UNIT, _SUNSPEC_BASE, sunspec_registers(self._plug))]


def eastron_registers(plug: Plug) -> list[int]:
    """Input registers 0 to 0x4F of an SDM230: float32, high word first, watts and imported kilowatt hours."""
    words = [0] * (_EASTRON_LAST + 1)
    words[_EASTRON_W : _EASTRON_W + 2] = _words(struct.pack(">f", plug.power_w))
    words[_EASTRON_KWH : _EASTRON_KWH + 2] = _words(struct.pack(">f", plug.energy_j / J_PER_KWH))
    return words


def sunspec_registers(plug: Plug) -> list[int]:
    """A SunSpec map: the mark, the common model, the meter model 201, the end."""
    common = [1, _COMMON_LENGTH, *_text(MAKER, 16), *_text("plug", 16), *[0] * (_COMMON_LENGTH - 32)]
    meter = [0] * (_METER_LENGTH + 2)
    meter[0:2] = [201, _METER_LENGTH]
    meter[18] = round(plug.power_w / 10.0**_W_EXPONENT) & 0xFFFF
    meter[22] = _W_EXPONENT & 0xFFFF
    meter[46:48] = _words(struct.pack(">I", round(plug.energy_j / J_PER_WH / 10.0**_WH_EXPONENT) % 2**32))
    meter[54] = _WH_EXPONENT & 0xFFFF
    return [*_words(b"SunS"), *common, *meter, 0xFFFF, 0]


class RedfishPlug:
    """A BMC that shows the plug's power and energy in `EnvironmentMetrics` of its one chassis, over plain HTTP."""

    def __init__(self, plug: Plug, host: str = "127.0.0.1", port: int = 0) -> None:
        """Serve until `close`; port 0 takes a free one. Raises `OSError` where the port is taken."""

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # head and body in one packet

            def do_GET(self) -> None:
                resource = redfish_resource(plug, self.path.rstrip("/"))
                body = json.dumps(resource if resource is not None else {"error": {"code": "Base.1.0"}}).encode()
                self.send_response(200 if resource is not None else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's word
                return

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self._host = host
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="rig redfish", daemon=True
        )
        self._thread.start()

    @property
    def address(self) -> str:
        """The meter to name to a node."""
        return f"redfish:http://{self._host}:{self.port}"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join(_WAIT_S)
        self._server.server_close()


def redfish_resource(plug: Plug, path: str) -> dict[str, Any] | None:
    """What the BMC answers to a path; `None` for a path it does not know."""
    chassis = "/redfish/v1/Chassis"
    if path == chassis:
        return {"@odata.id": path, "Members@odata.count": 1, "Members": [{"@odata.id": f"{chassis}/1"}]}
    if path == f"{chassis}/1":
        metrics = {"@odata.id": f"{chassis}/1/EnvironmentMetrics"}
        return {"@odata.id": path, "Id": "1", "Manufacturer": MAKER, "EnvironmentMetrics": metrics}
    if path == f"{chassis}/1/EnvironmentMetrics":
        power_w, energy_kwh = round(plug.power_w, 3), round(plug.energy_j / J_PER_KWH, 4)
        return {"@odata.id": path, "PowerWatts": {"Reading": power_w}, "EnergykWh": {"Reading": energy_kwh}}
    return None


def _words(packed: bytes) -> list[int]:
    return list(struct.unpack(f">{len(packed) // 2}H", packed))


def _text(text: str, words: int) -> list[int]:
    return _words(text.encode().ljust(words * 2, b"\0"))
