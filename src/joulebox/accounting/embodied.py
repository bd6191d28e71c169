"""TE, what making the machine emitted, added up from the parts its node saw: low, central, high. Pure.

Published figures, each with its source, and conventions that are called so; `docs/explanation/carbon.md` is the long
form and tells which were checked against what. What is not known is listed as unknown: it adds nothing to the central
figure, and to the high one the most such a part has here. The ranges of the
parts are added as they are (all low, all high), wider than chance would have it. Cradle to gate: transport and end of
life are not in it.
"""

from collections.abc import Sequence
from math import ceil
from typing import Final, NamedTuple

from joulebox.accounting.chips import AMD_CARDS, APPROXIMATE, CARDS, CHIPS, CPUS, FOOTPRINTS, Area, Card, Die
from joulebox.model import CpuPart, DiskPart, Embodied, EmbodiedPart, GpuPart, MachineParts


class Range(NamedTuple):
    """Kilograms of CO2e, or kilograms per unit."""

    low: float
    central: float
    high: float


DESKTOP_KG: Final = Range(196.0, 301.0, 490.0)
DESKTOP_SOURCE: Final = (
    "generic desktop computer, not this machine: median and 10th to 90th percentile of 259 product footprints, worked "
    "out from Boavizta's open data of 2023 (ODbL); JOULEBOX_EMBODIED_KG sets the maker's figure"
)
SERVER_HIGH_KG: Final = 1946.0
_SHARE_SOURCE: Final = (
    "unknown: median of 259 desktop computers stands in; high: 90th percentile of 55 servers, worked out from "
    "Boavizta's open data of 2023 (ODbL)"
)
PARTS_SOURCE: Final = (
    "added up from the parts the node saw, cradle to gate; JOULEBOX_EMBODIED_KG sets the maker's figure"
)
VIRTUAL_SOURCE: Final = (
    "not this machine: a virtual machine is a share of a server that it cannot see, a generic desktop computer stands "
    "in and the range goes from nothing to a whole server; JOULEBOX_EMBODIED_KG sets what you know"
)

_ACT: Final = "ACT (Gupta et al., ISCA 2022; MIT)"
_UBA: Final = "UBA, Green Cloud Computing (TEXTE 94/2021), as Boavizta uses it"
_PUBLISHED: Final = Range(0.9, 1.0, 1.25)
_APPROXIMATE: Final = Range(0.75, 1.0, 1.25)
"""Publications of one die differ by as much (the I/O die of Zen 4: 387 to 419 mm2, a tile of Sapphire Rapids: 394 to
477); an area that nobody was found to publish may be further off. Conventions."""
_DIE_KG_PER_CM2: Final = {
    3: Range(1.75, 3.80, 4.65),
    5: Range(1.54, 2.90, 3.64),
    7: Range(1.44, 2.40, 2.99),
    8: Range(1.09, 1.86, 2.27),
    10: Range(1.09, 1.83, 2.23),
    14: Range(0.97, 1.60, 1.92),
    20: Range(0.91, 1.59, 1.91),
    28: Range(0.91, 1.37, 1.61),
}
"""By process in nm. Low: imec.netzero, as published with ACT. Central and high: ACT's (energy x fab's intensity + gases
at 95 % abatement + 0.5 kg of materials) / yield 0.875, with the fab on Taiwan's grid (583 g/kWh) and on coal (820)."""
_PACKAGE_KG: Final = Range(0.15, 4.6, 9.14)
"""Low: ACT, one package; high: UBA's constant of a server CPU; central: the middle of the two."""
_DRAM_KG_PER_GB: Final = Range(0.065, 0.72, 1.39)
"""Low: ACT (SK hynix, 10 nm class DDR4). Central: 2.20 kg per cm2 (UBA) at 0.244 Gb per mm2 (TechInsights, D1z). High:
533 kg for 384 GB in Dell's LCA of the R740 (2019), as ACT's repository quotes it."""
_MODULE_KG: Final = 5.22
_MODULE_GB: Final = Range(64.0, 16.0, 8.0)
_CARD_DRAM_KG_PER_GB: Final = Range(0.065, 0.85, 8.0)
"""Memory of graphics cards. Central: 546 of NVIDIA's 1312 kg, for 640 GB (PCF of HGX H100, 2025). High: what ADEME's
model of 2026 gives a GB between H100 and H200, as BoaviztAPI 2.5 computes it."""
_CARD_KG: Final = Range(15.0, 54.0, 100.0)
"""Board, cooler and the rest of a card. Central: an eighth of what is neither memory (546 kg) nor chips (332
kg) in the same PCF; the range is a convention."""
_SSD_KG_PER_GB: Final = Range(0.0107, 0.0435, 0.16)
"""Low: ACT (Western Digital, 2019). Central: 2.20 kg per cm2 at 50.6 GB per cm2. High: mean of 94 LCAs (Tannu and Nair,
HotCarbon 2022)."""
_SSD_KG: Final = Range(0.0, 6.34, 6.34)
_HDD_KG: Final = Range(15.5, 31.1, 46.7)
_BOARD_KG: Final = Range(33.0, 66.1, 113.0)
"""Central: UBA; high: EcoDiag (CNRS EcoInfo); low: half, a convention."""
_ASSEMBLY_KG: Final = Range(3.3, 6.7, 10.0)
_SUPPLY_KG_PER_KG: Final = 24.3
_SUPPLY: Final = {"desktop": Range(1.0, 1.5, 3.0), "mini": Range(0.2, 0.4, 0.8), "server": Range(1.0, 3.0, 6.0)}
"""Kilograms that power supplies weigh, by form of the machine: a convention."""
_STEEL_KG_PER_KG: Final = 1.91
_CASE: Final = {"desktop": Range(3.0, 6.0, 12.0), "mini": Range(0.5, 1.0, 2.0)}
"""Kilograms that a case weighs: a convention."""
_RACK_KG: Final = Range(75.0, 150.0, 225.0)
_LAPTOP_HIGH_KG: Final = 150.0
_MEMORY_HIGH_KG: Final = 1000.0
"""Bounds of what is not known, on the safe side; conventions."""
GB: Final = 1e9


def generic(life_years: float) -> Embodied:
    """A desktop computer somewhere, for a machine of which nothing is known."""
    return Embodied(
        low_kg=DESKTOP_KG.low,
        central_kg=DESKTOP_KG.central,
        high_kg=DESKTOP_KG.high,
        life_years=life_years,
        source=DESKTOP_SOURCE,
    )


def embodied_of_parts(parts: MachineParts | None, life_years: float) -> Embodied:
    """TE of the machine with these parts; of a generic desktop computer where neither CPU nor memory is known."""
    if parts is None or (parts.virtual is None and parts.cpu is None and not parts.memory_bytes):
        return generic(life_years)
    if parts.virtual is not None:
        source, unknown = VIRTUAL_SOURCE, [f"share of a server ({parts.virtual})"]
        found = [_part("Share of a server", Range(0.0, DESKTOP_KG.central, SERVER_HIGH_KG), _SHARE_SOURCE)]
    else:
        source, unknown = PARTS_SOURCE, []
        found = [_cpu(parts.cpu), _memory(parts.memory_bytes), *_disks(parts.disks), *_frame(parts.form)]
    found += [_gpu(index, gpu) for index, gpu in enumerate(parts.gpus)]
    missing = [part.part for part in found if part.central_kg is None]
    return Embodied(
        low_kg=round(sum(part.low_kg for part in found), 1),
        central_kg=round(sum(part.central_kg or 0.0 for part in found), 1),
        high_kg=round(sum(part.high_kg for part in found), 1),
        life_years=life_years,
        source=source + (f"; not known, only in the range: {', '.join(missing)}" if missing else ""),
        parts=tuple(found),
        unknown=(*unknown, *missing),
    )


def _part(part: str, kg: Range, source: str) -> EmbodiedPart:
    low_kg, central_kg, high_kg = (round(value, 1) for value in kg)
    return EmbodiedPart(part=part, low_kg=low_kg, central_kg=central_kg, high_kg=high_kg, source=source)


def _unknown(part: str, high_kg: float, source: str) -> EmbodiedPart:
    return EmbodiedPart(part=part, low_kg=0.0, central_kg=None, high_kg=round(high_kg, 1), source=f"unknown: {source}")


def _times(kg: Range, amount: float) -> Range:
    return Range(*(value * amount for value in kg))


def _sum(*ranges: Range) -> Range:
    return Range(*(sum(values) for values in zip(*ranges, strict=True)))


# --- silicon ----------------------------------------------------------------------------------------------------------


def _die_kg(areas: Sequence[Area]) -> Range:
    return _sum(*(_times(_DIE_KG_PER_CM2[area.process_nm], area.mm2 / 100) for area in areas))


def _silicon_kg(least: Sequence[Area], most: Sequence[Area], confirmed: bool) -> Range:
    """From the dies it has at least, to the most it may have."""
    low, central, _ = _die_kg(least)
    spread = _PUBLISHED if confirmed else _APPROXIMATE
    return Range(low * spread.low, central * spread.central, _die_kg(most).high * spread.high)


def _told(areas: Sequence[Area]) -> str:
    return " + ".join(f"{area.mm2:.0f} mm² at {area.process_nm} nm" for area in areas)


def _cpu(cpu: CpuPart | None) -> EmbodiedPart:
    if cpu is None:
        return _unknown("CPU", _LARGEST_CPU_KG, "this machine does not tell its processor")
    family = next((one for one in CPUS if one.is_of(cpu)), None)
    sockets = max(cpu.sockets, 1)
    name = f"CPU {cpu.name}" if sockets == 1 else f"{sockets} CPUs {cpu.name}"
    die = family.die(ceil(cpu.cores / sockets)) if family and cpu.cores > 0 else None
    if family is None or die is None:
        return _unknown(name, sockets * _LARGEST_CPU_KG, "no area of its dies is in the table")
    kg = _sum(_silicon_kg(die.areas, family.largest.areas, die.confirmed), _PACKAGE_KG)
    source = f"{family.name}, {_dies(die, family.largest)} ({family.source}); {_ACT}, imec; package: ACT, UBA"
    return _part(name, _times(kg, sockets), source)


def _dies(die: Die, largest: Die) -> str:
    told = _told(die.areas) + ("" if die.confirmed else f", {APPROXIMATE}")
    return told if die == largest else f"{told}; at most {_told(largest.areas)}"


def _gpu(index: int, gpu: GpuPart) -> EmbodiedPart:
    name = f"GPU {index} {gpu.name or gpu.pci}"
    key = (gpu.name or "").removeprefix("NVIDIA ")
    if key in FOOTPRINTS:
        return _part(name, Range(*FOOTPRINTS[key].kg), FOOTPRINTS[key].source)
    card = CARDS.get(key) or AMD_CARDS.get(gpu.pci)
    if card is None:
        return _unknown(name, _LARGEST_CARD_KG, "this model is not in the table")
    if gpu.memory_bytes and gpu.memory_bytes > 0:
        card = Card(card.chip, gpu.memory_bytes / GB)
    chip = CHIPS[card.chip]
    others = "" if card.others_gb is None else f" (others of its name: {card.others_gb:g} GB)"
    source = (
        f"{card.chip}, {_told(chip.areas)} ({chip.source}{'' if chip.confirmed else f'; {APPROXIMATE}'}), "
        f"{card.memory_gb:.0f} GB{others}; {_ACT}, imec; memory, board and cooler: NVIDIA's PCF of HGX H100 (2025), "
        "ACT, ADEME's model of 2026 as BoaviztAPI 2.5 computes it"
    )
    return _part(name, _card_kg(card), source)


def _card_kg(card: Card) -> Range:
    chip, sizes_gb = CHIPS[card.chip], (card.memory_gb, card.others_gb or card.memory_gb)
    memory = Range(
        _CARD_DRAM_KG_PER_GB.low * min(sizes_gb),
        _CARD_DRAM_KG_PER_GB.central * card.memory_gb,
        _CARD_DRAM_KG_PER_GB.high * max(sizes_gb),
    )
    return _sum(_silicon_kg(chip.areas, chip.areas, chip.confirmed), _PACKAGE_KG, memory, _CARD_KG)


_LARGEST_CPU_KG: Final = max(_die_kg(one.largest.areas).high for one in CPUS) * _APPROXIMATE.high + _PACKAGE_KG.high
_LARGEST_CARD_KG: Final = max(
    *(_card_kg(card).high for card in (*CARDS.values(), *AMD_CARDS.values())),
    *(footprint.kg[2] for footprint in FOOTPRINTS.values()),
)


# --- memory, storage, everything around -------------------------------------------------------------------------------


def _memory(memory_bytes: int | None) -> EmbodiedPart:
    if not memory_bytes or memory_bytes < 0:
        return _unknown("Memory", _MEMORY_HIGH_KG, "this machine does not tell its memory")
    size_gb = memory_bytes / GB
    modules = Range(*(ceil(size_gb / module_gb) for module_gb in _MODULE_GB))
    source = (
        f"per GB: {_ACT}, UBA at TechInsights' density of D1z, Dell's LCA of the R740; modules of 16 (64 to 8) GB "
        "assumed, the kernel does not tell them: UBA"
    )
    return _part(
        f"Memory {size_gb:.0f} GB", _sum(_times(_DRAM_KG_PER_GB, size_gb), _times(modules, _MODULE_KG)), source
    )


def _disks(disks: Sequence[DiskPart]) -> list[EmbodiedPart]:
    """One part a disk. None seen is none counted: a machine may well start from the network."""
    found = []
    for disk in disks:
        size_gb = max(disk.size_bytes, 0) / GB
        if disk.kind == "hdd":
            found.append(_part(f"Disk {size_gb:.0f} GB", _HDD_KG, f"per drive, {_UBA}; range ± 50 %, a convention"))
        else:
            kg = _sum(_times(_SSD_KG_PER_GB, size_gb), _SSD_KG)
            source = f"per GB: {_ACT}, UBA at 50.6 GB per cm², Tannu and Nair (HotCarbon 2022)"
            found.append(_part(f"SSD {size_gb:.0f} GB", kg, source))
    return found


def _frame(form: str | None) -> list[EmbodiedPart]:
    """Board, power supply, case and assembly: no kernel tells them, they follow the form of the machine."""
    board = _part("Mainboard", _BOARD_KG, f"{_UBA}; high: EcoDiag (CNRS EcoInfo); low: half, a convention")
    assembly = _part("Assembly", _ASSEMBLY_KG, f"{_UBA}; range ± 50 %, a convention")
    if form == "laptop":
        rest = _unknown("Display, battery and case of a laptop", _LAPTOP_HIGH_KG, "no figures here")
        return [board, rest, assembly]
    if form not in _SUPPLY:
        high_kg = _times(_SUPPLY["server"], _SUPPLY_KG_PER_KG).high + _RACK_KG.high
        return [board, _unknown("Power supply and case", high_kg, "this machine does not tell its form"), assembly]
    supply = _part(
        "Power supply",
        _times(_SUPPLY[form], _SUPPLY_KG_PER_KG),
        f"{_SUPPLY_KG_PER_KG} kg per kg, {_UBA}; {_SUPPLY[form].central:g} kg assumed of a {form}",
    )
    if form == "server":
        case = _part("Case", _RACK_KG, f"rack server, {_UBA}; range ± 50 %, a convention")
    else:
        case = _part(
            "Case",
            _times(_CASE[form], _STEEL_KG_PER_KG),
            f"{_CASE[form].central:g} kg of steel assumed of a {form}, 1.91 kg per kg (worldsteel 2023)",
        )
    return [board, supply, case, assembly]
