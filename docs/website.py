"""Builds the documentation as a site: `python docs/website.py [FOLDER]` (`make docs`), strict, without any network.

The pages are Markdown that reads well as it stands in the repository. They are laid out anew in `build/docs`, where the
generator finds them: links between pages, to code and to pictures are put right, comments are left out, and the
navigation is made from the folders, so that a new page needs no edit anywhere.
"""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import groupby
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"
STAGE: Final = ROOT / "build" / "docs"
SITE: Final = ROOT / "build" / "site"
MOVED: Final = {
    "ARCHITECTURE.md": "explanation/architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "docs/accuracy.md": "measured/accuracy.md",
    "docs/benchmarks.md": "measured/benchmarks.md",
    "docs/fleet.md": "measured/fleet.md",
    "docs/reliability.md": "measured/reliability.md",
    "docs/scale.md": "measured/scale.md",
    "README.md": "index.md",
    "docs/reference": "index.md",
    "docs/decisions": "decisions/index.md",
}
"""Pages and folders that stand elsewhere on the site. The README's place is that of the first page."""
NAVIGATION: Final = (
    ("Start", ("quickstart", "how-to/install", "how-to/docker", "how-to/kubernetes", "how-to/add-a-model")),
    (
        "Ask and read",
        (
            "how-to/openai-clients",
            "how-to/ollama-clients",
            "how-to/python",
            "how-to/energy-budget",
            "how-to/switch-*",
            "how-to/compare-models",
            "results/*",
            "how-to/publish-numbers",
            "how-to/disclose",
            "how-to/sci-report",
        ),
    ),
    (
        "Measure well",
        (
            "how-to/run-a-node",
            "how-to/clean-machine",
            "how-to/meter-host",
            "how-to/idle-policy",
            "how-to/grid-data",
            "how-to/greener",
        ),
    ),
    (
        "Run it for others",
        (
            "how-to/expose-a-server",
            "how-to/run-a-fleet",
            "how-to/metrics",
            "how-to/opentelemetry",
            "how-to/export",
            "how-to/backup",
            "how-to/upgrade",
        ),
    ),
    ("Extend, and more guides", ("how-to/*",)),
    (
        "Understand",
        ("explanation/receipt-in-words", "explanation/uncertainty", "explanation/not-said", "explanation/*"),
    ),
    ("Reference", ("reference/command-line", "reference/settings", "reference/meters/index", "reference/*")),
    ("Measured", ("measured/*",)),
    ("Project", ("glossary", "decisions/index", "contributing", "changelog")),
)
"""The navigation: a page stands under the first heading whose patterns hold it, in the order of the patterns."""
WITHIN: Final = ("reference/meters/", "decisions/")
"""Folders whose index has a navigation of its own."""
_ALOUD: Final = (
    ('<p class="caption" role="heading">', '<p class="caption" role="heading" aria-level="2">'),
    ('<aside class="sidebar-drawer"', '<aside class="sidebar-drawer" aria-label="All pages"'),
    ('<aside class="toc-drawer"', '<aside class="toc-drawer" aria-label="On this page"'),
)
_MAIN: Final = '<article role="main" id="furo-main-content">'
_FENCE: Final = re.compile(r"^\s*(```|~~~)")
_LINK: Final = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(<?([^)\s>]+)>?\)")
_TERM: Final = re.compile(r"^\| \*\*(.+?)\*\* \| (.+?) \| (.+?) \|$")


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page: where it stands in the repository, and where on the site."""

    source: Path
    place: str

    @property
    def name(self) -> str:
        """Its place without the ending, as the navigation names it."""
        return self.place.removesuffix(".md")

    @property
    def title(self) -> str:
        """Its first heading."""
        found = re.search(r"^# (.+)$", self.source.read_text(encoding="utf-8"), re.MULTILINE)
        return found[1] if found else self.name


def pages() -> list[Page]:
    """Every page of the site."""
    below = [path for path in sorted(DOCS.rglob("*.md")) if "images" not in path.parts]
    above = [ROOT / name for name in MOVED if "/" not in name and (ROOT / name).is_file() and name != "README.md"]
    return [Page(source=path, place=place_of(path)) for path in [*above, *below]]


def place_of(path: Path) -> str:
    """Where a page or folder of the repository stands on the site; empty where it does not."""
    name = path.relative_to(ROOT).as_posix()
    if name in MOVED:
        return MOVED[name]
    if path.is_dir():
        return place_of(path / "README.md") if (path / "README.md").is_file() else ""
    if path.suffix != ".md" or not path.is_relative_to(DOCS):
        return ""
    return path.relative_to(DOCS).as_posix().replace("README.md", "index.md")


def navigation() -> dict[str, list[str]]:
    """Headings and the names of their pages. Raises `SystemExit` where a page would stand under none."""
    titles = {page.name: page.title for page in pages() if page.name != "index"}
    titles["decisions/index"] = "Decisions"
    top = [name for name in titles if not name.startswith(WITHIN) or name.endswith("/index")]
    found: dict[str, list[str]] = {}
    placed: set[str] = set()
    for heading, patterns in NAVIGATION:
        mine = [
            name
            for pattern in patterns
            for name in sorted(top, key=lambda each: titles[each].lower())
            if fnmatch(name, pattern) and name not in placed
        ]
        found[heading] = list(dict.fromkeys(mine))
        placed.update(found[heading])
    if lost := sorted(set(top) - placed):
        sys.exit(
            f"In no navigation: {', '.join(lost)}. Put the page into docs/how-to, docs/explanation or docs/reference, "
            "or give it a line in NAVIGATION of docs/website.py."
        )
    return found


def lay_out(stage: Path = STAGE) -> None:
    """Write all pages where the generator looks for them. Raises `SystemExit` for a link that leads nowhere."""
    shutil.rmtree(stage, ignore_errors=True)
    for page in pages():
        target = stage / page.place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(laid_out(page, stage), encoding="utf-8")
    with (stage / "index.md").open("a", encoding="utf-8") as index:
        for heading, names in navigation().items():
            index.write(_toctree(names, heading) if names else "")
    with (stage / "reference" / "meters" / "index.md").open("a", encoding="utf-8") as index:
        index.write(_toctree(_within("reference/meters/")))
    made = "# Decisions\n\nWhy things are as they are, where somebody may ask.\n"
    (stage / "decisions" / "index.md").write_text(made + _toctree(_within("decisions/"), shown=True), encoding="utf-8")


def _within(folder: str) -> list[str]:
    return [
        page.place.removeprefix(folder).removesuffix(".md")
        for page in pages()
        if page.place.startswith(folder) and not page.place.endswith("/index.md")
    ]


def _toctree(names: list[str], heading: str | None = None, *, shown: bool = False) -> str:
    options = [f":caption: {heading}"] if heading else []
    options += [":maxdepth: 1"] if shown else [":hidden:"]
    return "\n" + "\n".join(["```{toctree}", *options, "", *names, "```"]) + "\n"


def laid_out(page: Page, stage: Path) -> str:
    """A page's text for the generator: links put right, comments left out, the glossary as one."""
    made = []
    for code, lines in groupby(_lines(page.source), key=lambda one: one[1]):
        text = "\n".join(line for line, _ in lines)
        made.append(text if code else _LINK.sub(lambda found: _link(found, page, stage), text))
    text = "\n".join(made) + "\n"
    return _glossary(text) if page.name == "glossary" else text


def _lines(path: Path) -> Iterator[tuple[str, bool]]:
    """Each line, and whether it is code. Lines that are a comment are left out."""
    fence = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        mark = _FENCE.match(line)
        if mark and not fence:
            fence = mark[1]
            yield line, True
        elif fence:
            fence = "" if mark and line.strip() == fence else fence
            yield line, True
        elif not re.fullmatch(r"\s*<!--.*-->\s*", line):
            yield line, False


def _link(found: re.Match[str], page: Page, stage: Path) -> str:
    picture, words, target = found[1], found[2], found[3]
    if re.match(r"[a-z][a-z0-9+.-]*:|#", target):
        return found[0]
    name, sharp, anchor = target.partition("#")
    path = Path(os.path.normpath(page.source.parent / name))
    if not path.exists():
        sys.exit(f"{page.source.relative_to(ROOT)}: the link to {target} leads nowhere. Mend it or take it out.")
    place = place_of(path)
    if not place and path.is_dir():
        return words
    if not place:
        place = f"files/{path.relative_to(ROOT).as_posix()}"
        (stage / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, stage / place)
    return f"{picture}[{words}]({os.path.relpath(place, Path(page.place).parent)}{sharp}{anchor})"


def terms(path: Path = DOCS / "glossary.md") -> dict[str, tuple[str, str]]:
    """The glossary's terms: a sentence, and where it is from."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if row := _TERM.match(line):
            found[row[1]] = (row[2], row[3])
    return found


def _glossary(text: str) -> str:
    """The table of terms as the generator's own glossary, so that terms can be linked to and searched for."""
    made: list[str] = []
    for line in text.splitlines():
        if row := _TERM.match(line):
            made += [row[1], f"  {row[2]} *Source: {row[3]}.*", ""]
        elif line.startswith("| Term"):
            made += ["```{glossary}"]
        elif made and "```{glossary}" in made and "```" not in made and not line.strip():
            made += ["```", ""]
        elif not line.startswith("|---"):
            made += [line]
    return "\n".join([*made, *([] if "```" in made else ["```"])]) + "\n"


def build(site: Path = SITE) -> int:
    """Build the site; 0 where nothing is wrong. A warning is a failure."""
    from sphinx.cmd.build import build_main

    lay_out()
    shutil.rmtree(site, ignore_errors=True)
    words = ["-q", "-W", "--keep-going", "-E", "-n", "-b", "html", "-c", str(DOCS)]
    code = build_main([*words, "-d", str(ROOT / "build" / "doctrees"), str(STAGE), str(site)])
    for path in site.rglob("*.html"):
        path.write_text(_said_aloud(path.read_text(encoding="utf-8")), encoding="utf-8")
    return code


def _said_aloud(html: str) -> str:
    """A page with what a screen reader needs and the theme leaves out: levels of headings, names of landmarks."""
    for shown, said in _ALOUD:
        html = html.replace(shown, said)
    return html if "<h1" in html else html.replace(_MAIN, f"{_MAIN}<h1>Search</h1>")


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else SITE
    code = build(folder)
    if not code:
        print(f"The site is in {folder}: open {folder / 'index.html'}.")
    sys.exit(code)
