"""Areas of dies: of processors by family and cores, of graphics cards by name. Facts, each with its source.

Processors: area = fixed + cores x area per core (chiplets: whole ones), drawn through the published dies of a family; a
family that is not here is unknown. Cards are known by the driver's exact name, or AMD's by PCI number: a name that is
nearly right is another card.
"""

from math import ceil
from typing import Final, NamedTuple

from joulebox.model import CpuPart

_HARDWARELUXX: Final = "dies measured by Hardwareluxx"
_ANANDTECH: Final = "dies published by AnandTech and WikiChip"
_AMD: Final = "dies published by AMD, and by VideoCardz for the server I/O die"
_NVIDIA: Final = "NVIDIA's architecture papers"
_LISTS: Final = "TechPowerUp's GPU database"


class Area(NamedTuple):
    """Square millimetres of silicon of one process (the nearest of the table of factors)."""

    mm2: float
    process_nm: int


class CpuFamily(NamedTuple):
    """Processors of one design. `per_cores` cores share one piece of `mm2_each`; `rest` is there once."""

    name: str
    vendor: str
    family: int
    models: tuple[int, ...]
    mm2_each: float
    per_cores: int
    process_nm: int
    rest: tuple[Area, ...]
    cores_max: int
    source: str

    def is_of(self, cpu: CpuPart) -> bool:
        """Whether a processor is of this design."""
        return (cpu.vendor, cpu.family) == (self.vendor, self.family) and cpu.model in self.models

    def areas(self, cores: int) -> tuple[Area, ...]:
        """The silicon of one processor with so many cores, by process."""
        mm2 = self.mm2_each * ceil(cores / self.per_cores) + sum(
            area.mm2 for area in self.rest if area.process_nm == self.process_nm
        )
        return (
            Area(mm2, self.process_nm),
            *(area for area in self.rest if area.process_nm != self.process_nm),
        )


_A: Final = "AuthenticAMD"
_I: Final = "GenuineIntel"
CPUS: Final = (
    CpuFamily("Zen, Zen+", _A, 23, (1, 8), 213, 8, 14, (), 32, _AMD),
    CpuFamily("Zen 2 server", _A, 23, (49,), 74, 8, 7, (Area(416, 14),), 64, _AMD),
    CpuFamily("Zen 2", _A, 23, (113,), 74, 8, 7, (Area(125, 14),), 16, _AMD),
    CpuFamily("Zen 2 APU", _A, 23, (96, 104), 156, 8, 7, (), 8, _AMD),
    CpuFamily("Zen 3 server", _A, 25, (1,), 80.7, 8, 7, (Area(416, 14),), 64, _AMD),
    CpuFamily("Zen 3", _A, 25, (33,), 80.7, 8, 7, (Area(125, 14),), 16, _AMD),
    CpuFamily("Zen 3 APU", _A, 25, (80,), 180, 8, 7, (), 8, _AMD),
    CpuFamily("Zen 4 server", _A, 25, (17,), 72.2, 8, 5, (Area(396.6, 7),), 96, _AMD),
    CpuFamily("Zen 4", _A, 25, (97,), 71, 8, 5, (Area(122, 7),), 16, _AMD),
    CpuFamily("Zen 4 APU", _A, 25, (116, 117), 178, 8, 5, (), 8, _AMD),
    CpuFamily("Zen 5", _A, 26, (68,), 70.6, 8, 5, (Area(122, 7),), 16, _AMD),
    CpuFamily("Haswell server", _I, 6, (63,), 31, 1, 20, (Area(107, 20),), 18, _ANANDTECH),
    CpuFamily("Broadwell server", _I, 6, (79,), 15, 1, 14, (Area(96, 14),), 24, _ANANDTECH),
    CpuFamily("Skylake to Comet Lake", _I, 6, (94, 158, 165), 13.1, 1, 14, (Area(74, 14),), 10, _HARDWARELUXX),
    CpuFamily("Rocket Lake", _I, 6, (167,), 280, 8, 14, (), 8, _HARDWARELUXX),
    CpuFamily("Alder and Raptor Lake", _I, 6, (151, 183), 6.1, 1, 10, (Area(110, 10),), 24, _HARDWARELUXX),
    CpuFamily("Skylake to Cascade Lake server", _I, 6, (85,), 20.7, 1, 14, (Area(115, 14),), 28, _ANANDTECH),
    CpuFamily("Ice Lake server", _I, 6, (106,), 12.9, 1, 10, (Area(143, 10),), 40, _ANANDTECH),
    CpuFamily("Sapphire and Emerald Rapids", _I, 6, (143, 207), 24, 1, 10, (), 64, _ANANDTECH),
)


class Chip(NamedTuple):
    """The silicon of a graphics card without its memory."""

    areas: tuple[Area, ...]
    source: str


class Card(NamedTuple):
    """A graphics card: its chip, and its memory where the driver does not tell it."""

    chip: str
    memory_gb: float


class Footprint(NamedTuple):
    """A card whose maker published a footprint: kilograms low, central, high."""

    kg: tuple[float, float, float]
    source: str


CHIPS: Final = {
    "GV100": Chip((Area(815, 14),), _NVIDIA),
    "TU102": Chip((Area(754, 14),), _NVIDIA),
    "TU104": Chip((Area(545, 14),), _NVIDIA),
    "TU106": Chip((Area(445, 14),), _NVIDIA),
    "GA100": Chip((Area(826, 7),), _NVIDIA),
    "GA102": Chip((Area(628.4, 8),), _NVIDIA),
    "GA104": Chip((Area(392.5, 8),), _NVIDIA),
    "GA106": Chip((Area(276, 8),), _LISTS),
    "GH100": Chip((Area(814, 5),), _NVIDIA),
    "AD102": Chip((Area(608.5, 5),), _NVIDIA),
    "AD103": Chip((Area(378.6, 5),), _NVIDIA),
    "AD104": Chip((Area(294.5, 5),), _NVIDIA),
    "AD106": Chip((Area(187.8, 5),), _LISTS),
    "AD107": Chip((Area(158.7, 5),), _LISTS),
    "GB202": Chip((Area(750, 5),), _NVIDIA),
    "GB203": Chip((Area(378, 5),), _NVIDIA),
    "GB205": Chip((Area(263, 5),), _NVIDIA),
    "Navi 21": Chip((Area(519.8, 7),), _LISTS),
    "Navi 31": Chip((Area(304.4, 5), Area(225, 7)), _LISTS),
    "Navi 32": Chip((Area(200, 5), Area(150, 7)), _LISTS),
    "Navi 48": Chip((Area(356.5, 5),), _LISTS),
    "Aldebaran": Chip((Area(724, 7),), _LISTS),
    "two of Aldebaran": Chip((Area(1448, 7),), _LISTS),
    "MI300X": Chip((Area(920, 5), Area(1480, 7)), _LISTS),
}
CARDS: Final = {
    "Tesla V100-SXM2-16GB": Card("GV100", 16),
    "Tesla V100-SXM2-32GB": Card("GV100", 32),
    "Tesla V100-PCIE-16GB": Card("GV100", 16),
    "Tesla V100-PCIE-32GB": Card("GV100", 32),
    "Tesla T4": Card("TU104", 16),
    "A10": Card("GA102", 24),
    "A10G": Card("GA102", 24),
    "A30": Card("GA100", 24),
    "A40": Card("GA102", 48),
    "A100-SXM4-40GB": Card("GA100", 40),
    "A100-SXM4-80GB": Card("GA100", 80),
    "A100-PCIE-40GB": Card("GA100", 40),
    "A100 80GB PCIe": Card("GA100", 80),
    "H100 PCIe": Card("GH100", 80),
    "H100 NVL": Card("GH100", 94),
    "H200": Card("GH100", 141),
    "L4": Card("AD104", 24),
    "L40": Card("AD102", 48),
    "L40S": Card("AD102", 48),
    "RTX A4000": Card("GA104", 16),
    "RTX A4500": Card("GA102", 20),
    "RTX A5000": Card("GA102", 24),
    "RTX A6000": Card("GA102", 48),
    "RTX 6000 Ada Generation": Card("AD102", 48),
    "GeForce RTX 2060": Card("TU106", 6),
    "GeForce RTX 2070": Card("TU106", 8),
    "GeForce RTX 2080": Card("TU104", 8),
    "GeForce RTX 2080 Ti": Card("TU102", 11),
    "GeForce RTX 3060": Card("GA106", 12),
    "GeForce RTX 3060 Ti": Card("GA104", 8),
    "GeForce RTX 3070": Card("GA104", 8),
    "GeForce RTX 3070 Ti": Card("GA104", 8),
    "GeForce RTX 3080": Card("GA102", 10),
    "GeForce RTX 3080 Ti": Card("GA102", 12),
    "GeForce RTX 3090": Card("GA102", 24),
    "GeForce RTX 3090 Ti": Card("GA102", 24),
    "GeForce RTX 4060": Card("AD107", 8),
    "GeForce RTX 4060 Ti": Card("AD106", 8),
    "GeForce RTX 4070": Card("AD104", 12),
    "GeForce RTX 4070 SUPER": Card("AD104", 12),
    "GeForce RTX 4070 Ti": Card("AD104", 12),
    "GeForce RTX 4070 Ti SUPER": Card("AD103", 16),
    "GeForce RTX 4080": Card("AD103", 16),
    "GeForce RTX 4080 SUPER": Card("AD103", 16),
    "GeForce RTX 4090": Card("AD102", 24),
    "GeForce RTX 5070": Card("GB205", 12),
    "GeForce RTX 5070 Ti": Card("GB203", 16),
    "GeForce RTX 5080": Card("GB203", 16),
    "GeForce RTX 5090": Card("GB202", 32),
}
"""By the name NVIDIA's driver gives, without `NVIDIA`."""
AMD_CARDS: Final = {
    "1002:73bf": Card("Navi 21", 16),
    "1002:744c": Card("Navi 31", 24),
    "1002:747e": Card("Navi 32", 16),
    "1002:7550": Card("Navi 48", 16),
    "1002:740f": Card("Aldebaran", 64),
    "1002:740c": Card("two of Aldebaran", 128),
    "1002:7408": Card("two of Aldebaran", 128),
    "1002:74a1": Card("MI300X", 192),
}
"""By PCI vendor and device."""
FOOTPRINTS: Final = {
    "H100 80GB HBM3": Footprint(
        (82.0, 164.0, 575.0),
        "an eighth of NVIDIA's PCF of HGX H100, 1312 kg (WSP, ISO 14067, 2025); low half of it, a convention; high: "
        "ADEME's model of 2026 as BoaviztAPI 2.5 computes it",
    ),
    "B200": Footprint(
        (142.0, 284.0, 1415.0),
        "an eighth of NVIDIA's PCF of HGX B200, 2274 kg (2025); low half of it, a convention; high: ADEME's model of "
        "2026 as BoaviztAPI 2.5 computes it",
    ),
}
