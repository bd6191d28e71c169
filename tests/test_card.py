"""What other sites show of a link to a shared receipt: words, and a picture."""

import html
import re
import struct
from typing import Any

import pytest

import page_stage as stage
from joulebox.server.pages import card as cards
from joulebox.server.pages.card import card_of, png_of
from page_call import call

PATH = "/receipts/r_01JD3M0Q8B"
Json = dict[str, Any]


def _receipt(kind: str) -> Json:
    return stage.as_json(stage.RECEIPTS[kind]())


def _told(page: bytes) -> dict[str, str]:
    """What a page tells other sites."""
    found = re.findall(r'<meta (?:property|name)="((?:og|twitter):[\w:]+)" content="([^"]*)">', page.decode())
    return {name: html.unescape(text) for name, text in found}


def test_the_card_says_how_sure_it_is() -> None:
    """Headline with interval, grade in words, and the word where it is modelled, simulated or suspect."""
    measured, modelled = (card_of(_receipt(kind)) for kind in ("powercap", "modelled"))
    assert (measured.headline, measured.grade, measured.marks) == ("86.4 ± 3.1 J", "C", ("simulated",))
    assert measured.between == "Between 83.3 and 89.5 J, 95 % sure."
    assert measured.facts == "smollm2-135m-instruct, 1.37 s, 96 tokens, 21 mg CO2e"
    assert (modelled.grade, modelled.marks) == ("D", ("modelled", "suspect"))
    assert "Grade D (A is best): modelled, not measured." in modelled.words


def test_the_card_of_what_nobody_knows_has_no_figure() -> None:
    """An invalid receipt and one without energy say so in place of joules."""
    nothing = card_of(_receipt("nothing"))
    assert (nothing.headline, nothing.grade) == ("invalid", None)
    unknown = card_of(_receipt("nothing") | {"verdict": "valid"})
    assert (unknown.headline, unknown.grade) == ("not measured", None)
    assert "not zero" in unknown.between


@pytest.mark.parametrize("kind", list(stage.RECEIPTS))
def test_the_picture_is_one(kind: str) -> None:
    """A PNG of 1200 x 630 pixels in a few kilobytes, also where names are long or in other letters."""
    pytest.importorskip("PIL")
    receipt = _receipt(kind)
    receipt["model"]["name"] = "模型" + "w" * 300
    png = png_of(card_of(receipt))
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">2I", png[16:24]) == (1200, 630)
    assert len(png) < 30_000


def test_only_a_shared_receipt_has_a_card() -> None:
    """Words and picture come with sharing and go with it."""
    pytest.importorskip("PIL")
    app = stage.application()
    assert _told(call(app, "GET", PATH)[2]) == {}
    assert call(app, "GET", f"{PATH}/card.png")[0] == 404
    call(app, "POST", f"{PATH}/share")
    told = _told(call(app, "GET", PATH, host="joulebox.test", x_forwarded_proto="https")[2])
    assert told["og:title"] == "86.4 ± 3.1 J for one answer"
    assert "Between 83.3 and 89.5 J" in told["og:description"]
    assert "simulated" in told["og:description"]
    assert told["og:image"] == f"https://joulebox.test{PATH}/card.png"
    status, headers, body = call(app, "GET", f"{PATH}/card.png")
    assert (status, headers["content-type"], body[1:4]) == (200, "image/png", b"PNG")
    call(app, "POST", f"{PATH}/unshare")
    assert call(app, "GET", f"{PATH}/card.png")[0] == 404


def test_without_pillow_there_are_words_and_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """The link to a picture is left out, and its address says what is missing."""
    monkeypatch.setattr(cards, "find_spec", lambda _name: None)
    app = stage.application()
    call(app, "POST", f"{PATH}/share")
    told = _told(call(app, "GET", PATH)[2])
    assert "og:title" in told
    assert "og:image" not in told
    status, _, body = call(app, "GET", f"{PATH}/card.png")
    assert (status, "joulebox[card]" in body.decode()) == (404, True)
