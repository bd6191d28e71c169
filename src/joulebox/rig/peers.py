"""The instruments at the simulated machine's plug, each behind its own wire on this host and on the clock handed in.

A node reads them as it reads real ones: a serial port, a plug's web page, Modbus, a BMC.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, NamedTuple

from joulebox.clock import Clock
from joulebox.errors import JouleboxError
from joulebox.rig import lan_meters
from joulebox.rig.lan_meters import ModbusPlug, RedfishPlug
from joulebox.rig.mcp39f511n import McpPort, RigMcp39f511n
from joulebox.rig.plugs import Device, PlugMeter, ShellyGen2, Tasmota, WebPlug
from joulebox.rig.wall import Wall


class Peer(NamedTuple):
    """An instrument that answers: the meter to name to a node, and how to unplug it."""

    address: str
    close: Callable[[], None]


def _mcp39f511n(clock: Clock, wall: Wall) -> Peer:
    port = McpPort(RigMcp39f511n(clock, wall).answer)
    return Peer(f"mcp39f511n:{port.path}", port.close)


def _web(kind: str, device: Device) -> Peer:
    plug = WebPlug(device)
    return Peer(f"{kind}:{plug.url}", plug.close)


def _shelly(clock: Clock, wall: Wall) -> Peer:
    return _web("shelly", ShellyGen2(PlugMeter(clock, wall)))


def _tasmota(clock: Clock, wall: Wall) -> Peer:
    return _web("tasmota", Tasmota(PlugMeter(clock, wall), watt_digits=1))


def _modbus(clock: Clock, wall: Wall) -> Peer:
    plug = ModbusPlug(lan_meters.Plug(clock, wall))
    return Peer(plug.address, plug.close)


def _redfish(clock: Clock, wall: Wall) -> Peer:
    plug = RedfishPlug(lan_meters.Plug(clock, wall))
    return Peer(plug.address, plug.close)


PEERS: Final[dict[str, Callable[[Clock, Wall], Peer]]] = {
    "mcp39f511n": _mcp39f511n,
    "shelly": _shelly,
    "tasmota": _tasmota,
    "modbus": _modbus,
    "redfish": _redfish,
}


@contextmanager
def started(names: Sequence[str], clock: Clock, wall: Wall) -> Iterator[tuple[str, ...]]:
    """Have these instruments answer while the block lasts; gives the meters to name to a node, in the same order.

    Raises `JouleboxError("bad_setting")` for a name that is not in `PEERS`, and where one cannot be served here.
    """
    for name in names:
        if name not in PEERS:
            raise JouleboxError("bad_setting", f"The rig has no instrument {name!r}: choose among {', '.join(PEERS)}.")
    with ExitStack() as stack:
        addresses = []
        for name in dict.fromkeys(names):
            peer = _start(name, clock, wall)
            stack.callback(peer.close)
            addresses.append(peer.address)
        yield tuple(addresses)


def _start(name: str, clock: Clock, wall: Wall) -> Peer:
    try:
        return PEERS[name](clock, wall)
    except OSError as error:
        cause = error.__cause__
        if isinstance(cause, ImportError):
            remedy = f"install {cause.name} first (pip install 'joulebox[{name}]')"
        else:
            remedy = f"{error}; leave it out"
        raise JouleboxError("bad_setting", f"The rig cannot serve {name} here: {remedy}.") from error
