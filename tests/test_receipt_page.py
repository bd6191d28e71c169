"""A receipt's own page: the power of the run, what made it, who may read it, and how to do it again."""

import re
import shlex
from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.main import get_command

import page_stage as stage
from joulebox.accounting.figures import reckon
from joulebox.cli import app as command_line
from joulebox.server import pages
from joulebox.server.pages.badge import badge
from joulebox.server.pages.frame import View
from joulebox.server.pages.receipts import Beside, drawn
from joulebox.server.tongue import tongue
from joulebox.server.trace_chart import HIGH, WIDE, TraceChart, chart_of
from joulebox.wording import ENGLISH
from page_call import call
from traces import channel, series, trace, work

RECEIPT = "/receipts/r_01JD3M0Q8B"
DECODE = (0.2, 1.37)


def _chart(t0_s: float | None = None, t1_s: float | None = None) -> TraceChart:
    found = chart_of(stage.TRACE, t0_s, t1_s)
    assert found is not None
    return found


def _area_j(path: str, chart: TraceChart) -> float:
    """The energy under a band's path, from its own numbers."""
    x = float(path[1:].split(maxsplit=1)[0])
    joules, y = 0.0, HIGH
    for kind, number in re.findall(r"([VH])(-?[\d.e-]+)", path):
        if kind == "V":
            y = float(number)
        else:
            width_s = (float(number) - x) / WIDE * (chart.end_s - chart.start_s)
            joules += width_s * (HIGH - y) / (HIGH - 8) * chart.top_w
            x = float(number)
    return joules


def test_the_area_is_the_energy() -> None:
    """What lies under the bands of reading and writing is the answer's energy, and the whole drawing its joules."""
    chart = _chart()
    answer_j = sum(_area_j(band.path, chart) for band in chart.bands if band.phase in {"prefill", "decode"})
    known = reckon(stage._trace()).energy.answer
    assert known is not None
    assert isclose(answer_j, known.j, rel_tol=0.01)
    assert isclose(sum(_area_j(band.path, chart) for band in chart.bands), chart.joules, rel_tol=0.01)


def test_phases_follow_one_another() -> None:
    """Every moment in view belongs to one phase: waiting, loading, waiting, reading, writing, afterwards, waiting."""
    chart = _chart()
    assert [band.phase for band in chart.bands] == ["idle", "load", "idle", "prefill", "decode", "tail", "idle"]
    for before, after in zip(chart.bands, chart.bands[1:], strict=False):
        assert before.end_s == after.start_s
    assert chart.tokens.count("M") == 9


@given(t0_s=st.floats(-3, 5), long_s=st.floats(0.01, 5))
def test_any_stretch_can_be_drawn(t0_s: float, long_s: float) -> None:
    """A zoom stays within what was asked and what is there, and inside its frame."""
    chart = chart_of(stage.TRACE, t0_s, t0_s + long_s)
    if chart is None:
        return
    assert t0_s - 1e-6 <= chart.start_s < chart.end_s <= t0_s + long_s + 1e-6
    for band in chart.bands:
        assert all(-0.1 <= float(x) <= WIDE + 0.1 for x in re.findall(r"H(-?[\d.e-]+)", band.path))


def test_the_drawing_stays_small() -> None:
    """A run of minutes at a hundred readings a second is drawn with a few hundred points."""
    from joulebox.evidence import encode_trace

    long = trace(series(channel(), work(20, 60, 30, 90), 120, period_s=0.01), start_s=30.0, end_s=90.0)
    chart = chart_of(encode_trace(long))
    assert chart is not None
    assert sum(len(band.path) for band in chart.bands) < 12_000


@pytest.mark.parametrize(
    "text", ["?t0=x", "?t0=nan&t1=inf", "?t0=1e99", "?t0=3&t1=2", "?revision=x", "?t0=-1e9&t1=1e9"]
)
def test_a_strange_address_shows_the_page(text: str) -> None:
    """What is no number, or no stretch of the run, is not obeyed."""
    assert call(stage.application(), "GET", RECEIPT + text)[0] == 200


def test_zoom_is_in_the_address() -> None:
    """Each phase links to itself, the zoomed page back to all of it."""
    app = stage.application()
    html = call(app, "GET", RECEIPT)[2].decode()
    t0, t1 = re.findall(r'class="decode"><a href="\?t0=([\d.-]+)&amp;t1=([\d.-]+)#trace"', html)[0]
    assert float(t0) < DECODE[1] < float(t1)
    assert "show all of it" not in html
    zoomed = call(app, "GET", f"{RECEIPT}?t0={t0}&t1={t1}")[2].decode()
    assert f'href="{RECEIPT}#trace">show all of it' in zoomed
    assert len(re.findall(r'<path class="load"', zoomed)) == 0


def test_texts_are_shared_and_deleted_by_their_owner() -> None:
    """The owner reads, shares, takes back and deletes; then the texts are gone and the figures stay."""
    app = stage.application()
    assert stage.QUESTION.replace("'", "&#39;") in call(app, "GET", RECEIPT)[2].decode()
    for act, words in (("share", "Everybody with this link can read"), ("unshare", "see the figures only")):
        status, headers, _ = call(app, "POST", f"{RECEIPT}/{act}", b"")
        assert (status, headers["location"]) == (303, RECEIPT)
        assert words in call(app, "GET", RECEIPT)[2].decode()
    assert call(app, "POST", f"{RECEIPT}/delete", b"", sec_fetch_site="cross-site")[0] == 403
    assert call(app, "POST", f"{RECEIPT}/delete", b"")[0] == 303
    html = call(app, "GET", RECEIPT)[2].decode()
    assert "The texts of prompt and answer were removed." in html
    assert "12-year-old" not in html
    assert "86.4 ± 3.1 J" in html


def test_the_command_asks_the_same_again() -> None:
    """What is printed is one shell command, however the prompt is quoted; without the text it says where that goes."""
    receipt = stage.as_json(stage.RECEIPTS["powercap"]())
    asked = {"asked": {"temperature": 0.5, "max_tokens": 64, "turns": 1, "by_flags": True}}
    html = pages.render_receipt(receipt, {**asked, "prompt": "It's $HOME; `id`", "answer": "a"})
    command = re.findall(r"<code>(joulebox ask .*?)</code>", html, re.DOTALL)[0]
    words = shlex.split(command.replace("&#39;", "'").replace("&#34;", '"').replace("&amp;", "&"))
    assert words[:3] == ["joulebox", "ask", "It's $HOME; `id`"]
    assert words[words.index("--seed") + 1 : words.index("--placement")] == [
        "0",
        "--temperature",
        "0.5",
        "--max-tokens",
        "64",
    ]
    dashed = pages.render_receipt(receipt | {"budget": {"max_energy_j": 50.0, "judged_j": None, "overshoot_j": 0.0}},
                                  {**asked, "prompt": "-n 5 what?"})  # fmt: skip
    words = shlex.split(re.findall(r"<code>(joulebox ask .*?)</code>", dashed, re.DOTALL)[0].replace("&#39;", "'"))
    assert words[-2:] == ["--", "-n 5 what?"]
    assert words[words.index("--max-energy-j") + 1] == "50"
    ask = getattr(get_command(command_line), "commands")["ask"]  # noqa: B009 - as typer types it
    assert ask.make_context("ask", words[2:]).params["prompt"] == "-n 5 what?"
    assert "joulebox ask PROMPT --model" in pages.render_receipt(receipt, {**asked, "prompt": None})
    schema = {"asked": {**asked["asked"], "by_flags": False}, "prompt": "a"}
    talk = {"asked": {**asked["asked"], "turns": 2}, "prompt": "a"}
    for other in (schema, talk):
        assert "joulebox ask" not in pages.render_receipt(receipt, other)


def test_revisions_lead_to_one_another() -> None:
    """Where a receipt was made anew each revision has its link, the one that is shown none."""
    receipt = stage.as_json(stage.RECEIPTS["powercap"]()) | {"revision": 2}
    html = pages.render_receipt(receipt, beside=Beside(newest=3))
    assert re.findall(r'revision=(\d)">\d', html) == ["1", "3"] or {"1", "3"} <= set(re.findall(r"revision=(\d)", html))
    assert '<strong aria-current="page">2</strong>' in html


@pytest.mark.parametrize("kind", list(stage.RECEIPTS))
def test_the_badge_says_how_sure(kind: str) -> None:
    """The picture names the figure with ±, its grade, and that it is modelled or simulated; unknown is never 0."""
    receipt = stage.as_json(stage.RECEIPTS[kind]())
    svg = badge(receipt, ENGLISH)
    expected = {"powercap": ["86.4 ± 3.1 J", "simulated", "grade C"], "modelled": ["modelled", "grade D"]}
    assert all(word in svg for word in expected.get(kind, ["invalid"]))
    assert "not measured" in badge({**receipt, "verdict": "valid", "energy": {"answer": None}}, ENGLISH)
    assert "Energie einer Antwort" in badge(receipt, tongue("de"))
    status, headers, _ = call(stage.application(), "GET", f"/receipts/{receipt['id']}/badge.svg")
    assert (status, headers["content-type"], headers["content-security-policy"]) == (
        200,
        "image/svg+xml",
        pages.POLICY_ALONE,
    )


def test_nothing_is_drawn_of_nothing() -> None:
    """A receipt without power, or without readable evidence, has no drawing and says no word of one."""
    assert drawn(b"no trace", None, None) is None
    html = call(stage.application(), "GET", "/receipts/r_01JD3N9W2C")[2].decode()
    assert 'id="trace"' not in html
    assert View()._.tag == "en"
