"""The pictures of the README, made by a real run (`make pictures`): the real service, the real small model, no meter.

Writes `docs/images/ask-light.png` and `ask-dark.png`, the page after an answer, and `receipt.txt`, the same receipt as
a terminal of 80 columns shows it.
"""

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from playwright.sync_api import expect

from joulebox.client import Client
from joulebox.console import show_receipt
from joulebox.node.fetch import DEFAULT, fetch
from screenshots import SCHEMES, chromium
from stage import MODEL, Service, wait

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = ROOT / "docs" / "images"
QUESTION: Final = "What is the capital of France, and what is it known for?"
SIZE_MAX_BYTES: Final = 200_000
CALM_S: Final = 3.0
"""The machine rests between start and question, as a node that waits for work does."""
ANSWER_WAIT_S: Final = 120.0


def main() -> None:
    """Ask once in a browser, then look at the same answer in both schemes and in the terminal."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    model = fetch(DEFAULT, ROOT / ".cache" / "models")
    settings = {"JOULEBOX_METERS": "model:", "JOULEBOX_ZONE": "DE", "JOULEBOX_NODE": "desk", "JOULEBOX_LOG": "warning"}
    with TemporaryDirectory() as folder:
        service = Service(Path(folder), model, settings)
        try:
            receipt_id = _photograph(service.url)
            with Client(service.url) as client:
                _print(client.receipt(receipt_id))
        finally:
            service.stop()
    for path in sorted(FOLDER.iterdir()):
        size_bytes = path.stat().st_size
        print(f"{path.relative_to(ROOT)}  {size_bytes / 1000:.0f} kB")
        assert size_bytes < SIZE_MAX_BYTES, f"{path.name} is too large for a README"


def _photograph(address: str) -> str:
    """One page, asked and answered once, seen in both schemes; the id of its receipt."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900}, base_url=address, reduced_motion="reduce")
        page.goto("/")
        page.get_by_label("Your prompt").fill(QUESTION)
        page.get_by_label("Model", exact=True).select_option(MODEL)
        wait(CALM_S)
        page.get_by_role("button", name="Ask").click()
        expect(page.get_by_role("article")).to_be_visible(timeout=ANSWER_WAIT_S * 1e3)
        page.get_by_role("button", name="Ask").blur()
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=FOLDER / f"ask-{scheme}.png")
        link = page.get_by_role("link", name="Permalink").get_attribute("href")
        assert link is not None
        return link.rpartition("/")[2]


def _print(receipt: dict[str, object]) -> None:
    os.environ |= {"COLUMNS": "80", "NO_COLOR": "1"}
    with (FOLDER / "receipt.txt").open("w", encoding="utf-8") as file:
        show_receipt(receipt, file)


if __name__ == "__main__":
    main()
