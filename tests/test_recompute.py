"""Receipts made again: bit for bit the same where nothing changed, a further revision where something did, all kept."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from commands import joulebox
from joulebox import accounting
from joulebox.server import recompute
from server_stage import Stage, done, stage, story

pytestmark = pytest.mark.anyio
Json = dict[str, Any]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def answered(scene: Stage) -> str:
    """The receipt of a prompt that was asked and answered."""
    await scene.join()
    asked = await scene.ask()
    lease = await scene.lease()
    async with scene.hold(lease):
        await scene.send(lease, story("Hel", "lo"))
        await scene.finish(lease, done(lease, "Hel", "lo"))
    return str((await scene.until(asked["id"], "completed"))["receipt_id"])


Run = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Run:
    """A command against the server: exit code, stdout, stderr."""

    async def run(scene: Stage, *words: str) -> tuple[int, str, str]:
        return await asyncio.to_thread(joulebox, capsys, *words, "--server", scene.url)

    return run


async def body(scene: Stage, receipt_id: str, revision: int | None = None) -> bytes:
    named = {"revision": revision} if revision else {}
    return (await scene.http.get(f"/api/v1/receipts/{receipt_id}", params=named)).content


async def test_nothing_changed_gives_the_same_bytes(tmp_path: Path, command: Run) -> None:
    """Under unchanged method and factors a receipt is made again bit for bit, says so, and gets no further revision."""
    async with stage(tmp_path) as scene:
        receipt_id = await answered(scene)
        before = await body(scene, receipt_id)
        code, out, _ = await command(scene, "receipts", "recompute", receipt_id)
        assert (code, out.strip()) == (
            0,
            f"{receipt_id}  revision 1: the same, bit for bit (method {accounting.METHOD_VERSION})",
        )
        assert await body(scene, receipt_id) == before
        assert json.loads(before)["revision"] == 1


async def test_a_new_intensity_changes_carbon_only_and_keeps_history(tmp_path: Path, command: Run) -> None:
    """With another figure of the grid revision 2 differs from revision 1 in grams alone, and both are kept."""
    async with stage(tmp_path) as scene:
        receipt_id = await answered(scene)
        first = await body(scene, receipt_id)
    async with stage(tmp_path, grid_g_per_kwh=100.0, grid_source="measured here") as scene:
        _, out, _ = await command(scene, "receipts", "recompute", "--all")
        assert f"{receipt_id}  revision 2: new intensity" in out
        assert "342 g/kWh (yearly) -> 100 g/kWh (static)" in out
        one, two = json.loads(first), json.loads(await body(scene, receipt_id))
        assert {key for key in one if one[key] != two[key]} == {"revision", "carbon", "sci"}
        assert {key for key in one["carbon"] if one["carbon"][key] != two["carbon"][key]} == {
            "operational",
            "total",
            "intensity",
        }
        assert (two["revision"], two["carbon"]["intensity"]["source"][:13]) == (2, "measured here")
        assert two["carbon"]["operational"]["g"] == pytest.approx(one["carbon"]["operational"]["g"] * 100 / 342)
        assert await body(scene, receipt_id, 1) == first
        again = (await scene.http.post(f"/api/v1/receipts/{receipt_id}/recompute")).json()
        assert (again["revision"], again["identical"], again["changed"]) == (2, True, [])
        await _shown_and_exported(scene, command, receipt_id, first, tmp_path)


async def _shown_and_exported(scene: Stage, command: Run, receipt_id: str, first: bytes, folder: Path) -> None:
    _, out, _ = await command(scene, "receipts", "show", receipt_id, "--revision", "1", "--json")
    assert json.loads(out) == json.loads(first)
    code, _, err = await command(scene, "receipts", "show", receipt_id, "--revision", "3")
    assert (code, "its last is 2" in err) == (2, True)
    words = ("--since", "2020-01-01", "--revisions", "--traces", str(folder))
    _, out, _ = await command(scene, "receipts", "export", *words)
    assert out.encode() == first + b"\n" + await body(scene, receipt_id) + b"\n"
    trace = (await scene.http.get(f"/api/v1/receipts/{receipt_id}/trace.json")).content
    assert (folder / f"{receipt_id}.trace.json").read_bytes() == trace


async def test_a_new_method_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an update of the method the further revision says that the method made it."""
    async with stage(tmp_path) as scene:
        receipt_id = await answered(scene)
        monkeypatch.setattr(accounting, "METHOD_VERSION", "2099.1")
        monkeypatch.setattr(recompute, "METHOD_VERSION", "2099.1")
        outcome = (await scene.http.post(f"/api/v1/receipts/{receipt_id}/recompute")).json()
        assert (outcome["revision"], outcome["changed"], outcome["identical"]) == (2, ["method"], False)
        assert json.loads(await body(scene, receipt_id))["method_version"] == "2099.1"


async def test_what_cannot_be_recomputed(tmp_path: Path, command: Run) -> None:
    """An unknown receipt, no choice or two, and a day that is none are refused in one sentence."""
    async with stage(tmp_path) as scene:
        assert (await scene.http.post("/api/v1/receipts/nope/recompute")).json()["code"] == "not_found"
        assert (await scene.http.get("/api/v1/receipts", params={"since": "yesterday"})).json()["code"] == "bad_request"
        for words in ((), ("x", "--all")):
            code, _, err = await command(scene, "receipts", "recompute", *words)
            assert (code, "--since DAY" in err) == (2, True)
        _, out, _ = await command(scene, "receipts", "recompute", "--all")
        assert out == "There are no receipts.\n"


async def test_receipts_are_listed_in_pages(tmp_path: Path) -> None:
    """The list of receipts goes on where its page ended, and begins at a day."""
    async with stage(tmp_path) as scene:
        ids = [await answered(scene) for _ in range(3)]
        page = (await scene.http.get("/api/v1/receipts", params={"limit": 2})).json()
        assert page["receipts"] == ids[:2]
        rest = (await scene.http.get("/api/v1/receipts", params={"cursor": page["next_cursor"]})).json()
        assert rest == {"receipts": ids[2:], "next_cursor": None}
        later = (await scene.http.get("/api/v1/receipts", params={"since": "2999-01-01"})).json()
        assert later["receipts"] == []
