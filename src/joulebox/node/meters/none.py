"""`none:`: no meter, on purpose. Receipts then carry no energy, and say so."""

from collections.abc import Mapping, Sequence
from typing import Final

from joulebox.model import Channel
from joulebox.node.meter import MeterFault

WHERE: Final = ""
LOOKS_FOR: Final = "nothing: no energy is recorded"
OPTIONS: Final[Mapping[str, str]] = {}


class NoneMeter:
    """Covers nothing."""

    address = "none:"
    missing: Sequence[str] = ("wall",)

    def __init__(self) -> None:
        self._closed = False

    def channels(self) -> Sequence[Channel]:
        """None."""
        return ()

    def read(self) -> Sequence[int | None]:
        """Nothing."""
        if self._closed:
            raise MeterFault("the meter is closed")
        return ()

    def close(self) -> None:
        """Nothing is open."""
        self._closed = True


def open(address: str, options: Mapping[str, str]) -> NoneMeter:  # noqa: A001 - the name every driver offers
    """Nothing to open."""
    return NoneMeter()
