"""Litres of water the answer's electricity took: W = E * (WUE on site + PUE * WUE of the electricity). Always modelled.

Usage only, as in Li, Yang, Islam, Ren: Making AI Less "Thirsty" (arXiv 2304.03271). Factors are the operator's; without
any there is no figure. Litres of tap water and of scarcity-weighted water are different things and are never added.
"""

from joulebox.model import CarbonFactors, Figure, Water
from joulebox.units import kwh_from_j


def water(answer: Figure | None, factors: CarbonFactors) -> Water | None:
    """The water of an answer, in litres; its range is the energy's alone. `None` without energy or without factors."""
    if answer is None or factors.water is None:
        return None
    on_site = factors.water.on_site_l_per_kwh
    electricity = factors.water.electricity_l_per_kwh
    per_kwh = (on_site or 0.0) + (electricity or 0.0) * factors.pue
    kwh = kwh_from_j(answer.j)
    return Water(
        l=kwh * per_kwh,
        low=kwh_from_j(max(answer.j - answer.u, 0.0)) * per_kwh,
        high=kwh_from_j(answer.j + answer.u) * per_kwh,
        on_site_l=None if on_site is None else kwh * on_site,
        electricity_l=None if electricity is None else kwh * electricity * factors.pue,
        factors=factors.water,
    )
