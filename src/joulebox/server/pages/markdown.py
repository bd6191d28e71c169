"""A model's answer as HTML. Models write Markdown; nothing they write becomes markup of its own.

A parser that escapes every tag is enough: no second library takes apart again what was never let in. While an answer
streams it stays text; the finished one is rendered here, once, so that page and no-script page show the same.
"""

import re
from collections.abc import MutableMapping, Sequence
from functools import cache
from typing import Any, Final

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup, escape

MAX_CHARACTERS: Final = 60_000
"""A longer answer is shown as text: no reader needs more set, and no answer may keep the server busy."""
LINE_MAX_CHARACTERS: Final = 5_000
"""The same for a paragraph without an end: what lies within a line is matched with all the rest of it."""
ELSEWHERE: Final = re.compile(r"\[([^\]\[]+)\]\((?!https?:)[^)\s]+\)")
HEADING: Final = re.compile(r"^## (.+)$", re.MULTILINE)
SAFE_LINK: Final = re.compile(r"(?:https?://|mailto:)[^\s]", re.IGNORECASE)


def to_html(text: str) -> Markup:
    """The answer with its lists, code and tables; as plain text where it is too long. Images are not fetched."""
    if len(text) > MAX_CHARACTERS or max(map(len, re.split(r"\n\s*\n", text)), default=0) > LINE_MAX_CHARACTERS:
        return Markup('<div class="plain">{}</div>').format(text)
    return Markup(_parser().render(text))  # noqa: S704 - the parser escapes everything that is not its own


def document(text: str) -> tuple[Markup, list[tuple[str, str]]]:
    """A page of our own docs, whose links to other files become text; and its headings: anchor and words."""
    html = Markup(_parser().render(ELSEWHERE.sub(r"\1", text), {"own": True}))  # noqa: S704 - as above
    return html, [(anchor(words), words) for words in HEADING.findall(text)]


def anchor(heading: str) -> str:
    """`Who else used the machine` is `who-else-used-the-machine`."""
    return "-".join(re.findall(r"[a-z0-9]+", heading.lower()))


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": 20}).enable("table").disable("image")
    parser.validateLink = lambda url: SAFE_LINK.match(url) is not None  # type: ignore[method-assign]
    for name, rule in (("link_open", _link), ("fence", _code), ("code_block", _code), ("table_open", _table)):
        parser.add_render_rule(name, rule)
    for name in ("heading_open", "heading_close"):
        parser.add_render_rule(name, _heading)
    for name in ("th_open", "td_open"):
        parser.add_render_rule(name, _cell)
    return parser


def _heading(
    _self: RendererHTML, tokens: Sequence[Token], at: int, _options: Any, env: MutableMapping[str, Any]
) -> str:
    """Below the page's own headings, whatever the answer calls them; our own docs have their own."""
    if env.get("own"):
        tag = tokens[at].tag
        return f'<{tag} id="{anchor(tokens[at + 1].content)}">' if tokens[at].nesting == 1 else f"</{tag}>\n"
    return "<h2>" if tokens[at].nesting == 1 else "</h2>\n"


def _cell(self: RendererHTML, tokens: Sequence[Token], at: int, options: Any, env: MutableMapping[str, Any]) -> str:
    """Without the alignment, which would be a style of its own that the policy forbids."""
    tokens[at].attrs.pop("style", None)
    return str(self.renderToken(tokens, at, options, env))


def _link(self: RendererHTML, tokens: Sequence[Token], at: int, options: Any, env: MutableMapping[str, Any]) -> str:
    tokens[at].attrSet("rel", "nofollow noopener noreferrer")
    return str(self.renderToken(tokens, at, options, env))


def _code(_self: RendererHTML, tokens: Sequence[Token], at: int, _options: Any, _env: MutableMapping[str, Any]) -> str:
    """Wide code scrolls, by keyboard too."""
    return f'<pre tabindex="0"><code>{escape(tokens[at].content)}</code></pre>\n'


def _table(
    _self: RendererHTML, _tokens: Sequence[Token], _at: int, _options: Any, _env: MutableMapping[str, Any]
) -> str:
    return '<table tabindex="0">\n'
