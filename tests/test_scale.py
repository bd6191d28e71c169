"""What a prompt costs the database, counted: `make scale` measures the same at full size."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

import databases
import scale_load
from joulebox.server.jobs import BEFORE_MAX
from joulebox.server.store.steps import Values, Words
from scale_fair import Asked, fairness, of_asking, of_the_line, served
from scale_nodes import Seen, node
from server_stage import stage

pytestmark = pytest.mark.anyio
BACKLOG, NODES, PROMPTS = 3_000, 20, 100


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """The statements of servers from now on, by their first word."""
    counted: Counter[str] = Counter()
    plain = Words.arguments

    def arguments(words: Words, values: Values) -> list[Any]:
        counted.update([words.text.split()[0]])
        return plain(words, values)

    def listening(*told: Any) -> None:
        counted.update([told[2].split()[0]])

    monkeypatch.setattr(Words, "arguments", arguments)
    event.listen(Engine, "before_cursor_execute", listening)
    yield counted
    event.remove(Engine, "before_cursor_execute", listening)


async def test_a_prompt_costs_few_statements(tmp_path: Path, counts: Counter[str]) -> None:
    """Behind a backlog, asking, claiming and delivering a prompt take few statements, and nodes that only wait none."""
    with databases.postgres() as url:
        async with stage(tmp_path, database_url=url, grace_s=15.0) as scene:
            await scene.join()
            await scale_load.load_waiting(url, BACKLOG)
            deep = await scene.status((await scene.http.get("/api/v1/prompts?limit=1")).json()["prompts"][0]["id"])
            assert deep["position"] == BEFORE_MAX
            assert "more than" in deep["reason"]
            seen = Seen()
            counts.clear()
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
