"""The machine's instruments on disk: a powercap folder and an hwmon folder, laid out and updated as the kernel does.

Counters move in steps of 61 µJ once a millisecond (or as slowly as other counters do, where they are told to), begin
anywhere and start again at zero. The real drivers read them.
"""

import json
import os
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Protocol

from joulebox.clock import Clock
from joulebox.model import Channel
from joulebox.rig.physics import ZONES, Machine, Zone
from joulebox.units import NS_PER_S

MARK: Final = "joulebox-rig.json"
"""Its presence at a folder's root tells the drivers that the readings are simulated."""
TICK_NS: Final = NS_PER_S // 1_000
STEP_NJ: Final = 61_035
"""2^-14 J, as the kernel rounds it."""
RANGE_UJ: Final = 262_143_328_850
"""What the kernel shows as `max_energy_range_uj` for that step: the largest count of 32 bits."""
_WIDTH: Final = 24
_SENSOR_NS: Final = NS_PER_S // 10
_FOLDERS: Final[dict[Zone, str]] = {
    "package-0": "intel-rapl:0",
    "package-0/core": "intel-rapl:0/intel-rapl:0:0",
    "package-0/dram": "intel-rapl:0/intel-rapl:0:1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeParameters:
    """What kind of counters. Gain error 0.02: they show 2 % more than the truth. A small range: they wrap often.
    `tick_ns` is a whole number of milliseconds."""

    range_uj: int = RANGE_UJ
    gain_error: float = 0.0
    tick_ns: int = TICK_NS

    @property
    def period_uj(self) -> int:
        """Microjoules from zero to zero: one step of a 32-bit counter beyond its largest count."""
        return self.range_uj + max(1, round(self.range_uj / (2**32 - 1)))


class RigPowercap:
    """The two folders `powercap` and `hwmon` in `folder`, following `machine`."""

    def __init__(self, clock: Clock, machine: Machine, folder: Path, parameters: TreeParameters | None = None) -> None:
        """Write the folders and open the files that change. Raises `ValueError` for a tick of part milliseconds."""
        self._clock = clock
        self._machine = machine
        self._parameters = parameters or TreeParameters()
        if self._parameters.tick_ns < TICK_NS or self._parameters.tick_ns % TICK_NS:
            raise ValueError(f"counters tick in whole milliseconds, not in {self._parameters.tick_ns} ns")
        self.powercap = folder / "powercap"
        self.hwmon = folder / "hwmon"
        source = random.Random(f"tree {machine.seed}")
        self._first_uj = {zone: source.randrange(self._parameters.period_uj) for zone in ZONES}
        self._tick_ns = self._parameters.tick_ns
        self._phase_ns = source.randrange(self._tick_ns)
        self._written_ns = -1
        self._files: dict[Zone, int] = {}
        self._sensor: int | None = None
        self._write_folders()
        self.update(clock.now_ns())

    @property
    def addresses(self) -> tuple[str, str]:
        """The meters to name to a node."""
        return f"powercap:{self.powercap}", f"hwmon:{self.hwmon}"

    def update(self, t_ns: int) -> int | None:
        """Write what the instruments show at `t_ns`: the state at the last tick at or before it.

        From when on the files showed less than that: the first tick not yet written; `None` if there was none.
        """
        first_ns = self._machine.start_ns + self._phase_ns
        tick_ns = max((t_ns - first_ns) // self._tick_ns * self._tick_ns + first_ns, self._machine.start_ns)
        if tick_ns == self._written_ns:
            return None
        due_ns = tick_ns if self._written_ns < first_ns else self._written_ns + self._tick_ns
        for zone, descriptor in self._files.items():
            _put(descriptor, self.count_uj(zone, tick_ns))
        if self._sensor is not None and tick_ns // _SENSOR_NS != self._written_ns // _SENSOR_NS:
            _put(self._sensor, round(self._machine.temperature_c(tick_ns)) * 1_000)
        self._written_ns = tick_ns
        return due_ns

    def next_look_ns(self, t_ns: int) -> int:
        """The next moment after `t_ns` to update: a whole number of milliseconds from a tick."""
        first_ns = self._machine.start_ns + self._phase_ns
        return ((t_ns - first_ns) // TICK_NS + 1) * TICK_NS + first_ns

    def count_uj(self, zone: Zone, t_ns: int) -> int:
        """What the counter of `zone` shows for the energy drawn until `t_ns`."""
        shown_j = self._machine.energy_j(zone, t_ns) * (1.0 + self._parameters.gain_error)
        return (self._first_uj[zone] + int(shown_j * 1e9) // STEP_NJ * STEP_NJ // 1_000) % self._parameters.period_uj

    def following(self, meter: "Instrument") -> "Following":
        """`meter` with the folders brought up to date before each reading: on a clock that jumps there is no 1 kHz."""
        return Following(self, self._clock, meter)

    def close(self) -> None:
        """Close the files; the folders stay."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files = {}
        if self._sensor is not None:
            os.close(self._sensor)
        self._sensor = None

    def _write_folders(self) -> None:
        self.describe(self.powercap / MARK)
        self.describe(self.hwmon / MARK)
        for zone in ZONES:
            nested = self.powercap / "intel-rapl" / _FOLDERS[zone]
            nested.mkdir(parents=True, exist_ok=True)
            flat = self.powercap / nested.name
            if not flat.is_symlink():
                flat.symlink_to(nested.relative_to(self.powercap))
            (nested / "name").write_text(zone.rpartition("/")[2] + "\n")
            (nested / "max_energy_range_uj").write_text(f"{self._parameters.range_uj}\n")
            self._files[zone] = _writable(nested / "energy_uj")
        there = self.powercap / "intel-rapl" / "subsystem"  # as the kernel has it; some readers go by it
        if not there.is_symlink():
            there.symlink_to("..")
        chip = self.hwmon / "hwmon0"
        chip.mkdir(exist_ok=True)
        (chip / "name").write_text("coretemp\n")
        (chip / "temp1_label").write_text("Package id 0\n")
        self._sensor = _writable(chip / "temp1_input")

    def describe(self, path: Path) -> None:
        """Write what this machine is, in JSON on one line: enough to build it again."""
        path.parent.mkdir(parents=True, exist_ok=True)
        description = {
            "simulated": True,
            "seed": self._machine.seed,
            "start_ns": self._machine.start_ns,
            "machine": asdict(self._machine.parameters),
            "tree": asdict(self._parameters),
        }
        path.write_text(json.dumps(description) + "\n")


class Instrument(Protocol):
    """As much of a meter as the rig needs to know; the contract is `node.meter.Meter`."""

    address: str
    missing: Sequence[str]

    def channels(self) -> Sequence[Channel]: ...
    def read(self) -> Sequence[int | None]: ...
    def close(self) -> None: ...


class Following:
    """A real driver that always finds the rig's files as they should be now."""

    def __init__(self, rig: RigPowercap, clock: Clock, meter: Instrument) -> None:
        self._rig = rig
        self._clock = clock
        self._meter = meter
        self.address = meter.address
        self.missing = meter.missing

    def channels(self) -> Sequence[Channel]:
        """The driver's."""
        return self._meter.channels()

    def read(self) -> Sequence[int | None]:
        """What the driver reads after the rig has written."""
        self._rig.update(self._clock.now_ns())
        return self._meter.read()

    def close(self) -> None:
        """Close the driver."""
        self._meter.close()


def _writable(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _put(descriptor: int, number: int) -> None:
    """One write of one width, so that a reader beside it finds the old number or the new one.

    Two processes doing nothing else met a mixture once in 3.5 million readings.
    """
    os.pwrite(descriptor, str(number).encode().ljust(_WIDTH - 1) + b"\n", 0)
