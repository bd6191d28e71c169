"""Servers, nodes, engines and Postgres are killed while they work: every prompt gets exactly one answer and receipt."""

import os
import random
import signal
from collections.abc import Iterator
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from joulebox.errors import JouleboxError
from postgres_server import PostgresServer
from stage import Service, wait

QUESTIONS = ("Name three fruits.", "What is water?", "Count to ten.", "Say hello in French.", "Why is the sky blue?")
LINE = 4
KILLS_AT_ONCE = 5
"""After so many one prompt may be answered in peace, so that none is given up for too many lost attempts."""


SETTINGS = {"JOULEBOX_METERS": "none:", "JOULEBOX_ATTEMPTS_MAX": "9"}


@pytest.fixture
def service(tmp_path: Path, smollm2: Path) -> Iterator[Service]:
    service = Service(tmp_path, smollm2, SETTINGS)
    yield service
    service.stop()


@pytest.fixture
def fleet(tmp_path: Path, smollm2: Path) -> Iterator[Service]:
    """Two servers on one Postgres, each with a node."""
    postgres = PostgresServer()
    service = Service(tmp_path, smollm2, SETTINGS, postgres, 2)
    yield service
    service.stop()
    postgres.stop()


def run_with_kills(service: Service, kills: int, seed: int) -> None:
    """Kill one after the other, at any moment, in restarts too, while `LINE` prompts wait and each is watched."""
    chance = random.Random(seed)
    undisturbed = {question: answer(service, ask(service, question, 0)) for question in QUESTIONS}
    asked: list[tuple[str, Future[str]]] = []
    killed = 0
    with ThreadPoolExecutor(2 * LINE) as watchers:
        while killed < kills:
            while sum(not watcher.done() for _, watcher in asked) < LINE:
                question = chance.choice(QUESTIONS)
                prompt_id = ask(service, question, len(asked) + 1)
                asked.append((question, watchers.submit(answer, service, prompt_id)))
            wait(chance.uniform(0.0, 1.2))
            killed += service.kill(service.victims[killed % len(service.victims)])
            if killed and killed % KILLS_AT_ONCE == 0:
                futures.wait([watcher for _, watcher in asked if not watcher.done()], return_when="FIRST_COMPLETED")
        for question, watcher in asked:
            assert watcher.result() == undisturbed[question]
    assert service.query("SELECT count(*) FROM jobs WHERE state != 'completed'") == [(0,)]
    twice = "SELECT job_id, count(*) FROM {} GROUP BY job_id HAVING count(*) != 1"
    assert service.query(twice.format("receipts")) == []
    assert service.query(twice.format("attempts WHERE state = 'done'")) == []
    assert service.query("SELECT count(*) FROM receipts") == [(len(asked) + len(QUESTIONS),)]
    assert service.query("SELECT count(*) FROM attempts WHERE state = 'running'") == [(0,)]
    lost = service.query("SELECT state, count(*) FROM attempts GROUP BY state ORDER BY state")
    print(f"{kills} kills, {len(asked)} prompts, attempts: {lost}")


def ask(service: Service, question: str, seed: int) -> str:
    return service.ask(question, seed, max_tokens=12)


def answer(service: Service, prompt_id: str) -> str:
    """Follow the prompt's events, over every restart, to its receipt; the text that a watching person then sees."""
    text: list[str] = []
    client = service.clients[sum(prompt_id.encode()) % len(service.clients)]
    for event in client.events(prompt_id):
        if event.name == "restarted":
            text.clear()
        elif event.name == "token":
            text.append(event.data["text"])
        elif event.name == "receipt":
            stored = service.status(prompt_id)
            assert stored["answer"] == "".join(text)
            assert stored["receipt_id"] == event.data["id"]
            return "".join(text)
        assert event.name not in ("error", "cancelled"), event.data
    raise AssertionError("no receipt")


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
        assert list((tmp_path / "undelivered").glob("*.json")) == []
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


@pytest.mark.timeout(170)
def test_twenty_kills(service: Service) -> None:
    """After 20 seeded SIGKILLs each prompt has one answer, the undisturbed one, and one receipt."""
    run_with_kills(service, 20, seed=20)


@pytest.mark.timeout(170)
def test_twenty_kills_of_a_fleet(fleet: Service) -> None:
    """The same with two servers and two nodes on one Postgres, which are all killed, Postgres too."""
    run_with_kills(fleet, 20, seed=21)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_three_hundred_kills(service: Service) -> None:
    """The same after 300 kills."""
    run_with_kills(service, 300, seed=300)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_three_hundred_kills_of_a_fleet(fleet: Service) -> None:
    """The same after 300 kills of a fleet."""
    run_with_kills(fleet, 300, seed=301)
