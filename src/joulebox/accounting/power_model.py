"""Where no meter exists: watts from how busy the cores were. Always grade D, always called modelled.

Watts per hardware thread, idle and fully busy, of whole servers in SPECpower_ssj2008, by microarchitecture, and watts
per gigabyte of memory, as published by Cloud Carbon Footprint (Apache-2.0, cloud-carbon-footprint, CloudConstants of
2024; architectures before 2013 left out). The machine's own architecture is not looked at: the mean over the table is
the figure and twice its standard deviation the expanded uncertainty, which is honest about how little a model knows.
"""

from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Final

WATTS_PER_THREAD: Final[dict[str, tuple[float, float]]] = {
    "Haswell": (1.00, 4.74),
    "Broadwell": (0.71, 3.69),
    "Skylake": (0.65, 4.26),
    "Coffee Lake": (1.14, 5.42),
    "Cascade Lake": (0.64, 3.97),
    "EPYC 1st gen": (0.82, 2.55),
    "EPYC 2nd gen": (0.47, 1.69),
}
MEMORY_W_PER_GB: Final = 0.392
MEMORY_U_RATIO: Final = 1.0
"""Memory power differs about twofold between generations; the source gives no spread, so all of it is uncertain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A linear profile: W = idle_w + busy cores * busy_core_w; `u` expanded (k = 2) and the same error all the time."""

    idle_w: float
    idle_u_w: float
    busy_core_w: float
    busy_core_u_w: float


def profile_of(cores: int, memory_bytes: int) -> Profile:
    """The profile of an unknown machine with `cores` hardware threads and `memory_bytes` of memory."""
    idle = [low for low, _ in WATTS_PER_THREAD.values()]
    rise = [high - low for low, high in WATTS_PER_THREAD.values()]
    memory_w = memory_bytes / 1e9 * MEMORY_W_PER_GB
    return Profile(
        idle_w=cores * fmean(idle) + memory_w,
        idle_u_w=cores * 2 * stdev(idle) + memory_w * MEMORY_U_RATIO,
        busy_core_w=fmean(rise),
        busy_core_u_w=2 * stdev(rise),
    )
