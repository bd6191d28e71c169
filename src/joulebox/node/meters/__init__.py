"""Meters by kind: `open_meters` opens those an operator names, or what the machine has; `found` says what there is.

A driver is a module in this package with `WHERE` (its usual place), `LOOKS_FOR`, `OPTIONS` (name and meaning of what
may follow the address) and `open(address, options) -> Meter`. It is imported when it is first wanted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Final

from joulebox.errors import JouleboxError
from joulebox.model import Channel
from joulebox.node.meter import Meter

KINDS: Final = {
    "powercap": "joulebox.node.meters.powercap",
    "perf": "joulebox.node.meters.perf",
    "nvml": "joulebox.node.meters.nvml",
    "amdsmi": "joulebox.node.meters.amdsmi",
    "apple": "joulebox.node.meters.apple",
    "hwmon": "joulebox.node.meters.hwmon",
    "feed": "joulebox.node.meters.feed",
    "remote": "joulebox.node.meters.remote",
    "mcp39f511n": "joulebox.node.meters.mcp39f511n",
    "shelly": "joulebox.node.meters.shelly",
    "tasmota": "joulebox.node.meters.tasmota",
    "modbus": "joulebox.node.meters.modbus",
    "snmp": "joulebox.node.meters.snmp",
    "redfish": "joulebox.node.meters.redfish",
    "ipmi": "joulebox.node.meters.ipmi",
    "model": "joulebox.node.meters.power_model",
    "none": "joulebox.node.meters.none",
}
ENERGY_KINDS: Final = ("powercap", "perf", "nvml", "amdsmi", "apple")
"""Kinds that measure energy or power and are looked for where nothing is named."""
_TEMPERATURE_KINDS: Final = ("hwmon",)
_NAMED_ONLY: Final = {
    "mcp39f511n": "if this machine is plugged into it",
    "ipmi": "each reading starts a program on this machine; if that is worth it",
}
"""Looked for in a list, never read unnamed: what only a person can decide, such as whose plug is in a wall meter."""
_SAME_COUNTERS: Final = {"perf": "powercap"}
"""A kind that shows what another shows too: used only where that one is not."""
_ONE_ONLY: Final = frozenset({"powercap", "perf", "nvml", "amdsmi", "apple", "hwmon", "model", "none"})
"""Kinds that cover the whole of this machine: another address would show the same parts again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was looked for on this machine. `used`: a node without named meters would read it."""

    kind: str
    address: str
    found: bool
    used: bool
    sentence: str
    channels: tuple[Channel, ...] = ()


def open_meters(addresses: Sequence[str]) -> list[Meter]:
    """Open the meters `addresses` name (`KIND:ADDRESS[,key=value...]`), or, where none is named, what the machine has.

    Without an energy or power meter that is the power model, and nothing where even that cannot be read. Raises
    `JouleboxError`: `unknown_meter`, `bad_setting` (not well formed, one meter twice), `meter_unreadable`; then nothing
    is left open.
    """
    if not addresses:
        return [meter for _, meter in _look() if meter is not None]
    wanted = [parse(text) for text in addresses]
    kinds = [kind for kind, _, _ in wanted]
    for kind in _ONE_ONLY.intersection(kinds):
        if kinds.count(kind) > 1:
            raise JouleboxError(
                "bad_setting",
                f"Two {kind} meters are named: name this kind once, or readings would count twice.",
            )
    for kind, other in _SAME_COUNTERS.items():
        if kind in kinds and other in kinds:
            raise JouleboxError(
                "bad_setting", f"{other} and {kind} read the same counters: name one, or readings would count twice."
            )
    for text in addresses:
        if list(addresses).count(text) > 1:
            raise _twice(text.partition(",")[0])
    meters: list[Meter] = []
    try:
        for kind, address, options in wanted:
            meters.append(_open(kind, address, options))
            if meters[-1].address in {meter.address for meter in meters[:-1]}:
                raise _twice(meters[-1].address)
    except JouleboxError:
        for meter in meters:
            meter.close()
        raise
    return meters


def found() -> list[Finding]:
    """What was looked for on this machine, found or not, and why. Opens and closes each once."""
    findings: list[Finding] = []
    for finding, meter in _look(everything=True):
        findings.append(finding)
        if meter is not None:
            meter.close()
    return findings


def parse(text: str) -> tuple[str, str, dict[str, str]]:
    """`KIND:ADDRESS[,key=value...]` as kind, address and options.

    Raises `JouleboxError`: `unknown_meter`, or `bad_setting` where it is not well formed.
    """
    kind, colon, rest = text.partition(":")
    if not colon:
        raise JouleboxError(
            "bad_setting",
            f"Meter {text!r} cannot be used: write KIND:ADDRESS, such as powercap:/sys/class/powercap.",
        )
    if kind not in KINDS:
        choices = ", ".join(KINDS)
        raise JouleboxError(
            "unknown_meter",
            f"There is no meter of kind {kind!r}. Joulebox reads {choices}.",
            kinds=list(KINDS),
        )
    address, *pairs = rest.split(",")
    options: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals) or name in options:
            reason = "is given twice" if name in options else "is not of the form key=value"
            raise JouleboxError("bad_setting", f"Meter {kind}:{address} cannot be used: option {name!r} {reason}.")
        options[name] = value
    return kind, address, options


def _twice(meter: str) -> JouleboxError:
    return JouleboxError(
        "bad_setting", f"The meter {meter} is named twice: name it once, or its readings would count twice."
    )


def _open(kind: str, address: str, options: Mapping[str, str]) -> Meter:
    module = import_module(KINDS[kind])
    unknown = [name for name in options if name not in module.OPTIONS]
    if unknown:
        takes = f"takes {', '.join(module.OPTIONS)}" if module.OPTIONS else "takes no options"
        raise JouleboxError(
            "bad_setting", f"Meter {kind}:{address} cannot be used: {kind} {takes}; leave out {', '.join(unknown)}."
        )
    meter: Meter = module.open(address, options)
    return meter


def _look(*, everything: bool = False) -> list[tuple[Finding, Meter | None]]:
    """Try the kinds a machine may have at their usual places; the model last and, but for a list, only where needed."""
    tried: list[tuple[Finding, Meter | None]] = []
    for kind in (*ENERGY_KINDS, *_TEMPERATURE_KINDS):
        used = _SAME_COUNTERS.get(kind) not in {finding.kind for finding, meter in tried if meter is not None}
        if everything or used:
            tried.append(_try(kind, used=used))
    if everything:
        tried += [_try(kind, used=False) for kind in _NAMED_ONLY]
    measured = any(meter is not None and finding.kind in ENERGY_KINDS for finding, meter in tried)
    if everything or not measured:
        tried.append(_try("model", used=not measured))
    return tried


def _try(kind: str, *, used: bool = True) -> tuple[Finding, Meter | None]:
    module = import_module(KINDS[kind])
    try:
        meter = _open(kind, "", {})
    except JouleboxError as error:
        sentence = f"{module.LOOKS_FOR[0].upper()}{module.LOOKS_FOR[1:]}: not found. {error.detail}"
        return Finding(kind=kind, address=f"{kind}:{module.WHERE}", found=False, used=False, sentence=sentence), None
    channels = tuple(meter.channels())
    names = ", ".join(channel.name for channel in channels)
    sentence = f"{module.LOOKS_FOR[0].upper()}{module.LOOKS_FOR[1:]}: {names}."
    if kind in _NAMED_ONLY:
        sentence += f" Not used: {_NAMED_ONLY[kind]}, name it: --meter {meter.address}."
    elif not used:
        sentence += " Not used, because an energy meter was found."
    return Finding(kind=kind, address=meter.address, found=True, used=used, sentence=sentence, channels=channels), meter
