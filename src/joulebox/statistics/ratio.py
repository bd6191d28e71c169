"""How many times the energy of one answer another one took, and how sure that is. Pure.

What both receipts of one node share cancels: a meter that shows 2 % too much does so for either answer.
"""

from math import exp, hypot
from typing import Final

from joulebox.model import Receipt
from joulebox.statistics import Interval

SHARED: Final = ("gain of", "offset of", "power model")
"""What begins so is one error of the node's meters or model, not one of the answer."""
COVERAGE_FACTOR: Final = 2.0
WIDEST: Final = 50.0
"""The logarithm of an interval that tells nothing."""


def energy_ratio(one: Receipt, other: Receipt) -> Interval | None:
    """The first answer's energy over the second's, with its 95 % interval; `None` where one is not known or not above
    zero, or where they were told of different scopes."""
    above, below = one.energy.answer, other.energy.answer
    if above is None or below is None or min(above.j, below.j) <= 0 or one.energy.scope != other.energy.scope:
        return None
    alike = one.node == other.node and one.meters == other.meters
    ratios = [_parts(one, above.j), _parts(other, below.j)]
    rest = []
    for source in dict.fromkeys([*ratios[0], *ratios[1]]):
        first, second = (each.get(source, 0.0) for each in ratios)
        shared = alike and source.startswith(SHARED)
        rest.append(first - second if shared else hypot(first, second))
    value, wide = above.j / below.j, exp(min(COVERAGE_FACTOR * hypot(*rest), WIDEST))
    return Interval(value, value / wide, value * wide)


def _parts(made: Receipt, energy_j: float) -> dict[str, float]:
    """What the interval is made of (k = 1), as shares of the energy."""
    return {part.source: part.j / energy_j for part in made.energy.uncertainty}
