"""Joules and grams in things people know: each with its formula and source. Pure.

One answer at a time. Nothing here multiplies by how many people there are: `times` is the reader's number or 1.
"""

from dataclasses import dataclass
from typing import Final

from joulebox.units import J_PER_WH

LAMP_W: Final = 10.0
PHONE_J: Final = (14.46 - 22 * 0.13) * J_PER_WH
"""Charging a phone once: what phone and charger draw in a day, less what the full phone draws in 22 h of it."""
WATER_J_PER_G_K: Final = 4.186
WARMED_K: Final = 80.0
CAR_G_PER_KM: Final = 170.0
TRAIN_G_PER_KM: Final = 35.0
_TRAVEL: Final = "UK Government conversion factors 2022, as Our World in Data gives them (2023)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Equivalent:
    """How much of a known thing it is: `name` says which, `formula` how it is worked out."""

    key: str
    name: str
    value: float
    unit: str
    formula: str
    source: str


def equivalents(energy_j: float | None, carbon_g: float | None, times: float = 1.0) -> tuple[Equivalent, ...]:
    """What an energy and a mass of CO2e are like; light first. What is not known, or not above zero, is like nothing.

    Raises `ValueError` for a `times` that is not above zero.
    """
    if not times > 0:
        raise ValueError(f"{times} times something is nothing to compare with")
    energy = _of_energy(energy_j * times) if energy_j is not None and energy_j > 0 else ()
    carbon = _of_carbon(carbon_g * times) if carbon_g is not None and carbon_g > 0 else ()
    return (*energy, *carbon)


def lamp_s(energy_j: float) -> float:
    """How many seconds a lamp of `LAMP_W` burns with so many joules."""
    return energy_j / LAMP_W


def _of_energy(energy_j: float) -> tuple[Equivalent, ...]:
    return (
        Equivalent(
            key="lamp",
            name="A 10 W LED lamp burns for",
            value=lamp_s(energy_j),
            unit="s",
            formula="joules ÷ 10 W",
            source="a watt is a joule a second",
        ),
        Equivalent(
            key="phone",
            name="A phone is charged by",
            value=energy_j / PHONE_J * 100,
            unit="%",
            formula="joules ÷ 11.6 Wh; 11.6 Wh = 14.46 Wh a day − 22 h × 0.13 W",
            source="US EPA, Greenhouse Gas Equivalencies Calculator, after US DOE (2020)",
        ),
        Equivalent(
            key="kettle",
            name="Water brought to the boil",
            value=energy_j / (WATER_J_PER_G_K * WARMED_K),
            unit="g",
            formula="joules ÷ (4.186 J per g and K × 80 K); from 20 °C, nothing lost",
            source="the specific heat of water",
        ),
    )


def _of_carbon(carbon_g: float) -> tuple[Equivalent, ...]:
    return (
        Equivalent(
            key="car",
            name="As far in a car",
            value=carbon_g / CAR_G_PER_KM * 1000,
            unit="m",
            formula="grams ÷ 170 g per passenger and km, petrol",
            source=_TRAVEL,
        ),
        Equivalent(
            key="train",
            name="As far in a train",
            value=carbon_g / TRAIN_G_PER_KM * 1000,
            unit="m",
            formula="grams ÷ 35 g per passenger and km, national rail",
            source=_TRAVEL,
        ),
    )
