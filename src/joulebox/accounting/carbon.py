"""Grams: O = sum(E * I), embodied M = TE * TiR/EL * RR/ToR, and SCI = (O + M) per R (ISO/IEC 21031). Pure."""

from collections.abc import Iterable
from math import fsum
from typing import Final

from joulebox.model import Carbon, CarbonFactors, Figure, Grams, Sci, SciBoundaries, Usage
from joulebox.units import G_PER_KG, S_PER_YEAR, kwh_from_j

OUTSIDE: Final = "Training, network and the reader's device are outside."
ANSWER_BOUNDARY: Final = (
    "Everything the meters' scope drew from request to last token, idle included, and the machine's embodied emissions"
    f" over that time. {OUTSIDE}"
)
RESERVED_BOUNDARY: Final = (
    "Everything the meters' scope drew from taking the prompt to being free again (load, settling, guards, answer,"
    f" tail; failed attempts included), and the machine's embodied emissions over that time. {OUTSIDE}"
)
WORK_BOUNDARY: Final = (
    "Everything the meters' scope drew from the start of the work to its end, idle included, and the machine's embodied"
    " emissions over that time. What other machines did for it is outside."
)
WORK_RESERVED_BOUNDARY: Final = (
    "Everything the meters' scope drew from the end of listening to the quiet after the work (settling, guards, work,"
    " tail), and the machine's embodied emissions over that time. What other machines did for it is outside."
)


def operational(energy: Figure, factors: CarbonFactors) -> Grams:
    """O in grams: energy at the plug (x PUE) times the grid's intensity; the range joins both ranges.

    Where the intensity is `accounting.intensity.over`'s mean, this is the sum over the run of E_i * I_i.
    """
    grid = factors.intensity
    per_j = factors.pue
    return Grams(
        g=kwh_from_j(energy.j * per_j) * grid.g_per_kwh,
        low=kwh_from_j(max(energy.j - energy.u, 0.0) * per_j) * grid.low,
        high=kwh_from_j((energy.j + energy.u) * per_j) * grid.high,
    )


def embodied(duration_s: float, factors: CarbonFactors) -> Grams:
    """M in grams for `duration_s` of the machine's life."""
    te = factors.embodied
    share = duration_s / (te.life_years * S_PER_YEAR) * factors.resource_share * G_PER_KG
    return Grams(g=te.central_kg * share, low=te.low_kg * share, high=te.high_kg * share)


def emissions(answer: Figure | None, duration_s: float, factors: CarbonFactors) -> Carbon:
    """The answer's emissions; operational and total are `None` where there is no energy figure."""
    o = operational(answer, factors) if answer else None
    m = embodied(duration_s, factors)
    total = Grams(g=o.g + m.g, low=o.low + m.low, high=o.high + m.high) if o else None
    return Carbon(
        operational=o,
        embodied=m,
        total=total,
        intensity=factors.intensity,
        hardware=factors.embodied,
        pue=factors.pue,
        pue_source=factors.pue_source,
    )


def sci(
    answer: tuple[Figure | None, float, CarbonFactors],
    reserved: tuple[Figure | None, float, CarbonFactors],
    usage: Usage,
    *,
    idle_w: float | None = None,
    asked: bool = True,
) -> SciBoundaries:
    """SCI on both boundaries, each from its energy figure, its seconds of reserved time and the factors over them.
    `idle_w` is what the machine draws when it only waits. Not `asked`: any work stands in the answer's place."""
    return SciBoundaries(
        answer=_sci(*answer, idle_w, usage, ANSWER_BOUNDARY if asked else WORK_BOUNDARY),
        reserved=_sci(*reserved, idle_w, usage, RESERVED_BOUNDARY if asked else WORK_RESERVED_BOUNDARY),
    )


def idle_share(energy: Figure, lasted_s: float, idle_w: float | None) -> float | None:
    """Which share of an energy a machine that only waits would have drawn in the same time; `None`: nobody knows. Above
    1 where noise makes the work look cheaper than waiting."""
    return idle_w * lasted_s / energy.j if idle_w is not None and energy.j > 0 else None


def _sci(
    energy: Figure | None, reserved_s: float, factors: CarbonFactors, idle_w: float | None, usage: Usage, boundary: str
) -> Sci:
    o_g = operational(energy, factors).g if energy else None
    idle = idle_share(energy, reserved_s, idle_w) if energy else None
    o_idle_g = o_g * idle if o_g is not None and idle is not None else None
    m_g = embodied(reserved_s, factors).g
    total_g = o_g + m_g if o_g is not None else None
    tokens = (
        None if usage.input_tokens is None or usage.output_tokens is None else usage.input_tokens + usage.output_tokens
    )
    return Sci(
        O_g=o_g,
        O_active_g=o_g - o_idle_g if o_g is not None and o_idle_g is not None else None,
        O_idle_g=o_idle_g,
        M_g=m_g,
        E_kwh=kwh_from_j(energy.j * factors.pue) if energy else None,
        I_g_per_kwh=factors.intensity.g_per_kwh,
        TE_kg=factors.embodied.central_kg,
        EL_years=factors.embodied.life_years,
        TiR_s=reserved_s,
        RR=factors.resource_share,
        ToR=1.0,
        per_answer_g=total_g,
        per_output_token_g=per_unit([total_g], [usage.output_tokens]),
        per_token_g=per_unit([total_g], [tokens]),
        boundary=boundary,
    )


def per_unit(grams: Iterable[float | None], units: Iterable[int | None]) -> float | None:
    """SCI = C per R over any number of runs: the sum of all C by the sum of all R, never a mean of ratios.

    `None` where anything is not known or nothing was counted: a score of no tokens is no score.
    """
    every_g, every_unit = list(grams), list(units)
    known_g = [g for g in every_g if g is not None]
    known = [count for count in every_unit if count is not None]
    whole = len(known_g) == len(every_g) and len(known) == len(every_unit)
    return fsum(known_g) / sum(known) if whole and sum(known) > 0 else None
