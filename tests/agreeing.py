"""One simulated machine seen at once by its counters and at its plug, each with a gain of its own, known here."""

import random
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace

from instruments import Instrument, Kind
from joulebox.clock import Clock, SimulatedClock
from joulebox.model import Channel, Sampling
from joulebox.rig.physics import Machine, Zone
from joulebox.rig.wall import Wall, WallParameters
from traces import channel

PLUGS = {
    "10 Hz wall meter": Kind(sampling=Sampling.MEAN, tick_s=0.1, lag_s=0.05),
    "1 Hz plug": Kind(sampling=Sampling.MEAN, tick_s=1.0, lag_s=0.3),
    "plug that looks": Kind(sampling=Sampling.SNAPSHOT, tick_s=1.0, step=0.1),
}
WALL_U, CPU_U, DRAM_U = 0.01, 0.10, 0.20


class Zones:
    """The machine's counters of processor and memory, as its drivers show them."""

    address = "powercap:rig"
    missing: Sequence[str] = ("wall",)

    def __init__(self, machine: Machine, clock: Clock, gain: float, exchanged: bool = False) -> None:
        self.machine, self._clock, self.gain, self._exchanged = machine, clock, gain, exchanged

    def channels(self) -> Sequence[Channel]:
        own = {"meter": self.address, "simulated": True}
        return (
            channel("package-0", "cpu", gain_u_ratio=CPU_U, **own),
            channel("package-0/dram", "dram", gain_u_ratio=DRAM_U, **own),
        )

    def read(self) -> Sequence[int | None]:
        now_ns = self._clock.now_ns() // 1_000_000 * 1_000_000
        zones: tuple[Zone, ...] = ("package-0", "package-0/dram")
        return tuple(
            int(self.machine.energy_j(zone, now_ns) * self.gain * 1e6)
            for zone in (zones[::-1] if self._exchanged else zones)
        )

    def close(self) -> None:
        """Nothing is open."""


class Plug(Instrument):
    """A meter at the plug that shows `gain` times what is drawn."""

    def __init__(self, wall: Wall, clock: Clock, kind: Kind, gain: float, address: str = "plug:rig") -> None:
        super().__init__(wall, clock, kind)
        self.gain, self.address = gain, address

    def channels(self) -> Sequence[Channel]:
        return tuple(replace(one, meter=self.address, gain_u_ratio=WALL_U) for one in super().channels())

    def read(self) -> Sequence[int | None]:
        return tuple(None if raw is None else round(raw * self.gain) for raw in super().read())


@dataclass(slots=True)
class Lab:
    """A machine drawn from `seed`: gains of its meters, losses of its supply, what the board takes."""

    seed: int
    kind: Kind
    clock: SimulatedClock = field(default_factory=SimulatedClock)
    machine: Machine = field(init=False)
    wall: Wall = field(init=False)
    zones: Zones = field(init=False)
    plug: Plug = field(init=False)
    zones_idle_w: float = 7.5

    def __post_init__(self) -> None:
        chance = random.Random(f"lab {self.seed}")
        self.machine = Machine(self.seed)
        board = WallParameters(
            rest_w=chance.uniform(5, 40), loss_ratio=chance.uniform(0.06, 0.22), loss_w=chance.uniform(1, 5)
        )
        self.wall = Wall(self.machine, board)
        kind = replace(self.kind, phase_s=chance.uniform(0, self.kind.tick_s), declared_lag_s=self.kind.lag_s)
        kind = replace(kind, lag_s=kind.lag_s * chance.uniform(0.8, 1.2))
        self.zones = Zones(self.machine, self.clock, 1 + CPU_U / 2 * max(-2.0, min(2.0, chance.gauss())))
        self.plug = Plug(self.wall, self.clock, kind, 1 + WALL_U / 2 * chance.gauss())

    def load(self, share: float) -> AbstractContextManager[None]:
        """The machine works."""

        @contextmanager
        def work() -> Iterator[None]:
            self.machine.activity(self.clock.now_ns(), share)
            yield
            self.machine.activity(self.clock.now_ns(), 0.0)

        return work()
