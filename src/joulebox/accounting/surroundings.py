"""Did anything but the answer use the machine? The limits a verdict on foreign load, steal and heat goes by. Pure.

Limits grow with the window, since an idle system does a little all the time; what is small beside the engine's own work
does not matter either. Nothing here is ever subtracted from an energy.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final, Literal, NamedTuple

from joulebox.model import NeighboursSeen, Trace

Level = Literal["note", "suspect", "invalid"]

UNSEEN_PER_CORE_S: Final = 0.02
"""So much per core lies between what the machine and what its processes count, on a machine that does nothing."""
IDLE_CORES: Final = 0.02
"""What a system does on its own, in cores."""
SERVER_NOTE_S: Final = 0.02
DISK_BYTES, DISK_BYTES_PER_S = 16_000_000, 5_000_000
NETWORK_BYTES, NETWORK_BYTES_PER_S = 1_000_000, 500_000
"""A watched answer and meters on a network are a few kilobytes a second."""
NAMED_MAX: Final = 3
NAMED_RATIO: Final = 0.05
"""Programs that did less than this share of all foreign work are not worth a name."""


class Finding(NamedTuple):
    """A verdict code with how bad it is and what its sentence tells."""

    code: str
    level: Level
    details: tuple[str, ...]


def findings(trace: Trace) -> Iterator[Finding]:
    """What the two looks at the machine, one at each end of the guards, say against the figures."""
    seen = trace.neighbours
    if seen is None:
        return
    if seen.throttled:
        yield Finding("throttled", "invalid", (f"{seen.throttled} times",))
    window_s = seen.window_s
    if not window_s:
        return
    if trace.model is None:  # disks and network may be what was measured
        seen = replace(seen, disk_bytes=None, network_bytes=None)
    if (found := _foreign(seen, window_s, trace.cores)) is not None:
        yield found
    if seen.server_s is not None:
        heavy = seen.server_s > max(0.10, 0.05 * window_s) and seen.server_s > 0.02 * seen.own_s
        if heavy or seen.server_s > SERVER_NOTE_S:
            yield Finding("shared_host", "suspect" if heavy else "note", (_amount(seen.server_s),))
    level = _steal(seen.steal_s or 0.0, window_s * trace.cores)
    if level is not None and seen.steal_s is not None:
        yield Finding("steal", level, (_amount(seen.steal_s),))


def _foreign(seen: NeighboursSeen, window_s: float, cores: int) -> Finding | None:
    """Foreign programs, disks and network in one sentence, as bad as the worst of them."""
    unseen_s = max(0.0, (seen.unexplained_s or 0.0) - UNSEEN_PER_CORE_S * cores)
    level = _programs(seen.foreign_s + unseen_s, seen.own_s, window_s)
    told = _named(seen, unseen_s) if level is not None else []
    if seen.disk_bytes is not None and seen.disk_bytes > max(DISK_BYTES, DISK_BYTES_PER_S * window_s):
        told.append(f"the disks moved {seen.disk_bytes / 1e6:.0f} MB")
        level = "suspect" if level != "invalid" else level
    if seen.network_bytes is not None and seen.network_bytes > max(NETWORK_BYTES, NETWORK_BYTES_PER_S * window_s):
        told.append(f"the network carried {seen.network_bytes / 1e6:.1f} MB")
        level = "suspect" if level != "invalid" else level
    return Finding("foreign_load", level, (f"{window_s:.1f} s", ", ".join(told))) if level is not None else None


def _named(seen: NeighboursSeen, unseen_s: float) -> list[str]:
    """The programs worth a name, the first of them in any case, and those without one."""
    least_s = NAMED_RATIO * (seen.foreign_s + unseen_s)
    named = [load for load in seen.foreign[:NAMED_MAX] if load.cpu_s >= least_s] or seen.foreign[:1]
    told = [f"{load.name} used {_amount(load.cpu_s)}" for load in named]
    return (
        [*told, f"programs that cannot be named used {_amount(unseen_s)}"] if unseen_s >= 0.1 * seen.foreign_s else told
    )


def _programs(foreign_s: float, own_s: float, window_s: float) -> Level | None:
    if foreign_s > max(0.5, 0.5 * window_s) and foreign_s > 0.25 * own_s:
        return "invalid"
    beside_own = foreign_s > 0.02 * own_s or foreign_s > 0.25 * window_s
    if beside_own and foreign_s > max(0.10, (IDLE_CORES + 0.05) * window_s):
        return "suspect"
    return "note" if foreign_s > max(0.05, 2 * IDLE_CORES * window_s) else None


def _steal(steal_s: float, core_s: float) -> Level | None:
    if steal_s > max(0.1, 0.02 * core_s):
        return "invalid"
    return "suspect" if steal_s > max(0.02, 0.002 * core_s) else None


def _amount(cpu_s: float) -> str:
    return f"{cpu_s:.2g} core-seconds"
