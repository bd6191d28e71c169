"""The pages driven in a browser against the real service with the real small model, as people use them."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from joulebox.node.models import Registry
from joulebox.server.access import TOKEN
from joulebox.settings import LOCAL_TOKEN
from screenshots import chromium
from screenshots import stage as staged
from stage import MODEL, SYSTEM, Service

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed here"),
]
TWIN = "twin"
LONG = "Write a long story about a river and a mill, with many details."
ANSWER_WAIT_MS = 120_000
READY_MAX_MS = 1_000
SLOW_CPU = 4
SLOW_LINE = {"offline": False, "latency": 150, "downloadThroughput": 1.6e6 / 8, "uploadThroughput": 750e3 / 8}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[Service]:
    """A server and a node that offers the same small model under two names."""
    folder = tmp_path_factory.mktemp("drive")
    Registry(folder).add(smollm2, TWIN, default_system=SYSTEM)
    running = Service(folder, smollm2, {"JOULEBOX_METERS": "model:", "JOULEBOX_ZONE": "DE"})
    yield running
    running.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser: Browser, service: Service) -> Iterator[Page]:
    context = browser.new_context(base_url=service.url)
    context.set_default_timeout(20_000)
    yield context.new_page()
    context.close()


def _ask(page: Page, prompt: str, max_tokens: int = 24) -> None:
    page.goto("/")
    page.get_by_label("Your prompt").fill(prompt)
    page.get_by_label("Model", exact=True).select_option(MODEL)
    page.get_by_text("Options").click()
    page.get_by_label("Max tokens").fill(str(max_tokens))
    page.get_by_role("button", name="Ask").click()


def _receipt(page: Page) -> str:
    """Wait for the receipt; its address."""
    expect(page.get_by_role("article")).to_be_visible(timeout=ANSWER_WAIT_MS)
    address = page.get_by_role("link", name="Permalink").get_attribute("href")
    assert address is not None
    return address


def test_a_reload_in_the_middle_loses_nothing(page: Page, service: Service) -> None:
    """An answer that streams goes on after a reload, whole, with its power and its joules; then comes the receipt."""
    _ask(page, LONG, 160)
    log = page.get_by_role("log")
    expect(log).to_have_text(re.compile(r"\w+ \w+ \w+"), timeout=ANSWER_WAIT_MS)
    page.reload()
    expect(log).to_have_text(re.compile(r"\w+ \w+ \w+"))
    expect(page.locator("#joules")).to_have_text(re.compile(r"^about [\d.]+ J so far$"))
    _receipt(page)
    answer = service.client.status(page.url.rpartition("/")[2])["answer"]
    assert re.findall(r"\w+", log.inner_text()) == re.findall(r"\w+", answer)
    expect(page.get_by_role("status")).to_have_text(re.compile(r"^Done\. This answer took .* J, modelled\."))


def test_stop_stops(page: Page) -> None:
    """The button ends an answer on its way, and the page says so."""
    _ask(page, LONG, 400)
    expect(page.get_by_role("log")).to_have_text(re.compile(r"\w+ \w+"), timeout=ANSWER_WAIT_MS)
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("status")).to_have_text("Stopped, as asked.")
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()


def test_a_conversation_tells_its_total(page: Page) -> None:
    """The second turn stands under the first, with what both took and what reading again took of it."""
    _ask(page, "What is a mill?")
    _receipt(page)
    page.get_by_label("Ask on").fill("And what is a river?")
    page.get_by_role("button", name="Ask", exact=True).click()
    _receipt(page)
    expect(page.locator("blockquote")).to_have_text(["What is a mill?", "And what is a river?"])
    expect(page.locator(".talk")).to_have_text(
        re.compile(r"This conversation so far: .* J, modelled in 2 answers\. .*earlier turns")
    )


def test_a_receipt_is_shared_zoomed_and_deleted(page: Page, browser: Browser, service: Service) -> None:
    """Its owner shares it and takes it back, looks closer at a phase, and deletes the texts for good."""
    _ask(page, "Name a colour.")
    address = _receipt(page)
    page.goto(address)
    expect(page.locator(".trace svg")).to_have_attribute("aria-label", re.compile("Power over time.*Writing"))
    page.get_by_role("link", name="Writing").click()
    expect(page).to_have_url(re.compile(r"\?t0=.*&t1=.*#trace$"))
    page.get_by_role("link", name="show all of it").click()
    page.get_by_role("button", name="Share the texts too").click()
    page.get_by_role("button", name="Keep the texts to myself").click()
    assert page.request.get(f"{address}/badge.svg").text().startswith("<svg")
    page.get_by_text("Delete the texts").click()
    page.get_by_role("button", name="Delete prompt and answer").click()
    expect(page.get_by_text("The texts of prompt and answer were removed.")).to_be_visible()
    expect(page.get_by_text("Name a colour.")).to_have_count(0)


def test_two_models_are_compared(page: Page) -> None:
    """Both answers appear together without names; the first vote shows what they took, the second is counted."""
    page.goto("/compare")
    page.get_by_label("Your prompt").fill("What is a bridge?")
    page.get_by_label("Max tokens").fill("16")
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("heading", name="Which answer is better?")).to_be_visible(timeout=ANSWER_WAIT_MS)
    assert not re.search(f"{MODEL}|{TWIN}", page.locator("main").inner_text())
    page.get_by_role("button", name="A", exact=True).click()
    expect(page.get_by_text("your choice")).to_have_count(1)
    assert {MODEL, TWIN} <= set(page.locator("main").inner_text().split())
    page.get_by_role("button", name="Not sure").click()
    page.get_by_role("link", name="What people preferred so far").click()
    expect(page.get_by_role("row")).to_have_count(2)


def test_without_scripts_it_works_too(browser: Browser, service: Service) -> None:
    """Form, page that refreshes itself, answer set, receipt: no script is needed; in German, if that is read."""
    context = browser.new_context(base_url=service.url, java_script_enabled=False, locale="de")
    page = context.new_page()
    page.goto("/")
    page.get_by_label("Ihre Frage").fill("What is a wheel?")
    page.get_by_role("button", name="Fragen").click()
    expect(page.get_by_role("article")).to_be_visible(timeout=ANSWER_WAIT_MS)
    expect(page.get_by_role("status")).to_have_text(re.compile(r"^Fertig\. Diese Antwort brauchte [\d,]+"))
    assert page.locator("#answer.set p").count() >= 1
    context.close()


def test_who_runs_it_makes_a_key_and_revokes_it(browser: Browser, service: Service) -> None:
    """Without scripts: the page of keys leads to signing in, and back; a key is made, shown once, and revoked."""
    context = browser.new_context(base_url=service.url, java_script_enabled=False)
    context.set_default_timeout(20_000)
    page = context.new_page()
    page.goto("/admin/keys")
    page.get_by_role("link", name="Sign in with a key").click()
    page.get_by_label("Key").fill((service.folder / LOCAL_TOKEN).read_text().strip())
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("Whose it is, or what for").fill("Anna")
    page.get_by_role("button", name="Make the key").click()
    expect(page.get_by_role("status").locator("code")).to_have_text(TOKEN)
    page.goto("/admin/keys")
    expect(page.get_by_text(TOKEN)).to_have_count(0)
    page.get_by_role("row", name="Anna").locator("summary").click()
    page.get_by_role("button", name="Revoke Anna").click()
    expect(page.get_by_text("1 key that opens nothing any more")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    page.goto("/admin/keys")
    expect(page.get_by_role("link", name="Sign in with a key")).to_be_visible()
    context.close()


def test_a_slow_phone_can_use_it_within_a_second(page: Page) -> None:
    """At a quarter of the processor and 1.6 Mbit/s the ask page is ready within a second, the best of five visits."""
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Network.setCacheDisabled", {"cacheDisabled": True})
    session.send("Network.emulateNetworkConditions", SLOW_LINE)
    session.send("Emulation.setCPUThrottlingRate", {"rate": SLOW_CPU})
    took_ms = []
    for _ in range(5):
        page.goto("/")
        took_ms.append(page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"))
    print(f"ready after {min(took_ms):.0f} ms, the best of {len(took_ms)} visits")
    assert min(took_ms) <= READY_MAX_MS, took_ms


def test_other_sites_cannot_press_buttons_over_plain_http(browser: Browser) -> None:
    """In a local network browsers do not say which site a form is from: there its origin is looked at, and our own
    forms work."""
    with staged() as at:
        port = at.rpartition(":")[2]
        context = browser.new_context(bypass_csp=True)
        page = context.new_page()
        page.goto(f"http://elsewhere.test:{port}/")
        page.evaluate(
            """(action) => {
                const form = document.createElement("form");
                Object.assign(form, { method: "post", action, innerHTML: '<input name=prompt value=a>' });
                document.body.append(form);
                form.submit();
            }""",
            f"http://joulebox.test:{port}/ask",
        )
        expect(page.get_by_text("This was sent by another site.")).to_be_visible()
        page.goto(f"http://joulebox.test:{port}/")
        page.get_by_label("Your prompt").fill("What is energy?")
        page.get_by_role("button", name="Ask").click()
        expect(page.get_by_role("button", name="Stop")).to_be_visible()
        context.close()
