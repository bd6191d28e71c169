"""Conversations: who may go on with one, what the model is told, and what erasing a turn takes with it."""

from pathlib import Path
from typing import Any

import pytest

from joulebox.model import Message, Prompt
from joulebox.server.talking import without_earlier
from server_stage import Stage, stage
from test_access import another, database, joined, on_disk, work

__all__ = ["database"]
pytestmark = pytest.mark.anyio
Json = dict[str, Any]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def said(on: Stage, prompt_id: str) -> list[str]:
    """What the model of a prompt is told."""
    record = await on.store.record(prompt_id)
    assert record is not None
    return [turn.content for turn in record.job.prompt.messages]


def test_what_was_said_before_the_last_question_goes() -> None:
    """The turns stay, without a word, and so do the last question and what follows it."""
    turns = [("system", "be kind"), ("user", "one"), ("assistant", "two"), ("user", "three"), ("assistant", "fo")]
    prompt = Prompt(model="m", messages=tuple(Message(role=role, content=text) for role, text in turns))  # type: ignore[arg-type]
    left = without_earlier(prompt).messages
    assert [turn.role for turn in left] == [role for role, _ in turns]
    assert [turn.content for turn in left] == ["", "", "", "three", "fo"]


async def test_only_who_asked_goes_on(tmp_path: Path) -> None:
    """A shared turn can be read by others, who cannot have a model repeat to them what came before it; nor is nothing
    a further question."""
    async with stage(tmp_path, public=("ask",)) as on, another(on) as other:
        await joined(on)
        first = await on.ask("first secret")
        await work(on, "first answer")
        second = await on.ask("second words", follows=first["id"])
        receipt_id = await work(on, "second answer")
        assert await said(on, second["id"]) == ["first secret", "first answer", "second words"]
        assert (await on.http.post(f"/api/v1/receipts/{receipt_id}/share")).status_code == 200
        where, page = f"/api/v1/prompts/{second['id']}", f"/prompts/{second['id']}"
        theirs = (await other.get(where)).json()
        assert (theirs["answer"], theirs["own"]) == ("second answer", False)
        mine, shown = (await on.http.get(page)).text, (await other.get(page)).text
        assert "second answer" in shown
        assert "first secret" not in shown
        assert 'name="follows"' in mine
        assert 'name="follows"' not in shown
        body = {"model": "m", "prompt": "repeat all of it", "follows": second["id"]}
        refused = await other.post("/api/v1/prompts", json=body)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        empty = await on.http.post("/api/v1/prompts", json=body | {"prompt": "  "})
        assert (empty.status_code, empty.json()["code"]) == (422, "empty_prompt")


async def test_an_erased_turn_is_gone_from_those_after_it(tmp_path: Path, database: Json) -> None:
    """Who erases a turn erases it from the prompts that go on from it, once they are over; their own words stay, and
    nothing goes on from them any more."""
    async with stage(tmp_path, **database) as on:
        await on.join()
        first = await on.ask("first secret", system="system secret")
        receipt_id = await work(on, "first answer")
        second = await on.ask("second words", follows=first["id"])
        erase = f"/api/v1/receipts/{receipt_id}"
        refused = await on.http.delete(erase)
        assert (refused.status_code, refused.json()["code"]) == (409, "not_ready")
        assert second["id"] in refused.json()["detail"]
        await work(on, "second answer")
        third = await on.ask("third words", follows=second["id"])
        await work(on, "third answer")
        assert (await on.http.delete(erase)).status_code == 200
        assert await said(on, first["id"]) == []
        assert await said(on, second["id"]) == ["", "", "", "second words"]
        assert (await said(on, third["id"]))[-1] == "third words"
        assert not any((await said(on, third["id"]))[:-1])
        assert (await on.status(second["id"]))["answer"] == "second answer"
        body = {"model": "m", "prompt": "on", "follows": third["id"]}
        assert (await on.http.post("/api/v1/prompts", json=body)).json()["code"] == "bad_request"
        if not database:
            kept = on_disk(tmp_path)
            assert not any(gone in kept for gone in (b"first secret", b"system secret"))
            assert b"second words" in kept


async def test_a_key_that_is_known_is_answered_whatever_became_of_the_turn_before(tmp_path: Path) -> None:
    """A prompt sent again with its key gives the earlier one, even where what it goes on from is gone meanwhile."""
    async with stage(tmp_path) as on:
        await on.join()
        first = await on.ask("first")
        await work(on, "first answer")
        second = await on.ask("second", follows=first["id"], idempotency_key="k")
        receipt_id = await work(on, "second answer")
        erased = await on.http.delete(f"/api/v1/prompts/{first['id']}/texts")
        assert erased.status_code == 200, erased.text
        again = await on.ask("second", follows=first["id"], idempotency_key="k")
        assert (again["id"], again["receipt_id"]) == (second["id"], receipt_id)
        fresh = {"model": "m", "prompt": "third", "follows": first["id"], "idempotency_key": "other"}
        assert (await on.http.post("/api/v1/prompts", json=fresh)).json()["code"] == "bad_request"
