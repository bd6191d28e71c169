"""Parts and their sum, rounded so that what is shown adds up to the last digit (largest remainder). Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from math import floor, fsum, isfinite, log10


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """Whole numbers of `10 ** place`, and their sum."""

    place: int
    parts: tuple[int, ...]
    total: int

    def text(self, units: int) -> str:
        """A number of the column in decimal digits, without exponent."""
        return f"{Decimal(units).scaleb(self.place):f}"


def place_of(total: float, digits: int) -> int:
    """The power of ten of the last of so many significant digits of a sum; 0 for a sum of nothing."""
    return floor(log10(total)) + 1 - digits if total > 0 and isfinite(total) else 0


def column(values: Sequence[float], place: int) -> Column:
    """Each value rounded down or up by one unit, so that they add up to their rounded sum.

    Those that lose most by rounding down are rounded up. Values are finite and not negative.
    """
    exact = _exact(values, place)
    total = _rounded(values, place)
    parts = [floor(one) for one in exact]
    order = sorted(range(len(parts)), key=lambda index: parts[index] - exact[index])
    for index in order[: total - sum(parts)]:
        parts[index] += 1
    return Column(place=place, parts=tuple(parts), total=sum(parts))


def below(values: Sequence[float], upper: Column) -> Column:
    """The same for the low ends of the values in `upper`: no part is above its own."""
    exact = _exact(values, upper.place)
    parts = [min(floor(one), most) for one, most in zip(exact, upper.parts, strict=True)]
    total = min(_rounded(values, upper.place), upper.total)
    while sum(parts) < total:
        free = [index for index, most in enumerate(upper.parts) if parts[index] < most]
        parts[max(free, key=lambda index: exact[index] - parts[index])] += 1
    return Column(place=upper.place, parts=tuple(parts), total=sum(parts))


def above(values: Sequence[float], lower: Column) -> Column:
    """The same for the high ends: no part is below its own."""
    exact = _exact(values, lower.place)
    parts = [max(floor(one) + 1, least) for one, least in zip(exact, lower.parts, strict=True)]
    total = max(_rounded(values, lower.place), lower.total)
    while sum(parts) > total:
        free = [index for index, least in enumerate(lower.parts) if parts[index] > least]
        parts[max(free, key=lambda index: parts[index] - exact[index])] -= 1
    return Column(place=lower.place, parts=tuple(parts), total=sum(parts))


def _exact(values: Sequence[float], place: int) -> list[Decimal]:
    return [Decimal(value).scaleb(-place) for value in values]


def _rounded(values: Sequence[float], place: int) -> int:
    return int(Decimal(fsum(values)).scaleb(-place).quantize(Decimal(1), ROUND_HALF_UP))
