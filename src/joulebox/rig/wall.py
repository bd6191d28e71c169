"""What the machine draws at the plug: its zones, the rest of the board, and what the power supply turns into heat.

The loss has a constant part and one that grows with the load, so that wall energy stays as exact as the zones' own.
"""

from dataclasses import dataclass

from joulebox.rig.physics import Machine
from joulebox.units import seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class WallParameters:
    """`rest_w`: board, discs and fans. Of what it delivers the supply loses `loss_ratio`, and `loss_w` always."""

    rest_w: float = 9.0
    loss_ratio: float = 0.12
    loss_w: float = 3.0


class Wall:
    """The plug of one machine."""

    def __init__(self, machine: Machine, parameters: WallParameters | None = None) -> None:
        self.machine = machine
        self.parameters = parameters or WallParameters()

    def energy_j(self, t_ns: int) -> float:
        """Joules drawn at the plug from the machine's start to `t_ns`."""
        lived_s = seconds(t_ns - self.machine.start_ns)
        zones_j = self.machine.energy_j("package-0", t_ns) + self.machine.energy_j("package-0/dram", t_ns)
        return self._drawn(zones_j, lived_s)

    def power_w(self, t_ns: int) -> float:
        """Watts drawn at the plug at `t_ns`."""
        zones_w = self.machine.power_w("package-0", t_ns) + self.machine.power_w("package-0/dram", t_ns)
        return self._drawn(zones_w, 1.0)

    def mean_w(self, start_ns: int, end_ns: int) -> float:
        """Mean watts at the plug between two moments; what was before the machine's start counts as nothing."""
        begun_ns = max(start_ns, self.machine.start_ns)
        if end_ns <= begun_ns:
            return 0.0
        return (self.energy_j(end_ns) - self.energy_j(begun_ns)) / seconds(end_ns - start_ns)

    def _drawn(self, zones: float, lived: float) -> float:
        own = self.parameters
        return (zones + own.rest_w * lived) * (1.0 + own.loss_ratio) + own.loss_w * lived
