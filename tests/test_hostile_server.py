"""A server that means harm, seen from a node and from the command line: it is not obeyed, not believed, not waited for
without end, and leaves nothing behind.
"""

import gzip
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hostile import HOSTILE, liar
from joulebox import client as client_module
from joulebox.client import Client
from joulebox.clock import SystemClock
from joulebox.errors import JouleboxError
from joulebox.model import Prompt
from joulebox.node.agent import Hold, _read_lease
from joulebox.node.engines.scripted import Script
from joulebox.node.relay import Relay
from joulebox.node.spool import SPOOL
from joulebox.plain import plain
from joulebox.protocol import Lease
from test_agent import agent_of

Json = dict[str, Any]
LEASE: Json = plain(
    Lease(token="t", job_id="j", attempt=1, prompt=Prompt(model="m", messages=()), queued_s=0.0, placement_reason="")
)
ASTRAY = ("../models", "/etc/x", "a/b", "", ".", "..", "x" * 65, "a\n", "a\0", "é", "a b")


def with_prompt(**changes: object) -> Json:
    """A lease whose prompt says something else."""
    return LEASE | {"prompt": LEASE["prompt"] | changes}


@pytest.mark.parametrize(
    "lease",
    [
        *(LEASE | {name: value} for name in ("token", "job_id") for value in ASTRAY),
        *(LEASE | {"attempt": value} for value in (-1, 2**31, 10**400)),
        *(LEASE | {"queued_s": value} for value in (float("nan"), float("inf"))),
        *(with_prompt(temperature=value) for value in (float("nan"), -float("inf"))),
        *(with_prompt(max_tokens=value) for value in (-1, 10**30)),
        {},
        [],
        "lease",
    ],
)
def test_a_lease_that_leads_astray_is_refused(lease: Any) -> None:
    """A token that is a path, an id that is none, numbers out of this world: the node takes none of them."""
    with pytest.raises(JouleboxError) as refused:
        _read_lease(lease)
    assert refused.value.code == "protocol_version"


def test_a_right_lease_is_taken() -> None:
    """What servers send is read."""
    assert _read_lease(LEASE).token == "t"


@contextmanager
def answering(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A server that does what `answer` does with every request."""

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            try:
                answer(self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        do_GET = do_POST = _any  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def endless(line: bool) -> Callable[[BaseHTTPRequestHandler], None]:
    """An answer that does not end, and no line of it."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "application/x-ndjson" if line else "application/json")
        request.end_headers()
        while True:
            request.wfile.write(b"[" * 65_536)

    return answer


def bomb(request: BaseHTTPRequestHandler) -> None:
    """A small answer that is a large one once it is unpacked."""
    body = gzip.compress(b"[" * 20_000_000)
    request.send_response(200)
    request.send_header("Content-Encoding", "gzip")
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


@pytest.mark.parametrize("answer", [endless(line=False), bomb])
def test_an_endless_answer_is_given_up(
    answer: Callable[[BaseHTTPRequestHandler], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer without end, or one packed small, is left at the bound, whatever is asked for."""
    monkeypatch.setattr(client_module, "ANSWER_MAX_BYTES", 1_000_000)
    monkeypatch.setattr(Client._answer, "__defaults__", (None, None, 1_000_000))
    refused = pytest.raises(JouleboxError, match="more than 1000000 bytes")
    with answering(answer) as url, Client(url) as client, refused:
        client.nodes()


def test_an_endless_line_is_given_up() -> None:
    """A held connection whose line does not end is dropped before it fills the memory."""
    with answering(endless(line=True)) as url, Client(url) as client:
        with pytest.raises(JouleboxError) as left:
            list(client.lines("/x"))
        assert left.value.code == "no_server"


PROBLEMS = [
    b'{"code": "not_found", "detail": "x", "self": 1, "name": 2, "error": 3}',
    b'{"code": ["not_found"], "detail": "x"}',
    b'{"code": "not_found", "detail": {"a": 1}, "": 1, "a b": 2}',
    b'{"code": "nothing of ours", "detail": null}',
    b"[" * 100_000,
    b'"text"',
    b"[1, 2]",
    b"\xff\xfe",
    b"",
]


@pytest.mark.parametrize("status", [302, 400, 404, 500, 599])
def test_every_refusal_is_one_of_ours(status: int) -> None:
    """Whatever a server refuses with, what comes of it is a named failure: no redirect is followed, nothing breaks."""
    elsewhere = {"location": "http://127.0.0.1:9/elsewhere"}
    turn = iter([body for body in PROBLEMS for _ in range(3)])
    with liar("", lambda *_: (status, elsewhere, next(turn))) as other, Client(other.url, "a-token") as client:
        for _ in PROBLEMS:
            for ask in (client.nodes, lambda: list(client.lines("/l")), lambda: client.receipt_bytes("r")):
                with pytest.raises(JouleboxError):
                    ask()
        assert not any("elsewhere" in path for path in other.asked)


def test_an_agent_refuses_and_leaves_nothing(tmp_path: Path) -> None:
    """A node that is leased a token that is a path ends with one sentence; its folder and what is beside stay as they
    were."""
    folder = tmp_path / "node"
    folder.mkdir()
    (folder / "models.json").write_text("mine")

    def lease(path: str, *_: object) -> tuple[int, dict[str, str], bytes]:
        told = LEASE | {"token": "../models"} if path.endswith("/lease") else {}
        return 200, {"content-type": "application/json"}, json.dumps(told).encode()

    with liar("", lease) as other:
        agent = agent_of(other.url, folder)
        with pytest.raises(JouleboxError, match="lease"):
            agent.run()
    assert (folder / "models.json").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["lock", "m.gguf", "models.json"]


@pytest.mark.parametrize(
    "said", [{"next_seq": -1}, {"next_seq": 1e400}, {"next_seq": 10**400}, {"next_seq": "x"}, [], 0, None]
)
def test_a_reply_that_is_none_stops_no_relay(said: object, tmp_path: Path) -> None:
    """A server that counts backwards, or beyond all numbers, costs a node no thread and no endless sending."""
    with liar("", lambda *_: (200, {}, json.dumps(said).encode())) as other:
        agent = agent_of(other.url, tmp_path)
        relay = Relay(agent._client, "t", "live", agent._machine, agent._recorder, SystemClock(), agent._engine.cancel)
        for number in range(3):
            relay("token", text=str(number), n=1)
        relay.close()
        assert not relay._thread.is_alive()
        assert len(other.asked) <= 4
        assert "".join(text for _, text in relay.chunks) == "012"


@pytest.mark.parametrize(
    "words",
    [
        b'{"say": "enough", "judged_j": 1e400, "judged_s": 1}\n',
        b'{"say": "enough", "judged_j": %d, "judged_s": 1}\n' % 10**400,
        b'{"say": "enough", "judged_j": NaN, "judged_s": 1}\n',
        b'{"say": {"a": []}}\n',
        b"null\n",
        b"[" * 50_000 + b"\n",
    ],
)
def test_words_that_are_none_stop_no_hold(words: bytes) -> None:
    """After words without sense a hold still hears that the prompt was cancelled."""
    heard = threading.Event()
    turn = iter([words, *[b'{"say": "cancel"}\n'] * 50])
    told = {"content-type": "application/x-ndjson"}
    with liar("", lambda *_: (200, told, next(turn))) as other, Client(other.url) as client:
        hold = Hold(client, "t", heard.set)
        assert heard.wait(10)
        assert hold.judged is None
        hold.release()
        hold._thread.join(10)
        assert not hold._thread.is_alive()


def test_a_server_that_lies_in_everything_breaks_no_node(tmp_path: Path) -> None:
    """Between answers of nonsense a node goes on to ask, or ends with a sentence; nothing is left but its own."""
    nonsense = [b"", b"null", b"[]", b"{}", b"\x00\xff", HOSTILE.encode(), b"[" * 9_000, b'{"a":1e999}', b'"x"']
    asked = 0

    def lie(*_: object) -> tuple[int, dict[str, str], bytes]:
        nonlocal asked
        asked += 1
        return (200, 204, 302, 401, 409, 429, 500)[asked % 7], {}, nonsense[asked % len(nonsense)]

    with liar("", lie) as other:
        for _ in range(6):
            agent = agent_of(other.url, tmp_path, script=Script(tokens=1))
            threading.Timer(0.3, agent.stop).start()
            try:
                agent.run()
            except JouleboxError as error:
                assert re.search(r"\w{4,}", error.detail)
            agent._spool._lock.close()
    assert asked > 6
    assert [path.name for path in (tmp_path / SPOOL).iterdir()] == ["lock"]
