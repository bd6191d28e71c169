"""The pages' languages: nothing is missing, numbers are written as people write them, and the choice is kept."""

import gettext
from io import BytesIO
from pathlib import Path

import pytest

import page_stage as stage
import words
from joulebox import wording
from joulebox.server import pages
from joulebox.server.pages.frame import View
from joulebox.server.tongue import NAMES, chosen, mo, read_po, tongue
from joulebox.statistics import Interval
from joulebox.statistics.recommending import Candidate, recommend
from page_call import call

OTHERS = [tag for tag in NAMES if tag != "en"]
GERMAN = View(tongue("de"))


@pytest.mark.parametrize("tag", OTHERS)
def test_no_text_is_missing(tag: str) -> None:
    """Every text of pages, scripts and sentences has its translation, with the same room for values."""
    assert words.missing(words.catalogue(tag)) == []


@pytest.mark.parametrize("tag", OTHERS)
def test_the_catalogue_holds_todays_texts(tag: str) -> None:
    """The file is what `make words` writes: no text that is gone, none that is not there."""
    held = {one.partition("\0")[0] for one in read_po((words.FOLDER / f"{tag}.po").read_text(encoding="utf-8"))}
    today = {text[0] if isinstance(text, tuple) else text for text in words.texts()}
    assert held - {""} == today


def test_a_catalogue_is_read_as_gettext_reads_it(tmp_path: Path) -> None:
    """Continued lines, escapes, plural forms and texts that are not translated come out as Babel compiles them."""
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po as babel_read

    po = (
        'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=utf-8\\n"\n'
        '"Plural-Forms: nplurals=2; plural=(n != 1);\\n"\n\n'
        '#: a.py\nmsgid "a \\"b\\"\\n"\n"c"\nmsgstr "ä \\"ö\\"\\n"\n"ü"\n\nmsgid "{n} day"\nmsgid_plural "{n} days"\n'
        'msgstr[0] "{n} Tag"\nmsgstr[1] "{n} Tage"\n\nmsgid "bare"\nmsgstr ""\n'
    )
    ours, theirs = gettext.GNUTranslations(BytesIO(mo(read_po(po)))), BytesIO()
    write_mo(theirs, babel_read(BytesIO(po.encode())))
    known = gettext.GNUTranslations(BytesIO(theirs.getvalue()))
    for text in ('a "b"\nc', "bare", "never heard"):
        assert ours.gettext(text) == known.gettext(text)
    for n in (0, 1, 2):
        assert ours.ngettext("{n} day", "{n} days", n) == known.ngettext("{n} day", "{n} days", n)


@pytest.mark.parametrize(
    ("remembered", "accepted", "tag"),
    [
        (None, "", "en"),
        (None, "de-AT,de;q=0.9,en;q=0.8", "de"),
        (None, "fr,en;q=0.5,de;q=0.7", "de"),
        (None, "en-GB,de;q=0.9", "en"),
        (None, "de;q=0,en;q=0.1", "en"),
        (None, ";;q=x,,de;q=2", "en"),
        ("en", "de", "en"),
        ("de", "en", "de"),
        ("../x", "de", "de"),
    ],
)
def test_the_language_is_who_reads(remembered: str | None, accepted: str, tag: str) -> None:
    """What was chosen here counts first, then what the browser asks for, then English."""
    assert chosen(remembered, accepted).tag == tag


def test_german_writes_figures_with_a_comma() -> None:
    """Decimals have a comma, versions keep their points, small figures are never 0."""
    de = tongue("de")
    assert de.number("86.4 ± 3.1 J") == "86,4 ± 3,1 J"
    assert de.number("0.1.0") == "0.1.0"
    html = pages.render_receipt(stage.as_json(stage.RECEIPTS["powercap"]()), view=GERMAN)
    assert "86,4 ± 3,1 J" in html
    assert "Zwischen 83,3 und 89,5 J, zu 95 % sicher." in html
    assert "86.4 " not in html
    assert wording.done_words(stage.as_json(stage.RECEIPTS["modelled"]()), de).startswith("Fertig. Diese Antwort")


def test_finished_sentences_are_told_again() -> None:
    """A sentence of the line or of a verdict finds its translation with its figures; an unknown one stays English."""
    de = tongue("de")
    assert de.said("3 prompts are before yours") == "3 Fragen sind vor Ihrer"
    assert de.said(
        "The answer took 0.5 s, too short for a meter that looks every 1 s. Ask for more tokens, or for more work."
    ).startswith("Die Antwort dauerte 0,5 s, zu kurz")
    assert de.said("Nobody ever said this.") == "Nobody ever said this."
    status = {"state": "available", "position": 1, "reason": "next in line; no node is connected"}
    assert pages.sentence(status, de) == "Als Nächste an der Reihe; kein Knoten ist verbunden."


def test_the_pages_speak_it_and_the_switch_is_remembered() -> None:
    """`Accept-Language` decides at first, the switch leads back to where it was pressed, its cookie decides after."""
    app = stage.application()
    for path in ("/", "/receipts/r_01JD3M0Q8B", "/receipts/nowhere"):
        assert '<html lang="de">' in call(app, "GET", path, accept_language="de")[2].decode()
    html = call(app, "GET", "/receipts/nowhere?t0=1", accept_language="de")[2].decode()
    assert 'href="/language/en?to=%2Freceipts%2Fnowhere%3Ft0%3D1"' in html
    status, headers, _ = call(app, "GET", "/language/en?to=%2Freceipts%2Fnowhere%3Ft0%3D1")
    assert (status, headers["location"]) == (303, "/receipts/nowhere?t0=1")
    cookie = headers["set-cookie"].partition(";")[0]
    assert '<html lang="en">' in call(app, "GET", "/", accept_language="de", cookie=cookie)[2].decode()
    assert call(app, "GET", "/language/xx")[0] == 404


@pytest.mark.parametrize(
    "back", ["https://elsewhere.test/", "//elsewhere.test", "/\\elsewhere.test", "javascript:1", "/a\r\nb"]
)
def test_the_switch_leads_nowhere_else(back: str) -> None:
    """An address of another site in a link to the switch is not followed."""
    from urllib.parse import quote

    _, headers, _ = call(stage.application(), "GET", f"/language/de?to={quote(back, safe='')}")
    assert headers["location"] == "/"


def test_scripts_speak_it_too() -> None:
    """A script comes with its texts in the language of its address, and none that is left to be looked up."""
    app = stage.application()
    english, german = (call(app, "GET", f"/static/app.js?l={tag}")[2].decode() for tag in ("en", "de"))
    assert '"Starting again."' in english
    assert '"Es beginnt von vorn."' in german
    assert "_(" not in english + german


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("0.6 % above, 1.5 below", "0,6 % above, 1,5 below"),
        ("(94.5 to 113.7)", "(94,5 to 113,7)"),
        ("qwen3-1.7b and Qwen2.5-0.5B-Instruct", "qwen3-1.7b and Qwen2.5-0.5B-Instruct"),
        ("method 2026.11.22", "method 2026.11.22"),
    ],
)
def test_only_figures_get_a_comma(text: str, shown: str) -> None:
    """Points in names and versions stay."""
    assert tongue("de").number(text) == shown


def test_advice_is_told_again_with_its_parts() -> None:
    """Which model to take and why stands in the reader's language, the figures in it too."""
    found = [
        Candidate(model="qwen3-1.7b", prompts=100, right=95, answer_j=Interval(240.5, 230.0, 251.0)),
        Candidate(model="smollm2-135m", prompts=100, right=40, answer_j=Interval(21.5, 20.0, 23.0)),
    ]
    told = tongue("de").said(recommend(found, 0.7).reason)
    assert told.startswith("qwen3-1.7b lag richtig bei 95 von 100 Fragen (89% bis 98%), zu 95 % sicher bei mindestens")
    assert "braucht 240 J (230 bis 251) je Antwort: das sparsamste, das sicher gut genug ist." in told
    assert "Sparsamer, aber nicht sicher gut genug: smollm2-135m 40%." in told
    assert tongue("de").said(recommend([], 0.7).reason).startswith("Hier wurde kein Modell gemessen")
