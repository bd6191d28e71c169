"""What a prompt costs the database, counted: `make scale` measures the same at full size."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

import databases
import scale_load
from joulebox.server.jobs import BEFORE_MAX
from scale_fair import Asked, fairness, of_asking, of_the_line, served
from scale_nodes import Seen, node
from server_stage import Stage, stage

pytestmark = pytest.mark.anyio
BACKLOG, NODES, PROMPTS = 3_000, 20, 100


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def counted(scene: Stage) -> Counter[str]:
    """The statements of a server from now on, by their first word."""
    counts: Counter[str] = Counter()
    engine: Any = scene.store._database._engine.sync_engine  # type: ignore[attr-defined]
    event.listen(engine, "before_cursor_execute", lambda *told: counts.update([told[2].split()[0]]))
    event.listen(engine, "begin", lambda *_: counts.update(["BEGIN"]))
    return counts


async def test_a_prompt_costs_few_statements(tmp_path: Path) -> None:
    """Behind a backlog, asking, claiming and delivering a prompt take few statements, and nodes that only wait none."""
    with databases.postgres() as url:
        async with stage(tmp_path, database_url=url, grace_s=15.0) as scene:
            await scene.join()
            await scale_load.load_waiting(url, BACKLOG)
            deep = await scene.status((await scene.http.get("/api/v1/prompts?limit=1")).json()["prompts"][0]["id"])
            assert deep["position"] == BEFORE_MAX
            assert "more than" in deep["reason"]
            seen, counts = Seen(), counted(scene)
            await asyncio.gather(*(node(number, scene.url, PROMPTS, seen, None) for number in range(NODES)))
            assert not seen.troubles
            assert seen.done >= PROMPTS
            spent = sum(counts.values()) - NODES * 10  # a node that comes anew costs some looks
            assert spent / seen.done < 12, counts


def test_whoever_asks_little_is_not_kept_waiting_by_who_asks_much() -> None:
    """By class and turn everybody has a first answer long before those who asked first have all of theirs."""
    line = [Asked(number, row[9], row[10], row[11]) for number, row in enumerate(scale_load.waiting(BACKLOG))]
    fair = fairness(line, served(line, BACKLOG // 2, of_the_line, longest=True))
    plain = fairness(line, served(line, BACKLOG // 2, of_asking, longest=False))
    assert fair.jain > plain.jain
    assert fair.first_claim < plain.first_claim / 2
