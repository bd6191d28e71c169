"""A shared receipt as other sites show a link to it: a few words (OpenGraph), and a picture of 1200 x 630 pixels.

The picture takes Pillow, the extra `card`. It is in English, as are those who fetch it: they say no language.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from joulebox import wording
from joulebox.server.pages.badge import COLOURS
from joulebox.server.pages.frame import one_line

if TYPE_CHECKING:
    from PIL import ImageDraw

WIDE_PX: Final = 1200
HIGH_PX: Final = 630
MARGIN_PX: Final = 80
PAPER, INK, SOFT, LINE, LEAF, WARN = "#fffdf8", "#211e19", "#625b50", "#d9d2c4", "#1f6b4a", "#8a4b00"
BOLT: Final = ((9, 2), (4, 9), (7, 9), (6, 14), (12, 6), (8, 6))
"""The mark of the pages, in a square of 16."""
NAME_MAX: Final = 44
PLAIN: Final = str.maketrans({"\N{MINUS SIGN}": "-", "\N{MICRO SIGN}": "u", "₂": "2", "…": "..."})
"""What stands for what the font lacks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a receipt's picture says. `grade` is `None` where there is no energy; `marks` are what must not be
    overlooked."""

    headline: str
    between: str
    grade: str | None
    grade_words: str
    facts: str
    marks: tuple[str, ...]

    @property
    def words(self) -> str:
        """All but the headline, in a sentence or two."""
        told = [self.between, self.grade_words, f"{', '.join(self.marks)}." if self.marks else "", self.facts]
        return " ".join(part for part in told if part)


def card_of(receipt: Mapping[str, Any]) -> Card:
    """The words of a receipt's picture: of one that is invalid no figure."""
    answer, model, total = receipt["energy"]["answer"], receipt["model"], receipt["carbon"]["total"]
    marks = [*wording.marks(receipt), *(["suspect"] if receipt["verdict"] == "suspect" else [])]
    facts = [
        one_line(model["name"])[:NAME_MAX] if model else "",
        wording.plain(receipt["times"]["duration_s"], "s") if receipt["times"]["duration_s"] is not None else "",
        f"{receipt['usage']['output_tokens']} tokens" if receipt["usage"]["output_tokens"] is not None else "",
        f"{wording.ranged(total['g'], total['low'], total['high'], 'g')[0]} CO2e" if total else "",
    ]
    invalid = receipt["verdict"] == "invalid"
    if invalid or answer is None:
        why = wording.VERDICTS["invalid"] if invalid else "No meter or model covered it: not zero, unknown."
        headline = "invalid" if invalid else wording.NOT_MEASURED
        return Card(
            headline=headline, between=why, grade=None, grade_words="", facts=", ".join(filter(None, facts)), marks=()
        )
    return Card(
        headline=wording.quantity(answer["j"], answer["u"], "J"),
        between=wording.between(answer["j"], answer["u"], "J") or "",
        grade=answer["grade"],
        grade_words=wording.grade_words(receipt) or "",
        facts=", ".join(filter(None, facts)),
        marks=tuple(marks),
    )


def drawable() -> bool:
    """Whether pictures can be drawn here."""
    return find_spec("PIL") is not None


@lru_cache(maxsize=32)
def png_of(card: Card) -> bytes:
    """The picture (PNG)."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (WIDE_PX, HIGH_PX), PAPER)
    draw = ImageDraw.Draw(image)
    _brand(draw, card.marks)
    _write(draw, (MARGIN_PX, 214), "Energy of one answer", 38, SOFT)
    _write(draw, (MARGIN_PX, 356), card.headline, 150, INK)
    _write(draw, (MARGIN_PX, 424), card.between, 38, SOFT)
    draw.line((MARGIN_PX, 466, WIDE_PX - MARGIN_PX, 466), LINE, 3)
    if card.grade is not None:
        _grade(draw, card.grade)
    _write(draw, (MARGIN_PX + (84 if card.grade else 0), 535), card.grade_words, 36, INK)
    _write(draw, (MARGIN_PX, 596), card.facts, 30, SOFT)
    kept = BytesIO()
    image.quantize(64, dither=Image.Dither.NONE).save(kept, "PNG", optimize=True)
    return kept.getvalue()


def _brand(draw: "ImageDraw.ImageDraw", marks: tuple[str, ...]) -> None:
    """The mark and the name at the left, what must not be overlooked at the right."""
    draw.rounded_rectangle((MARGIN_PX, 64, MARGIN_PX + 64, 128), 16, LEAF)
    draw.polygon([(MARGIN_PX + 4 * x, 64 + 4 * y) for x, y in BOLT], PAPER)
    _write(draw, (MARGIN_PX + 84, 112), "Joulebox", 46, INK)
    right = float(WIDE_PX - MARGIN_PX)
    for mark in reversed(marks):
        left = right - _length(mark, 34) - 48
        draw.rounded_rectangle((left, 68, right, 126), 29, outline=WARN, width=3)
        _write(draw, (left + 24, 109), mark, 34, WARN)
        right = left - 20


def _grade(draw: "ImageDraw.ImageDraw", grade: str) -> None:
    draw.ellipse((MARGIN_PX, 490, MARGIN_PX + 62, 552), outline=COLOURS[grade], width=4)
    _write(draw, (MARGIN_PX + 31 - _length(grade, 38) / 2, 535), grade, 38, COLOURS[grade])


def _write(draw: "ImageDraw.ImageDraw", at: tuple[float, float], text: str, size_px: float, fill: str) -> None:
    """Text from a point on its baseline, smaller where it would be too long."""
    from PIL import ImageFont

    room = WIDE_PX - MARGIN_PX - at[0]
    size_px *= min(1.0, room / max(_length(text, size_px), 1.0))
    draw.text(at, _plain(text), fill, ImageFont.load_default(size_px), anchor="ls")


def _length(text: str, size_px: float) -> float:
    from PIL import ImageFont

    return float(ImageFont.load_default(size_px).getlength(_plain(text)))


def _plain(text: str) -> str:
    """What the font that Pillow brings has letters for."""
    return "".join(one if one.isascii() or one == "±" else "?" for one in text.translate(PLAIN))
