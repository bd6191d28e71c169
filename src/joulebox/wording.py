"""Figures as people read them, in page and terminal alike: as many digits as the uncertainty justifies, null never as
0.

`server/static/app.js` holds the same functions for what is shown live; `tests/test_pages.py` compares the two in a
browser. Both use the same divisions and decimal roundings half away from zero, so that they agree to the last digit.
"""

import math
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

NOT_MEASURED: Final = "not measured"
PREFIXES: Final = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
PLAIN_FROM: Final = 0.1
PLAIN_BELOW: Final = 10_000.0
U_DIGITS: Final = 2
LONE_DIGITS: Final = 3
"""Significant digits of a figure whose uncertainty is not known."""


def quantity(value: float | None, u: float | None, unit: str) -> str:
    """`86.4 ± 3.1 J`: two significant digits of `u` decide the digits of both; without `u`, three of the value."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    spread = u if u is not None and math.isfinite(u) and u > 0 else None
    scale, prefix = _prefix(max(abs(value), spread or 0.0))
    place = _place(spread / scale, U_DIGITS) if spread else _place(value / scale, LONE_DIGITS)
    shown = _fixed(value / scale, place)
    return f"{shown} ± {_fixed(spread / scale, place)} {prefix}{unit}" if spread else f"{shown} {prefix}{unit}"


def ranged(central: float | None, low: float | None, high: float | None, unit: str) -> tuple[str, str | None]:
    """`("0.0123 g", "0.0081 to 0.0212 g")`: a figure and its range, which need not be symmetric; `None`: no range."""
    if central is None or low is None or high is None or not math.isfinite(low + central + high) or high <= low:
        return quantity(central, None, unit), None
    scale, prefix = _prefix(abs(central) or abs(high))
    place = _place((high - low) / 2 / scale, U_DIGITS)
    middle, *ends = (
        _fixed(value / scale, min(place, _place(value / scale, digits)) if value else place)
        for value, digits in ((central, 2), (low, 1), (high, 1))
    )
    return f"{middle} {prefix}{unit}", f"{ends[0]} to {ends[1]} {prefix}{unit}"


def plain(value: float | None, unit: str = "", digits: int = LONE_DIGITS) -> str:
    """`5.21 s`: a figure without uncertainty and without prefix, whole numbers in full."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    shown = _fixed(value, min(0, _place(value, digits))) if value else "0"
    return f"{shown} {unit}" if unit else shown


def size(size_bytes: float | None) -> str:
    """`98 MB`: a file's size in decimal units."""
    if size_bytes is None or size_bytes < 0:
        return "size unknown"
    scale, unit = next(((s, n) for s, n in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if size_bytes >= s), (1.0, "B"))
    return f"{_fixed(size_bytes / scale, -1 if scale == 1e9 else 0)} {unit}"


def is_modelled(receipt: Mapping[str, Any]) -> bool:
    """Whether the energy comes from a model of the machine and not from a meter."""
    return bool(receipt["energy"]["scope"] == "modelled")


def grade_words(grade: str, modelled: bool, partial: bool = False) -> str:
    """What a grade means, for somebody who has not read the method. `partial`: a big part has no meter."""
    if grade == "D":
        return "Modelled, not measured." if modelled else "Measured, but too uncertain to rely on."
    return {
        "A": "A wall meter, within 2 %.",
        "B": "Metered, within 10 %.",
        "C": "Metered, but not the whole machine." if partial else "Metered, within 30 %.",
    }[grade]


def _prefix(value: float) -> tuple[float, str]:
    """The SI prefix of a magnitude; none between 0.1 and 10 000, where people read plain numbers more easily."""
    if value == 0 or PLAIN_FROM <= value < PLAIN_BELOW:
        return 1.0, ""
    return next(((scale, sign) for scale, sign in PREFIXES if value >= scale), PREFIXES[-1])


def _place(value: float, digits: int) -> int:
    """The power of ten of the last of so many significant digits, counted after rounding to them."""
    return int(f"{abs(value):.{digits - 1}e}".split("e")[1]) + 1 - digits


def _fixed(value: float, place: int) -> str:
    """Rounded to that power of ten, half away from zero, without exponent and without a minus before zero."""
    if place > 0:
        step = float(10**place)
        whole = int(Decimal(abs(value) / step).quantize(Decimal(1), ROUND_HALF_UP)) * 10**place
        text = str(whole)
    else:
        text = f"{Decimal(abs(value)).quantize(Decimal(1).scaleb(place), ROUND_HALF_UP):f}"
    return f"\N{MINUS SIGN}{text}" if value < 0 and text.strip("0.") else text
