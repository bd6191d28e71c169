"""PNG pictures: right size, words drawn on a machine without fonts, and a clear sentence where the extra is missing."""

import struct
import subprocess
import sys
import zlib

import pytest

from joulebox.errors import JouleboxError
from joulebox.raster import png_of

SHEET = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 300 100"><rect width="300" height="100" fill="#fff"/>{}</svg>'
)


def ink(png: bytes) -> float:
    """The share of a picture's bytes that are not white."""
    data, at = b"", 8
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        data += png[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += 12 + length
    raw = zlib.decompress(data)
    return sum(byte not in (0, 255) for byte in raw) / len(raw)


def test_words_are_drawn() -> None:
    """A picture is as wide as asked and as high as its shape wants, and its words are there, bold ones heavier."""
    pytest.importorskip("resvg_py", reason="the extra `pictures` is not installed")
    word = '<text x="20" y="60" font-size="40" font-family="system-ui,sans-serif" font-weight="{}">13.4 J</text>'
    empty, plain, bold = (png_of(SHEET.format(body), 600) for body in ("", word.format(400), word.format(700)))
    assert struct.unpack(">II", plain[16:24]) == (600, 200)
    assert ink(empty) < 0.001 < ink(plain)
    assert plain != bold


def test_absurd_widths_are_refused() -> None:
    """A width that is no picture's is refused before anything is drawn."""
    for width_px in (0, -1, 1_000_000):
        with pytest.raises(JouleboxError, match="pixels wide"):
            png_of(SHEET.format(""), width_px)


def test_a_missing_extra_is_named() -> None:
    """Without the packages of the extra the sentence says what to install."""
    code = (
        "import sys; sys.modules['resvg_py'] = None\n"
        "from joulebox.errors import JouleboxError\nfrom joulebox.raster import png_of\n"
        "try: png_of('<svg/>', 10)\nexcept JouleboxError as error: print(error.code, error.detail)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.startswith("pictures_missing")
    assert "joulebox[pictures]" in told
