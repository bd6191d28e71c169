"""Answers as HTML: what models write is shown as they mean it, and nothing of it is ever more than text."""

import re
import string
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulebox.server.pages.markdown import LINE_MAX_CHARACTERS, MAX_CHARACTERS, to_html

TAGS = {"p", "br", "hr", "h2", "em", "strong", "a", "ul", "ol", "li", "pre", "code", "blockquote", "div"}
TAGS |= {"table", "thead", "tbody", "tr", "th", "td"}
ATTRIBUTES = {"href", "rel", "title", "tabindex", "start", "class"}


class Found(HTMLParser):
    """The tags, attributes and text of some HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_what_models_write_is_set() -> None:
    """Lists, emphasis, code, tables and links come out as such; headings stand below the page's own."""
    found = Found(to_html("# A\n\n- *b*\n- `c`\n\n```py\nd < 1\n```\n\n|e|\n|-:|\n|f|\n\n[g](https://h.test/)"))
    assert {"h2", "ul", "li", "em", "code", "pre", "table", "td", "a"} <= set(found.tags)
    assert ("href", "https://h.test/") in found.attributes
    assert ("rel", "nofollow noopener noreferrer") in found.attributes
    assert "d < 1\n" in found.words
    assert {name for name, _ in found.attributes} <= ATTRIBUTES


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[a](javascript:alert(1))",
        "[a](JaVaScRiPt:alert(1))",
        "[a](&#106;avascript:alert(1))",
        "[a](data:text/html;base64,PHNjcmlwdD4=)",
        "[a](vbscript:x)",
        "[a](file:///etc/passwd)",
        "[a](//elsewhere.test)",
        "[a](/receipts/x/delete)",
        "![a](https://elsewhere.test/pixel.png)",
        "<javascript:alert(1)>",
        '[a](https://b.test "\\" onmouseover=alert(1)")',
        "[a][b]\n\n[b]: javascript:alert(1)",
        '```"><script>alert(1)</script>\nx\n```',
        "a\u202eb\u2066c",
        "broken \ufffd\ufffd text \ud800".encode("utf-8", "replace").decode(),
    ],
)
def test_nothing_hostile_gets_through(text: str) -> None:
    """No tag, attribute or address comes out that is not one of the few that setting needs."""
    found = Found(to_html(text))
    assert set(found.tags) <= TAGS
    assert {name for name, _ in found.attributes} <= ATTRIBUTES
    for name, value in found.attributes:
        if name == "href":
            assert re.match("https?:|mailto:", value or "")


@given(
    st.text(
        alphabet=st.sampled_from(list("<>[]()!*_`~#&;:/\\\"'= \n|-") + list(string.ascii_lowercase[:6])), max_size=200
    )
)
def test_whatever_a_model_writes_stays_text(text: str) -> None:
    """Of any characters, however they are put together, nothing but the known tags comes out."""
    found = Found(to_html(text))
    assert set(found.tags) <= TAGS
    assert {name for name, _ in found.attributes} <= ATTRIBUTES


@pytest.mark.parametrize("text", ["a" * 1_000_000, "[" * (LINE_MAX_CHARACTERS + 1), "a\n\n" * MAX_CHARACTERS])
def test_what_is_too_long_is_plain(text: str) -> None:
    """A line of a megabyte, or an answer without end, is shown whole and costs no time to set."""
    found = Found(to_html(text))
    assert found.tags == ["div"]
    assert "".join(found.words) == text
