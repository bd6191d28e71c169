"""A receipt's headline as a small picture (SVG) to put elsewhere."""

from collections.abc import Mapping
from typing import Any, Final

from markupsafe import Markup

from joulebox import wording
from joulebox.server.pages.frame import quantity
from joulebox.wording import Tongue

CHARACTER_PX: Final = 6.6
PAD_PX: Final = 9.0
COLOURS: Final = {"A": "#1c6548", "B": "#1c6548", "C": "#8a4b00", "D": "#625b50"}
NOBODY_KNOWS: Final = "#625b50"


def badge(receipt: Mapping[str, Any], _: Tongue) -> str:
    """The energy of an answer with its uncertainty and grade, and `modelled` or `simulated` where it is."""
    answer = receipt["energy"]["answer"]
    label = _("energy of an answer")
    value, colour = _(wording.NOT_MEASURED), NOBODY_KNOWS
    if answer is not None:
        marks = [_(word) for word in wording.marks(receipt)]
        value = ", ".join([quantity(answer["j"], answer["u"], "J", _), *marks, f"{_('grade')} {answer['grade']}"])
        colour = COLOURS[answer["grade"]]
    if receipt["verdict"] == "invalid":
        value, colour = _("invalid"), "#a12622"
    left, right = (len(text) * CHARACTER_PX + 2 * PAD_PX for text in (label, value))
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="22" role="img" aria-label="{said}">'
        '<title>{said}</title><rect width="{width:.0f}" height="22" rx="4" fill="#211e19"/>'
        '<path d="M{left:.0f} 0H{edge:.0f}a4 4 0 0 1 4 4V18a4 4 0 0 1-4 4H{left:.0f}z" fill="{colour}"/>'
        '<g fill="#fff" font-family="DejaVu Sans,Verdana,sans-serif" font-size="11">'
        '<text x="{pad:.0f}" y="15" textLength="{label_px:.0f}">{label}</text>'
        '<text x="{value_x:.0f}" y="15" textLength="{value_px:.0f}">{value}</text></g></svg>'
    ).format(
        width=left + right,
        edge=left + right - 4,
        said=f"{label}: {value}",
        left=left,
        colour=colour,
        pad=PAD_PX,
        label=label,
        label_px=left - 2 * PAD_PX,
        value=value,
        value_x=left + PAD_PX,
        value_px=right - 2 * PAD_PX,
    )
