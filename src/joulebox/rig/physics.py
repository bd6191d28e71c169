"""A machine whose truth is known: power from activity by plain physics, energy in closed form at any moment.

Power of a zone = idle + noise + dynamic * level + tail. `level` is a staircase that the engine's activity draws. The
tail (clocks and fans that stay up) follows the level with a time constant: it rises in work and dies away after it. The
temperature follows the package's power with another. Staircase and exponentials integrate exactly: nothing is stepped.
"""

import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from math import exp, sqrt
from typing import Final, Literal

from joulebox.units import nanoseconds, seconds

Zone = Literal["package-0", "package-0/core", "package-0/dram"]
ZONES: Final[tuple[Zone, ...]] = ("package-0", "package-0/core", "package-0/dram")
"""Named as the powercap driver names its channels."""

_NOISE_STEPS: Final = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineParameters:
    """What kind of machine. The noise is idle work coming and going: steps of `noise_step_s`, correlated over some."""

    package_idle_w: float = 6.0
    package_dynamic_w: float = 34.0
    uncore_w: float = 2.5
    dram_idle_w: float = 1.5
    dram_dynamic_w: float = 3.0
    tail_w: float = 4.0
    tail_s: float = 0.8
    noise_w: float = 0.15
    noise_step_s: float = 0.02
    noise_correlation: float = 0.9
    ambient_c: float = 32.0
    heat_c_per_w: float = 0.9
    heat_s: float = 15.0


class Machine:
    """One machine from `start_ns` on. The same seed and the same activity give the same numbers everywhere.

    One thread may tell it what it does while others ask: what they look into only grows, or is replaced in one step.
    """

    def __init__(self, seed: int, start_ns: int = 0, parameters: MachineParameters | None = None) -> None:
        self.seed = seed
        self.start_ns = start_ns
        self.parameters = parameters or MachineParameters()
        self._noise = _Noise(seed, self.parameters)
        first_c = self.parameters.ambient_c + self.parameters.heat_c_per_w * self.parameters.package_idle_w
        self._steps = ([start_ns], [_Stretch(start_ns, 0.0, 0.0, 0.0, 0.0, first_c)])

    def activity(self, t_ns: int, level: float) -> None:
        """From `t_ns` on the machine works at `level` (0 idle, 1 full).

        Raises `ValueError` for a level outside 0..1 or a moment before the last step.
        """
        starts_ns, stretches = self._steps
        last = stretches[-1]
        if not 0.0 <= level <= 1.0:
            raise ValueError(f"level {level} is not between 0 and 1")
        if t_ns < last.start_ns:
            raise ValueError(f"activity at {t_ns} ns comes after the step at {last.start_ns} ns")
        after = last.until(t_ns, self.parameters, level)
        if t_ns == last.start_ns:
            stretches[-1] = after
        else:
            stretches.append(after)
            starts_ns.append(t_ns)

    def forget(self, before_ns: int) -> None:
        """Drop steps that end before `before_ns`, in a machine that runs long: nothing earlier can be asked then."""
        starts_ns, stretches = self._steps
        index = bisect_right(starts_ns, before_ns) - 1
        if index > 0:
            self._steps = (starts_ns[index:], stretches[index:])

    def energy_j(self, zone: Zone, t_ns: int) -> float:
        """Joules the zone has drawn from `start_ns` to `t_ns`."""
        stretch, parameters = self._at(t_ns), self.parameters
        work_s, tail_ws = stretch.totals(t_ns, parameters)
        lived_s = seconds(t_ns - self.start_ns)
        if zone == "package-0/dram":
            return parameters.dram_idle_w * lived_s + parameters.dram_dynamic_w * work_s
        package_j = (
            parameters.package_idle_w * lived_s
            + parameters.package_dynamic_w * work_s
            + tail_ws
            + self._noise.integral_ws(t_ns - self.start_ns)
        )
        return package_j if zone == "package-0" else package_j - parameters.uncore_w * lived_s

    def power_w(self, zone: Zone, t_ns: int) -> float:
        """Watts the zone draws at `t_ns`."""
        stretch, parameters = self._at(t_ns), self.parameters
        if zone == "package-0/dram":
            return parameters.dram_idle_w + parameters.dram_dynamic_w * stretch.level
        package_w = (
            parameters.package_idle_w
            + parameters.package_dynamic_w * stretch.level
            + stretch.tail_w(t_ns, parameters)
            + self._noise.at_w(t_ns - self.start_ns)
        )
        return package_w if zone == "package-0" else package_w - parameters.uncore_w

    def temperature_c(self, t_ns: int) -> float:
        """Temperature of the package; it is too slow to see the noise."""
        return self._at(t_ns).temperature_c(t_ns, self.parameters)

    def _at(self, t_ns: int) -> "_Stretch":
        starts_ns, stretches = self._steps
        index = bisect_right(starts_ns, t_ns) - 1
        if index < 0:
            raise ValueError(f"{t_ns} ns is before the machine's start or what it remembers")
        return stretches[index]


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Constant activity from `start_ns` on, and everything it inherits from before."""

    start_ns: int
    level: float
    work_s: float
    tail_ws: float
    first_tail_w: float
    first_c: float

    def until(self, t_ns: int, parameters: MachineParameters, level: float) -> "_Stretch":
        """The stretch that takes over at `t_ns` with another level."""
        work_s, tail_ws = self.totals(t_ns, parameters)
        tail_w, temperature_c = self.tail_w(t_ns, parameters), self.temperature_c(t_ns, parameters)
        return _Stretch(t_ns, level, work_s, tail_ws, tail_w, temperature_c)

    def tail_w(self, t_ns: int, parameters: MachineParameters) -> float:
        """Solves w' = (aim - w) / tail_s."""
        aim_w = parameters.tail_w * self.level
        return aim_w + (self.first_tail_w - aim_w) * exp(-seconds(t_ns - self.start_ns) / parameters.tail_s)

    def totals(self, t_ns: int, parameters: MachineParameters) -> tuple[float, float]:
        """Level-seconds and tail joules from the machine's start to `t_ns`: the integrals of `level` and `tail_w`."""
        elapsed_s = seconds(t_ns - self.start_ns)
        aim_w = parameters.tail_w * self.level
        faded = parameters.tail_s * (1.0 - exp(-elapsed_s / parameters.tail_s))
        return (
            self.work_s + self.level * elapsed_s,
            self.tail_ws + aim_w * elapsed_s + (self.first_tail_w - aim_w) * faded,
        )

    def temperature_c(self, t_ns: int, parameters: MachineParameters) -> float:
        """Solves c' = (ambient + heat * power - c) / heat_s, where power is a constant and one exponential."""
        elapsed_s = seconds(t_ns - self.start_ns)
        aim_w = parameters.tail_w * self.level
        steady_w = parameters.package_idle_w + parameters.package_dynamic_w * self.level + aim_w
        final_c = parameters.ambient_c + parameters.heat_c_per_w * steady_w
        rate = parameters.tail_s / (parameters.tail_s - parameters.heat_s)
        forced_c = parameters.heat_c_per_w * (self.first_tail_w - aim_w) * rate
        return (
            final_c
            + forced_c * exp(-elapsed_s / parameters.tail_s)
            + (self.first_c - final_c - forced_c) * exp(-elapsed_s / parameters.heat_s)
        )


class _Noise:
    """Watts around zero in steps, correlated from step to step; begins again after 16384 steps (5.5 minutes)."""

    def __init__(self, seed: int, parameters: MachineParameters) -> None:
        self._step_ns = nanoseconds(parameters.noise_step_s)
        self._watts = _noise_w(seed, parameters)
        self._sums_w = (0.0, *accumulate(self._watts))

    def at_w(self, since_ns: int) -> float:
        return self._watts[since_ns // self._step_ns % _NOISE_STEPS]

    def integral_ws(self, since_ns: int) -> float:
        steps, rest_ns = divmod(since_ns, self._step_ns)
        rounds, step = divmod(steps, _NOISE_STEPS)
        whole_w = rounds * self._sums_w[-1] + self._sums_w[step]
        return whole_w * seconds(self._step_ns) + self._watts[step] * seconds(rest_ns)


@lru_cache(maxsize=8)
def _noise_w(seed: int, parameters: MachineParameters) -> Sequence[float]:
    """Autoregressive noise. Twelve even numbers make a near enough normal one by sums alone, the same on every CPU.

    The last few are kept: a machine and the same machine left idle are compared all the time.
    """
    source = random.Random(f"noise {seed}")
    keep = parameters.noise_correlation
    fresh = parameters.noise_w * sqrt(1.0 - keep * keep)
    watts: list[float] = []
    value_w = 0.0
    for _ in range(_NOISE_STEPS):
        normal = sum(source.random() for _ in range(12)) - 6.0
        value_w = keep * value_w + fresh * normal
        watts.append(value_w)
    return tuple(watts)
