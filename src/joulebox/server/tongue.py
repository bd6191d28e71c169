"""The languages of the pages. English is what stands in the code; a `.po` file of `server/words` says the rest.

The catalogue is read as it is, at first use: there is nothing to compile, so a wheel and a checkout hold the same
files. `make words` brings it up to date; a test holds that no text is missing.
"""

import ast
import gettext
import re
import struct
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from io import BytesIO
from typing import Final

from joulebox.server.sentences import SENTENCES
from joulebox.wording import ENGLISH, Tongue

NAMES: Final[Mapping[str, str]] = {"en": "English", "de": "Deutsch"}
"""Every language of the pages, under its own name, the first being that of whoever asks for none of them."""
HOLE: Final = re.compile(r"\\\{(\w*)\\\}")
DECIMAL: Final = re.compile(r"(?<![\w.-])(\d+)\.(\d+)(?!\w|\.\d)")
"""A figure by itself; not what is part of a name or a version."""
MO_MAGIC: Final = 0x950412DE
MO_HEAD: Final = struct.Struct("<7I")


class Catalogued(Tongue):
    """A language that a catalogue translates to; what the catalogue lacks stays English."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.name = NAMES[tag]
        text = files("joulebox.server").joinpath("words", f"{tag}.po").read_text(encoding="utf-8")
        entries = read_po(text)
        self._texts = gettext.GNUTranslations(BytesIO(mo(entries)))
        self._patterns = [
            (re.compile(HOLE.sub(_group, re.escape(one)), re.DOTALL), entries[one])
            for one in SENTENCES
            if one in entries
        ]

    def __call__(self, text: str, /, **values: object) -> str:
        told = self._texts.gettext(text) if text else ""
        return told.format(**values) if values else told

    def many(self, one: str, more: str, n: int, /, **values: object) -> str:
        return self._texts.ngettext(one, more, n).format(n=n, **values)

    def number(self, text: str) -> str:
        return DECIMAL.sub(r"\1,\2", text)

    def said(self, sentence: str) -> str:
        told = self(sentence)
        if told != sentence:
            return told
        for pattern, other in self._patterns:
            if found := pattern.fullmatch(sentence):
                holes = [self._part(hole) for hole in found.groups()]
                return other.format(*holes, **{name: self._part(hole) for name, hole in found.groupdict().items()})
        return sentence

    def _part(self, hole: str) -> str:
        """What stands in a sentence, which may be one itself."""
        return self.number(self.said(hole) if " " in hole else self(hole))


def _group(hole: re.Match[str]) -> str:
    return f"(?P<{hole[1]}>.+?)" if hole[1] and not hole[1].isdigit() else "(.+?)"


@cache
def tongue(tag: str) -> Tongue:
    """The language of that tag; English where there is none."""
    return Catalogued(tag) if tag in NAMES and tag != ENGLISH.tag else ENGLISH


def chosen(remembered: str | None, accepted: str) -> Tongue:
    """The language that somebody chose here, or else the first that the browser says its person reads."""
    if remembered in NAMES:
        return tongue(str(remembered))
    wanted = sorted(_accepted(accepted), reverse=True)
    return next((tongue(tag) for _, _, tag in wanted if tag in NAMES), ENGLISH)


def _accepted(header: str) -> Iterator[tuple[float, int, str]]:
    """The languages of an `Accept-Language` header, each with its weight, earlier ones first among equals."""
    for place, part in enumerate(header[:200].split(",")):
        tag, _, weight = part.partition(";")
        found = re.fullmatch(r"\s*q=([01](?:\.\d{0,3})?)\s*", weight)
        if not weight or (found and float(found[1]) > 0):
            yield float(found[1]) if found else 1.0, -place, tag.strip().lower().partition("-")[0]


# --- catalogues -------------------------------------------------------------------------------------------------------


def read_po(text: str) -> dict[str, str]:
    """The texts of a `.po` file with their translations; plural forms as in a `.mo`, parted by NUL."""
    entries: dict[str, str] = {}
    fields: dict[str, str] = {}
    field = ""
    for line in [*text.splitlines(), ""]:
        found = re.fullmatch(r'(?:(msgid|msgid_plural|msgstr|msgstr\[\d\]) )?(".*")', line.strip())
        if found is None:
            _keep(fields, entries)
            fields = {}
            continue
        if found[1] == "msgid":
            _keep(fields, entries)
            fields = {}
        field = found[1] or field
        fields[field] = fields.get(field, "") + str(ast.literal_eval(found[2]))
    return entries


def _keep(fields: Mapping[str, str], entries: dict[str, str]) -> None:
    told = "\0".join(fields[name] for name in sorted(fields) if name.startswith("msgstr"))
    if told.strip("\0"):
        entries["\0".join(fields[name] for name in ("msgid", "msgid_plural") if name in fields)] = told


def mo(entries: Mapping[str, str]) -> bytes:
    """The same as the bytes that `gettext` reads."""
    pairs = sorted((one.encode(), other.encode()) for one, other in entries.items())
    count, table = len(pairs), MO_HEAD.size
    offset = table + 16 * count
    tables: list[bytes] = []
    texts = b""
    for column in (0, 1):
        rows = b""
        for pair in pairs:
            rows += struct.pack("<2I", len(pair[column]), offset + len(texts))
            texts += pair[column] + b"\0"
        tables.append(rows)
    head = MO_HEAD.pack(MO_MAGIC, 0, count, table, table + 8 * count, 0, table + 16 * count)
    return head + b"".join(tables) + texts
