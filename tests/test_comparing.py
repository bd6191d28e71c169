"""Comparing models: one node, one order for all, blind until the vote; and what votes add up to."""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import databases
from joulebox.server.comparing import Comparison, Preference, figure_of, shuffled
from joulebox.server.store import Store
from server_stage import Stage, done, stage, story

Json = dict[str, Any]
FORM = {"content-type": "application/x-www-form-urlencoded"}
NOW = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of each kind."""
    if request.param == "sqlite":
        databases.prepare(tmp_path)
        yield f"sqlite+aiosqlite:///{tmp_path / 'joulebox.db'}"
    else:
        with databases.postgres() as address:
            yield address


BIG_FIRST = ({"model": "big", "j": 90.0}, {"model": "small", "j": 10.0})
SMALL_FIRST = ({"model": "small", "j": 20.0}, {"model": "big", "j": 80.0})


async def _added_up(url: str, *votes: tuple[str, Sequence[Json], str | None]) -> Sequence[Preference]:
    """What the books make of votes: the choice, on what, and whether it was worth it."""
    store = Store(url)
    await store.open()
    try:
        for n, (choice, figures, worth) in enumerate(votes):
            asked = Comparison(id=str(n), created=NOW, node="n", jobs=tuple("ab"))
            await store.talks.compare(asked)
            await store.talks.choose(asked.id, choice, figures, NOW + timedelta(seconds=n))
            if worth is not None:
                await store.talks.judge(asked.id, worth)
        return await store.talks.preferences()
    finally:
        await store.close()


@pytest.mark.anyio
async def test_votes_add_up_by_pair(url: str) -> None:
    """Wins go to models whatever their place; the ratio is the median; who took more is the large one; comparisons of
    more than two models count for no pair."""
    three = (*BIG_FIRST, {"model": "third", "j": 1.0})
    one, other = await _added_up(
        url,
        ("0", BIG_FIRST, "yes"),
        ("1", BIG_FIRST, "no"),
        ("tie", SMALL_FIRST, "unsure"),
        ("0", SMALL_FIRST, None),
        ("2", three, "yes"),
        ("1", ({"model": "a", "j": 3}, {"model": "b", "j": 2}), None),
    )
    assert (one.large, one.small, one.n) == ("big", "small", 4)
    assert (one.large_wins, one.small_wins, one.ties) == (1, 2, 1)
    assert one.ratio == pytest.approx(6.0)
    assert (one.worth_yes, one.worth_told) == (1, 2)
    assert (other.large, other.small_wins) == ("a", 1)
    assert other.ratio == pytest.approx(1.5)


@pytest.mark.anyio
async def test_the_ratio_of_an_odd_number_is_the_middle_one(url: str) -> None:
    """Of three comparisons the second ratio counts, however far off the others are."""
    votes = [("none", ({"model": "a", "j": j}, {"model": "b", "j": 1.0}), None) for j in (1000.0, 2.0, 3.0)]
    (one,) = await _added_up(url, *votes)
    assert one.ratio == pytest.approx(3.0)
    assert one.ties == 3


@pytest.mark.anyio
async def test_unknown_energy_is_no_zero(url: str) -> None:
    """A vote on answers whose energy nobody knows counts as a vote and says nothing about joules."""
    (one,) = await _added_up(url, ("0", ({"model": "a", "j": None}, {"model": "b", "j": 1.0}), None))
    assert (one.n, one.ratio) == (1, None)
    assert figure_of("a", None) == {"model": "a", "j": None, "u": None, "modelled": False, "simulated": False}


def test_every_order_comes_up() -> None:
    """Over many comparisons each model is first about as often."""
    firsts = [shuffled(("a", "b"))[0] for _ in range(400)]
    assert 120 < firsts.count("a") < 280


async def _page(on: Stage, path: str) -> str:
    return (await on.http.get(path, headers={"Accept": "text/html"})).text


async def _answer(on: Stage) -> str:
    """The node answers what comes next, in words that do not tell which model it is; the model."""
    lease: Json = await on.lease(models=("big", "small"), loaded="small")
    async with on.hold(lease):
        await on.send(lease, story(f"answer {lease['job_id']}"))
        assert (await on.finish(lease, done(lease, f"answer {lease['job_id']}"))).status_code == 200
    await on.until(lease["job_id"], "completed")
    return str(lease["prompt"]["model"])


@pytest.mark.anyio
async def test_a_comparison_is_blind_until_the_vote(tmp_path: Path) -> None:
    """Both models answer on the same node, quietly; names and joules come with the vote, which counts once."""
    async with stage(tmp_path) as on:
        await on.join(models=("big", "small"))
        form = "prompt=Why%3F&models=big&models=small&max_tokens=16"
        begun = await on.http.post("/compare", content=form, headers=FORM)
        assert begun.status_code == 303, begun.text
        path = begun.headers["location"]
        assert "0 of 2 answers are there." in await _page(on, path)
        assert {await _answer(on), await _answer(on)} == {"big", "small"}
        blind = (await _page(on, path)).partition("</main>")[0]
        assert blind.count("answer ") >= 2
        assert not re.search(r"\bbig\b|\bsmall\b| J\b|/receipts/", blind)
        assert (await on.http.post(f"{path}/worth", content="worth=yes", headers=FORM)).status_code == 303
        assert (await on.http.post(f"{path}/vote", content="choice=7", headers=FORM)).status_code == 422
        for choice in ("0", "1"):
            assert (await on.http.post(f"{path}/vote", content=f"choice={choice}", headers=FORM)).status_code == 303
        seen = await _page(on, path)
        assert "big" in seen
        assert "small" in seen
        assert seen.count("your choice") == 1
        assert "Was the larger energy worth it?" in seen
        await on.http.post(f"{path}/worth", content="worth=no", headers=FORM)
        (found,) = (await on.http.get("/api/v1/preferences")).json()["preferences"]
        assert (found["large_wins"] + found["small_wins"], found["worth_told"]) == (1, 1)
        assert "against" in await _page(on, "/preferences")


@pytest.mark.anyio
async def test_prompts_of_a_comparison_run_in_the_order_drawn(tmp_path: Path) -> None:
    """Although the small model is loaded, it goes first only as often as chance has it."""
    async with stage(tmp_path) as on:
        await on.join(models=("big", "small"))
        for _ in range(6):
            form = "prompt=Why%3F&models=big&models=small&max_tokens=16"
            await on.http.post("/compare", content=form, headers=FORM)
            asked = (await on.http.get("/api/v1/prompts?limit=2")).json()["prompts"]
            drawn = [one["model"] for one in reversed(asked)]
            assert [await _answer(on), await _answer(on)] == drawn


@pytest.mark.parametrize("models", [[], ["big"], ["big", "big"], ["big", "nobody"], ["a", "b", "c", "d", "e"]])
@pytest.mark.anyio
async def test_what_cannot_be_compared_is_refused(tmp_path: Path, models: list[str]) -> None:
    """Fewer than two models, too many, or no node that has them all: one sentence, and nothing is asked."""
    async with stage(tmp_path) as on:
        await on.join(models=("big", "small"))
        sent = "&".join(["prompt=Why", *(f"models={model}" for model in models)])
        reply = await on.http.post("/compare", content=sent, headers=FORM)
        assert reply.status_code == 422
        assert "hoose" in reply.text
        assert (await on.http.get("/api/v1/prompts")).json()["prompts"] == []
