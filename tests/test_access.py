"""Who may do what: every route and every role, owners, tokens, rates and quotas, the audit log, retention."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from fastapi.routing import APIRoute
from typer.testing import CliRunner

import databases
from joulebox.cli import app as command_line
from joulebox.client import Client
from joulebox.clock import SystemClock
from joulebox.errors import JouleboxError
from joulebox.node.engines.scripted import Script
from joulebox.node.spool import SPOOL, Spool
from joulebox.protocol import Finish
from joulebox.server.access import TABLE, TOKEN, Need, address_hash
from joulebox.server.app import build_app
from joulebox.server.comparing import Comparison
from joulebox.server.retention import Retention
from joulebox.server.store import Store
from joulebox.settings import LOCAL_TOKEN, Settings, load_settings
from joulebox.units import nanoseconds
from server_stage import WAIT_S, Stage, done, stage, story
from test_agent import agent_of

pytestmark = pytest.mark.anyio
Json = dict[str, Any]
FREE: Final = {"requests_per_minute": 0, "asks_per_minute": 0, "outstanding_max": 0, "prompts_per_day": 0}
MAY: Final[dict[str, set[Need]]] = {
    "nobody": {"anyone", "link"},
    "reader": {"anyone", "link", "read"},
    "stranger": {"anyone", "link", "read", "ask"},
    "owner": {"anyone", "link", "read", "ask", "owner"},
    "node": {"anyone", "link", "node"},
    "admin": {"anyone", "link", "read", "ask", "owner", "admin", "tokens"},
    "local": {"anyone", "link", "read", "ask", "owner", "node", "admin", "tokens"},
    "revoked": {"anyone"},
    "wrong": {"anyone"},
    "server": {"anyone", "link", "node", "server"},
    "session": {"anyone", "link", "read", "ask", "owner", "admin", "tokens"},
}
SCOPES: Final = {"reader": "read", "stranger": "ask", "owner": "ask", "node": "node", "admin": "admin"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Iterator[Json]:
    """A database of each kind, as a setting."""
    with databases.setting(request.param) as found:
        yield found


class Ahead(SystemClock):
    """The machine's clock, and what was added to it."""

    added_s = 0

    def now_ns(self) -> int:
        return super().now_ns() + nanoseconds(self.added_s)

    def utc(self) -> datetime:
        return super().utc() + timedelta(seconds=self.added_s)

    def advance(self, s: int) -> None:
        self.added_s += s


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def local(folder: Path) -> dict[str, str]:
    return bearer((folder / LOCAL_TOKEN).read_text().strip())


def on_disk(folder: Path) -> bytes:
    """Everything that the database's files hold."""
    return b"".join(path.read_bytes() for path in folder.glob("joulebox.db*"))


async def token(on: Stage, *scopes: str, **fields: Any) -> str:
    """A new token of these scopes."""
    body = {"name": "-".join(scopes), "scopes": list(scopes)} | fields
    reply = await on.http.post("/api/v1/tokens", json=body, headers=local(on.settings.data_dir))
    assert reply.status_code == 201, reply.text
    return str(reply.json()["token"])


@asynccontextmanager
async def another(on: Stage, **headers: str) -> AsyncIterator[httpx2.AsyncClient]:
    """Somebody else, with cookies of their own."""
    async with httpx2.AsyncClient(base_url=on.url, headers=headers, timeout=2 * WAIT_S, verify=False) as http:
        yield http


async def session(on: Stage, key: str) -> str:
    """The cookie of a browser that signs in with a key."""
    async with another(on) as http:
        reply = await http.post("/signin", content=f"key={key}")
        assert reply.status_code == 303, reply.text
        return str(reply.headers["set-cookie"]).partition(";")[0]


async def work(on: Stage, *words: str) -> str:
    """A node answers what waits; the id of the receipt."""
    node = replace(on, http=httpx2.AsyncClient(base_url=on.url, headers=local(on.settings.data_dir), verify=False))
    async with node.http:
        lease = await node.lease()
        async with node.hold(lease):
            await node.send(lease, story(*words))
            await node.finish(lease, done(lease, *words))
        return str((await node.until(lease["job_id"], "completed"))["receipt_id"])


async def joined(on: Stage, **changes: Any) -> None:
    """A node has been there, so that its models can be asked."""
    node = replace(on, http=httpx2.AsyncClient(base_url=on.url, headers=local(on.settings.data_dir), verify=False))
    async with node.http:
        await node.join(**changes)


def routes(router: Any) -> Iterator[tuple[str, str]]:
    """Every route of an application, those of its routers too."""
    for route in router.routes:
        if isinstance(route, APIRoute):
            yield from ((method, route.path_format) for method in route.methods or ())
        elif (inner := getattr(route, "original_router", None)) is not None:
            yield from routes(inner)


# --- the table --------------------------------------------------------------------------------------------------------


def test_every_route_is_in_the_table(tmp_path: Path) -> None:
    """The application has exactly the routes that the table of access names."""
    app = build_app(Settings(data_dir=tmp_path))
    assert sorted(routes(app.router)) == sorted(TABLE)
    told = app.openapi()["paths"]
    for (method, path), need in TABLE.items():
        if path in told:
            assert told[path][method.lower()]["x-joulebox-needs"] == need


async def test_every_route_for_every_role(tmp_path: Path) -> None:
    """On a closed server each role is let in where its needs say so, and nowhere else, route by route."""
    async with stage(tmp_path, public=(), **FREE) as on:
        await joined(on)
        tokens = {name: await token(on, scope) for name, scope in SCOPES.items()}
        on.http.headers.update(bearer(tokens["owner"]))
        names = {
            "prompt_id": (await on.ask())["id"],
            "name": "n1",
            "token": "x",
            "token_id": "x",
            "campaign_id": "x",
            "tag": "de",
            "comparison_id": "c",
            "number": 1,
            "model_id": "m",
        }
        asked = await on.store.record(names["prompt_id"])
        assert asked is not None
        compared = Comparison(id="c", created=asked.job.created, owner=asked.owner, node="n1", jobs=(asked.job.id,))
        await on.store.talks.compare(compared)
        names["receipt_id"] = await work(on, "a")
        tokens["wrong"] = "jb_" + "x" * 16 + "_" + "y" * 43
        tokens["revoked"] = await token(on, "admin")
        gone = tokens["revoked"].split("_")[1]
        await on.http.delete(f"/api/v1/tokens/{gone}", headers=local(tmp_path))
        headers: dict[str, dict[str, str]] = {role: bearer(text) for role, text in tokens.items()}
        headers |= {"nobody": {}, "local": local(tmp_path)}
        headers["server"] = {"joulebox-passed": await on.store.access.secret("access", "")}
        headers["session"] = {"Cookie": await session(on, tokens["admin"])}
        assert headers.keys() == MAY.keys()
        for role, needs in MAY.items():
            async with another(on, **headers[role]) as http:
                found = {route: await let_in(http, route, names) for route in TABLE}
            assert found == {route: need in needs for route, need in TABLE.items()}, role


async def let_in(http: httpx2.AsyncClient, route: tuple[str, str], names: Json) -> bool:
    """Whether the gate, or the route itself, did not refuse; a refusal says so as it should."""
    method, path = route
    reply = await http.request(method, path.format(**names), json={} if method == "POST" else None)
    if reply.status_code not in (401, 403):
        return True
    if path.startswith("/v1/"):
        assert reply.json()["error"]["code"] in ("invalid_api_key", "forbidden")
    elif path.startswith(("/api/", "/node/", "/metrics")):
        assert reply.json()["code"] in ("unauthorized", "forbidden")
    else:
        assert reply.headers["content-type"].startswith("text/html")
    assert ("www-authenticate" in reply.headers) == (reply.status_code == 401)
    return False


# --- a server that is open --------------------------------------------------------------------------------------------


async def test_a_server_for_this_machine_is_open(tmp_path: Path) -> None:
    """Without settings everything works without a token, whatever bearer a client sends; tokens alone need the local
    one, which only its owner can read."""
    async with stage(tmp_path) as on:
        await on.join()
        on.http.headers.update(bearer("sk-anything"))
        status = await on.ask()
        assert (await on.status(status["id"]))["prompt"] == "hi"
        assert not on.http.cookies
        assert (await on.http.post("/api/v1/nodes/n1/baseline", json={"why": "new"})).status_code == 200
        assert (await on.http.get("/api/v1/tokens")).status_code == 401
        assert (await on.http.get("/api/v1/tokens", headers=local(tmp_path))).status_code == 200
        assert (tmp_path / LOCAL_TOKEN).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("headers", [{"X-Forwarded-For": "1.2.3.4"}, {"Host": "evil.example"}])
async def test_open_only_to_this_machine(tmp_path: Path, headers: dict[str, str]) -> None:
    """What a proxy brings from elsewhere, or a name that only leads here, is not of this machine."""
    async with stage(tmp_path) as on:
        assert (await on.http.get("/api/v1/nodes")).status_code == 200
        assert (await on.http.get("/api/v1/nodes", headers=headers)).status_code == 401


async def test_another_site_presses_no_button(tmp_path: Path) -> None:
    """A request that changes something and that a page of another site sent is refused."""
    async with stage(tmp_path) as on:
        await on.join()
        body = {"model": "m", "prompt": "hi"}
        reply = await on.http.post("/api/v1/prompts", json=body, headers={"Sec-Fetch-Site": "cross-site"})
        assert reply.status_code == 403


def test_beyond_this_machine_nothing_is_open(tmp_path: Path) -> None:
    """A server that others can reach is closed unless it is told what is public; a wrong word is refused."""
    assert Settings(data_dir=tmp_path, public=()).public == ()
    for name, wrong in (("public", "everything"), ("trusted_proxies", "my-proxy"), ("token", "a b")):
        with pytest.raises(JouleboxError) as refused:
            load_settings(**{name: wrong})
        assert name in refused.value.detail
        assert "a b" not in refused.value.detail


async def test_files_are_their_users(tmp_path: Path) -> None:
    """Folders and files of server and node are made for their user alone, with a mild umask too; a database that
    everybody may read, and the log of it that a crash left, are closed to others."""
    before = os.umask(0o022)
    try:
        folder = tmp_path / "new" / "data"
        for _ in range(2):
            store = Store(Settings(data_dir=folder).database)
            await store.open()
            kept = {path.name: mode(path) for path in folder.iterdir() if not path.name.endswith(".lock")}
            await store.close()
            assert kept == dict.fromkeys(("joulebox.db", "joulebox.db-wal", "joulebox.db-shm"), 0o600)
            assert (mode(folder), mode(folder.parent)) == (0o700, 0o700)
            (folder / "joulebox.db").chmod(0o606)
            (folder / "joulebox.db-wal").touch(0o604)
        left = Spool(folder / SPOOL).put("token", Finish(outcome="done", answer="secret"))
        assert (mode(left), mode(left.parent)) == (0o600, 0o700)
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


# --- owners -----------------------------------------------------------------------------------------------------------


async def test_first_prompts_of_a_client_at_once_have_one_owner(tmp_path: Path) -> None:
    """What several threads ask first through one client belongs to it, so that it may stop each of them."""
    async with stage(tmp_path, public=("ask",)) as on:
        await joined(on)
        with Client(on.url) as client:
            asked = [asyncio.to_thread(client.submit, model="m", prompt=f"hi {n}") for n in range(4)]
            for status in await asyncio.gather(*asked):
                await asyncio.to_thread(client.cancel, status["id"])
                assert (await on.status(status["id"]))["state"] == "cancelled"


async def test_texts_are_their_owners(tmp_path: Path, database: Json) -> None:
    """Who asks without a token is known by a cookie: others with the link see where it stands but no text, until it is
    shared, and not when it is shared no more; only the owner and an administrator remove it."""
    async with stage(tmp_path, public=("ask",), **database) as on, another(on) as other:
        await joined(on)
        status = await on.ask("my secret")
        cookie = on.http.cookies["joulebox_owner"]
        assert len(cookie) == 43
        receipt_id = await work(on, "an", "swer")
        where, share = f"/api/v1/prompts/{status['id']}", f"/api/v1/receipts/{receipt_id}/share"
        mine, theirs = (await on.http.get(where)).json(), (await other.get(where)).json()
        assert (mine["prompt"], mine["answer"], mine["texts"]) == ("my secret", "answer", "shown")
        assert (theirs["prompt"], theirs["answer"], theirs["texts"]) == (None, None, "private")
        assert theirs["state"] == "completed"
        for page in (f"/prompts/{status['id']}", f"/receipts/{receipt_id}"):
            assert "my secret" in (await on.http.get(page)).text
            assert "my secret" not in (await other.get(page)).text
        for method, address in (("GET", where + "/events"), ("DELETE", where), ("POST", share)):
            assert (await other.request(method, address)).status_code == 403
        assert (await other.get("/api/v1/receipts")).json()["receipts"] == []
        assert [one["id"] for one in (await on.http.get("/api/v1/prompts")).json()["prompts"]] == [status["id"]]
        assert (await on.http.post(share)).json()["shared"] is True
        assert (await other.get(where)).json()["answer"] == "answer"
        assert "my secret" in (await other.get(f"/receipts/{receipt_id}")).text
        assert (await other.delete(f"/api/v1/receipts/{receipt_id}")).status_code == 403
        assert (await on.http.delete(share)).json()["shared"] is False
        assert (await other.get(where)).json()["answer"] is None
        await other.delete(f"/api/v1/receipts/{receipt_id}", headers=local(tmp_path))
        assert (await on.http.get(where)).json()["texts"] == "removed"
        acts = (await on.http.get("/api/v1/audit", headers=local(tmp_path))).json()["acts"]
        assert [(one["name"], one["act"], one["subject"]) for one in acts] == [("local", "erase", status["id"])]


async def test_the_form_knows_its_owner(tmp_path: Path) -> None:
    """A prompt sent by the page's form belongs to the browser that sent it, which may share it by a button."""
    async with stage(tmp_path, public=("ask",)) as on, another(on) as other:
        await joined(on)
        reply = await on.http.post("/ask", content="model=m&prompt=from+a+form")
        page = reply.headers["location"]
        assert "HttpOnly" in reply.headers["set-cookie"]
        assert "from a form" in (await on.http.get(page)).text
        assert "from a form" not in (await other.get(page)).text
        receipt_id = await work(on, "yes")
        address = f"/receipts/{receipt_id}"
        assert f'action="{address}/share"' in (await on.http.get(address)).text
        assert (await other.post(f"{address}/share")).status_code == 403
        assert (await on.http.post(f"{address}/share")).headers["location"] == address
        assert "from a form" in (await other.get(address)).text
        assert f'action="{address}/unshare"' in (await on.http.get(address)).text


async def test_an_idempotency_key_is_its_askers(tmp_path: Path) -> None:
    """The same idempotency key of two people is two prompts; of one person it is one."""
    async with stage(tmp_path, public=(), **FREE) as on:
        await joined(on)
        tokens = [await token(on, "ask") for _ in range(2)]
        body = {"model": "m", "prompt": "hi", "idempotency_key": "k"}
        ids = [
            (await on.http.post("/api/v1/prompts", json=body, headers=bearer(one))).json()["id"]
            for one in (*tokens, tokens[0])
        ]
        assert ids[0] == ids[2] != ids[1]


# --- tokens -----------------------------------------------------------------------------------------------------------


async def test_a_token_is_kept_as_a_hash(tmp_path: Path) -> None:
    """Neither a token nor an address is found in any file of the server; the token ends when it is said to."""
    clock = Ahead()
    async with stage(tmp_path, public=("ask",), clock=clock) as on:
        await joined(on)
        made = await token(on, "ask", expires_days=1)
        await on.ask()
        assert (await on.http.get("/api/v1/models", headers=bearer(made))).status_code == 200
        clock.advance(86_401)
        assert (await on.http.get("/api/v1/models", headers=bearer(made))).status_code == 401
        listed = (await on.http.get("/api/v1/tokens", headers=local(tmp_path))).text
        assert made not in listed
        kept = on_disk(tmp_path)
        assert made.encode() not in kept
        assert made.rpartition("_")[2].encode() not in kept
        assert b"127.0.0.1" not in kept
        async with on.store._database.read() as connection:
            asker = (await connection.exec_driver_sql("SELECT asker FROM jobs")).scalar_one()
        assert re.fullmatch(r"a:[0-9a-f]{40}", asker)


async def test_a_node_whose_token_is_revoked(tmp_path: Path) -> None:
    """It ends with that reason, and the result that it brings is not taken."""
    (tmp_path / "node").mkdir()
    async with stage(tmp_path / "server", public=("ask",), grace_s=0.2, **FREE) as on:
        made = await token(on, "node")
        agent = agent_of(on.url, tmp_path / "node", "n1", Script(token_s=0.05, tokens=10), token=made)
        await joined(on)
        prompt_id = (await on.ask())["id"]
        working = asyncio.create_task(asyncio.to_thread(agent.run))
        await on.until(prompt_id, "running")
        await on.http.delete(f"/api/v1/tokens/{made.split('_')[1]}", headers=local(on.settings.data_dir))
        with pytest.raises(JouleboxError) as ended:
            await asyncio.wait_for(working, 10)
        assert ended.value.code == "unauthorized"
        assert (await on.status(prompt_id))["answer"] is None


async def test_tokens_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`joulebox tokens` makes a token that works, lists it without its text, revokes it, and shows what was done."""
    async with stage(tmp_path, public=()) as on:
        for name, value in (("SERVER", on.url), ("DATA_DIR", str(tmp_path))):
            monkeypatch.setenv(f"JOULEBOX_{name}", value)

        async def run(*words: str) -> str:
            result = await asyncio.to_thread(CliRunner().invoke, command_line, ["tokens", *words])
            assert result.exit_code == 0, result.output
            return str(result.stdout)

        made = (await run("create", "desk", "--scope", "node")).strip()
        parts = TOKEN.fullmatch(made)
        assert parts is not None
        assert (await on.http.post("/node/v1/lease", headers=bearer(made))).status_code == 422
        listed = await run("list")
        assert "desk  node" in listed
        assert made not in listed
        await run("revoke", parts[1])
        assert (await on.http.post("/node/v1/lease", headers=bearer(made))).status_code == 401
        acts = await run("audit")
        assert [line.split()[3] for line in acts.splitlines()] == ["token_revoke", "token_create"]
        assert made not in acts
        monkeypatch.setenv("JOULEBOX_DATA_DIR", str(tmp_path / "elsewhere"))
        refused = await asyncio.to_thread(CliRunner().invoke, command_line, ["tokens", "list"])
        assert isinstance(refused.exception, JouleboxError)
        assert refused.exception.code == "unauthorized"


async def test_a_token_works_on_every_server(tmp_path: Path) -> None:
    """Two closed servers on one database: a node's token opens both, what it says to the wrong one is passed on, and
    the way between servers is closed to others."""
    with databases.postgres() as url:
        closed = {"public": (), "database_url": url, "grace_s": 60.0}
        async with stage(tmp_path / "1", **closed) as one, stage(tmp_path / "2", **closed) as other:
            one.http.headers.update(bearer(await token(one, "node", "ask")))
            other.http.headers.update(one.http.headers)
            await one.join()
            status = await one.ask()
            lease = await one.lease()
            async with other.hold(lease):
                assert (await other.send(lease, story("a"))).status_code == 200
                log = f"/node/v1/attempts/{lease['token']}/log"
                assert (await one.http.get(log)).status_code == 403
                assert (await other.finish(lease, done(lease, "a"))).status_code == 200
            assert (await other.until(status["id"], "completed"))["answer"] == "a"


# --- not too often, not too much --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("one_minute")
async def test_rates(tmp_path: Path) -> None:
    """More prompts or requests a minute than may be are refused with the time to wait, each address by itself; wrong
    tokens count as requests; the server's own health does not."""
    rates = {"asks_per_minute": 2, "requests_per_minute": 20, "trusted_proxies": ("127.0.0.1",)}
    async with stage(tmp_path, public=("ask",), **rates) as on:
        await joined(on)
        body = {"model": "m", "prompt": "hi"}
        replies = [
            await on.http.post("/api/v1/prompts", json=body, headers={"X-Forwarded-For": address})
            for address in ("1.1.1.1", "1.1.1.1", "1.1.1.1", "9.9.9.9, 2.2.2.2", "2001:db8::1", "2001:db8::2")
        ]
        assert [reply.status_code for reply in replies] == [202, 202, 429, 202, 202, 202]
        refused = replies[2]
        assert refused.json()["code"] == "too_many_requests"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        wrong = bearer("jb_" + "x" * 16 + "_" + "y" * 43) | {"X-Forwarded-For": "3.3.3.3"}
        answers = [(await on.http.get("/api/v1/models", headers=wrong)).status_code for _ in range(25)]
        assert answers == [401] * 20 + [429] * 5
        assert (await on.http.get("/healthz", headers=wrong)).status_code == 200
        page = await on.http.post("/ask", content="model=m&prompt=x", headers={"X-Forwarded-For": "1.1.1.1"})
        assert (page.status_code, page.headers["content-type"]) == (429, "text/html; charset=utf-8")


async def test_a_page_that_refuses_says_when_to_come_again(tmp_path: Path) -> None:
    """Who has as many prompts in hand as may be is told on the pages Ask and Compare, in a header too, when to look
    again."""
    async with stage(tmp_path, public=("ask",), outstanding_max=1) as on:
        await joined(on, models=("m", "n"))
        await on.ask()
        for path, form in (("/ask", "model=m&prompt=x"), ("/compare", "models=m&models=n&prompt=x")):
            refused = await on.http.post(path, content=form)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "60"), refused.text


async def test_quotas(tmp_path: Path, database: Json) -> None:
    """So many prompts of one asker may be in hand, and so many asked in a day; a token may have quotas of its own, an
    idempotent repetition costs none, and the day rolls on."""
    clock = Ahead()
    quotas = {"outstanding_max": 2, "prompts_per_day": 3}
    async with stage(tmp_path, public=("ask",), clock=clock, **quotas, **database) as on:
        await joined(on)
        body = {"model": "m", "prompt": "hi", "idempotency_key": "once"}
        for _ in range(3):
            assert (await on.http.post("/api/v1/prompts", json=body)).status_code == 202
        second = await on.ask()
        refused = await on.http.post("/api/v1/prompts", json={"model": "m", "prompt": "hi"})
        assert (refused.status_code, refused.json()["code"]) == (429, "quota_used")
        await on.http.delete(f"/api/v1/prompts/{second['id']}")
        clock.advance(3600)  # the test itself may take a while
        await on.http.delete(f"/api/v1/prompts/{(await on.ask())['id']}")
        refused = await on.http.post("/api/v1/prompts", json={"model": "m", "prompt": "hi"})
        assert 23 * 3600 - 60 < int(refused.headers["retry-after"]) <= 23 * 3600
        clock.advance(23 * 3600 + 1)
        await on.ask()
        on.http.headers.update(bearer(await token(on, "ask", outstanding_max=0, prompts_per_day=0)))
        for _ in range(5):
            await on.ask()


def test_an_address_is_hashed_with_its_key() -> None:
    """The same address gives the same name under one secret and another under another; IPv6 counts by network."""
    assert address_hash("s", "192.0.2.1") == address_hash("s", "::ffff:192.0.2.1") != address_hash("t", "192.0.2.1")
    assert address_hash("s", "2001:db8::1") == address_hash("s", "2001:db8::ffff") != address_hash("s", "2001:db8:1::1")


# --- retention --------------------------------------------------------------------------------------------------------


async def test_old_texts_are_erased(tmp_path: Path, database: Json) -> None:
    """Texts that are older than the setting go, with who asked; receipt and evidence stay, and so do newer texts."""
    clock = Ahead()
    async with stage(tmp_path, clock=clock, **database) as on:
        await joined(on)
        old = await on.ask("old words")
        receipt_id = await work(on, "old answer")
        clock.advance(2 * 86_400)
        new, waiting = await on.ask("new words"), await on.ask("waiting words")
        await on.http.delete(f"/api/v1/prompts/{new['id']}")
        retention = Retention(on.store, clock, 1.0)
        assert [await retention.turn(), await retention.turn()] == [1, 0]
        gone = await on.status(old["id"])
        assert (gone["prompt"], gone["answer"], gone["texts"]) == (None, None, "removed")
        assert (await on.http.get(f"/api/v1/receipts/{receipt_id}/trace.json")).status_code == 200
        assert [(await on.status(one["id"]))["prompt"] for one in (new, waiting)] == ["new words", "waiting words"]
        clock.advance(2 * 86_400)
        assert await retention.turn() == 1
        assert (await on.status(waiting["id"]))["prompt"] == "waiting words"
        if not database:
            kept = on_disk(tmp_path)
            assert b"old words" not in kept


async def test_old_texts_are_erased_by_themselves(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A server with a limit erases what is due by itself and says how much in its log; where the database does not
    answer it says so and goes on; without a limit there is no task."""
    clock = Ahead()
    caplog.set_level("INFO", logger="joulebox.server.retention")

    async def until_said(words: str) -> None:
        for _ in range(round(WAIT_S / 0.01)):
            if words in caplog.text:
                return
            await asyncio.sleep(0.01)
        pytest.fail(f"not said: {words}")

    async with stage(tmp_path, clock=clock) as on:
        await joined(on)
        old = await on.ask("old words")
        await work(on, "old answer")
        clock.advance(2 * 86_400)
        forever, daily = (Retention(on.store, clock, days) for days in (None, 1.0))
        forever.start()
        await forever.stop()
        assert (await forever.turn(), (await on.status(old["id"]))["prompt"]) == (0, "old words")
        daily.start()
        await until_said("the texts of 1 old prompts are erased")
        await daily.stop()
        assert (await on.status(old["id"]))["prompt"] is None
    without = Retention(on.store, clock, 1.0)
    without.start()
    await until_said("old texts are not erased now")
    await without.stop()
