"""Two servers on one Postgres, each with a node, are killed as they work, Postgres too; each prompt has one answer."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kills import SETTINGS, run_with_kills
from postgres_server import PostgresServer
from stage import Service


@pytest.fixture
def fleet(tmp_path: Path, smollm2: Path) -> Iterator[Service]:
    postgres = PostgresServer()
    service = Service(tmp_path, smollm2, SETTINGS, postgres, 2)
    yield service
    service.stop()
    postgres.stop()


@pytest.mark.timeout(400)
def test_a_kill_of_each(fleet: Service) -> None:
    """After seeded SIGKILLs of each process, Postgres too, each prompt has one answer, the undisturbed one, and one
    receipt."""
    run_with_kills(fleet, len(fleet.victims), seed=21)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [303, 304, 305])
def test_three_hundred_kills(fleet: Service, seed: int) -> None:
    """The same after 300 kills, in three parts of which each has its own seed."""
    run_with_kills(fleet, 100, seed)
