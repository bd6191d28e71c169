"""What campaigns found, on the server: published, asked for, and used to choose a model."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bench_record import campaign
from joulebox.bench.advise import advise, published
from joulebox.bench.record import Record
from joulebox.errors import JouleboxError
from joulebox.server.campaigns import Campaign, CampaignCell
from joulebox.server.store import Store
from server_stage import stage

SHARE = {"small": 1, "middle": 11, "large": 12}
WATTS = {"small": 20.0, "middle": 30.0, "large": 60.0}


@pytest.fixture(scope="module")
def three() -> Record:
    """Three models: the cheapest is hardly ever right, the dearest always."""
    return campaign(list(SHARE), lambda model, number: WATTS[model] + number % 3,
                    right=lambda model, number: number < SHARE[model])  # fmt: skip


def body(record: Record, digest: str = "sha256:0") -> dict[str, Any]:
    """As it is published, with the digest of the stage's models."""
    told = published(record, 10, strict=False)
    return told | {"cells": [cell | {"digest": digest, "category": "all"} for cell in told["cells"]]}


def test_a_file_recommends_and_says_why(three: Record, tmp_path: Path) -> None:
    """The command names the cheapest that is surely good enough; else it says what it would take, and exits 1."""
    path = tmp_path / "c.jsonl"
    lines: list[Any] = [three.header, *three.sittings, *three.answers.values(), *three.scores.values()]
    path.write_text("".join(json.dumps(asdict(line)) + "\n" for line in lines))
    assert advise(three, "math", 0.5, None).model == "middle"
    assert advise(three, "all", 0.0, None).model == "small"
    told = subprocess.run(
        [
            sys.executable,
            "-m",
            "joulebox",
            "bench",
            "recommend",
            str(path),
            "--category",
            "math",
            "--min-accuracy",
            "0.9",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 1
    assert told.stdout.startswith("-\nCannot tell yet: ")
    assert "more prompts" in told.stdout
    with pytest.raises(JouleboxError, match="no category cooking"):
        advise(three, "cooking", 0.5, None)


def test_published_campaigns_recommend_and_choose(three: Record, tmp_path: Path) -> None:
    """What was published is in the table; the model joulebox/auto is the recommended one among those offered now, and
    the prompt says why; where none can be told to be good enough, that is the answer."""

    async def run() -> None:
        async with stage(tmp_path) as at:
            await at.join(models=("small", "middle", "large"))
            empty = await at.http.post("/api/v1/prompts", json={"model": "joulebox/auto", "prompt": "hi"})
            assert (empty.status_code, empty.json()["code"]) == (409, "no_recommendation")
            kept = await at.http.post("/api/v1/campaigns", json=body(three))
            assert (kept.status_code, kept.json()["cells"]) == (201, 3), kept.text
            assert (await at.http.post("/api/v1/campaigns", json=body(three))).status_code == 201
            table = (await at.http.get("/api/v1/table", params={"category": "all"})).json()
            assert [len(table["campaigns"]), len(table["cells"])] == [1, 3]
            assert table["cells"][0]["figures"]["answer_j"]["low"] > 0
            asked = {"min_accuracy": 0.5}
            advice = (await at.http.get("/api/v1/recommend", params=asked)).json()
            assert advice["model"] == "middle"
            status = await at.ask(model="joulebox/auto", auto=asked)
            assert (status["model"], status["model_reason"]) == ("middle", advice["reason"])
            assert (await at.status(status["id"]))["model_reason"] == advice["reason"]
            assert "11 of 12 prompts" in advice["reason"]
            await at.join(node="n2", instance="b", models=("other",))
            dear = await at.http.post("/api/v1/prompts", json={"model": "joulebox/auto", "prompt": "hi",
                                      "auto": {"min_accuracy": 0.5, "max_energy_j": 1.0}})  # fmt: skip
            assert "No model surely stays below 1 J" in dear.json()["detail"]
            odd = await at.http.post("/api/v1/prompts", json={"model": "small", "prompt": "hi", "auto": {}})
            assert odd.status_code == 422
            assert (await at.http.delete(f"/api/v1/campaigns/{three.header.id}")).status_code == 200
            assert (await at.http.delete(f"/api/v1/campaigns/{three.header.id}")).status_code == 404
            assert (await at.http.get("/api/v1/table")).json() == {"campaigns": [], "cells": []}

    asyncio.run(run())


def test_another_file_of_the_same_name_is_not_recommended(three: Record, tmp_path: Path) -> None:
    """Cells are of a file, by digest: a model of the same name that was never measured is not chosen."""

    async def run() -> Mapping[str, Any]:
        async with stage(tmp_path) as at:
            await at.join(models=("small", "middle", "large"))
            await at.http.post("/api/v1/campaigns", json=body(three, "sha256:other"))
            found: Mapping[str, Any] = (await at.http.get("/api/v1/recommend")).json()
            return found

    advice = asyncio.run(run())
    assert advice["model"] is None
    assert "No published campaign" in advice["reason"]


def test_campaigns_are_kept_on_both_databases(where: Path | str) -> None:
    """The newest campaign's cells come first; publishing again replaces, removing forgets."""
    url = where if isinstance(where, str) else f"sqlite:///{where / 'joulebox.db'}"
    moments = [datetime(2026, 11, day, tzinfo=UTC) for day in (22, 23)]

    def cell(campaign_id: str, model: str) -> CampaignCell:
        figures = {"answer_j": {"value": 1.5, "low": 1.0, "high": 2.0}, "accuracy": None}
        return CampaignCell(campaign=campaign_id, node="n1", model=model, digest="d", category="math", asked=50, n=50,
                            judged=50, right=12.5, figures=figures)  # fmt: skip

    async def run() -> None:
        store = Store(url)
        await store.open()
        try:
            for name, moment in zip(("c1", "c2"), moments, strict=True):
                one = Campaign(id=name, title=name, created="2026", published=moment, notes=("said",))
                await store.campaigns.publish(one, [cell(name, "a"), cell(name, "b")])
                await store.campaigns.publish(one, [cell(name, "a")])
            assert [one.id for one in await store.campaigns.campaigns()] == ["c2", "c1"]
            assert list(await store.campaigns.cells("math")) == [cell("c2", "a"), cell("c1", "a")]
            assert list(await store.campaigns.cells("sql")) == []
            assert await store.campaigns.remove("c2")
            assert not await store.campaigns.remove("c2")
            assert len(await store.campaigns.cells()) == 1
        finally:
            await store.close()

    asyncio.run(run())
