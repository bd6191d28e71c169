"""The pages of the whole installation: table, nodes, method, API, about; and what people tell the operator."""

import asyncio
import csv
import html
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree as ET

import pytest

import page_stage as given
from bench_record import campaign
from commands import ended
from joulebox.bench.advise import published
from joulebox.errors import JouleboxError
from joulebox.protocol import TemperatureBand
from joulebox.server import pages
from joulebox.server.feedback import KEPT_MAX, MESSAGE_MAX
from joulebox.server.front_chart import points_of
from joulebox.server.pages.frame import View
from joulebox.server.pages.markdown import anchor
from joulebox.server.pages.method import CHECKOUT
from joulebox.server.store import Store
from joulebox.server.tongue import tongue
from joulebox.settings import LOCAL_TOKEN
from joulebox.statistics import Interval
from page_call import call
from server_stage import Stage, done, stage, story

Json = dict[str, Any]
GERMAN = View(tongue("de"))
HOSTILE = "<script>alert('x')</script>\"\u202e&"


def table(**asked: str) -> str:
    """The page of the stage's campaign."""
    return pages.render_table([given.CAMPAIGN], given.CELLS, asked)


def rows(page: str) -> list[list[str]]:
    """The table's rows as text, the model first."""
    body = re.findall(r"<tr>(.*?)</tr>", page.partition("<tbody>")[2], re.DOTALL)
    cells = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, re.DOTALL) for row in body]
    return [[" ".join(html.unescape(re.sub("<[^>]+>", " ", cell)).split()) for cell in row] for row in cells]


# --- the table --------------------------------------------------------------------------------------------------------


def test_every_cell_has_figure_interval_and_n() -> None:
    """The first view is SCI in mg, models by categories, the least of all together first; what is missing says why."""
    found = rows(table())
    assert [row[0] for row in found] == ["smollm2-135m", "qwen3-0.6b", "qwen3-1.7b", "qwen3-4b"]
    assert found[0][1] == "4.03 3.60 to 4.52 n 50"
    assert found[3][3:] == ["– too few answers of 50 · n 4", "– not asked"]
    assert len(found[0]) == 5
    right = rows(table(figure="right"))
    assert any("too few right: 4" in cell for row in right for cell in row)


def test_the_address_is_the_state() -> None:
    """Figure, category and order come from the address, and every link on the page keeps what it does not change."""
    by_accuracy = rows(table(figure="accuracy", category="math"))
    assert [row[0] for row in by_accuracy] == ["qwen3-4b", "qwen3-0.6b", "qwen3-1.7b", "smollm2-135m"]
    assert by_accuracy[0][1:] == ["90 77 to 100 n 50"]
    assert [row[0] for row in rows(table(sort="model"))] == ["qwen3-0.6b", "qwen3-1.7b", "qwen3-4b", "smollm2-135m"]
    assert [row[0] for row in rows(table(figure="energy", sort="code"))][-1] == "qwen3-4b"
    links = [html.unescape(link) for link in re.findall(r'href="(/table\?[^"]+)"', table(figure="energy", sort="code"))]
    assert "/table?figure=accuracy&sort=code" in links
    assert "/table?figure=energy&sort=math" in links
    assert "/table?figure=energy&category=sql" in links


@pytest.mark.parametrize("name", ["figure", "category", "sort", "node", "campaign"])
def test_what_is_not_in_the_table_is_named(name: str) -> None:
    """An address that asks for something else is refused with what there is."""
    with pytest.raises(JouleboxError, match=f"There is no {name} nothing in this table: choose among"):
        table(**{name: "nothing"})
    assert call(given.application(), "GET", f"/table?{name}=nothing")[0] == 404


def test_the_table_says_which_model_to_take() -> None:
    """Who asks for a share of right answers gets the cheapest that is surely that good, or why there is none."""
    app = given.application()
    told = call(app, "GET", "/table?category=math&min=70")[2].decode()
    assert "<strong><bdi>qwen3-4b</bdi></strong>" in told
    assert "at least" in told
    assert '<input type="hidden" name="category" value="math">' in told
    none = call(app, "GET", "/table?category=math&min=95")[2].decode()
    assert "<strong><bdi>" not in none.partition('role="status"')[2].partition("</p>")[0]
    assert "Cannot tell yet" in none or "No model is that good" in none
    assert 'role="status"' not in call(app, "GET", "/table?min=x")[2].decode()


def test_stronger_colour_is_more() -> None:
    """Shades follow the figures by magnitude, shares evenly from 0 to 1."""
    shades = re.findall(r'class="h(\d)"><b>([\d.]+)</b>', table(figure="energy"))
    ordered = sorted((float(value), int(shade)) for shade, value in shades)
    assert [shade for _, shade in ordered] == sorted(shade for _, shade in ordered)
    assert (ordered[0][1], ordered[-1][1]) == (0, 4)
    assert 'class="h4"><b>90</b>' in table(figure="accuracy")


def test_the_front_is_whom_nobody_beats() -> None:
    """A model is on the front unless another takes no more and is as often right; the drawing and the list agree."""

    def figure(value: float) -> Interval:
        return Interval(value, value * 0.9, value * 1.1)

    made = [("dear", figure(90), figure(0.5)), ("cheap", figure(10), figure(0.2)), ("good", figure(50), figure(0.8))]
    points = points_of([*made, ("same", figure(50), figure(0.8))])
    assert [(one.number, one.model, one.front) for one in points] == [
        (1, "cheap", True),
        (2, "good", True),
        (3, "same", True),
        (4, "dear", False),
    ]
    app = given.application()
    address = html.unescape(re.findall(r'src="(/table/front.svg[^"]+)"', table())[0])
    status, headers, body = call(app, "GET", address)
    assert (status, headers["content-type"]) == (200, "image/svg+xml")
    drawing = ET.fromstring(body)
    circles = drawing.findall(".//{*}circle")
    assert [one.get("class") for one in circles] == ["f", "f", None]
    listed = re.findall(r"<li><bdi>(.*?)</bdi>( <strong>)?", table())
    assert [(model, bool(front)) for model, front in listed] == [
        ("smollm2-135m", True),
        ("qwen3-0.6b", True),
        ("qwen3-1.7b", False),
    ]
    assert all(0 <= float(one.get("cx", "-1")) <= 400 and 0 <= float(one.get("cy", "-1")) <= 300 for one in circles)


def test_without_a_campaign_the_table_says_how_to_make_one() -> None:
    """The empty page names the commands, and there is no picture."""
    app = given.application()
    app.state.stage.overview.published = False
    assert "<code>joulebox bench run --models A,B --out campaign.jsonl</code>" in call(app, "GET", "/table")[2].decode()
    assert call(app, "GET", "/table/front.svg")[0] == 404


def test_names_from_campaigns_stay_text() -> None:
    """Models, categories, nodes and notes never become markup, nor do they in the picture."""
    cell = replace(given.CELLS[0], model=HOSTILE, category=HOSTILE, node=HOSTILE)
    odd = replace(given.CAMPAIGN, title=HOSTILE, notes=(HOSTILE,))
    page = pages.render_table([odd], [cell], {})
    assert "<script>" not in page
    assert "\u202e" not in page
    assert "alert(&#39;x&#39;)" in page


def test_published_campaigns_are_shown_and_given_as_csv(tmp_path: Path) -> None:
    """What `bench publish` sends is the page's table, and as CSV a row a cell with the same figures."""
    record = campaign(["small", "large"], lambda model, number: (20.0 if model == "small" else 60.0) + number % 3)
    body = published(record, 10, strict=False)

    async def run() -> tuple[str, str]:
        async with stage(tmp_path) as at:
            assert (await at.http.post("/api/v1/campaigns", json=body)).status_code == 201
            page = (await at.http.get("/table?figure=energy")).text
            assert (await at.http.get("/table/front.svg")).status_code == 200
            csv_text = (await at.http.get(f"/api/v1/table?campaign={body['id']}&format=csv")).text
            assert (await at.http.get("/api/v1/table?campaign=none")).json() == {"campaigns": [], "cells": []}
            return page, csv_text

    page, text = asyncio.run(run())
    found = list(csv.DictReader(StringIO(text)))
    assert len(found) == len(body["cells"])
    sent = {(cell["model"], cell["category"]): cell for cell in body["cells"]}
    for row in found:
        cell = sent[row["model"], row["category"]]
        assert float(row["answer_j"]) == cell["answer_j"]["value"]
        assert row["n"] == str(cell["n"])
    assert [row[0] for row in rows(page)] == ["small", "large"]


# --- nodes ------------------------------------------------------------------------------------------------------------


def nodes(**changes: Any) -> str:
    """The nodes' page as text."""
    app = given.application()
    page = call(app, "GET", "/nodes", **changes)[2].decode()
    return " ".join(html.unescape(re.sub("<[^>]+>", " ", page)).split())


def test_a_node_says_what_it_does_and_draws() -> None:
    """State with reason and time, idle power with interval, temperature, the line, the control prompt, the grid."""
    text = nodes()
    assert "atelier idle since 23 November 2026, 07:31 UTC, waits for prompts" in text
    assert (
        "Idle, within a day 26.00 ± 0.80 W, CPU + Memory (DRAM), simulated, with a model in memory, over 5.8 h" in text
    )
    assert "Temperature 41.2 °C An answer begins CPU from 35 to 45 °C" in text
    assert "Waiting 3 prompts that it may take" in text
    assert "Calibration calibrated" in text
    assert "Control prompt: steady since 2026-11-01, now 0.6 % above its reference." in text
    assert "estimated for the time" in text
    assert "least at 19:00" in text
    assert "26,00 ± 0,80 W" in nodes(accept_language="de")


def test_a_running_node_tells_its_watts(tmp_path: Path) -> None:
    """While it answers, the list has the newest watts and their scope, before none; and its band where it has one."""

    async def run() -> list[Any]:
        async with stage(tmp_path) as at:
            bands = (TemperatureBand(scope="cpu", min_c=None, max_c=45.0),)
            await at.join()
            await at.ask()
            lease = await at.lease(bands=bands)
            async with at.hold(lease):
                idle = (await at.http.get("/api/v1/nodes")).json()["nodes"][0]["power"]
                await at.send(lease, story("Blue", "."))
                busy = (await at.http.get("/api/v1/nodes")).json()["nodes"][0]["power"]
                page = (await at.http.get("/nodes")).text
                await at.finish(lease, done(lease, "Blue", "."))
            return [idle, busy, "30.0 W, CPU" in page, "CPU up to 45 °C" in page]

    assert asyncio.run(run()) == [None, {"w": 30.0, "scope": "cpu"}, True, True]


# --- method, API ------------------------------------------------------------------------------------------------------


def test_the_method_is_the_page_of_the_docs() -> None:
    """Every section of the docs has its anchor, those that receipts link to among them; no link leads nowhere."""
    page = pages.render_method()
    headings = re.findall(r"^## (.+)$", CHECKOUT.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(headings) > 10
    for heading in headings:
        assert page.count(f'<h2 id="{anchor(heading)}">') == 1
        assert f'href="#{anchor(heading)}"' in page
    linked = set(re.findall(r'href="/method#([^"]+)"', pages.render_receipt(given.as_json(given.powercap_receipt()))))
    assert linked == {"the-grade", "the-verdict", "carbon"}
    assert linked <= {anchor(heading) for heading in headings}
    assert "](" not in page
    assert "in English" not in page
    assert "Diese Seite ist auf Englisch" in pages.render_method(GERMAN)


def test_every_command_of_the_api_page_runs(tmp_path: Path) -> None:
    """Each example that reads, and the one that asks, is sent as a shell would send it, and the server understands."""

    async def run() -> tuple[int, int]:
        async with stage(tmp_path) as at:
            names = await _answered(at)
            page = (await at.http.get("/api")).text
            found = [html.unescape(one) for one in re.findall(r"<pre tabindex=\"0\"><code>(curl.*?)</code>", page)]
            assert len(found) > 30
            tried = 0
            for command in found:
                if "-X DELETE" in command or "-N" in command.split():
                    continue
                method, address, headers, body = _read(command, names, at.url)
                if method == "POST" and not address.endswith(("/prompts", "/tokens", "/drain")):
                    continue
                reply = await at.http.request(method, address, headers=headers, content=body)
                assert reply.status_code < 400, (command, reply.text)
                tried += 1
            return len(found), tried

    _, tried = asyncio.run(run())
    assert tried > 15


async def _answered(at: Stage) -> dict[str, str]:
    """One prompt is answered; the names that the commands leave open."""
    await at.join()
    status = await at.ask()
    lease = await at.lease()
    async with at.hold(lease):
        await at.send(lease, story("Blue", "."))
        await at.finish(lease, done(lease, "Blue", "."))
    receipt_id = (await at.until(status["id"], "completed"))["receipt_id"]
    token = (at.settings.data_dir / LOCAL_TOKEN).read_text().strip()
    return {"PROMPT_ID": status["id"], "RECEIPT_ID": receipt_id, "NAME": "n1", "MODEL_ID": "m", "TOKEN": token}


def _read(command: str, names: Json, url: str) -> tuple[str, str, dict[str, str], str | None]:
    """Method, address, headers and body of a curl command, its variables set."""
    words = shlex.split(re.sub(r"\$([A-Z_]+)", lambda found: names[found[1]], command))
    assert words.pop(0) == "curl"
    method, headers, body, address = "GET", {}, None, ""
    while words:
        match words.pop(0):
            case "-X":
                method = words.pop(0)
            case "-H":
                name, _, value = words.pop(0).partition(": ")
                headers[name] = value
            case "-d":
                body = words.pop(0)
                json.loads(body)
            case other:
                address = other
    assert address.startswith(url)
    return method, unquote(urlsplit(address).path), headers, body


# --- about ------------------------------------------------------------------------------------------------------------


def test_about_tells_who_runs_the_server() -> None:
    """Name, address, imprint and privacy come from the settings, set as Markdown and nothing more than text."""
    page = pages.render_about(given.OPERATOR)
    assert '<a href="mailto:hello@joulebox.test">' in page
    assert "<strong>A. Muster</strong>" in page
    assert "They are erased 30 days after their end." in page
    hostile = pages.render_about(pages.Operator(name=HOSTILE, contact="javascript:alert(1)", imprint=HOSTILE))
    assert "<script>" not in hostile
    assert 'href="javascript' not in hostile
    assert "JOULEBOX_OPERATOR" in pages.render_about(pages.Operator())


def test_a_message_reaches_the_operator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is sent by the form is read by an administrator, by API or command, and can be forgotten; what is empty
    comes back."""

    async def run() -> None:
        async with stage(tmp_path) as at:
            form = {"message": " Nice.\nReally. ", "contact": "me@example.test"}
            sent = await at.http.post("/about/feedback", data=form)
            assert (sent.status_code, sent.headers["location"]) == (303, "/about?sent=1#feedback")
            assert "Your message is kept" in (await at.http.get("/about?sent=1")).text
            empty = await at.http.post("/about/feedback", data={"message": " ", "contact": "me@example.test"})
            assert empty.status_code == 422
            assert "The message is empty" in empty.text
            assert 'value="me@example.test"' in empty.text
            long = await at.http.post("/about/feedback", data={"message": "a" * (MESSAGE_MAX + 1)})
            assert "shorten it" in long.text
            (kept,) = (await at.http.get("/api/v1/feedback")).json()["messages"]
            assert (kept["message"], kept["contact"]) == ("Nice.\nReally.", "me@example.test")
            typed = ("feedback", "--server", at.url)
            assert await asyncio.to_thread(ended, *typed) == 0
            assert capsys.readouterr().out.endswith("answer to me@example.test\n  Nice.\n  Really.\n")
            assert await asyncio.to_thread(ended, *typed, "--json") == 0
            assert json.loads(capsys.readouterr().out) == [kept]
            elsewhere = await at.http.post("/about/feedback", data=form, headers={"Sec-Fetch-Site": "cross-site"})
            assert elsewhere.status_code == 403
            assert await asyncio.to_thread(ended, *typed, "--forget", str(kept["number"])) == 0
            assert await asyncio.to_thread(ended, *typed) == 0
            said = capsys.readouterr().out.splitlines()
            assert said == [f"Message {kept['number']} is forgotten.", "Nobody has written yet."]
            assert (await at.http.delete(f"/api/v1/feedback/{kept['number']}")).status_code == 404
            assert (await at.http.get("/api/v1/feedback")).json() == {"messages": []}

    asyncio.run(run())


def test_messages_are_kept_on_both_databases(where: Path | str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest comes first, and of very many the oldest go."""
    monkeypatch.setattr("joulebox.server.store.feedback_books.KEPT_MAX", 3)
    url = where if isinstance(where, str) else f"sqlite:///{where / 'joulebox.db'}"

    async def run() -> Sequence[str]:
        store = Store(url)
        await store.open()
        try:
            for n in range(5):
                await store.feedback.leave(f"message {n}", None, datetime(2026, 11, 23, tzinfo=UTC))
            return [one.message for one in await store.feedback.messages()]
        finally:
            await store.close()

    assert asyncio.run(run()) == ["message 4", "message 3", "message 2"]
    assert KEPT_MAX >= 100
