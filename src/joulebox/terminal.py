"""The one way to a terminal and into a log: what strangers wrote may be shown there, and steers nothing.

Names, sentences and answers come from models, nodes, hubs and servers. A terminal obeys escape sequences (ESC and the
C1 codes: titles, links, the clipboard), a carriage return writes over what stands, direction signs turn text about.
"""

import json
import sys
import unicodedata
from typing import Any, Final

_KEPT: Final = frozenset("\n\t")
_ASTRAL: Final = 0x10000


def _shows(sign: str) -> bool:
    """Whether a sign is only shown; blanks of all widths are."""
    return sign.isprintable() or sign in _KEPT or unicodedata.category(sign) == "Zs"


def harmless(text: str) -> str:
    """Text without what steers a terminal: control, format and unassigned characters are taken out."""
    return text if text.isprintable() else "".join(filter(_shows, text))


def escaped(text: str, keep: str = "") -> str:
    r"""Text with every such character as JSON writes it (`\u001b`), so that it can still be read; lines stay one."""
    if text.isprintable():
        return text
    return "".join(sign if sign in keep or (sign not in _KEPT and _shows(sign)) else _code(sign) for sign in text)


def _code(sign: str) -> str:
    number = ord(sign)
    if number < _ASTRAL:
        return f"\\u{number:04x}"
    high, low = divmod(number - _ASTRAL, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"


def cleaned(value: Any) -> Any:
    """What JSON holds, with every text in it harmless."""
    if isinstance(value, str):
        return harmless(value)
    if isinstance(value, dict):
        return {harmless(str(name)): cleaned(one) for name, one in value.items()}
    return [cleaned(one) for one in value] if isinstance(value, list | tuple) else value


def shown_json(value: Any, indent: int | None = 2) -> str:
    """A value as JSON that means the same and steers nothing: text is readable in every language."""
    return escaped(json.dumps(value, ensure_ascii=False, indent=indent, default=str), keep="\n")


def say(text: str, *, error: bool = False, end: str = "\n") -> None:
    """Print on stdout, or with `error` on stderr with the program's name; whatever it holds, it is only shown."""
    if error:
        print(f"joulebox: {harmless(text)}", file=sys.stderr, flush=True)
    else:
        print(harmless(text), end=end, flush=True)


def say_json(value: Any, indent: int | None = 2) -> None:
    """Print a value as JSON."""
    print(shown_json(value, indent), flush=True)
