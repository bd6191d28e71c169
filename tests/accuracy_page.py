"""The page `docs/accuracy.md`: parts between marks, each written by its own module and left alone by the others."""

from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "accuracy.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What a part found: its text for the page, and each bound it missed, in words."""

    markdown: str
    missed: tuple[str, ...] = ()


def marks(name: str, program: str = "") -> tuple[str, str]:
    """The two lines between which a part's text stands; Markdown does not show them."""
    program = program or f"tests/accuracy.py --only {name}"
    return f"<!-- {name}: written by `python {program}` -->", f"<!-- end of {name} -->"


def with_part(page: str, name: str, markdown: str, program: str = "") -> str:
    """The page with that part's text replaced; a part the page does not have yet comes last."""
    begin, end = marks(name, program)
    text = f"{begin}\n\n{markdown.strip()}\n\n{end}"
    before, found, rest = page.partition(begin)
    if not found:
        return f"{page.rstrip()}\n\n{text}\n"
    return before + text + rest.partition(end)[2]
