"""Log lines: text for people, JSON for programs, what each is about, and nothing that is nobody else's business."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from joulebox import logs
from joulebox.errors import JouleboxError
from joulebox.model import Problem
from joulebox.protocol import Finish
from joulebox.server.problems import Shell
from joulebox.server.store import Store
from server_stage import done, stage
from test_agent import agent_of, at_work, delivered

pytestmark = pytest.mark.anyio
Json = dict[str, Any]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where lines go; afterwards logging is as it was."""
    root, ours = logging.getLogger(), logging.getLogger(logs.OURS)
    before = root.handlers[:], root.level, ours.level
    yield io.StringIO()
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


def lines(stream: io.StringIO) -> list[Json]:
    """What was said, as a program reads it."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def test_lines_of_a_prompt_say_what_they_are_about(tmp_path: Path, stream: io.StringIO) -> None:
    """Taking, failing, going back, answering and ending are lines with job, attempt, node and receipt."""
    logs.configure("server", "info", "json", stream)
    async with stage(tmp_path) as scene:
        await scene.join()
        asked = await scene.ask("secret words")
        lease = await scene.lease()
        problem = Problem(code="engine_died", detail="It died.")
        await scene.finish(lease, Finish(outcome="failed", problem=problem, retry=True))
        lease = await scene.lease()
        receipt_id = (await scene.finish(lease, done(lease, "Hel", "lo"))).json()["receipt_id"]
    said = [one for one in lines(stream) if one["logger"] == Store.__module__]
    assert {one["job"] for one in said} == {asked["id"]}
    assert [(one["attempt"], one["node"], one["level"]) for one in said] == [
        (1, "n1", "info"),
        (1, "n1", "warning"),
        (2, "n1", "info"),
        (2, "n1", "info"),
    ]
    assert said[1]["problem"] == "engine_died"
    assert said[1]["message"].endswith("goes back into the line")
    assert said[3]["receipt"] == receipt_id
    assert all(one["program"] == "server" and one["at"].endswith("+00:00") for one in said)


async def test_prompts_answers_and_keys_are_in_no_line(
    tmp_path: Path, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the lowest level, also where the database breaks in the middle, no line holds a text or a token."""
    logs.configure("server", "debug", "json", stream)
    async with stage(tmp_path, electricity_maps_key="keykeykey", electricity_maps_url="http://127.0.0.1:9") as scene:
        await scene.join()
        key = {"Authorization": "Bearer jb_secrettoken"}
        sent = {"model": "m", "prompt": "secret words", "system": "hidden"}
        await scene.http.post("/api/v1/prompts", json=sent, headers=key)
        lease = await scene.lease()
        await scene.finish(lease, done(lease, "answered ", "quietly"))

        async def broken(*_: object, **__: object) -> None:
            raise JouleboxError("database", "The disk is full.")

        monkeypatch.setattr(Store, "by_key", broken)
        sent |= {"idempotency_key": "secret key"}
        assert (await scene.http.post("/api/v1/prompts", json=sent, headers=key)).status_code == 503
        monkeypatch.setattr(Store, "by_key", lambda *_: 1 / 0)
        assert (await scene.http.post("/api/v1/prompts", json=sent, headers=key)).status_code == 500
    said = stream.getvalue()
    assert "ZeroDivisionError" in said
    words = ("secret", "hidden", "answered ", "quietly", "keykeykey", lease["token"])
    assert [word for word in words if word in said] == []


def test_a_broken_statement_hides_what_it_carried(tmp_path: Path) -> None:
    """An error of the database library tells the statement, never the values that were to be kept."""
    for module in ("sqlite", "postgres"):
        source = (Path(logs.__file__).parent / "server" / "store" / f"{module}.py").read_text("utf-8")
        assert source.count("create_async_engine(") == source.count("hide_parameters=True")


def test_what_is_bound_is_on_every_line(stream: io.StringIO) -> None:
    """Lines inside a block carry what it is about, inner blocks add to it, and afterwards it is gone."""
    logs.configure("node", "info", "json", stream)
    log = logging.getLogger("joulebox.node")
    with logs.bound(node="n1"):
        with logs.bound(job="j1", attempt=2):
            log.info("works", extra=logs.about(receipt="r1"))
        log.info("waits")
    log.info("ends")
    names = ("node", "job", "attempt", "receipt")
    facts = [{name: one[name] for name in names if name in one} for one in lines(stream)]
    assert facts == [{"node": "n1", "job": "j1", "attempt": 2, "receipt": "r1"}, {"node": "n1"}, {}]


def test_text_says_once_what_it_is_about(stream: io.StringIO) -> None:
    """Text lines add what the sentence does not say itself, and the traceback of what broke."""
    logs.configure("server", "info", "text", stream)
    log = logging.getLogger("joulebox.server")
    log.info("node %s takes prompt %s", "n1", "abc", extra=logs.about(job="abc", node="n1", attempt=1))
    log.debug("not told")
    assert logs.TextLines("node").format(
        logging.makeLogRecord({"msg": "works", "about": {"node": "n1", "job": "j"}})
    ) == ("node: works (job j)")
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("it broke", extra=logs.about(job="abc"))
    first, second, *rest = stream.getvalue().splitlines()
    assert first == "server: node n1 takes prompt abc (attempt 1)"
    assert second == "server: it broke (job abc)"
    assert rest[-1] == "    ValueError: why"


def test_what_libraries_say_begins_with_warnings(stream: io.StringIO) -> None:
    """At the lowest level of ours a library's lines still begin with warnings: below, some print what they send."""
    logs.configure("node", "debug", "json", stream)
    logging.getLogger("httpx2").info("GET http://x/?key=secret")
    logging.getLogger("httpx2").warning("slow")
    logging.getLogger("joulebox.node").debug("ours")
    assert [one["message"] for one in lines(stream)] == ["slow", "ours"]


async def test_lines_of_a_node_say_what_it_works_at(tmp_path: Path, stream: io.StringIO) -> None:
    """What a node says of a prompt carries its job and attempt, and no text."""
    logs.configure("node", "info", "json", stream)
    async with stage(tmp_path) as scene:
        await scene.join(instance="earlier")
        asked = await scene.ask("secret words")
        async with at_work(agent_of(scene.url, tmp_path, "n2")):
            await scene.until(asked["id"], "completed")
            assert await delivered(tmp_path)
    said = [one for one in lines(stream) if one["logger"] == "joulebox.node" and "job" in one]
    assert {(one["job"], one["attempt"]) for one in said} == {(asked["id"], 1)}
    assert "secret" not in stream.getvalue()


async def test_a_stream_that_the_database_cuts_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """A stream that ends because the database is away is told in one line, not as an unexpected failure."""

    async def cut(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ExceptionGroup("tasks", [JouleboxError("database", "The database is away.")])

    async def nothing() -> dict[str, Any]:
        return {}

    async def unheard(_message: Message) -> None:
        return None

    scope = {"type": "http", "method": "GET", "path": "/events", "headers": []}
    with pytest.raises(ExceptionGroup):
        await Shell(cut)(scope, nothing, unheard)
    told = [(one.levelname, one.getMessage(), one.exc_info) for one in caplog.records]
    assert told == [("WARNING", "GET /events was cut: The database is away.", None)]
