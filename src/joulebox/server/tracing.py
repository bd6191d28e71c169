"""The trace that a request is part of: its `traceparent` (W3C Trace Context), kept with the prompt that it asks.

It is kept whether or not this server exports anything: another server may end the prompt. It says nothing of the text.
"""

import re
from contextvars import ContextVar
from typing import Final

TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_INCOMING: Final[ContextVar[str | None]] = ContextVar("traceparent", default=None)


def note(header: str | None) -> None:
    """Of the request that is answered now; what is no `traceparent` is as none."""
    _INCOMING.set(header if header is not None and TRACEPARENT.fullmatch(header) else None)


def incoming() -> str | None:
    """The trace that the request is part of, where it named one."""
    return _INCOMING.get()
