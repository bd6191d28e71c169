"""Meters at the rig's plug that tick slowly, lag, average or only look: how they show what was drawn, no more."""

from collections.abc import Sequence
from dataclasses import dataclass

from joulebox.clock import Clock
from joulebox.model import Channel, ReadingKind, Sampling
from joulebox.rig.wall import Wall
from joulebox.units import nanoseconds, seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What kind of instrument. `phase_s` is where in its tick it stands at zero; `gain` and `offset_w` are what it
    really shows too much, `gain_u_ratio` and `offset_u_w` what its driver declares of them (k = 2)."""

    sampling: Sampling
    tick_s: float
    lag_s: float = 0.0
    step: float = 0.01
    phase_s: float = 0.0
    declared_lag_s: float | None = None
    gain_u_ratio: float = 0.0
    offset_u_w: float = 0.0
    gain: float = 0.0
    offset_w: float = 0.0
    address: str = "plug:rig"

    @property
    def channel(self) -> Channel:
        """What its driver would declare."""
        counter = self.sampling is Sampling.COUNTER
        return Channel(
            name="plug",
            meter=self.address,
            kind=ReadingKind.ENERGY_J if counter else ReadingKind.POWER_W,
            sampling=self.sampling,
            scope="wall",
            step=self.step,
            tick_s=self.tick_s,
            lag_s=self.lag_s if self.declared_lag_s is None else self.declared_lag_s,
            gain_u_ratio=self.gain_u_ratio,
            offset_u=self.offset_u_w,
            simulated=True,
        )


class Instrument:
    """A meter at the rig's plug."""

    missing: Sequence[str] = ()

    def __init__(self, wall: Wall, clock: Clock, kind: Kind) -> None:
        self.address = kind.address
        self._wall, self._clock, self._kind = wall, clock, kind

    def channels(self) -> Sequence[Channel]:
        """The one."""
        return (self._kind.channel,)

    def read(self) -> Sequence[int | None]:
        """What it has shown since its last tick."""
        kind = self._kind
        tick_ns, phase_ns = nanoseconds(kind.tick_s), nanoseconds(kind.phase_s)
        end_ns = (self._clock.now_ns() - phase_ns) // tick_ns * tick_ns + phase_ns - nanoseconds(kind.lag_s)
        if end_ns < tick_ns:
            return (None,)
        if kind.sampling is Sampling.COUNTER:
            joules = self._wall.energy_j(end_ns) * (1 + kind.gain) + kind.offset_w * seconds(end_ns)
            return (int(joules / kind.step),)
        if kind.sampling is Sampling.SNAPSHOT:
            watts = self._wall.power_w(end_ns)
        else:
            watts = (self._wall.energy_j(end_ns) - self._wall.energy_j(end_ns - tick_ns)) / seconds(tick_ns)
        return (round((watts * (1 + kind.gain) + kind.offset_w) / kind.step),)

    def close(self) -> None:
        """Nothing is open."""
