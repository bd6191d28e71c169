"""What every meter with a wire must do, whatever it speaks: a test starts the peer and calls `conforms`.

A module `test_meter_*.py` names in `CONFORMS` the kinds that it checks so; `test_meters.py` sees that none is left out.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from joulebox.errors import JouleboxError
from joulebox.model import Channel
from joulebox.node.meter import MeterFault
from joulebox.node.meters import open_meters

_TURNS = 100
_TURN_S = 0.02
_WAITING = threading.Event()


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """What the block opens it closes; a peer in a thread of this process may take a moment for its end of the wire."""
    before = _descriptors()
    yield
    for _ in range(_TURNS):
        if _descriptors() <= before:
            return
        _WAITING.wait(_TURN_S)
    assert _descriptors() <= before


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def refused(*addresses: str) -> JouleboxError:
    """The failure with which these meters cannot be opened; nothing stays open."""
    with no_descriptors_left(), pytest.raises(JouleboxError) as caught:
        open_meters(addresses)
    assert caught.value.detail.endswith(".")
    return caught.value


def conforms(address: str, raw: Sequence[int | None]) -> Sequence[Channel]:
    """Open, read `raw` (the peer must hold still), close for good; returns the channels for checks of their own."""
    with no_descriptors_left():
        (meter,) = open_meters([address])
        channels = meter.channels()
        assert list(meter.read()) == list(raw)
        assert list(meter.read()) == list(raw)
        assert list(meter.channels()) == list(channels)
        assert len({channel.name for channel in channels}) == len(channels) == len(raw)
        for channel in channels:
            assert channel.meter == meter.address
            assert channel.tick_s > 0
            assert channel.step > 0
            assert channel.accuracy
            assert not channel.simulated
        assert meter.address.partition(":")[0] == address.partition(":")[0]
        meter.close()
        meter.close()
    with pytest.raises(MeterFault, match="closed"):
        meter.read()
    assert refused(address, address).code == "bad_setting"
    kind, _, rest = address.partition(":")
    unknown = refused(f"{kind}:{rest.partition(',')[0]},flavour=vanilla")
    assert unknown.code == "bad_setting"
    assert "leave out flavour" in unknown.detail
    return channels
