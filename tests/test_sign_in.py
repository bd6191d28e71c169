"""Signing in with a key in a browser, and what those who run the server do on its pages."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import operating_stage as given
from joulebox.server import pages
from joulebox.server.gate import SESSION_S, SIGN_INS_PER_MINUTE
from joulebox.server.pages.frame import View
from joulebox.server.tongue import tongue
from joulebox.settings import LOCAL_TOKEN
from server_stage import Stage, stage
from test_access import Ahead, another, bearer, joined, local, session, token

pytestmark = pytest.mark.anyio
Json = dict[str, Any]
HOSTILE = "<script>alert('x')</script>\"\u202e&"
WRONG = "jb_" + "x" * 16 + "_" + "y" * 43


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def sign_in(on: Stage, key: str, to: str = "") -> Any:
    return await on.http.post("/signin", content=f"key={key}&to={to}")


async def made(on: Stage, form: str) -> str:
    """The key that the form makes, as its page shows it."""
    reply = await on.http.post("/admin/keys", content=form)
    assert reply.status_code == 200, reply.text
    found = re.search(r"<code>(jb_[0-9A-Za-z_-]+)</code>", reply.text)
    assert found is not None
    return found[1]


async def test_an_administrator_signs_in_makes_a_key_and_revokes_it(tmp_path: Path) -> None:
    """On a closed server the page says how to sign in, a key opens it, a key that is made there is shown once and
    works until it is revoked, and signing out closes the page."""
    async with stage(tmp_path, public=()) as on:
        closed = await on.http.get("/admin")
        assert (closed.status_code, 'href="/signin?to=%2Fadmin"' in closed.text) == (401, True)
        key = await token(on, "admin", name="boss")
        reply = await sign_in(on, key, "/admin")
        assert (reply.status_code, reply.headers["location"]) == (303, "/admin")
        cookie = reply.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=strict", f"Max-Age={SESSION_S}", "Path=/"} <= set(cookie.split("; "))
        assert key.split("_", 2)[2] not in cookie
        assert "Signed in with the key boss." in (await on.http.get("/admin")).text
        new = await made(on, "name=Anna&scope=ask&expires_days=3&prompts_per_day=5")
        listed = (await on.http.get("/admin/keys")).text
        assert new not in listed
        assert "Anna" in listed
        assert "Prompts within 24 hours: 5" in listed
        async with another(on, **bearer(new)) as anna:
            assert (await anna.get("/api/v1/models")).status_code == 200
            await on.http.post(f"/admin/keys/{new.split('_')[1]}/revoke")
            assert (await anna.get("/api/v1/models")).status_code == 401
        acts = (await on.http.get("/api/v1/audit")).json()["acts"]
        assert [(one["name"], one["act"]) for one in acts[:2]] == [("boss", "token_revoke"), ("boss", "token_create")]
        assert (await on.http.post("/signout")).headers["location"] == "/signin"
        assert (await on.http.get("/admin")).status_code == 401


@pytest.mark.parametrize(
    ("key", "status", "sentence"),
    [
        (WRONG, 401, "This key is not known, has expired or was revoked: use another."),
        ("hunter2", 401, "This key is not known, has expired or was revoked: use another."),
        ("", 422, "There is no key: paste the whole of it, from jb_ to its end."),
    ],
)
async def test_a_wrong_key_gets_one_sentence(tmp_path: Path, key: str, status: int, sentence: str) -> None:
    """What opens nothing says so on the page, leaves no cookie, and shows no key again."""
    async with stage(tmp_path, public=()) as on:
        reply = await sign_in(on, key)
        assert (reply.status_code, sentence in reply.text) == (status, True)
        assert "set-cookie" not in reply.headers
        assert not key or key not in reply.text


async def test_a_key_for_nodes_opens_no_page(tmp_path: Path) -> None:
    """It is refused with a sentence; one for asking opens what asking opens, and no more."""
    async with stage(tmp_path, public=()) as on:
        await joined(on)
        refused = await sign_in(on, await token(on, "node"))
        assert (refused.status_code, "for nodes" in refused.text) == (403, True)
        entered = await sign_in(on, await token(on, "ask"))
        assert entered.headers["location"] == "/"
        page = await on.http.post("/ask", content="model=m&prompt=from+a+browser")
        assert "from a browser" in (await on.http.get(page.headers["location"])).text
        assert "joulebox_owner" not in on.http.cookies
        assert (await on.http.get("/admin")).status_code == 403
        async with another(on) as other:
            assert "from a browser" not in (await other.get(page.headers["location"])).text


async def test_a_session_ends(tmp_path: Path) -> None:
    """After twelve hours, with its key, and not at all where its cookie was changed."""
    clock = Ahead()
    async with stage(tmp_path, public=(), clock=clock) as on:
        key = await token(on, "admin")
        cookie = await session(on, key)
        name, _, text = cookie.partition("=")
        token_id, until, seal = text.split(".")

        async def status(shown: str) -> int:
            async with another(on, Cookie=f"{name}={shown}") as http:
                return int((await http.get("/admin")).status_code)

        assert await status(text) == 200
        later, other = f"{token_id}.{int(until) + 1}.{seal}", f"local.{until}.{seal}"
        for changed in (later, other, f"{token_id}.{until}.{'A' * 43}"):
            assert await status(changed) == 401
        clock.advance(SESSION_S + 1)
        assert await status(text) == 401
        again = (await session(on, key)).partition("=")[2]
        assert await status(again) == 200
        await on.http.delete(f"/api/v1/tokens/{token_id}", headers=local(tmp_path))
        assert await status(again) == 401


@pytest.mark.usefixtures("one_minute")
async def test_keys_cannot_be_tried_out(tmp_path: Path) -> None:
    """More sign-ins a minute than may be are refused, the right key among them."""
    async with stage(tmp_path, public=()) as on:
        key = await token(on, "admin")
        tried = [(await sign_in(on, WRONG)).status_code for _ in range(SIGN_INS_PER_MINUTE)]
        assert tried == [401] * SIGN_INS_PER_MINUTE
        refused = await sign_in(on, key)
        assert (refused.status_code, "sign-ins a minute" in refused.text) == (429, True)


async def test_other_sites_cannot_sign_anybody_in_or_out(tmp_path: Path) -> None:
    """A form of another site neither signs in, nor out, nor makes a key for who is signed in."""
    async with stage(tmp_path, public=()) as on:
        key = await token(on, "admin")
        await sign_in(on, key)
        for path in ("/signin", "/signout", "/admin/keys", "/admin/nodes/n1/drain"):
            reply = await on.http.post(path, content=f"key={key}", headers={"Sec-Fetch-Site": "cross-site"})
            assert (path, reply.status_code) == (path, 403)
        assert (await on.http.get("/admin")).status_code == 200


@pytest.mark.parametrize("to", ["https://elsewhere.test/", "//elsewhere.test", "/\\elsewhere.test"])
async def test_signing_in_leads_nowhere_else(tmp_path: Path, to: str) -> None:
    """An address of another site is not followed."""
    async with stage(tmp_path, public=()) as on:
        assert (await sign_in(on, await token(on, "admin"), to)).headers["location"] == "/admin"


async def test_an_open_server_asks_for_a_key_for_keys_alone(tmp_path: Path) -> None:
    """On its own machine everything but keys is open and says so; the local token opens those too."""
    async with stage(tmp_path) as on:
        await on.join()
        page = (await on.http.get("/admin")).text
        assert "This server asks nobody on its own machine for a key" in page
        assert (await on.http.get("/admin/keys")).status_code == 401
        drained = await on.http.post("/admin/nodes/n1/drain", content="why=new+disk")
        assert drained.headers["location"] == "/admin#nodes"
        await on.join()
        page = (await on.http.get("/admin")).text
        assert ("new disk" in page, "Have it take prompts again" in page) == (True, True)
        await on.http.post("/admin/nodes/n1/resume")
        assert [node.drain for node in await on.store.nodes()] == [None]
        await sign_in(on, (tmp_path / LOCAL_TOKEN).read_text().strip())
        assert (await on.http.get("/admin/keys")).status_code == 200
        assert "Sign out" in (await on.http.get("/nodes")).text


async def test_messages_are_read_and_removed(tmp_path: Path) -> None:
    """What people wrote stands on the page, as text, until it is removed."""
    async with stage(tmp_path) as on:
        await on.http.post("/about/feedback", content="message=%3Cb%3EHello%3C%2Fb%3E&contact=me%40joulebox.test")
        page = (await on.http.get("/admin")).text
        assert "&lt;b&gt;Hello&lt;/b&gt;" in page
        assert "me@joulebox.test" in page
        await on.http.post("/admin/messages/1/forget")
        assert "Nobody has written yet." in (await on.http.get("/admin")).text


async def test_a_node_is_forgotten_until_it_comes_back(tmp_path: Path) -> None:
    """One that is there is not forgotten; one that is away leaves every list, and is in them again when it comes."""
    clock = Ahead()
    async with stage(tmp_path, clock=clock) as on:
        await on.join()
        assert (await on.http.delete("/api/v1/nodes/n1")).status_code == 409
        clock.advance(60)
        assert "Forget n1" in (await on.http.get("/admin")).text
        assert (await on.http.post("/admin/nodes/n1/forget")).headers["location"] == "/admin#nodes"
        for path, name in (("/api/v1/nodes", "nodes"), ("/api/v1/models", "models")):
            assert (await on.http.get(path)).json()[name] == []
        assert (await on.http.post("/admin/nodes/n1/drain")).status_code == 404
        clock.advance(60)
        await on.join()
        assert [one["name"] for one in (await on.http.get("/api/v1/nodes")).json()["nodes"]] == ["n1"]
        clock.advance(60)
        assert [one["state"] for one in (await on.http.get("/api/v1/nodes")).json()["nodes"]] == ["away"]


async def test_the_last_use_of_a_key_is_known_to_the_hour(tmp_path: Path) -> None:
    """It is noted with the first use, and again once an hour has passed."""
    clock = Ahead()
    async with stage(tmp_path, public=(), clock=clock) as on:
        key = await token(on, "read")

        async def used() -> Any:
            listed = (await on.http.get("/api/v1/tokens", headers=local(tmp_path))).json()["tokens"]
            return listed[0]["used"]

        assert await used() is None
        seen = []
        for wait_s in (0, 1800, 1900):
            clock.advance(wait_s)
            await on.http.get("/api/v1/models", headers=bearer(key))
            seen.append(await used())
        assert seen[0] == seen[1] < seen[2]


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ("name=&scope=ask", "The field name cannot be used"),
        ("name=a&scope=root", "The field scopes.0 cannot be used"),
        ("name=a&scope=ask&expires_days=soon", "expires_days must be a number; soon is none."),
        ("name=a&scope=ask&joules_per_day=nan", "The field joules_per_day cannot be used"),
    ],
)
async def test_a_key_that_cannot_be_made_says_why(tmp_path: Path, form: str, sentence: str) -> None:
    """The form comes back with a sentence and what was typed, and no key is made."""
    async with stage(tmp_path, public=()) as on:
        await sign_in(on, (tmp_path / LOCAL_TOKEN).read_text().strip())
        reply = await on.http.post("/admin/keys", content=form)
        assert (reply.status_code, sentence in reply.text) == (422, True)
        assert (await on.http.get("/api/v1/tokens")).json()["tokens"] == []


def test_hostile_names_stay_text() -> None:
    """Names of keys and nodes, reasons, messages and acts never become markup, in any language."""
    key = given.KEYS[1] | {"name": HOSTILE, "id": HOSTILE}
    node = {"name": HOSTILE, "state": "away", "reason": HOSTILE, "models": [HOSTILE]}
    kept = given.StageOperating().kept
    for view in (View(), View(tongue("de"))):
        for html in (
            pages.render_admin([node], kept, given.RULES, view),
            pages.render_keys([key], given.ACTS, given.NOW, made=key | {"token": HOSTILE}, view=view),
            pages.render_keys([key], given.ACTS, given.NOW, form={"name": HOSTILE}, view=view),
            pages.render_sign_in(HOSTILE, {"detail": HOSTILE}, view),
        ):
            assert "<script>" not in html
            assert "alert(&#39;x&#39;)" in html


def test_keys_that_open_nothing_stand_apart() -> None:
    """Revoked and ended keys are not among those that open something."""
    ended = given.KEYS[2] | {"expires": (given.NOW - timedelta(days=1)).isoformat(), "name": "ended"}
    html = pages.render_keys([*given.KEYS, ended], given.ACTS, given.NOW)
    valid, _, rest = html.partition("</table>")
    assert ("lab-3" in valid, "ended" in valid, "old laptop" in valid) == (True, False, False)
    assert "2 keys that open nothing any more" in rest
