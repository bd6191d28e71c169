"""The texts of pages and scripts, found by Babel, and the catalogues that translate them (`make words`).

Prints what a catalogue lacks and brings its file up to date: texts that are gone leave it, new ones stand in it empty.
"""

import json
import re
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_python
from babel.messages.pofile import read_po, write_po
from jinja2.ext import babel_extract

from joulebox.accounting.equivalents import equivalents
from joulebox.errors import REGISTRY
from joulebox.server.sentences import SENTENCES
from joulebox.server.tongue import NAMES

SRC: Final = Path(__file__).parents[1] / "src" / "joulebox"
FOLDER: Final = SRC / "server" / "words"
KEYWORDS: Final[dict[str, Any]] = {"_": None, "marked": None, "many": (1, 2)}
SCRIPT: Final = re.compile(r'_\(("(?:[^"\\]|\\.)*")\)')
DATED: Final = re.compile(r'"(POT-Creation|PO-Revision|Last-Tr|Language-T|Report|Project|Generated)')
Text = str | tuple[str, ...]


def texts() -> dict[Text, str]:
    """Every text that people may see, with where it stands first; plural forms together."""
    found: dict[Text, str] = {}
    for text, where in [*_python(), *_templates(), *_scripts(), *_data()]:
        found.setdefault(text, where)
    return found


def _python() -> Iterator[tuple[Text, str]]:
    for path in [SRC / "wording.py", *sorted((SRC / "server").rglob("*.py"))]:
        for _, name, message, _ in extract_python(BytesIO(path.read_bytes()), KEYWORDS, [], {}):
            yield from _kept(name, message, path)


def _templates() -> Iterator[tuple[Text, str]]:
    for path in sorted((SRC / "server" / "templates").glob("*.html")):
        options = {"trim_blocks": "true", "lstrip_blocks": "true"}
        for _, name, message, _ in babel_extract(BytesIO(path.read_bytes()), tuple(KEYWORDS), [], options):
            yield from _kept(name, message, path)


def _scripts() -> Iterator[tuple[Text, str]]:
    for path in sorted((SRC / "server" / "static").glob("*.js")):
        for literal in SCRIPT.findall(path.read_text(encoding="utf-8")):
            yield json.loads(literal), path.name


def _data() -> Iterator[tuple[Text, str]]:
    """What stands in data and not in calls: titles of failures, sentences from below, comparisons, states."""
    for failure in REGISTRY.values():
        yield failure.title, "errors.py"
    for text in SENTENCES:
        yield text, "sentences.py"
    for one in equivalents(1.0, 1.0):
        yield from ((text, "equivalents.py") for text in (one.name, one.formula, one.source))


def _kept(name: object, message: object, path: Path) -> Iterator[tuple[Text, str]]:
    parts = message if isinstance(message, tuple) else (message,)
    words = tuple(part for part in parts if isinstance(part, str))
    if words and (name == "many") == (len(words) > 1):
        yield (words[:2] if name == "many" else words[0]), path.relative_to(SRC).as_posix()


def catalogue(tag: str) -> Catalog:
    """The catalogue of a language, with exactly today's texts."""
    path = FOLDER / f"{tag}.po"
    old = read_po(path.open("rb"), locale=tag) if path.exists() else Catalog(locale=tag)
    new = Catalog(locale=tag, charset="utf-8", fuzzy=False, header_comment="# Joulebox in another language.")
    for text, where in texts().items():
        key = text[0] if isinstance(text, tuple) else text
        known = old.get(key)
        new.add(text, known.string if known is not None else None, locations=[(where, 0)])
    return new


def missing(new: Catalog) -> list[str]:
    """The texts without a translation, or whose translation has other room for values."""
    wrong = []
    for message in new:
        if not message.id:
            continue
        ids, told = _forms(message.id), _forms(message.string)
        if len(told) != len(ids) or not all(told):
            wrong.append(f"no translation: {ids[0]}")
        elif {frozenset(_holes(one)) for one in told[1:] or told} != {frozenset(_holes(one)) for one in ids[1:] or ids}:
            wrong.append(f"other room for values: {ids[0]}")
    return wrong


def _forms(told: Any) -> tuple[str, ...]:
    """The plural forms; a text without is its only one."""
    return tuple(one or "" for one in told) if isinstance(told, tuple | list) else (told or "",)


def _holes(text: str) -> list[str]:
    """The names of the holes; nameless ones by their place."""
    found = re.findall(r"\{(\w*)\}", text)
    return [name or str(place) for place, name in enumerate(found)]


def written(new: Catalog) -> bytes:
    """The catalogue as its file holds it."""
    file = BytesIO()
    write_po(file, new, omit_header=False, sort_output=False, ignore_obsolete=True, include_lineno=False, width=120)
    text = file.getvalue().decode()
    kept = [
        line
        for line in text.splitlines()
        if not re.match(r'"(POT-Creation|PO-Revision|Last-Tr|Language-T|Report|Project|Generated)', line)
    ]
    return ("\n".join(kept).strip() + "\n").encode()


def main() -> int:
    """Write the catalogues; how many texts are missing."""
    wrong = []
    for tag in NAMES:
        if tag != "en":
            new = catalogue(tag)
            (FOLDER / f"{tag}.po").write_bytes(written(new))
            wrong += missing(new)
    print("\n".join(wrong) or "nothing is missing")
    return len(wrong)


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
