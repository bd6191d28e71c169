"""Pictures of the pages, light and dark, wide and narrow, in every language (`make screenshots`): plays the stage."""

import argparse
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from joulebox.clock import SystemClock
from joulebox.server.tongue import NAMES
from page_list import PAGES

CHROMIUM_ARGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP *.test 127.0.0.1",
    # The pages of an address bar that nobody sees cost each window more than a test; what is named here replaces the
    # driver's own list.
    "--disable-features=WebUIOmniboxPopup,WebUIOmniboxAimPopup,AimEnabled,HttpsUpgrades,LensOverlay,PaintHolding",
)
WIDTHS = (1280, 320)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


@contextmanager
def stage() -> Iterator[str]:
    """The stage on a free port, as a process of its own; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = [sys.executable, str(Path(__file__).with_name("page_stage.py")), str(port)]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, cwd=Path(__file__).parent)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(address, process)
        yield address
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    clock = SystemClock()
    for _ in range(200):
        assert process.poll() is None, "the stage ended before it served anything"
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            clock.sleep_until(clock.now_ns() + 50_000_000)
    raise AssertionError(f"nothing answers at {address}")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Headless Chromium as it is installed on this machine."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(CHROMIUM_ARGS))
        try:
            yield browser
        finally:
            browser.close()


def advance(page: Page) -> None:
    """Open the next gate of the script."""
    page.request.post(page.url.split("/", 3)[0] + "//" + page.url.split("/", 3)[2] + "/stage/next")


def ask(page: Page, prompt: str, model: str = "powercap") -> None:
    """Fill in the form, press the button, see the prompt taken."""
    page.get_by_label("Your prompt").fill(prompt)
    page.get_by_label("Model", exact=True).select_option(model)
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()


def pictures(folder: Path) -> None:
    """Write all pictures into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with stage() as address, chromium() as browser:
        for scheme in SCHEMES:
            for width in WIDTHS:
                size: ViewportSize = {"width": width, "height": 900 if width > 400 else 640}
                _play(
                    browser.new_page(viewport=size, color_scheme=scheme, base_url=address), folder, f"{scheme}-{width}"
                )
                for tag in NAMES:
                    page = browser.new_page(viewport=size, color_scheme=scheme, base_url=address, locale=tag)
                    _look(page, folder, f"{tag}-{scheme}-{width}")


def _play(page: Page, folder: Path, suffix: str) -> None:
    def shoot(name: str) -> None:
        page.screenshot(path=folder / f"{name}-{suffix}.png", full_page=True)

    page.goto("/")
    shoot("1-idle")
    ask(page, "What is the difference between energy and power? Explain slowly.")
    expect(page.get_by_role("status")).to_contain_text("2 prompts are before yours")
    shoot("2-queued")
    for gate in ("settle", "answering"):
        advance(page)
        expect(page.get_by_role("status")).to_contain_text(gate, ignore_case=True)
    expect(page.locator("#curve")).to_be_visible()
    expect(page.locator("#pace")).to_contain_text("tokens/s")
    shoot("3-streaming")
    advance(page)
    advance(page)
    expect(page.get_by_role("article")).to_be_visible()
    page.get_by_text("How it is computed").click()
    page.get_by_text("Meters and uncertainty").click()
    shoot("4-receipt")
    page.close()


def _look(page: Page, folder: Path, suffix: str) -> None:
    """Every page of the list as it opens."""
    for listed in PAGES:
        page.goto(listed.path)
        page.screenshot(path=folder / f"{listed.name}-{suffix}.png", full_page=True)
    page.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    pictures(parser.parse_args().folder)
