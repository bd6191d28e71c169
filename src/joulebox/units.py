"""Constants and conversions. Joules, seconds, watts and grams inside; kWh only where ISO/IEC 21031 asks for it."""

from typing import Final

NS_PER_S: Final = 1_000_000_000
NS_PER_US: Final = 1_000
J_PER_WH: Final = 3_600.0
J_PER_KWH: Final = 3_600_000.0
G_PER_KG: Final = 1_000.0
S_PER_MINUTE: Final = 60.0
S_PER_HOUR: Final = 3_600.0
S_PER_YEAR: Final = 365 * 24 * 3_600.0
"""A calendar year of 365 days, as in the worked example of ISO/IEC 21031 (1000 kg, 1 h of 4 years: 28.54 g)."""


def seconds(t_ns: int) -> float:
    """Nanoseconds on a monotonic clock as seconds."""
    return t_ns / NS_PER_S


def nanoseconds(t_s: float) -> int:
    """Seconds as whole nanoseconds."""
    return round(t_s * NS_PER_S)


def kwh_from_j(energy_j: float) -> float:
    """Joules as kilowatt hours."""
    return energy_j / J_PER_KWH


def wh_from_j(energy_j: float) -> float:
    """Joules as watt hours."""
    return energy_j / J_PER_WH
