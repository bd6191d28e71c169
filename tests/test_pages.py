"""The pages: figures as people read them, nothing trusted, small, and usable in a real browser."""

import gzip
import json
import math
import random
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

import page_stage as stage
from joulebox import console, wording
from joulebox.model import CalibrationRef, ModelInfo
from joulebox.server import pages
from page_call import call
from page_list import ASK_MAX_BYTES, PAGES, REQUESTS_MAX, Listed
from screenshots import SCHEMES, advance, ask, chromium
from screenshots import stage as staged

HOSTILE = "<script>alert('x')</script>\"\u202e&"
DATA = re.compile(r'<article.*?</article>|<section class="data.*?</section>|<table.*?</table>', re.DOTALL)
"""What a page is about, which a budget for pages does not bound."""
Json = dict[str, Any]


# --- figures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "u", "shown"),
    [
        (1633.09, 32.11, "1633 ± 32 J"),
        (1633.09, 321.0, "1630 ± 320 J"),
        (86.4321, 3.1442, "86.4 ± 3.1 J"),
        (0.02410, 0.0009, "24.10 ± 0.90 mJ"),
        (99.96, 0.996, "100.0 ± 1.0 J"),
        (12_345_678.0, 120_000.0, "12.35 ± 0.12 MJ"),
        (0.000_24, 0.000_01, "240 ± 10 µJ"),
        (0.3, 2.1, "0.3 ± 2.1 J"),
        (-1.25, 2.1, "−1.3 ± 2.1 J"),
        (5.0, None, "5.00 J"),
        (4.2e-7, None, "420 nJ"),
        (0.0, None, "0.00 J"),
        (None, 1.0, "not measured"),
        (math.nan, 1.0, "not measured"),
    ],
)
def test_the_uncertainty_decides_the_digits(value: float | None, u: float | None, shown: str) -> None:
    """A figure carries as many digits as its uncertainty justifies, and an unknown one is never 0."""
    assert wording.quantity(value, u, "J") == shown


def test_a_small_figure_without_uncertainty_is_never_zero() -> None:
    """Whatever its size, a figure above zero is shown above zero."""
    for exponent in range(-12, 13):
        for text in (wording.quantity(3.0 * 10**exponent, None, "g"), wording.plain(3.0 * 10**exponent, "s")):
            assert re.search("[1-9]", text), text


@pytest.mark.parametrize(
    ("value", "u", "shown"),
    [
        (104.14, 9.64, "Between 94.5 and 113.7 J, 95 % sure."),
        (290.0, 196.0, "Between 90 and 490 J, 95 % sure."),
        (0.3, 2.1, "Between 0 and 2.4 J, 95 % sure."),
        (-5.0, 2.0, "Between 0 and 0 J, 95 % sure."),
        (0.0241, 0.0009, "Between 23.20 and 25.00 mJ, 95 % sure."),
        (5.0, None, None),
    ],
)
def test_an_interval_can_be_read_without_knowing_the_sign(value: float, u: float | None, shown: str | None) -> None:
    """The ends are those of the figure as it is shown, and no energy is below nothing."""
    assert wording.between(value, u, "J") == shown


def test_a_range_need_not_be_symmetric() -> None:
    """A figure and its range share unit and digits."""
    assert wording.ranged(0.0213, 0.0120, 0.0324, "g") == ("21 mg", "12 to 32 mg")
    assert wording.ranged(0.013, 0.013, 0.013, "g") == ("13.0 mg", None)
    assert wording.ranged(None, None, None, "g") == ("not measured", None)


# --- pages as text ----------------------------------------------------------------------------------------------------


class Shown(HTMLParser):
    """What a page says: its text, tags and the addresses it names."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"href", "src", "action", "data"}]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        """All words, with single spaces."""
        return " ".join(" ".join(self.words).split())


def _receipt(kind: str, **changes: Any) -> Json:
    return stage.as_json(replace(stage.RECEIPTS[kind](), **changes))


def _line(html: str, label: str) -> str:
    """The value beside a label of the receipt."""
    found = re.search(rf"<dt>{label}.*?</dt><dd>(.*?)</dd>", html, re.DOTALL)
    assert found, label
    return Shown(found[1]).text


def test_the_receipt_says_every_figure_with_its_uncertainty() -> None:
    """CPU and memory stand on lines of their own; what no meter covers is named; phases carry seconds and joules."""
    html = pages.render_receipt(_receipt("powercap"))
    text = Shown(html).text
    assert _line(html, "CPU").startswith("80.1 ± 3.0 J")
    assert _line(html, r"Memory \(DRAM\)").startswith("6.32 ± 0.41 J")
    assert _line(html, "Everything").startswith("1633 ± 32 J")
    assert _line(html, "Decode").startswith("73.4 ± 2.8 J")
    assert "Writing the answer · 1.15 s" in text
    assert "Not covered: Machine at the wall; GPU 0." in text
    assert (_line(html, "Total"), _line(html, "Grid DE")) == ("21 mg", "342 g/kWh")
    assert "12 to 32 mg" in text
    assert "171 to 513 · yearly mean · 2025 · average · lifecycle" in text
    assert "Training the model is not included. One prompt ran at a time; shared servers use less per token." in text
    assert _line(html, "Temperature") == "41.2 °C → 55.0 °C"
    assert _line(html, "Weights") == "Q4_1, b179c9523d0e"
    assert _line(html, "Speed") == "82.4 tokens/s"


RANGES = {"j": "6840 and 7560 J", "wh": "1.90 and 2.10 Wh", "w": "684 and 756 W"}


def test_the_three_units_are_the_same_energy() -> None:
    """Joules over 3600 are watt hours; over the seconds of the answer they are the mean power, which is no energy."""
    told = pages.in_units({"j": 7200.0, "u": 360.0}, 10.0)
    sure = {name: f"Between {ends}, 95 % sure." for name, ends in RANGES.items()}
    assert told == {"j": "7200 ± 360 J", "wh": "2.00 ± 0.10 Wh", "w": "720 ± 36 W", "sure": sure}
    html = pages.render_receipt(_receipt("powercap"))
    assert '<span class="in-e">Energy of this answer</span><span class="in-w">Mean power during this answer' in html
    assert pages.in_units({"j": 7200.0, "u": 360.0}, None)["w"] == "not measured"


def test_modelled_stands_next_to_every_energy_figure() -> None:
    """Where nothing was metered, no figure in joules can be read without the word."""
    html = pages.render_receipt(_receipt("modelled"))
    figures_shown = re.findall(r'<span class="v"><data[^>]*>[^<]*±.*?</span></span>(.{0,60})', html, re.DOTALL)
    assert len(figures_shown) == 9
    assert all("modelled" in after for after in figures_shown)
    for label in ("Idle power", "Mean power", "Peak power"):
        assert _line(html, label).endswith("W modelled")
    assert "Grade D (A is best): modelled, not measured. Between 27 and 95 J, 95 % sure." in Shown(html).text
    assert "simulated" not in Shown(html).text.lower()


def test_simulated_is_marked_and_not_called_modelled() -> None:
    """A receipt of the rig says so at its head and beside its figures."""
    text = Shown(pages.render_receipt(_receipt("powercap"))).text
    assert "Simulated: the figures come from a simulated machine" in text
    assert text.count("86.4 ± 3.1 J 24.01 ± 0.87 mWh 63.3 ± 2.3 W simulated") == 2
    assert "modelled" not in text


def test_what_was_not_measured_is_never_zero() -> None:
    """With no energy at all, every energy, power and operational gram reads `not measured`."""
    html = pages.render_receipt(_receipt("nothing"))
    for label in ("Answer", "Above idle", "Tail", "Everything", "Load", "Prefill", "Decode", "Mean power", "Total"):
        assert "not measured" in _line(html, label)
        assert not re.search(r"\d", _line(html, label)), label
    assert _line(html, "Making the machine") == "13.0 mg"
    assert _line(html, "Temperature") == "no sensor"
    assert not re.search(r"(?<![\d.])0(\.0+)? (J|Wh|W|g|mg)\b", Shown(html).text)


CALIBRATIONS: list[tuple[CalibrationRef | None, str]] = [
    (CalibrationRef(id="c", at="2026-11-23T08:00:00+00:00"), "calibrated 23 November 2026"),
    (
        CalibrationRef(id="c", at="2026-03-01T08:00:00+00:00", stale="it is older than 90 days"),
        "calibrated 1 March 2026, but it is older than 90 days",
    ),
    (CalibrationRef(id="c", at="no date"), "calibrated no date"),
    (None, "not calibrated"),
]


@pytest.mark.parametrize(("calibration", "words"), CALIBRATIONS)
def test_the_calibration_is_told(calibration: CalibrationRef | None, words: str) -> None:
    """Page and terminal say when the meters were calibrated and whether that holds; of a model they say nothing."""
    receipt, out = _receipt("powercap", calibration=calibration), StringIO()
    assert _line(pages.render_receipt(receipt), "Tick and lag") == words
    console.show_receipt(receipt, out)
    told = " ".join(" ".join(line.strip("│ ") for line in out.getvalue().splitlines()).split())
    assert words.replace(",", "") in told
    assert wording.calibration_words(_receipt("modelled", calibration=calibration)) is None


@pytest.mark.parametrize("verdict", ["valid", "suspect", "invalid"])
def test_the_verdict_comes_in_words_with_its_reasons(verdict: Literal["valid", "suspect", "invalid"]) -> None:
    """The verdict is a sentence, and each reason's own sentence follows."""
    receipt = _receipt("modelled", verdict=verdict)
    text = Shown(pages.render_receipt(receipt)).text
    assert wording.VERDICTS[verdict] in text
    assert all(reason["sentence"] in text for reason in receipt["reasons"])


def test_hostile_text_stays_text() -> None:
    """Scripts, quotes and direction marks in prompts, answers, names and sentences never become markup."""
    status = {"id": HOSTILE, "state": "completed", "phase": None, "answer": HOSTILE, "error": None, "model": HOSTILE}
    receipt = _receipt("modelled", model=ModelInfo(name=HOSTILE, digest=HOSTILE, quantization=HOSTILE), node=HOSTILE)
    receipt["reasons"][0]["sentence"] = HOSTILE
    problem = {"title": HOSTILE, "detail": HOSTILE, "status": 400, "code": HOSTILE}
    models = [{"id": HOSTILE, "quantization": HOSTILE, "size_bytes": 1}]
    nodes = [{"name": HOSTILE, "zone": HOSTILE}]
    for html in (
        pages.render_ask(models, nodes, form={"prompt": HOSTILE, "system": HOSTILE}, problem=problem),
        pages.render_prompt(status, receipt),
        pages.render_receipt(receipt),
        pages.render_receipt(receipt, standalone=True),
        pages.render_problem(problem),
    ):
        assert "<script>" not in html
        assert "alert(&#39;x&#39;)" in html
        assert Shown(html).tags.count("script") <= 2


def test_the_question_stands_above_its_answer() -> None:
    """After a reload the prompt is still there; once its texts are removed, that is said."""
    status = {"id": "p1", "state": "completed", "phase": None, "answer": "Blue.", "error": None, "prompt": "Why?"}
    assert "Why?</blockquote>" in pages.render_prompt(status, None)
    removed = Shown(pages.render_prompt({**status, "prompt": None, "answer": None}, None)).text
    assert "The texts of prompt and answer were removed." in removed


def test_an_answer_that_was_cut_says_so() -> None:
    """An answer that ran into the token limit is not told as whole, and a modelled figure not as measured."""
    status = {"id": "p1", "state": "completed", "phase": None, "answer": "Blue.", "error": None}
    text = Shown(pages.render_prompt(status, _receipt("modelled", finish_reason="length"))).text
    assert "Done. This answer took 61 ± 34 J, modelled. It was cut at the token limit." in text


# --- the receipt in a terminal ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(stage.RECEIPTS))
@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_terminal_receipt_fits_and_is_whole(kind: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every width nothing is cut, nothing is wider than the terminal, and no escape code is in a file."""
    monkeypatch.setenv("COLUMNS", str(width))
    receipt, out = _receipt(kind), StringIO()
    console.show_receipt(receipt, out)
    lines = out.getvalue().splitlines()
    assert {len(line) for line in lines} == {min(width, console.WIDTH_MAX)}
    assert not re.search("\x1b|…", out.getvalue())
    told = " ".join(" ".join(line.strip("│ ") for line in lines).split())
    assert wording.VERDICTS[receipt["verdict"]] in told
    assert (wording.SIMULATED in told) == receipt["simulated"]
    figures = re.findall(r"[\d.]+ ± [\d.]+ J(?! above)(.{0,10})", told)
    assert len(figures) == {"modelled": 8, "powercap": 10, "nothing": 0}[kind]
    assert all(after.lstrip().startswith(wording.marks(receipt)) for after in figures)


def test_a_progress_line_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in place is cut to the terminal, since a line that wraps could not be replaced."""
    monkeypatch.setenv("COLUMNS", "20")
    stream = StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    console.Progress(stream).say("letting the machine settle, so that it is quiet")
    assert stream.getvalue() == "\r\x1b[2Kletting the machine"


def test_the_answer_keeps_its_white_space() -> None:
    """Line breaks and leading blanks of an answer on its way reach the page as they are."""
    status = {
        "id": "p1",
        "state": "running",
        "phase": "answering",
        "answer": "\n  def f():\n\n      return 1\n",
        "error": None,
    }
    assert ">\n  def f():\n\n      return 1\n</div>" in pages.render_prompt(status, None)


def test_nothing_is_loaded_from_elsewhere() -> None:
    """Every address on every page is of this server or inline; a standalone receipt needs no server at all."""
    receipt = _receipt("powercap")
    for html in (
        pages.render_ask(stage.MODELS, stage.NODES),
        pages.render_receipt(receipt),
        pages.render_problem(PROBLEM),
    ):
        assert all(address.startswith(("/", "#", "data:")) for address in Shown(html).addresses)
        assert not re.search(r"<style|\son\w+=|\sstyle=", html)
    alone = pages.render_receipt(receipt, standalone=True)
    assert all(address.startswith(("#", "data:")) for address in Shown(alone).addresses)
    assert "script" not in Shown(alone).tags
    assert not re.search(r"url\(|@import|//(?!www\.w3\.org)", alone)


PROBLEM = {"title": "There is no such thing", "detail": "There is no prompt x.", "status": 404, "code": "not_found"}


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        ({"state": "available", "phase": "queued", "position": 2}, "2 prompts before yours."),
        ({"state": "available", "phase": "queued", "position": 0}, "Yours is next."),
        ({"state": "available", "position": 0, "reason": "no node is connected"}, "No node is connected."),
        ({"state": "running", "phase": "loading", "node": "atelier"}, "Loading the model on atelier."),
        ({"state": "running", "phase": None}, "Waiting for a node."),
        ({"state": "cancelled"}, "Stopped, as asked."),
    ],
)
def test_where_a_prompt_stands_is_one_sentence(status: Json, sentence: str) -> None:
    """Queue, settling, loading and endings are told in plain words."""
    assert pages.sentence(status) == sentence


def test_a_page_that_is_not_final_asks_again_without_javascript() -> None:
    """Only while a prompt is under way does the page reload itself, and only where scripts do not run."""
    status = {"id": "p1", "state": "running", "phase": "answering", "answer": None, "error": None}
    refresh = '<noscript><meta http-equiv="refresh"'
    assert refresh in pages.render_prompt(status, None)
    assert refresh not in pages.render_prompt({**status, "state": "completed"}, _receipt("modelled"))


def test_the_picker_says_how_sure_it_is() -> None:
    """A model with one answer is offered with its interval, one with several with their range, each with grade and
    whether it was modelled or simulated; without any no figure stands there."""
    html = pages.render_ask(stage.MODELS, stage.NODES)
    offered = re.findall(r"<option value=\"(?:modelled|powercap|nothing)\".*?</option>", html)
    options = [Shown(one).text for one in offered]
    assert options == [
        "modelled · Q4_1 · 98 MB · 13.4 ± 7.2 J, modelled, grade D",
        "powercap · Q4_K_M · 1.1 GB · 71.2 J to 103 J, simulated, grade C",
        "nothing · Q8_0 · 491 MB",
    ]
    assert "Expect about 13.4 ± 7.2 J, modelled (its only answer so far; grade D)." in html


def test_empty_states_say_what_to_do() -> None:
    """Without a model or a node, the page names the command that helps instead of showing a form that cannot work."""
    alone, bare = pages.render_ask([], []), pages.render_ask([], stage.NODES)
    assert "joulebox up" in alone
    assert "joulebox models add" in bare
    assert '<form id="ask"' not in alone + bare


# --- pages over HTTP, without JavaScript ------------------------------------------------------------------------------


@pytest.mark.parametrize("listed", PAGES, ids=lambda listed: listed.name)
@pytest.mark.parametrize("language", ["en", "de"])
def test_a_first_visit_is_small(listed: Listed, language: str) -> None:
    """Page, style and script together keep within their budget (gzip) and four requests, and the footer says so."""
    app = stage.application()
    _, headers, body = call(app, "GET", listed.path, accept_encoding="gzip", accept_language=language)
    assert headers["content-encoding"] == "gzip"
    parts, html = [body], gzip.decompress(body).decode()
    for address in re.findall(r'"(/static/[^"]+)"', html):
        status, headers, body = call(app, "GET", address.replace("&amp;", "&"), accept_encoding="gzip")
        assert (status, headers["cache-control"]) == (200, "public, max-age=31536000, immutable")
        parts.append(body)
    assert len(parts) <= REQUESTS_MAX
    size = sum(map(len, parts))
    bare = gzip.compress(DATA.sub("", html).encode(), 9)
    assert size - len(parts[0]) + len(bare) <= listed.max_bytes
    said = re.search(r"([\d.,]+) kB (?:for a first visit, about|beim ersten Besuch, etwa) ([\d.,]+) J", html)
    assert said
    kilobytes, joules = (float(figure.replace(",", ".")) for figure in said.groups())
    assert kilobytes == pytest.approx(size / 1000, rel=0.01)
    assert joules == pytest.approx(kilobytes * 0.194 * 3.6, rel=0.05)


@pytest.mark.parametrize("language", ["en", "de"])
def test_the_page_of_a_prompt_is_small(language: str) -> None:
    """Waiting, streaming and with its receipt (which is data), it keeps within the budget of asking."""
    app = stage.application()
    call(app, "POST", "/ask", b"model=powercap&prompt=Why")
    waiting = call(app, "GET", "/prompts/p1", accept_language=language)[2].decode()
    status = {"id": "p1", "state": "completed", "phase": None, "answer": stage.ANSWER, "error": None}
    done = pages.render_prompt(status, _receipt("powercap"), stage.NODES, models=stage.MODELS)
    for html in (waiting, done):
        size = len(gzip.compress(DATA.sub("", html).encode(), 9))
        for address in re.findall(r'"(/static/[^"]+)"', html):
            size += len(call(app, "GET", address.replace("&amp;", "&"), accept_encoding="gzip")[2])
        assert size <= ASK_MAX_BYTES


def test_pages_forbid_everything_they_do_not_need() -> None:
    """The policy allows this server's own style and script only; no page may be framed or kept."""
    _, headers, _ = call(stage.application(), "GET", "/")
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")


def test_an_outdated_static_address_is_not_kept() -> None:
    """Only the address with today's content hash may stay in a cache; other names are not found."""
    app = stage.application()
    assert call(app, "GET", "/static/app.css?v=old")[1]["cache-control"] == "no-cache"
    assert call(app, "GET", "/static/..%2fpages.py")[0] == 404


def test_asking_works_without_javascript() -> None:
    """The form leads to the prompt's own page with the fields that were sent."""
    app = stage.application()
    form = b"model=powercap&prompt=Why%3F%0D%0ANow&system=&max_tokens=64&temperature=0.5&seed="
    status, headers, _ = call(app, "POST", "/ask", form)
    assert (status, headers["location"]) == (303, "/prompts/p1")
    sent = json.loads(call(app, "GET", "/stage/forms/p1")[2])
    assert sent == {"model": "powercap", "prompt": "Why?\nNow", "max_tokens": 64, "temperature": 0.5}
    status, _, body = call(app, "GET", "/prompts/p1")
    assert (status, "2 prompts are before yours." in body.decode()) == (200, True)
    assert call(app, "POST", "/prompts/p1/stop")[1]["location"] == "/prompts/p1"
    assert "Stopped, as asked." in call(app, "GET", "/prompts/p1")[2].decode()


@pytest.mark.parametrize(
    ("form", "status", "sentence"),
    [
        (b"model=powercap&prompt=+&seed=7", 422, "The prompt is empty. Type a question and ask again."),
        (b"model=powercap&prompt=a&seed=x7", 422, "seed must be a number; x7 is none."),
        (b"prompt=%ff", 422, "The form is not valid UTF-8. Send it from the page itself."),
        (b"prompt=" + b"a" * pages.FORM_MAX_BYTES, 413, "Shorten the prompt."),
    ],
)
def test_a_refused_form_comes_back_with_one_sentence(form: bytes, status: int, sentence: str) -> None:
    """What cannot be asked is refused with its status, the reason, and what was typed."""
    answered, _, body = call(stage.application(), "POST", "/ask", form)
    assert answered == status
    assert sentence in Shown(body.decode()).text
    if b"seed=x7" in form:
        assert 'value="x7"' in body.decode()


def test_other_sites_cannot_press_the_buttons() -> None:
    """A form sent from another site is refused before anything is asked."""
    status, _, body = call(stage.application(), "POST", "/ask", b"model=powercap&prompt=a", sec_fetch_site="cross-site")
    assert (status, "sent by another site" in body.decode()) == (403, True)


def test_what_does_not_exist_is_a_page_that_says_so() -> None:
    """Unknown prompts and receipts answer 404 with a sentence."""
    for path, sentence in (("/prompts/x", "There is no prompt x."), ("/receipts/x", "There is no receipt x.")):
        status, _, body = call(stage.application(), "GET", path)
        assert (status, sentence in body.decode()) == (404, True)


# --- pages in a browser -----------------------------------------------------------------------------------------------

needs_chromium = pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed here")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with staged() as at:
        yield at


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def context(browser: Browser, address: str) -> Iterator[BrowserContext]:
    opened = browser.new_context(base_url=address, viewport={"width": 1280, "height": 900})
    opened.set_default_timeout(5_000)
    yield opened
    opened.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page that may not complain: no console errors, no exceptions, no request elsewhere."""
    opened, complaints = context.new_page(), []
    opened.on(
        "console", lambda message: complaints.append(message.text) if message.type in {"error", "warning"} else None
    )
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("requestfailed", lambda request: complaints.append(f"{request.url}: {request.failure}"))
    yield opened
    assert [text for text in complaints if "ERR_INCOMPLETE_CHUNKED" not in text and "ERR_ABORTED" not in text] == []


def _said(page: Page) -> str:
    """The answer as it stands on the page, set or not."""
    return page.get_by_role("log").inner_text().strip()


def _until_receipt(page: Page, gates: int = 4) -> None:
    for _ in range(gates):
        advance(page)
    expect(page.get_by_role("article")).to_be_visible()


@needs_chromium
def test_a_prompt_streams_and_leaves_its_receipt(page: Page) -> None:
    """Queue, settling, loading, answer as it comes, measuring, receipt: each state is told; a reload shows the end."""
    page.goto("/")
    ask(page, "What is energy?")
    state = page.get_by_role("status")
    expect(state).to_have_text(re.compile(r"^2 prompts are before yours, about (40|35) s\.$"))
    expect(page).to_have_url(re.compile(r"/prompts/p\d+$"))
    advance(page)
    expect(state).to_have_text("Letting the machine settle: cpu at 61.0 °C, waiting for 45.0 °C, about 20 s.")
    advance(page)
    expect(state).to_have_text("Answering.")
    expect(page.get_by_role("log")).to_contain_text("Energy is what it takes")
    expect(page.get_by_role("img", name=re.compile("^Power, cpu simulated, from 0 to .* W$"))).to_be_visible()
    expect(page.locator("#read")).to_have_attribute("d", re.compile(r"^M0\.0 .*L"))
    expect(page.locator("#gap")).to_be_hidden()
    advance(page)
    expect(state).to_have_text("The answer is complete. Measuring until the machine is calm again.")
    assert page.get_by_role("log").text_content() == stage.ANSWER + " "
    expect(page.locator("#joules")).to_have_text(re.compile(r"^about [\d.]+ J so far$"))
    advance(page)
    expect(state).to_have_text("Done. This answer took 86.4 ± 3.1 J, simulated.")
    expect(page.get_by_role("article", name="Receipt for one answer")).to_contain_text("80.1 ± 3.0 J")
    expect(page.get_by_role("log").locator("p")).to_have_count(2)
    expect(page.get_by_role("button", name="Ask")).to_be_enabled()
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    page.reload()
    expect(page.get_by_role("log")).to_contain_text("lit for ten seconds.")
    expect(page.get_by_role("article")).to_be_visible()


@needs_chromium
def test_a_reload_in_the_middle_takes_the_stream_up_again(page: Page) -> None:
    """The prompt's own page plays the stream from the start and goes on to the receipt."""
    page.goto("/")
    ask(page, "What is energy?")
    advance(page)
    advance(page)
    expect(page.get_by_role("log")).to_contain_text("Energy is what it takes")
    page.reload()
    expect(page.get_by_role("status")).to_have_text("Answering.")
    _until_receipt(page, 2)
    assert _said(page) == stage.ANSWER


@needs_chromium
def test_a_cut_connection_loses_and_doubles_nothing(page: Page) -> None:
    """The browser connects again by itself and the answer is whole."""
    page.goto("/")
    ask(page, "Explain, and cut the connection")
    _until_receipt(page)
    assert _said(page) == stage.ANSWER


@needs_chromium
def test_a_restart_voids_the_text_and_says_so(page: Page) -> None:
    """When a node is lost, its text goes, a note stays until the new answer is complete."""
    page.goto("/")
    ask(page, "Please restart")
    for _ in range(4):
        advance(page)
    expect(page.locator("#void")).to_have_text("The node stopped. The text shown so far is void; attempt 2 begins.")
    expect(page.get_by_role("log")).to_be_hidden()
    _until_receipt(page, 2)
    expect(page.locator("#void")).to_be_hidden()
    assert _said(page) == stage.ANSWER


@needs_chromium
def test_streamed_text_is_text(page: Page) -> None:
    """Markup in an answer is shown, not run, with its white space."""
    page.goto("/")
    ask(page, "Something hostile")
    for _ in range(3):
        advance(page)
    expect(page.get_by_role("log")).to_contain_text("&amp;")
    hostile = "<script>alert(1)</script>\n  <img src=x onerror=alert(1)> \u202eabc &amp;"
    assert page.get_by_role("log").text_content() == hostile
    assert page.locator("#answer *").count() == 0
    _until_receipt(page, 1)


@needs_chromium
def test_failures_and_stops_are_told(page: Page) -> None:
    """A failed prompt says why, a stopped one that it stopped, a refused one what to do, and one can ask again."""
    page.goto("/")
    ask(page, "This will fail")
    advance(page)
    advance(page)
    expect(page.get_by_role("status")).to_have_text("The engine stopped. Try a shorter prompt.")
    page.goto("/")
    ask(page, "What is energy?")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("status")).to_have_text("Stopped, as asked.")


@needs_chromium
def test_one_can_ask_on(page: Page) -> None:
    """Under the answer stands a form that goes on from it, and the new prompt begins without the old receipt."""
    page.goto("/")
    ask(page, "What is energy?")
    _until_receipt(page)
    first = page.url.rpartition("/")[2]
    page.get_by_label("Ask on").fill("What is power?")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    expect(page.get_by_role("heading", name="Your receipt")).to_be_visible()
    expect(page.get_by_role("article")).to_have_count(0)
    sent = page.request.get(f"/stage/forms/{page.url.rpartition('/')[2]}").json()
    assert (sent["prompt"], sent["follows"]) == ("What is power?", first)
    _until_receipt(page)


@needs_chromium
def test_a_refused_prompt_says_what_to_do(context: BrowserContext) -> None:
    """The server's sentence appears above the form, which keeps what was typed."""
    page = context.new_page()
    page.goto("/")
    page.get_by_label("Your prompt").fill("   ")
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("alert")).to_have_text("The prompt is empty. Type a question and ask again.")
    expect(page.get_by_role("button", name="Ask")).to_be_enabled()


@needs_chromium
def test_the_unit_switch_is_remembered(page: Page) -> None:
    """Watts are called mean power, never energy; the choice outlives the page."""
    page.goto("/receipts/r_01JD3M0Q8B")
    headline = page.locator(".headline")
    expect(headline).to_contain_text("Energy of this answer", use_inner_text=True)
    page.get_by_label("Joules").focus()
    page.keyboard.press("ArrowRight")
    expect(headline).to_contain_text("24.01 ± 0.87 mWh", use_inner_text=True)
    page.keyboard.press("ArrowRight")
    expect(headline).to_contain_text("63.3 ± 2.3 W", use_inner_text=True)
    expect(page.locator(".receipt h3").first).to_have_text("Mean power", use_inner_text=True)
    assert "Energy" not in headline.inner_text()
    page.goto("/receipts/r_01JD3K7ZX4")
    expect(page.locator(".headline")).to_contain_text("45 ± 25 W", use_inner_text=True)


@needs_chromium
def test_the_standalone_receipt_switches_without_script(browser: Browser) -> None:
    """One file without script or server shows the same receipt and switches units by style alone."""
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.set_content(pages.render_receipt(_receipt("powercap"), standalone=True))
    page.get_by_label("Watt hours").check(force=True)
    expect(page.locator(".headline")).to_contain_text("24.01 ± 0.87 mWh", use_inner_text=True)
    context.close()


@needs_chromium
def test_everybody_can_use_the_pages(page: Page) -> None:
    """No rule of axe is broken in either scheme, and nothing scrolls sideways at 320 pixels."""
    axe = Axe()
    page.set_viewport_size({"width": 320, "height": 640})
    page.goto("/")
    page.get_by_text("Options").click()
    _usable(page, axe)
    ask(page, "What is energy?")
    advance(page)
    advance(page)
    expect(page.locator("#curve")).to_be_visible()
    _usable(page, axe)
    _until_receipt(page, 2)
    page.get_by_text("How it is computed").click()
    page.get_by_text("Meters and uncertainty").click()
    _usable(page, axe)


@pytest.fixture(scope="module")
def narrow(browser: Browser, address: str) -> Iterator[Page]:
    """One page for all that are looked at alone: another process of the browser for each costs more than the look."""
    context = browser.new_context(base_url=address, viewport={"width": 320, "height": 640}, locale="de-DE")
    context.set_default_timeout(5_000)
    yield context.new_page()
    context.close()


@needs_chromium
@pytest.mark.parametrize("listed", [one for one in PAGES if one.axe], ids=lambda listed: listed.name)
def test_everybody_can_use_every_page(narrow: Page, listed: Listed) -> None:
    """No rule of axe is broken on any page in either scheme, and nothing scrolls sideways at 320 pixels, in German."""
    narrow.emulate_media(color_scheme=SCHEMES[0])
    narrow.goto(listed.path)
    for summary in narrow.locator("summary").all():
        summary.click()
    if (watts := narrow.locator("[name=unit][value=w]")).count():
        watts.check(force=True)
    _usable(narrow, Axe())


ALL_RULES = {"resultTypes": ["violations"]}
OF_COLOURS = ALL_RULES | {"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}}
"""The rules of axe that a scheme can break: all others look at what is the same in both."""


def _usable(page: Page, axe: Axe) -> None:
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        found = axe.run(page, options=ALL_RULES if scheme == SCHEMES[0] else OF_COLOURS)
        assert found.violations_count == 0, f"{scheme}: {found.generate_report()}"
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    small = page.evaluate(
        "[...document.querySelectorAll('button, .button, summary, select, .units label, .picks label, "
        "input:not([type=radio], [type=checkbox])')]"
        ".filter((e) => e.checkVisibility() && e.getBoundingClientRect().height < 44).map((e) => e.outerHTML)"
    )
    assert small == []


@needs_chromium
def test_the_browser_formats_figures_as_the_server_does(page: Page) -> None:
    """Some hundred figures, ties and edges included, read the same from Python and from JavaScript."""
    chance = random.Random(7)
    cases: list[list[float | None]] = [[2.5, 1.0], [0.125, 0.01], [1235.0, 120.0], [9995.0, 995.0], [-0.05, 1.0]]
    cases += [[0.0, None], [0.0, 0.5], [None, 1.0], [3.0, 0.0], [9999.96, None], [0.09996, None], [1e-10, None]]
    for _ in range(600):
        value = chance.choice((1, -1)) * 10 ** chance.uniform(-8, 9)
        cases.append([value, abs(value) * 10 ** chance.uniform(-4, 1) if chance.random() < 0.8 else None])
        cases.append([round(value, chance.randrange(6)), round(chance.uniform(0, 9), chance.randrange(4))])
    page.goto("/")
    shown = page.evaluate(
        """async (cases) => {
            const { quantity, plain } = await import("/static/app.js");
            return cases.map(([value, u]) => [quantity(value, u, "J"), plain(value, "s"), plain(value, "s", 2)]);
        }""",
        cases,
    )
    for (number, u), texts in zip(cases, shown, strict=True):
        expected = [wording.quantity(number, u, "J"), wording.plain(number, "s"), wording.plain(number, "s", 2)]
        assert texts == expected, (number, u)


@needs_chromium
def test_a_live_curve_is_cheap(page: Page) -> None:
    """A redraw of 600 points takes at most a millisecond of script, style and layout, in the quickest of its rounds."""
    page.goto("/")
    ask(page, "What is energy?")
    redraw = """async () => {
        const { draw } = await import("/static/app.js?again");
        const points = Array.from({ length: 600 }, (_, n) => [n / 10 + 2, 40 + 20 * Math.sin(n / 9) + n % 7]);
        document.getElementById("live").hidden = false;
        const each = [];
        for (let turn = 0; turn < 60; turn += 1) {
            points[turn][1] += 1;
            const begun = performance.now();
            draw(points, 3);
            document.getElementById("curve").getBoundingClientRect();
            each.push(performance.now() - begun);
        }
        return Math.min(...each.slice(20));
    }"""
    assert any(page.evaluate(redraw) <= 1.0 for _ in range(8))
    expect(page.locator("#gap")).to_be_visible()  # the first reading came after two seconds


def _serving(html: str) -> Callable[[Route], None]:
    return lambda route: route.fulfill(body=html, content_type="text/html; charset=utf-8")


@needs_chromium
def test_a_hostile_answer_is_harmless_in_a_browser(page: Page) -> None:
    """Scripts, addresses, a direction override and a line of a megabyte: nothing runs, nothing is fetched, nothing
    leaves its box."""
    text = "<script>document.title='x'</script> [a](javascript:document.title='y') ![p](https://elsewhere.test/p) "
    status = {"id": "p1", "state": "completed", "phase": None, "error": None, "answer": f"{text}\u202eabc"}
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for answer in (status["answer"], "w" * 1_000_000, "\u05d0" * 5_000 + "\u202e"):
        page.goto("/compare")
        html = pages.render_prompt({**status, "answer": answer}, None)
        page.route("**/prompts/hostile", _serving(html))
        page.set_viewport_size({"width": 320, "height": 640})
        page.goto("/prompts/hostile")
        assert page.title() == "Answer · Joulebox"
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        assert page.locator("#answer a").count() == (1 if "elsewhere" in str(answer) else 0)
        assert page.evaluate("getComputedStyle(document.getElementById('answer')).unicodeBidi") == "isolate"
        page.unroute("**/prompts/hostile")
    assert not [url for url in asked if "elsewhere" in url]
