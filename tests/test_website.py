"""The documentation as a site: built without a warning, and fit for everybody, without any other machine."""

import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

import website
from screenshots import chromium

needs_chromium = pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed here")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
LOOKED_AT = (
    "index.html",
    "quickstart.html",
    "how-to/run-a-fleet.html",
    "explanation/method.html",
    "reference/command-line.html",
    "reference/http-api.html",
    "glossary.html",
    "search.html",
)


class Loads(HTMLParser):
    """Collects what a page would load by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Scripts, styles, pictures, frames."""
        named = dict(attrs)
        wanted = named.get("src") or (named.get("href") if tag == "link" else None)
        if wanted is not None:
            self.found.append(wanted)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built."""
    folder = tmp_path_factory.mktemp("site")
    assert website.build(folder) == 0
    return folder


@pytest.fixture
def page(site: Path) -> Iterator[Page]:
    """A browser that is not connected to anything."""
    with chromium() as browser:
        context = browser.new_context(offline=True)
        yield context.new_page()
        context.close()


def test_the_site_holds_every_page(site: Path) -> None:
    """Each page of the repository's documentation is a page of the site, and all are in its search."""
    missing = [one.place for one in website.pages() if not (site / one.place).with_suffix(".html").is_file()]
    assert missing == []
    index = (site / "searchindex.js").read_text("utf-8")
    assert [one.name for one in website.pages() if f'"{one.name}"' not in index] == []


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    """No script, style, font or picture of any page has an address on another machine."""
    wrong = []
    for path in site.rglob("*.html"):
        loads = Loads()
        loads.feed(path.read_text("utf-8"))
        wrong += [f"{path.relative_to(site)}: {one}" for one in loads.found if re.match(r"(?:https?:)?//", one)]
    for path in site.rglob("*.css"):
        found = re.findall(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')\s]+)", path.read_text("utf-8"))
        wrong += [f"{path.relative_to(site)}: {one}" for one in found]
    assert not wrong, "\n  ".join(["", *wrong])


def test_links_within_the_site_lead_somewhere(site: Path) -> None:
    """Each link to a page or a place on one names what is there."""
    places = {path: set(re.findall(r'\bid="([^"]+)"', path.read_text("utf-8"))) for path in site.rglob("*.html")}
    wrong = []
    for path in places:
        for link in re.findall(r'<a [^>]*href="([^"]+)"', path.read_text("utf-8")):
            target, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            whole = (path.parent / target).resolve() if target else path
            if not whole.exists() or (anchor and whole in places and anchor not in places[whole]):
                wrong.append(f"{path.relative_to(site)}: {link}")
    assert not wrong, "\n  ".join(["", *sorted(set(wrong))])


def test_a_term_says_what_it_means(site: Path) -> None:
    """The first mention of a term on a page that explains leads to the glossary, with its sentence as a tip."""
    text = (site / "explanation/uncertainty.html").read_text("utf-8")
    found = re.findall(r'<a class="term[^"]*" href="\.\./glossary\.html#([^"]+)" title="([^"]+)"', text)
    assert found
    glossary = (site / "glossary.html").read_text("utf-8")
    assert [anchor for anchor, _ in found if f'id="{anchor}"' not in glossary] == []
    assert len({anchor for anchor, _ in found}) == len(found), "once a page"


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_the_site(page: Page, site: Path, scheme: str) -> None:
    """No rule of axe is broken, wide or narrow, in either scheme, and nothing scrolls sideways at 320 pixels."""
    axe, wrong = Axe(), []
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    for name in LOOKED_AT:
        for width in (1280, 320):
            page.set_viewport_size({"width": width, "height": 800})
            page.goto((site / name).as_uri())
            found = axe.run(page)
            wrong += [f"{name} at {width}: {found.generate_report()}"] if found.violations_count else []
            if width == 320 and page.evaluate("document.documentElement.scrollWidth") > 320:
                wrong.append(f"{name} scrolls sideways")
    assert not wrong, "\n".join(["", *wrong])


@needs_chromium
def test_the_search_finds_without_a_network(page: Page, site: Path) -> None:
    """A word typed into the search box of a file on disk leads to the page about it."""
    page.goto((site / "search.html").as_uri() + "?q=wake_mac")
    expect(page.locator("#search-results")).to_contain_text("Settings", timeout=10_000)
