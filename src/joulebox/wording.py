"""Figures as people read them, in page and terminal alike: as many digits as the uncertainty justifies, null never as
0.

`server/static/app.js` holds the same functions for what is shown live; `tests/test_pages.py` compares the two in a
browser. Both use the same divisions and decimal roundings half away from zero, so that they agree to the last digit.
What makes sentences takes the tongue they are to be in; `server.tongue` knows others than English.
"""

import math
from collections.abc import Mapping
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

from joulebox.units import S_PER_HOUR, S_PER_MINUTE


class Tongue:
    """English, as every text is written; a subclass speaks another language. `{name}` is room for a value."""

    tag = "en"
    name = "English"

    def __call__(self, text: str, /, **values: object) -> str:
        """The text in this language, with the values in their places."""
        return text.format(**values) if values else text

    def many(self, one: str, more: str, n: int, /, **values: object) -> str:
        """The text for so many; `{n}` is the number."""
        return self(one if n == 1 else more, n=n, **values)

    def number(self, text: str) -> str:
        """Figures as this language writes them."""
        return text

    def said(self, sentence: str) -> str:
        """A finished English sentence in this language, as far as a text with room for values matches it."""
        return sentence


def marked(text: str) -> str:
    """The text itself: it is to be translated where it is shown."""
    return text


ENGLISH: Final = Tongue()
NOT_MEASURED: Final = marked("not measured")
PREFIXES: Final = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
PLAIN_FROM: Final = 0.1
PLAIN_BELOW: Final = 10_000.0
U_DIGITS: Final = 2
LONE_DIGITS: Final = 3
"""Significant digits of a figure whose uncertainty is not known."""

TOO_SHORT: Final = marked("too short to tell")
SIMULATED: Final = marked("Simulated: the figures come from a simulated machine, not from a real one.")
SCI: Final = "Software Carbon Intensity"
NOTE: Final = marked("Training the model is not included. One prompt ran at a time; shared servers use less per token.")
WORK_NOTE: Final = marked("What other machines did for it is not included.")
SCOPES: Final = {
    "wall": marked("Machine at the wall"),
    "platform": marked("Machine, built-in meter"),
    "machine": marked("Whole machine"),
    "modelled": marked("Whole machine"),
    "cpu": marked("CPU"),
    "dram": marked("Memory (DRAM)"),
    "gpu": marked("GPU"),
}
PHASES: Final = {
    "load": (marked("Load"), marked("Putting the model into memory")),
    "prefill": (marked("Prefill"), marked("Reading your prompt")),
    "decode": (marked("Decode"), marked("Writing the answer")),
    "tail": (marked("Tail"), marked("Until the machine was calm again")),
}
VERDICTS: Final = {
    "valid": marked("Valid: nothing disturbed the run."),
    "suspect": marked("Suspect: read these figures with care."),
    "invalid": marked("Invalid: do not use these figures."),
}


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


def between(value: float | None, u: float | None, unit: str, _: Tongue = ENGLISH) -> str | None:
    """`Between 19 and 101 J, 95 % sure.`: what `±` means, for somebody who has never met it. Energy is never below 0.

    `None` where the uncertainty is not known.
    """
    if value is None or u is None or not math.isfinite(value + u) or u <= 0:
        return None
    scale, prefix = _prefix(max(abs(value), u))
    place = _place(u / scale, U_DIGITS)
    middle = Decimal(_fixed(value / scale, place).replace("\N{MINUS SIGN}", "-"))
    spread = Decimal(_fixed(u / scale, place))
    low = f"{middle - spread:f}" if middle > spread else "0"
    high = f"{max(middle + spread, Decimal(0)):f} {prefix}{unit}"
    return _("Between {low} and {high}, 95 % sure.", low=_.number(low), high=_.number(high))


def plain(value: float | None, unit: str = "", digits: int = LONE_DIGITS) -> str:
    """`5.21 s`: a figure without uncertainty and without prefix, whole numbers in full."""
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    shown = _fixed(value, min(0, _place(value, digits))) if value else "0"
    return f"{shown} {unit}" if unit else shown


def saved_words(receipt: Mapping[str, Any], _: Tongue = ENGLISH) -> str | None:
    """What it saved to run there and then; `None` where nothing was planned or it cannot be told."""
    saved_g = receipt["placement"]["saved_g"]
    if saved_g is None:
        return None
    if not saved_g:
        return _("That saved nothing: the grid is the one that the first free node has.")
    amount = _.number(plain(abs(saved_g) * 1e3, "mg", 2))
    if saved_g > 0:
        return _("That emitted {amount} CO2e less than the grid of the first free node.", amount=amount)
    return _("That emitted {amount} CO2e more than the grid of the first free node.", amount=amount)


def lasting(lasted_s: float) -> str:
    """`28 s`, `5.8 min`, `31 h`: how long something went on, in a unit of which there are at least two."""
    for scale_s, unit in ((S_PER_HOUR, "h"), (S_PER_MINUTE, "min")):
        if lasted_s >= 2 * scale_s:
            return plain(lasted_s / scale_s, unit, 2)
    return plain(lasted_s, "s", 2)


def size(size_bytes: float | None, _: Tongue = ENGLISH) -> str:
    """`98 MB`: a file's size in decimal units."""
    if size_bytes is None or size_bytes < 0:
        return _("size unknown")
    scale, unit = next(((s, n) for s, n in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if size_bytes >= s), (1.0, "B"))
    return _.number(f"{_fixed(size_bytes / scale, -1 if scale == 1e9 else 0)} {unit}")


def is_modelled(receipt: Mapping[str, Any]) -> bool:
    """Whether the energy comes from a model of the machine and not from a meter."""
    return bool(receipt["energy"]["scope"] == "modelled")


def marks(receipt: Mapping[str, Any]) -> tuple[str, ...]:
    """The words that stand beside every figure of a receipt that is not a plain measurement."""
    found = ((marked("modelled"), is_modelled(receipt)), (marked("simulated"), receipt["simulated"]))
    return tuple(word for word, true in found if true)


def done_words(receipt: Mapping[str, Any], _: Tongue = ENGLISH) -> str:
    """One sentence for an answer that is there, with what it took."""
    answer = receipt["energy"]["answer"]
    told = [_("Done."), _("Its energy was not measured.")]
    if answer is not None:
        figure = _.number(quantity(answer["j"], answer["u"], "J"))
        told[1] = _("This answer took {figure}.", figure=", ".join((figure, *map(_, marks(receipt)))))
    if receipt["finish_reason"] == "length":
        told.append(_("It was cut at the token limit."))
    if receipt["finish_reason"] == "energy":
        told.append(_("It was stopped at its energy budget."))
    return " ".join(told)


def budget_words(receipt: Mapping[str, Any], _: Tongue = ENGLISH) -> str | None:
    """How an energy budget was kept, above idle; `None` where there was none."""
    budget = receipt.get("budget")
    if not budget:
        return None
    most, over = _.number(plain(budget["max_energy_j"], "J")), budget["overshoot_j"]
    if budget["judged_j"] is None:
        return _("It had {most} above idle, and ended before they were spent.", most=most) if over == 0 else None
    if not over:
        return _("It was stopped when {most} above idle were spent.", most=most)
    more = _.number(quantity(over, receipt["energy"]["active"]["u"], "J"))
    return _("It was stopped when {most} above idle were spent, and took {more} more.", most=most, more=more)


def grade_words(receipt: Mapping[str, Any], _: Tongue = ENGLISH) -> str | None:
    """What the grade of the answer means, for somebody who has not read the method; `None` where there is none."""
    energy = receipt["energy"]
    if energy["answer"] is None:
        return None
    grade = energy["answer"]["grade"]
    if grade == "D":
        modelled = is_modelled(receipt)
        words = _("modelled, not measured") if modelled else _("measured, but too uncertain to rely on")
    elif grade == "C":
        words = _("metered, but not the whole machine") if energy["missing"] else _("metered, within 30 %")
    elif grade == "A":
        words = _("a wall meter, within 2 %")
    elif energy["scope"] == "wall":
        words = _("metered, within 10 %")
    else:
        words = _("counters calibrated at the wall, within 5 %")
    return _("Grade {grade} (A is best): {words}.", grade=grade, words=words)


def calibration_words(receipt: Mapping[str, Any], _: Tongue = ENGLISH) -> str | None:
    """Whether tick and lag of the meters were found on the machine itself: `calibrated 23 November 2026`.

    `None` where no meter gave the energy.
    """
    calibration = receipt["calibration"]
    if receipt["energy"]["answer"] is None or is_modelled(receipt):
        return None
    if calibration is None:
        return _("not calibrated")
    try:
        day = date_words(datetime.fromisoformat(calibration["at"]), _)
    except ValueError:
        day = calibration["at"]
    told = _("calibrated {day}", day=day)
    return _("{told}, but {why}", told=told, why=_.said(calibration["stale"])) if calibration["stale"] else told


MONTHS: Final = (
    marked("January"),
    marked("February"),
    marked("March"),
    marked("April"),
    marked("May"),
    marked("June"),
    marked("July"),
    marked("August"),
    marked("September"),
    marked("October"),
    marked("November"),
    marked("December"),
)


def date_words(at: datetime, _: Tongue = ENGLISH) -> str:
    """`23 November 2026`."""
    return _("{day} {month} {year}", day=at.day, month=_(MONTHS[at.month - 1]), year=at.year)


def scope_words(scope: str, _: Tongue = ENGLISH) -> str:
    """What a scope covers, in words: `gpu0` is `GPU 0`, `cpu+dram` is `CPU + Memory (DRAM)`."""
    if "+" in scope:
        return " + ".join(scope_words(part, _) for part in scope.split("+"))
    if scope.startswith("gpu") and scope[3:].isdigit():
        return f"GPU {scope[3:]}"
    return _(SCOPES[scope]) if scope in SCOPES else scope


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
