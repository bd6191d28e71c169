"""The Python client against a real server, and `joulebox compare`; receipts as notebooks show them."""

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

import joulebox
import page_stage
from commands import ended
from joulebox import client as http
from joulebox.asking import Answer, Client, Comparison, Stream, some_model
from joulebox.client import ServerEvent
from joulebox.clock import SimulatedClock
from joulebox.conversation import ToolCall
from joulebox.errors import JouleboxError
from joulebox.model import UncertaintyPart
from joulebox.plain import plain
from joulebox.protocol import NodeEvent
from joulebox.receipt import Receipt, card, held, read
from joulebox.statistics.ratio import energy_ratio
from joulebox.units import seconds
from server_stage import MODEL, Stage, done, stage, story

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("own_folder")]
HOSTILE = "<script>alert(1)</script> $\\href{javascript:alert(1)}{x}$ & 'quotes'"
CELLS = [
    {
        "node": "n1",
        "model": model,
        "digest": "sha256:0",
        "category": "math",
        "asked": 12,
        "n": 12,
        "judged": 12,
        "right": 9,
        "answer_j": answer_j,
        **dict.fromkeys(("token_j", "right_j", "sci_g", "accuracy")),
    }
    for model, answer_j in (("m", {"value": 20.0, "low": 18.5, "high": 22.0}), ("n", None))
]
CAMPAIGN = {"id": "c1", "title": "t", "created": "2026-11-22T08:00:00+00:00", "notes": [], "cells": CELLS}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def works(on: Stage, *words: str, models: Sequence[str] = ("m",)) -> str:
    """A node answers what comes next; of which model."""
    lease = await on.lease(models=models, tools=True)
    model = str(lease["prompt"]["model"])
    async with on.hold(lease):
        await on.send(lease, story(*words))
        finish = done(lease, *words, model=replace(MODEL, id=model))
        assert (await on.finish(lease, finish)).status_code == 200
    return model


# --- asking -----------------------------------------------------------------------------------------------------------


async def test_an_answer_comes_with_its_receipt(tmp_path: Path) -> None:
    """`ask` waits for both: text as the model wrote it, figures typed and at hand, JSON as the API has it."""
    async with stage(tmp_path) as on:
        await on.join()
        with Client(on.url) as client:
            asked = asyncio.create_task(asyncio.to_thread(client.ask, "hi", seed=3, max_tokens=9))
            assert await works(on, "a", HOSTILE) == "m"
            answer = await asked
            same = await asyncio.to_thread(client.receipt, answer.receipt.id)
        sent = (await on.http.get(f"/api/v1/receipts/{answer.receipt.id}")).json()
    assert (answer.text, str(answer), answer.model, answer.finish_reason) == (f"a{HOSTILE}",) * 2 + ("m", "stop")
    receipt = answer.receipt
    assert receipt == same
    assert receipt.to_dict() == sent
    assert receipt.joules == sent["energy"]["answer"]["j"]
    assert receipt.u == sent["energy"]["answer"]["u"]
    assert receipt.grams == sent["carbon"]["total"]["g"]
    assert (receipt.grade, receipt.verdict) == (sent["energy"]["answer"]["grade"], sent["verdict"])
    assert receipt.energy.active is not None
    assert repr(receipt).startswith(f"<Receipt {receipt.id}: ")
    assert repr(receipt).endswith(f"grade {receipt.grade}, {receipt.verdict}>")


async def test_a_stream_gives_the_text_that_counts(tmp_path: Path) -> None:
    """Pieces come before the receipt; where the node is lost the text begins anew, and the watcher hears of all."""
    seen: list[ServerEvent] = []
    async with stage(tmp_path) as on:
        await on.join()
        with Client(on.url) as client:
            stream = await asyncio.to_thread(client.stream, "hi", model="m", watch=seen.append)
            lease = await on.lease()
            async with on.hold(lease):
                await on.send(lease, story("lost")[:3])
                assert await asyncio.to_thread(next, stream) == "lost"
            pieces = asyncio.create_task(asyncio.to_thread(list, stream))
            await works(on, "kept ", "words")
            assert await pieces == ["kept ", "words"]
            answer = await asyncio.to_thread(lambda: stream.answer)
    assert (stream.restarts, stream.text, answer.text) == (1, "kept words", "kept words")
    assert [one.name for one in seen][-2:] == ["answer", "receipt"]


async def test_what_is_left_early_is_stopped(tmp_path: Path) -> None:
    """Leaving the block before the end cancels the prompt; the answer of one that was stopped is a failure by name."""
    async with stage(tmp_path) as on:
        await on.join()
        with Client(on.url) as client:

            def left() -> str:
                with client.stream("hi", model="m") as stream:
                    return stream.prompt_id

            first = await asyncio.to_thread(left)
            assert (await on.status(first))["state"] == "cancelled"
            second = await asyncio.to_thread(client.stream, "hi", model="m")
            await on.http.delete(f"/api/v1/prompts/{second.prompt_id}")
            with pytest.raises(JouleboxError) as stopped:
                await asyncio.to_thread(lambda: second.answer)
            assert stopped.value.code == "cancelled"
            with pytest.raises(joulebox.JouleboxError) as refused:
                await asyncio.to_thread(client.ask, "hi", model="nobody")
            assert refused.value.code == "unknown_model"


async def test_models_and_table_are_typed(tmp_path: Path) -> None:
    """What can be asked, and what campaigns found, come as objects with intervals; a server that is away is told."""
    async with stage(tmp_path) as on:
        await on.join(models=("m", "n"))
        assert (await on.http.post("/api/v1/campaigns", json=CAMPAIGN)).status_code == 201
        with joulebox.Client(on.url) as client:
            models = await asyncio.to_thread(client.models)
            cells = await asyncio.to_thread(client.table)
            none = await asyncio.to_thread(client.table, "nothing")
    assert [(one.id, one.nodes, one.available, one.expected_j) for one in models] == [
        (name, ("n1",), True, None) for name in ("m", "n")
    ]
    assert [one.model for one in cells] == ["m", "n"]
    known, unknown = cells
    assert unknown.answer_j is None
    assert known.answer_j is not None
    assert (known.answer_j.value, known.answer_j.low, known.answer_j.high) == (20.0, 18.5, 22.0)
    assert none == []
    with Client("http://127.0.0.1:9") as nobody, pytest.raises(JouleboxError) as away:
        nobody.ask("hi")
    assert away.value.code == "no_server"


# --- comparing --------------------------------------------------------------------------------------------------------


async def test_a_node_that_begins_is_waited_for(tmp_path: Path) -> None:
    """Without a model the sentence says how to get one, after the time that was granted; a node whose first word comes
    meanwhile is enough: `joulebox demo` asks as soon as its node has begun."""
    async with stage(tmp_path) as on:
        with http.Client(on.url) as server:
            clock = SimulatedClock()
            begun_ns = clock.now_ns()
            with pytest.raises(JouleboxError, match="No node offers a model yet"):
                await asyncio.to_thread(some_model, server, 2.0, clock)
            assert seconds(clock.now_ns() - begun_ns) == pytest.approx(2.0)
            waits = asyncio.create_task(asyncio.to_thread(some_model, server, 30.0))
            await asyncio.sleep(0)
            await on.join()
            assert await waits == "m"


async def test_a_comparison_runs_in_the_order_of_its_seed(tmp_path: Path) -> None:
    """Quietly, on one node, in an order that the seed alone decides; the ratio of what they took comes with its
    interval."""
    orders: list[list[str]] = []
    found: Comparison | None = None
    async with stage(tmp_path) as on:
        await on.join(models=("big", "small"))
        with Client(on.url) as client:
            for order_seed in (1, 1, 2, 3, 4, 5):
                asked = asyncio.create_task(
                    asyncio.to_thread(client.compare, "Why?", ["big", "small"], max_tokens=9, order_seed=order_seed)
                )
                ran = [await works(on, one, models=("big", "small")) for one in ("a", "b")]
                found = await asked
                orders.append([one.model for one in found.answers])
                assert (orders[-1], found.order_seed, found.node) == (ran, order_seed, "n1")
        prompts = (await on.http.get("/api/v1/prompts?limit=100")).json()["prompts"]
        assert (await on.http.get("/api/v1/preferences")).json() == {"preferences": []}
    assert orders[0] == orders[1]
    assert {tuple(one) for one in orders} == {("big", "small"), ("small", "big")}
    assert {one["placement"]["policy"] for one in prompts} == {"node:n1"}
    assert found is not None
    assert found.ratio is not None
    assert found.ratio.low <= 1.0 <= found.ratio.high
    assert found.headline.startswith("About the same energy: ")
    assert "About the same energy" in found._repr_html_()
    assert json.loads(json.dumps(found.to_dict()))["answers"][0]["answer"] == "a"


async def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    """One model, one twice, one that is nowhere, too many: a sentence, and nothing is asked."""
    async with stage(tmp_path) as on:
        await on.join(models=("big", "small"))
        for models in (["big"], ["big", "big"], ["big", "nobody"], list("abcde")):
            reply = await on.http.post("/api/v1/comparisons", json={"models": models, "prompt": "Why?"})
            assert (reply.status_code, reply.json()["code"]) == (422, "bad_request"), models
        assert (await on.http.get("/api/v1/prompts")).json()["prompts"] == []


async def test_a_comparison_that_fails_stops_the_rest(tmp_path: Path) -> None:
    """One of the prompts is cancelled: the other is not left waiting for a node."""
    async with stage(tmp_path) as on:
        await on.join(models=("big", "small"))
        with Client(on.url) as client:
            asked = asyncio.create_task(asyncio.to_thread(client.compare, "Why?", ["big", "small"]))
            async with asyncio.timeout(20):
                while len(prompts := (await on.http.get("/api/v1/prompts")).json()["prompts"]) < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await on.http.delete(f"/api/v1/prompts/{prompts[-1]['id']}")
            with pytest.raises(JouleboxError) as stopped:
                await asked
            assert stopped.value.code == "cancelled"
        states = [one["state"] for one in (await on.http.get("/api/v1/prompts")).json()["prompts"]]
        assert states == ["cancelled", "cancelled"]


async def test_the_command_tells_the_ratio_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`joulebox compare` prints the ratio, a line a model and the answers; `--json` all of it; exit 2 for one model."""

    async with stage(tmp_path) as on:
        await on.join(models=("big", "small"))
        for form in ((), ("--json",)):
            words = ("Why?", "--models", "big,small", "--order-seed", "1", "--server", on.url, *form)
            command = asyncio.create_task(asyncio.to_thread(ended, "compare", *words))
            ran = [await works(on, text, models=("big", "small")) for text in ("first\x1b[2J", "second")]
            assert await command == 0
            said = capsys.readouterr().out
            if form:
                found = json.loads(said)
                assert [one["model"] for one in found["answers"]] == ran
                assert found["ratio"]["low"] <= found["ratio"]["value"] <= found["ratio"]["high"]
            else:
                assert said.startswith("About the same energy")
                assert all(word in said for word in ("big", "small", "first", "second", "--order-seed 1", " J"))
                assert "\x1b[2J" not in said
        assert await asyncio.to_thread(ended, "compare", "Why?", "--models", "big", "--server", on.url) == 2
    assert "models" in capsys.readouterr().err


def test_what_both_receipts_share_cancels_in_their_ratio() -> None:
    """One meter's gain errs alike in both answers of a node; noise does not, and other scopes cannot be compared."""
    made = held(page_stage.RECEIPTS["powercap"]())
    answer = made.energy.answer
    assert answer is not None

    def with_parts(factor: float, node: str = made.node, scope: str = "cpu", **parts: float) -> Receipt:
        figure = replace(answer, j=100.0 * factor)
        told = tuple(UncertaintyPart(source=name.replace("_", " "), j=j * factor) for name, j in parts.items())
        energy = replace(made.energy, answer=figure, uncertainty=told, scope=scope)
        return replace(made, energy=energy, node=node)

    one, other = with_parts(1.0, gain_of_the_meter=5.0), with_parts(9.4, gain_of_the_meter=5.0)
    alike = energy_ratio(other, one)
    assert alike is not None
    assert (alike.value, alike.low, alike.high) == pytest.approx((9.4, 9.4, 9.4))
    elsewhere = energy_ratio(with_parts(9.4, node="x", gain_of_the_meter=5.0), one)
    assert elsewhere is not None
    assert elsewhere.high / elsewhere.value == pytest.approx(1.152, abs=0.001)
    noisy = energy_ratio(with_parts(9.4, idle_noise=5.0), with_parts(1.0, idle_noise=5.0))
    assert noisy is not None
    assert noisy.high == pytest.approx(elsewhere.high)
    assert energy_ratio(with_parts(1.0, scope="wall"), one) is None
    found = Comparison(
        node="n",
        order_seed=1,
        answers=tuple(Answer(text="t", receipt=each, prompt_id="p") for each in (other, one)),
    )
    assert found.headline.startswith("9.4 × the energy: ")


# --- in a notebook ----------------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """What a piece of HTML is made of."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: dict[str, str] = {}
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name: value or "" for name, value in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("name", sorted(page_stage.RECEIPTS))
def test_a_notebook_shows_a_receipt(name: str) -> None:
    """The card holds the figures with their interval, loads nothing, runs nothing, and has no colours of its own."""
    made = page_stage.RECEIPTS[name]()
    receipt = held(made)
    told = page_stage.as_json(made)
    assert read(told) == receipt
    html = receipt._repr_html_()
    tags = Tags(html)
    assert tags.names <= {"div", "strong", "table", "tbody", "tr", "th", "td"}
    assert set(tags.attributes) <= {"class", "style", "scope"}
    assert "url(" not in html
    assert "color:#" not in html
    assert "color:inherit" in html
    headline = str(receipt).partition(",")[0] if receipt.joules is not None else "Energy not measured"
    assert headline in tags.text
    assert receipt.id in tags.text
    if name == "powercap":
        assert "86.4 ± 3.1 J" in tags.text
        assert "simulated" in tags.text


def test_a_notebook_sets_no_formula_and_runs_no_script() -> None:
    """What a model wrote is shown as text, and notebooks are told to leave its dollars alone."""
    receipt = held(page_stage.RECEIPTS["powercap"]())
    tags = Tags(Answer(text=HOSTILE, receipt=receipt, prompt_id="p")._repr_html_())
    assert HOSTILE in tags.text
    assert "script" not in tags.names
    assert tags.attributes["class"].endswith("mathjax_ignore")
    assert "<b>" not in card(receipt.to_dict() | {"node": "<b>n</b>"})


def test_a_receipt_of_another_version_is_read() -> None:
    """Fields that are not known here are left out, those that a newer method added may lack; nonsense is refused."""
    told = page_stage.as_json(page_stage.RECEIPTS["powercap"]())
    del told["budget"], told["water"]
    assert read(told | {"new": 1}).joules == told["energy"]["answer"]["j"]
    with pytest.raises(ValueError, match="schema"):
        read({"energy": None})


async def _calls(on: Stage, call: ToolCall) -> None:
    """The node answers the next prompt with a call."""
    lease = await on.lease(models=("big", "small"), tools=True)
    assert lease["prompt"]["tool_choice"] == "required"
    event = NodeEvent(seq=0, kind="answer", data={"finish_reason": "tool_calls", "tool_calls": [plain(call)]})
    await on.send(lease, [event])
    finish = done(lease, model=replace(MODEL, id=lease["prompt"]["model"]))
    await on.finish(lease, replace(finish, finish_reason="tool_calls", tool_calls=(call,)))


async def test_the_page_for_python_works_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block of the how-to runs, one after the other, against a server whose node answers whatever is asked."""
    page = Path(__file__).parents[1] / "docs" / "how-to" / "python.md"
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 6
    monkeypatch.setenv("JOULEBOX_METERS", "none:")
    names: dict[str, object] = {}

    def run() -> None:
        for block in blocks:
            exec(compile(block, str(page), "exec"), names)

    async with stage(tmp_path) as on:
        await on.join(models=("big", "small"), tools=True)
        monkeypatch.setenv("JOULEBOX_SERVER", on.url)
        reading = asyncio.create_task(asyncio.to_thread(run))
        for word in ("one", "two", "three", "four"):
            await works(on, word, models=("big", "small"))
        await _calls(on, ToolCall(id="call_1", name="weather", arguments='{"city": "Paris"}'))
        lease = await on.lease(models=("big", "small"), tools=True)
        assert [turn["role"] for turn in lease["prompt"]["messages"]] == ["user", "assistant", "tool"]
        await on.finish(lease, done(lease, "sunny", model=replace(MODEL, id=lease["prompt"]["model"])))
        await asyncio.wait_for(reading, 30)
    assert "weather({" in str(names["asked"])
    assert names["total"] == sum(n * n for n in range(100_000))


def test_a_stream_is_what_the_client_gives() -> None:
    """The face is small: what is public of the client is documented, and its stream can be named in types."""
    public = {name for name in vars(Client) if not name.startswith("_")}
    assert public == {"ask", "close", "compare", "models", "receipt", "stream", "table"}
    assert all(getattr(Client, name).__doc__ for name in public)
    assert Client.stream.__annotations__["return"] is Stream
