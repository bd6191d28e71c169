"""Python loads this module by its name in every process that has this folder in PYTHONPATH: the calendar of a real
server or node can then be set while it runs. `Clock.utc` is the only place where the product learns the time of day;
the file named by CHAOS_CLOCK says by how many seconds it is off, read anew each time."""

import os
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from joulebox.clock import SystemClock

OFFSET = Path(os.environ.get("CHAOS_CLOCK", os.devnull))
_utc = SystemClock.utc


def stepped(self: SystemClock) -> datetime:
    """The machine's calendar, so many seconds off."""
    offset_s = 0.0
    with suppress(OSError, ValueError):
        offset_s = float(OFFSET.read_text() or 0.0)
    return _utc(self) + timedelta(seconds=offset_s)


SystemClock.utc = stepped  # type: ignore[method-assign]
