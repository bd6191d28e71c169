"""Texts that no database keeps and columns that end: said in an address, a form or a body, each is one clear refusal,
on Postgres as on SQLite.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

import databases
from joulebox.server.access import TABLE
from server_stage import Stage, stage
from test_access import local

pytestmark = pytest.mark.anyio
Json = dict[str, Any]
NUL, LONG = "a\0b", "x" * 5_000
CELL: Final = {"node": "n", "model": "m", "digest": "d", "category": "c", "asked": 1, "n": 1, "judged": 1, "right": 1.0}
FIGURES: Final = dict.fromkeys(("answer_j", "token_j", "right_j", "sci_g", "accuracy"))
WHY: Final[Json] = {"why": "w"}
TURN: Final = {"role": "user", "content": "x"}
BODIES: Final[Mapping[str, Json]] = {
    "/api/v1/prompts": {"model": "m", "prompt": "x", "idempotency_key": "k"},
    "/api/v1/comparisons": {"models": ["m", "k"], "prompt": "x"},
    "/api/v1/campaigns": {"id": "c", "title": "t", "created": "2026", "notes": ["n"], "cells": [CELL | FIGURES]},
    "/api/v1/tokens": {"name": "n", "scopes": ["ask"]},
    "/api/v1/nodes/n1/drain": WHY,
    "/api/v1/nodes/n1/baseline": WHY,
    "/v1/chat/completions": {"model": "m", "messages": [TURN], "joulebox": {"idempotency_key": "k"}},
    "/api/generate": {"model": "m", "prompt": "x", "joulebox": {"idempotency_key": "k"}},
    "/api/show": {"model": "m"},
}
TEXTS: Final = frozenset({"prompt", "content", "system", "notes"})
"""Kept as JSON, in which NUL is a sign as any other; how long they may be is in `test_limits.py`."""
FORMS: Final[Mapping[str, Mapping[str, str]]] = {
    "/ask": {"model": "m", "prompt": "x", "follows": "f"},
    "/compare": {"models": "m", "prompt": "x"},
    "/about/feedback": {"message": "m", "contact": "c"},
    "/admin/keys": {"name": "n", "scope": "ask"},
    "/admin/nodes/n1/drain": {"why": "w"},
    "/signin": {"key": "k"},
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def database(request: pytest.FixtureRequest) -> Iterator[Json]:
    """A database of each kind, as a setting."""
    with databases.setting(request.param) as found:
        yield found


def spoilt(value: Any, bad: str, name: str = "") -> Iterator[Any]:
    """The same JSON, once for each of its short texts, with `bad` in its place."""
    if isinstance(value, str) and name not in TEXTS:
        yield bad
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from (value | {key: other} for other in spoilt(one, bad, key))
    elif isinstance(value, list):
        for at, one in enumerate(value):
            yield from ([*value[:at], other, *value[at + 1 :]] for other in spoilt(one, bad, name))


def refused(reply: httpx2.Response, where: object) -> None:
    """It is one clear sentence, and the server's own fault is it not."""
    assert 400 <= reply.status_code < 500, (where, reply.status_code, reply.text[:300])
    said = reply.json() if "json" in reply.headers["content-type"] else {"detail": reply.text}
    text = str(said.get("detail") or said["error"])
    assert len(text) > 20, (where, text)


async def ready(on: Stage) -> dict[str, str]:
    """A node with two models has been there; the headers of an administrator."""
    await on.join(models=("m", "k"))
    return local(on.settings.data_dir)


@pytest.mark.parametrize("bad", [NUL, LONG], ids=["nul", "long"])
async def test_no_field_is_too_much_for_a_database(tmp_path: Path, database: Json, bad: str) -> None:
    """NUL and five thousand characters in any short text of any body, or in the header that is a key, are refused."""
    async with stage(tmp_path, **database) as on:
        headers = await ready(on)
        for path, body in BODIES.items():
            if path.startswith("/api/v1"):
                taken = await on.http.post(path, json=body, headers=headers)
                assert taken.is_success, (path, taken.text)
            for one in spoilt(body, bad):
                refused(await on.http.post(path, content=json.dumps(one), headers=headers), (path, one))
        key = {"idempotency-key": bad.replace("\0", "\x01")}
        asked = {"model": "m", "messages": [TURN]}
        if bad == LONG:
            refused(await on.http.post("/v1/chat/completions", json=asked, headers=headers | key), key)


@pytest.mark.parametrize("bad", ["a%00b", "%ED%A0%80", "x" * 5_000], ids=["nul", "surrogate", "long"])
async def test_no_address_is_too_much_for_a_database(tmp_path: Path, database: Json, bad: str) -> None:
    """The same in each part of each address, and in what is asked for behind it."""
    async with stage(tmp_path, **database) as on:
        headers = await ready(on)
        for method, path in TABLE:
            place = re.sub(r"{\w+}", bad, path)
            if place != path and path != "/language/{tag}":
                refused(await on.http.request(method, place, headers=headers, json=WHY), (method, place))
            elif method == "GET" and "%00" in bad:
                for name in ("category", "model", "cursor", "zone"):
                    refused(await on.http.get(f"{path}?{name}={bad}", headers=headers), (path, name))


async def test_no_form_is_too_much_for_a_database(tmp_path: Path, database: Json) -> None:
    """The same in each field of each form."""
    async with stage(tmp_path, **database) as on:
        headers = await ready(on) | {"content-type": "application/x-www-form-urlencoded"}
        for path, form in FORMS.items():
            for name in form:
                sent = "&".join(f"{key}={'a%00b' if key == name else value}" for key, value in form.items())
                refused(await on.http.post(path, content=sent, headers=headers), (path, name))
