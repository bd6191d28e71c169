"""Dies of processors by family and cores, chips of graphics cards by name: areas, each with who published it.

A processor has the smallest published die of its family that holds its cores; dies are sold with cores turned off, so
the largest of the family bounds it. A family, or a number of cores, that is not here is unknown. Cards are known by the
driver's exact name, or AMD's by PCI number: a name that is nearly right is another card. What no publication was found
for says so (`confirmed`). `docs/explanation/carbon.md` tells what was read, and where.
"""

from typing import Final, NamedTuple

from joulebox.model import CpuPart

APPROXIMATE: Final = "approximate, not confirmed against a published source"

_LISTED: Final = "TechPowerUp's CPU database"
_LUXX_2019: Final = "Hardwareluxx 2019"
_LUXX_2020: Final = "Hardwareluxx 2020"
_LUXX_2022: Final = "Hardwareluxx 2022"
_TOMS_2024: Final = "Hardwareluxx and Tom's Hardware 2024"
_TPU_2022: Final = "TechPowerUp 2022"
_SEMI_2023: Final = "SemiAnalysis 2023"
_NVIDIA: Final = "NVIDIA, as AnandTech reports it"


class Area(NamedTuple):
    """Square millimetres of silicon of one process (the nearest of the table of factors)."""

    mm2: float
    process_nm: int


class Die(NamedTuple):
    """The silicon of a processor with at most so many cores. `confirmed` is whether a publication was found for it."""

    cores: int
    areas: tuple[Area, ...]
    confirmed: bool = True


class CpuFamily(NamedTuple):
    """Processors of one design, their dies from the smallest to the largest."""

    name: str
    vendor: str
    family: int
    models: tuple[int, ...]
    dies: tuple[Die, ...]
    source: str

    def is_of(self, cpu: CpuPart) -> bool:
        """Whether a processor is of this design."""
        return (cpu.vendor, cpu.family) == (self.vendor, self.family) and cpu.model in self.models

    def die(self, cores: int) -> Die | None:
        """The smallest die with so many cores; `None` where the family has none so large."""
        return next((die for die in self.dies if die.cores >= cores), None)

    @property
    def largest(self) -> Die:
        """The die that bounds what any processor of the family can have."""
        return self.dies[-1]


def _chiplets(chiplet: Area, most: int, *rest: Area) -> tuple[Die, ...]:
    """Processors of one to `most` chiplets of eight cores, and what is there once."""
    return tuple(Die(8 * n, (Area(n * chiplet.mm2, chiplet.process_nm), *rest)) for n in range(1, most + 1))


def _one(cores: int, mm2: float, process_nm: int, *, confirmed: bool = True) -> Die:
    return Die(cores, (Area(mm2, process_nm),), confirmed)


_A: Final = "AuthenticAMD"
_I: Final = "GenuineIntel"
CPUS: Final = (
    CpuFamily("Zen, Zen+", _A, 23, (1, 8), _chiplets(Area(213, 14), 4), _LISTED),
    CpuFamily("Zen 2 server", _A, 23, (49,), _chiplets(Area(74, 7), 8, Area(416, 14)), _LUXX_2019),
    CpuFamily("Zen 2", _A, 23, (113,), _chiplets(Area(74, 7), 2, Area(125, 14)), _LUXX_2019),
    CpuFamily("Zen 2 APU", _A, 23, (96, 104), (_one(8, 156, 7),), "VideoCardz 2021"),
    CpuFamily(
        "Zen 3 server", _A, 25, (1,), _chiplets(Area(80.7, 7), 8, Area(416, 14)), f"{_LUXX_2020}, I/O die {_TPU_2022}"
    ),
    CpuFamily("Zen 3", _A, 25, (33,), _chiplets(Area(80.7, 7), 2, Area(125, 14)), _LUXX_2020),
    CpuFamily("Zen 3 APU", _A, 25, (80,), (_one(8, 180, 7),), _LISTED),
    CpuFamily("Zen 4 server", _A, 25, (17,), _chiplets(Area(72, 5), 12, Area(397, 7)), _TPU_2022),
    CpuFamily("Zen 4", _A, 25, (97,), _chiplets(Area(71, 5), 2, Area(122, 7)), f"{_TOMS_2024}, I/O die Wccftech 2022"),
    CpuFamily("Zen 4 APU", _A, 25, (116, 117), (_one(8, 178, 5),), _TOMS_2024),
    CpuFamily("Zen 5", _A, 26, (68,), _chiplets(Area(70.6, 5), 2, Area(122, 7)), f"{_TOMS_2024}, I/O die as of Zen 4"),
    CpuFamily(
        "Haswell server",
        _I,
        6,
        (63,),
        (_one(8, 356, 20), _one(12, 492, 20, confirmed=False), _one(18, 662, 20)),
        "ComputerBase 2014",
    ),
    CpuFamily(
        "Broadwell server",
        _I,
        6,
        (79,),
        (_one(10, 246, 14, confirmed=False), _one(15, 306, 14, confirmed=False), _one(24, 456, 14)),
        "Golem 2016",
    ),
    CpuFamily("Skylake", _I, 6, (94,), (_one(4, 122.3, 14),), _LUXX_2022),
    CpuFamily(
        "Kaby Lake to Comet Lake",
        _I,
        6,
        (158, 165),
        (_one(4, 126, 14), _one(6, 153.6, 14), _one(8, 180.3, 14), _one(10, 206.1, 14)),
        _LUXX_2022,
    ),
    CpuFamily("Rocket Lake", _I, 6, (167,), (_one(8, 280, 14),), _LUXX_2022),
    CpuFamily("Alder Lake", _I, 6, (151,), (_one(6, 163, 10), _one(16, 215, 10)), "MSI 2021"),
    CpuFamily("Raptor Lake", _I, 6, (183,), (_one(24, 257, 10),), _LUXX_2022),
    CpuFamily(
        "Skylake to Cascade Lake server",
        _I,
        6,
        (85,),
        (_one(10, 325.4, 14), _one(18, 485, 14), _one(28, 694, 14)),
        "WikiChip 2020, estimates",
    ),
    CpuFamily(
        "Ice Lake server", _I, 6, (106,), (_one(28, 500, 10, confirmed=False), _one(40, 628, 10)), "WikiChip Fuse 2021"
    ),
    CpuFamily(
        "Sapphire Rapids", _I, 6, (143,), (_one(34, 780, 10, confirmed=False), _one(60, 4 * 393.9, 10)), _SEMI_2023
    ),
    CpuFamily(
        "Emerald Rapids", _I, 6, (207,), (_one(32, 780, 10, confirmed=False), _one(64, 2 * 763.0, 10)), _SEMI_2023
    ),
)


class Chip(NamedTuple):
    """The silicon of a graphics card without its memory. `confirmed` is whether a publication was found for it."""

    areas: tuple[Area, ...]
    source: str
    confirmed: bool = True


class Card(NamedTuple):
    """A graphics card: its chip, its memory where the driver does not tell it, and what others of its name have."""

    chip: str
    memory_gb: float
    others_gb: float | None = None


class Footprint(NamedTuple):
    """A card whose maker published a footprint: kilograms low, central, high."""

    kg: tuple[float, float, float]
    source: str


CHIPS: Final = {
    "GV100": Chip((Area(815, 14),), _NVIDIA),
    "TU102": Chip((Area(754, 14),), _NVIDIA),
    "TU104": Chip((Area(545, 14),), _NVIDIA),
    "TU106": Chip((Area(445, 14),), _NVIDIA),
    "GA100": Chip((Area(826, 7),), "NVIDIA's Hopper white paper 2022"),
    "GA102": Chip((Area(628.4, 8),), "io-tech 2020"),
    "GA104": Chip((Area(392, 8),), "Hexus 2021"),
    "GA106": Chip((Area(276, 8),), "Tom's Hardware 2023"),
    "GH100": Chip((Area(814, 5),), "NVIDIA's Hopper white paper 2022"),
    "AD102": Chip((Area(608, 5),), _NVIDIA),
    "AD103": Chip((Area(378.6, 5),), _NVIDIA),
    "AD104": Chip((Area(294.5, 5),), _NVIDIA),
    "AD106": Chip((Area(190, 5),), "Tom's Hardware 2023"),
    "AD107": Chip((Area(158.7, 5),), "Tom's Hardware 2023"),
    "GB202": Chip((Area(750, 5),), "HWCooling 2025"),
    "GB203": Chip((Area(378, 5),), "press reports of NVIDIA's figures 2025"),
    "GB205": Chip((Area(263, 5),), "press reports of NVIDIA's figures 2025"),
    "Navi 21": Chip((Area(520, 7),), "VideoCardz 2022"),
    "Navi 31": Chip((Area(304.4, 5), Area(6 * 37.5, 7)), "press reports of AMD's figures 2023"),
    "Navi 32": Chip((Area(200, 5), Area(4 * 37.5, 7)), "press reports of AMD's figures 2023"),
    "Navi 48": Chip((Area(357, 5),), "AMD, as Tom's Hardware reports it 2025"),
    "Aldebaran": Chip((Area(790, 7),), "Tom's Hardware 2021, an estimate from a photograph", confirmed=False),
    "two of Aldebaran": Chip((Area(1580, 7),), "Tom's Hardware 2021, an estimate from a photograph", confirmed=False),
    "MI300X": Chip((Area(920, 5), Area(1480, 7)), "eight chiplets on four I/O dies", confirmed=False),
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
    "GeForce RTX 2060": Card("TU106", 6, 12),
    "GeForce RTX 2070": Card("TU106", 8),
    "GeForce RTX 2080": Card("TU104", 8),
    "GeForce RTX 2080 Ti": Card("TU102", 11),
    "GeForce RTX 3060": Card("GA106", 12, 8),
    "GeForce RTX 3060 Ti": Card("GA104", 8),
    "GeForce RTX 3070": Card("GA104", 8),
    "GeForce RTX 3070 Ti": Card("GA104", 8),
    "GeForce RTX 3080": Card("GA102", 10, 12),
    "GeForce RTX 3080 Ti": Card("GA102", 12),
    "GeForce RTX 3090": Card("GA102", 24),
    "GeForce RTX 3090 Ti": Card("GA102", 24),
    "GeForce RTX 4060": Card("AD107", 8),
    "GeForce RTX 4060 Ti": Card("AD106", 8, 16),
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
