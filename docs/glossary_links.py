"""A part of the generator: on each page the first mention of a term leads to the glossary and says what it means."""

import re
from typing import Any, Final

from docutils import nodes
from sphinx.application import Sphinx

from website import terms

PLAIN: Final = ("how-to/", "explanation/", "quickstart", "index", "measured/")
"""Pages that explain; tables of the reference have links of their own."""
NOT_IN: Final = (nodes.literal, nodes.reference, nodes.title, nodes.literal_block, nodes.raw, nodes.caption)
EVERYDAY: Final = frozenset(
    (
        *("answer", "engine", "load", "node", "meter", "prompt", "reading", "scope", "receipt", "measured", "modelled"),
        *("job", "verdict", "E", "I", "M", "O", "R"),
    )
)
"""Terms that are plain words too: a link would often be wrong."""


def link_terms(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Turn first mentions into links with the sentence as their title."""
    if not docname.startswith(PLAIN):
        return
    home = app.builder.get_relative_uri(docname, "glossary")
    known = {term: sentence for term, (sentence, _) in terms().items() if term not in EVERYDAY}
    for text in list(doctree.findall(nodes.Text)):
        if known and not _inside(text, NOT_IN):
            found = _pattern(known).search(text.astext())
            if found is not None:
                _link(text, found, home, known.pop(found[1]))


def _pattern(known: dict[str, str]) -> re.Pattern[str]:
    longest = sorted(known, key=len, reverse=True)
    return re.compile(rf"(?<![\w/.-])({'|'.join(map(re.escape, longest))})(?![\w/-])")


def _inside(text: nodes.Node, kinds: tuple[type[nodes.Node], ...]) -> bool:
    parent = text.parent
    while parent is not None:
        if isinstance(parent, kinds):
            return True
        parent = parent.parent
    return False


def _link(text: nodes.Text, found: re.Match[str], home: str, sentence: str) -> None:
    whole = text.astext()
    anchor = "term-" + re.sub(r"[^a-zA-Z0-9._]+", "-", found[1]).strip("-")
    link = nodes.reference(
        "", found[1], internal=True, refuri=f"{home}#{anchor}", reftitle=_plain(sentence), classes=["term"]
    )
    text.parent.replace(text, [nodes.Text(whole[: found.start()]), link, nodes.Text(whole[found.end() :])])


def _plain(sentence: str) -> str:
    """A sentence without the marks of Markdown."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", sentence).replace("`", "").replace("*", "")


def setup(app: Sphinx) -> dict[str, Any]:
    """What the generator calls."""
    app.connect("doctree-resolved", link_terms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
