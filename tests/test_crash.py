"""Server, node and engine are killed while they work: every prompt gets exactly one answer and receipt."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from joulebox.errors import JouleboxError
from kills import QUESTIONS, SETTINGS, answer, ask, run_with_kills
from stage import Service, wait


@pytest.fixture
def service(tmp_path: Path, smollm2: Path) -> Iterator[Service]:
    service = Service(tmp_path, smollm2, SETTINGS)
    yield service
    service.stop()


@pytest.mark.timeout(400)
def test_twenty_kills(service: Service) -> None:
    """After 20 seeded SIGKILLs each prompt has one answer, the undisturbed one, and one receipt."""
    run_with_kills(service, 20, seed=20)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [300, 301, 302])
def test_three_hundred_kills(service: Service, seed: int) -> None:
    """The same after 300 kills, in three parts of which each has its own seed."""
    run_with_kills(service, 100, seed)


def test_a_node_that_wakes_late_changes_nothing(tmp_path: Path, smollm2: Path) -> None:
    """A node stopped for longer than its grace finds its attempt given away: its late result is refused and dropped,
    and the prompt has one answer, of the second attempt."""
    service = Service(tmp_path, smollm2, {"JOULEBOX_METERS": "none:", "JOULEBOX_GRACE_S": "1.5"})
    try:
        prompt_id = ask(service, QUESTIONS[0], 1)
        until(service, prompt_id, "running")
        node = service.pid("node")
        assert node is not None
        os.kill(node, signal.SIGSTOP)
        service.kill("server")  # the connection of a stopped process stays open: only a new server finds it silent
        until(service, prompt_id, "available")
        os.kill(node, signal.SIGCONT)
        answer(service, prompt_id)
        states = service.query("SELECT number, state FROM attempts ORDER BY number")
        assert states == [(1, "lost"), (2, "done")]
        assert service.query("SELECT count(*) FROM receipts") == [(1,)]
        undelivered = tmp_path / "undelivered"
        for _ in range(200):  # the answer may be there before the node has heard that its own is refused
            if not list(undelivered.glob("*.json")):
                break
            wait(0.05)
        assert list(undelivered.glob("*.json")) == []
    finally:
        service.stop()


def until(service: Service, prompt_id: str, state: str) -> None:
    for _ in range(200):
        try:
            if service.client.status(prompt_id)["state"] == state:
                return
        except JouleboxError as error:
            assert error.code == "no_server"
        wait(0.05)
    raise AssertionError(f"the prompt is not {state}")
