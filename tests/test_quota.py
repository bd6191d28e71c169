"""Joules a day: by finished receipts, what is pending by expectation, refused in one sentence, shown to who asks."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from commands import joulebox
from joulebox.console import standing_lines
from joulebox.errors import JouleboxError
from joulebox.server.jobs import PastRun
from joulebox.server.quota import DAY, Spent, check_energy, expected_j
from server_stage import Stage, stage
from test_access import FREE, Ahead, bearer, database, joined, local, token, work

__all__ = ["database"]
pytestmark = pytest.mark.anyio
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
Json = dict[str, Any]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def spent(*ended: tuple[float, float]) -> Spent:
    """Receipts of so many joules, each so many hours old."""
    return Spent(ended=[(NOW - timedelta(hours=age), energy_j) for age, energy_j in ended], unknown=0, pending={})


def refusal(max_j: float, used: Spent, pending_j: float, expected: float) -> JouleboxError | None:
    try:
        check_energy(max_j, used, pending_j, ("m", expected), NOW)
    except JouleboxError as error:
        return error
    return None


def test_who_has_room_may_ask() -> None:
    """Used, pending and expected joules together may reach the quota and no more; without an expectation a quota that
    is used up refuses all the same."""
    assert refusal(100, spent((1, 40)), 30, 30) is None
    assert refusal(100, spent((1, 40)), 30, 30.1) is not None
    assert refusal(100, spent((1, 99)), 0, 0) is None
    assert refusal(100, spent((1, 100)), 0, 0) is not None


def test_it_says_when_there_is_room_again() -> None:
    """The wait ends when enough receipts are a day old; where that never suffices others must end first, and a prompt
    that is larger than the whole quota is not to be waited for."""
    refused = refusal(100, spent((23, 30), (10, 30), (1, 40)), 0, 50)
    assert refused is not None
    assert refused.extra["retry_after_s"] == 14 * 3600
    assert refused.detail == (
        "Your prompts of the last 24 hours took 100 J, 50 J of this one; 100 J you may use: ask again in 50400 s."
    )
    refused = refusal(100, spent(), 90, 50)
    assert refused is not None
    assert refused.extra["retry_after_s"] == 60
    refused = refusal(100, spent(), 0, 101)
    assert refused is not None
    assert "choose a smaller model" in refused.detail
    assert "retry_after_s" not in refused.extra


def test_what_is_expected_is_learned() -> None:
    """The next prompt is expected to cost the median of all that is known; unknown costs make no expectation."""

    def run(charged_j: float | None) -> PastRun:
        return PastRun(scope="cpu", energy_kwh=1e-6, reserved_s=1.0, output_tokens=4, charged_j=charged_j)

    assert expected_j({"a": [run(10), run(None)], "b": [run(30), run(20)]}) == 20
    assert expected_j({"a": [run(None)]}) is None


async def me(on: Stage) -> Json:
    standing: Json = (await on.http.get("/api/v1/me")).json()
    return standing


async def test_a_token_has_joules_a_day(tmp_path: Path, database: Json) -> None:
    """What its receipts took and what waits counts against a token's quota; beyond it the next prompt is refused with
    the time to wait, and a day later it is taken again."""
    clock = Ahead()
    async with stage(tmp_path, public=(), clock=clock, **FREE, **database) as on:
        await joined(on)
        on.http.headers.update(bearer(await token(on, "ask", joules_per_day=300.0)))
        assert (await me(on))["energy_24h"] == {
            "used_j": 0, "pending_j": 0, "max_j": 300.0, "unknown": 0, "unexpected": 0
        }  # fmt: skip
        await on.ask()
        assert (await me(on))["energy_24h"]["unexpected"] == 1
        receipt_id = await work(on, "a")
        energy = (await on.http.get(f"/api/v1/receipts/{receipt_id}")).json()["energy"]
        cost_j = energy["active"]["j"] + (energy["phases"]["load"]["j"] or 0.0)
        assert (await me(on))["energy_24h"]["used_j"] == pytest.approx(cost_j)
        assert 0 < cost_j < 150
        await on.ask()
        assert (await me(on))["energy_24h"]["pending_j"] == pytest.approx(cost_j)
        while (reply := await on.http.post("/api/v1/prompts", json={"model": "m", "prompt": "hi"})).status_code == 202:
            pass
        taken = (await me(on))["outstanding"]["used"]
        assert (taken + 1) * cost_j <= 300 < (taken + 2) * cost_j
        assert reply.json()["code"] == "quota_used"
        assert "J are expected of those that wait or run" in reply.json()["detail"]
        assert 0 < int(reply.headers["retry-after"]) <= DAY.total_seconds()
        clock.advance(24 * 3600 + 1)
        assert (await me(on))["energy_24h"]["used_j"] == 0
        on.http.headers.update(bearer(await token(on, "ask")))
        await on.ask()
        assert (await me(on))["energy_24h"]["max_j"] is None


async def test_it_is_shown_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`joulebox tokens create --joules-per-day` sets the quota, `joulebox tokens mine` shows what of it is used."""

    def tokens(*words: str, **variables: str) -> str:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in ({"SERVER": on.url, "DATA_DIR": str(tmp_path)} | variables).items():
                patch.setenv(f"JOULEBOX_{name}", value)
            code, out, _ = joulebox(capsys, "tokens", *words)
        assert code == 0
        return out

    async with stage(tmp_path, public=(), **FREE) as on:
        made = await asyncio.to_thread(tokens, "create", "anna", "--scope", "ask", "--joules-per-day", "50000")
        assert await asyncio.to_thread(lambda: tokens("mine", TOKEN=made.strip())) == (
            "anna: ask, read\n0 of any number of prompts that wait or run\n0 of any number of prompts within 24 hours\n"
            "0 of 50,000 J within 24 hours\n"
        )
    told = {"name": "a", "scopes": [], "outstanding": {"used": 1, "max": 2}, "prompts_24h": {"used": 3, "max": 4}}
    energy = {"used_j": 12.4, "pending_j": 1200.0, "max_j": None, "unknown": 2, "unexpected": 0}
    assert list(standing_lines(told | {"energy_24h": energy})) == [
        "a: no scope",
        "1 of 2 prompts that wait or run",
        "3 of 4 prompts within 24 hours",
        "12 of any number of J within 24 hours, 1,200 J more expected; of 2 answers nobody knows them",
    ]


async def test_texts_of_a_prompt_without_a_receipt_are_erased(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its owner removes the texts of a prompt that was stopped, nobody else does, and not while it waits."""

    def erased(prompt_id: str) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("JOULEBOX_TOKEN", owner)
            code, out, _ = joulebox(capsys, "receipts", "erase", prompt_id, "--server", on.url)
        assert code == 0
        return out

    async with stage(tmp_path, public=(), **FREE) as on:
        await joined(on)
        owner = await token(on, "ask")
        on.http.headers.update(bearer(owner))
        where = f"/api/v1/prompts/{(await on.ask('my secret'))['id']}"
        assert (await on.http.delete(f"{where}/texts")).json()["code"] == "not_ready"
        await on.http.delete(where)
        stranger = bearer(await token(on, "ask"))
        assert (await on.http.delete(f"{where}/texts", headers=stranger)).status_code == 403
        assert (await on.http.get(where)).json()["prompt"] == "my secret"
        assert "are removed" in await asyncio.to_thread(erased, where.rpartition("/")[2])
        assert (await on.http.delete(f"{where}/texts")).json()["removed"] == ["prompt", "answer"]
        status = (await on.http.get(where)).json()
        assert (status["prompt"], status["texts"], status["state"]) == (None, "removed", "cancelled")
        assert (await on.http.get("/api/v1/me", headers=local(tmp_path))).json()["energy_24h"]["max_j"] is None
