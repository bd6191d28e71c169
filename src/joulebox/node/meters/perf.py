"""`perf:`: RAPL energy counters by Linux's perf events. The kernel widens them to 64 bits: they never start again.

The same counters as `powercap:`, for machines where perf events are open to the user and powercap is not.
"""

import ctypes
import os
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from joulebox.errors import JouleboxError
from joulebox.model import Channel, ReadingKind, Sampling
from joulebox.node import rapl, sysfs
from joulebox.node.meter import MeterFault

WHERE: Final = "/sys/bus/event_source/devices/power"
LOOKS_FOR: Final = "RAPL energy counters by perf events"
OPTIONS: Final[Mapping[str, str]] = {}

_EVENTS: Final[Mapping[str, tuple[str, bool]]] = {
    "energy-pkg": ("cpu", False),
    "energy-cores": ("cpu", True),
    "energy-gpu": ("cpu", True),
    "energy-ram": ("dram", False),
    "energy-psys": ("platform", False),
}
"""Events by scope, and whether they are a share of it: cores and graphics are inside the package."""
_SYSCALL: Final = {"x86_64": 298, "i386": 336, "i686": 336}
_ATTRIBUTE_BYTES: Final = 64
_CLOSE_ON_EXEC: Final = 8


@dataclass(frozen=True, slots=True)
class _Event:
    name: str
    cpu: int
    config: int
    channel: Channel


class PerfMeter:
    """RAPL by perf events: one channel an event and a package."""

    def __init__(self, folder: Path) -> None:
        """Open every event. Raises `JouleboxError("meter_unreadable")` naming folder, file or right."""
        self.address = f"perf:{folder}"
        self._open: list[int] | None = []
        if not (folder / "type").is_file():
            raise JouleboxError(
                "meter_unreadable",
                f"{folder} does not exist (this machine or virtual machine shows no RAPL by perf events). Load the "
                "kernel module rapl, or leave this meter out.",
                path=str(folder),
            )
        kind = sysfs.number_in(folder / "type")
        self._events = tuple(_events(folder, self.address))
        if not self._events:
            raise sysfs.unreadable(folder / "events" / "energy-pkg", FileNotFoundError())
        self._channels = tuple(event.channel for event in self._events)
        unseen = [] if {channel.scope for channel in self._channels} & {"dram", "platform"} else ["dram"]
        above = folder.absolute().parents
        self.missing: Sequence[str] = ("wall", *unseen, *(sysfs.gpus(above[3]) if len(above) > 3 else ()))
        for event in self._events:
            try:
                self._open.append(perf_event_open(kind, event.config, event.cpu))
            except OSError as error:
                self.close()
                raise _refused(event.name, error) from error

    def channels(self) -> Sequence[Channel]:
        """One an event and a package."""
        return self._channels

    def read(self) -> Sequence[int | None]:
        """Counts since opening, in the kernel's scale. Raises `MeterFault`."""
        if self._open is None:
            raise MeterFault("the meter is closed")
        counts: list[int | None] = []
        for event, descriptor in zip(self._events, self._open, strict=True):
            try:
                (count,) = struct.unpack("=Q", os.read(descriptor, 8))
            except OSError as error:
                raise MeterFault(f"{event.channel.name}: {error.strerror}") from error
            except struct.error as error:  # a processor that was taken off line reads as the end of the file
                raise MeterFault(f"{event.channel.name}: the kernel counts no longer on CPU {event.cpu}") from error
            counts.append(count)
        return tuple(counts)

    def close(self) -> None:
        """Close the events."""
        for descriptor in self._open or ():
            os.close(descriptor)
        self._open = None


def open(address: str, options: Mapping[str, str]) -> PerfMeter:  # noqa: A001 - the name every driver offers
    """The events in folder `address` (the kernel's own where empty). Raises `JouleboxError("meter_unreadable")`."""
    return PerfMeter(Path(address or WHERE))


def perf_event_open(kind: int, config: int, cpu: int) -> int:
    """Count event `config` of source `kind` on `cpu`: a descriptor to read 8 bytes from. Raises `OSError`."""
    number = _SYSCALL.get(os.uname().machine)
    if number is None:
        raise OSError(f"perf events of RAPL are known on x86 only, this is {os.uname().machine}")
    attribute = ctypes.create_string_buffer(struct.pack("=IIQ", kind, _ATTRIBUTE_BYTES, config), _ATTRIBUTE_BYTES)
    every_process, no_group = -1, -1
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor: int = libc.syscall(number, attribute, every_process, cpu, no_group, ctypes.c_ulong(_CLOSE_ON_EXEC))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return descriptor


def _events(folder: Path, address: str) -> Iterator[_Event]:
    """Every known event on the first CPU of each package; the platform counter is one for the machine."""
    cpus = _cpus(folder / "cpumask")
    for position, cpu in enumerate(cpus):
        for name, (scope, share) in _EVENTS.items():
            file = folder / "events" / name
            if not file.is_file() or (scope == "platform" and position > 0):
                continue
            gain_u_ratio, accuracy = rapl.GAIN_U[scope]
            config, step = _config(file), _joules(file)
            channel = Channel(
                name=f"package-{position}/{name}",
                meter=address,
                kind=ReadingKind.ENERGY_J,
                sampling=Sampling.COUNTER,
                scope=scope,
                step=step,
                tick_s=rapl.TICK_S,
                gain_u_ratio=gain_u_ratio,
                accuracy=accuracy,
                part_of="cpu" if share else None,
                simulated=sysfs.simulated(folder),
            )
            yield _Event(name, cpu, config, channel)


def _cpus(file: Path) -> list[int]:
    """One CPU a package: `0,18` or `0-1`."""
    text = sysfs.text_in(file) or ""
    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text):
        raise sysfs.unreadable(file, ValueError(f"{text[:40]!r} is no list of CPUs"))
    cpus: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        cpus.extend(range(int(first), int(last or first) + 1))
    return cpus


def _config(file: Path) -> int:
    """The number in `event=0x02`."""
    text = sysfs.text_in(file) or ""
    if match := re.fullmatch(r"event=(0x[0-9a-fA-F]{1,16})", text):
        return int(match[1], 16)
    raise sysfs.unreadable(file, ValueError(f"{text[:40]!r} is no event"))


def _joules(file: Path) -> float:
    """Joules a count: `energy-pkg.scale`, where `energy-pkg.unit` says Joules."""
    unit, scale = file.with_name(f"{file.name}.unit"), file.with_name(f"{file.name}.scale")
    if sysfs.text_in(unit) != "Joules":
        raise sysfs.unreadable(unit, ValueError("it does not say Joules"))
    try:
        step = float(sysfs.text_in(scale) or "")
    except ValueError as error:
        raise sysfs.unreadable(scale, error) from error
    if not 0.0 < step < 1.0:
        raise sysfs.unreadable(scale, ValueError(f"{step} J a count cannot be"))
    return step


def _refused(name: str, error: OSError) -> JouleboxError:
    if isinstance(error, PermissionError):
        remedy = "run `sudo sysctl kernel.perf_event_paranoid=0`, or give the node CAP_PERFMON"
    else:
        remedy = "use powercap: instead, or leave this meter out"
    return JouleboxError(
        "meter_unreadable", f"The perf event {name} cannot be counted ({error.strerror or error}): {remedy}."
    )
