"""Server, node and engine are killed while they work: every prompt still gets exactly one answer and one receipt."""

import os
import random
import signal
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from joulebox.client import Client
from joulebox.clock import SystemClock
from joulebox.errors import JouleboxError
from joulebox.node.models import Registry
from joulebox.supervisor import Supervisor
from joulebox.units import nanoseconds

VICTIMS = ("node", "engine", "server")
QUESTIONS = ("Name three fruits.", "What is water?", "Count to ten.", "Say hello in French.", "Why is the sky blue?")
SYSTEM = "You are a helpful assistant."
CLOCK = SystemClock()


def wait(wait_s: float) -> None:
    CLOCK.sleep_until(CLOCK.now_ns() + nanoseconds(wait_s))


class Service:
    """A real server and a real node with the real small model, watched as `joulebox up` watches them."""

    def __init__(self, folder: Path, model: Path) -> None:
        Registry(folder).add(model, "smollm2")
        self.database = folder / "joulebox.db"
        self.supervisor = Supervisor(CLOCK)
        common = {"JOULEBOX_DATA_DIR": str(folder), "JOULEBOX_METERS": "none:", "JOULEBOX_ATTEMPTS_MAX": "9"}
        url = self.supervisor.start("server", ["serve", "--port", "0"], common)
        self.supervisor.keep_port("server", url)
        self.supervisor.start("node", ["node"], common | {"JOULEBOX_SERVER": url, "JOULEBOX_NODE": "crash-test"})
        threading.Thread(target=self.supervisor.watch, daemon=True).start()
        self.client = Client(url)

    def pid(self, victim: str) -> int | None:
        """The process to kill; the engine is the node's child."""
        if victim != "engine":
            return self.supervisor.pid(victim)
        node = self.supervisor.pid("node")
        children = Path(f"/proc/{node}/task/{node}/children")
        numbers = children.read_text().split() if children.exists() else []
        return int(numbers[0]) if numbers else None

    def kill(self, victim: str) -> bool:
        """SIGKILL, if there is such a process at this moment."""
        pid = self.pid(victim)
        if pid is None:
            return False
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def ask(self, question: str, seed: int) -> str:
        """Queue a prompt; its id. Tried again while the server is away, never queued twice."""
        key = f"{question} {seed}"
        for _ in range(60):
            try:
                status = self.client.submit(
                    model="smollm2", prompt=question, system=SYSTEM, max_tokens=24, seed=seed, idempotency_key=key
                )
                return str(status["id"])
            except JouleboxError as error:
                if error.code not in ("no_server", "no_node"):
                    raise
                wait(0.25)
        raise AssertionError("the server did not come back")

    def count(self, query: str) -> list[tuple[object, ...]]:
        """What the database holds."""
        with sqlite3.connect(f"file:{self.database}?mode=ro", uri=True) as connection:
            return connection.execute(query).fetchall()


@pytest.fixture
def service(tmp_path: Path, smollm2: Path) -> Iterator[Service]:
    service = Service(tmp_path, smollm2)
    yield service
    service.client.close()
    service.supervisor.stop()


def run_with_kills(service: Service, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    undisturbed = {question: answer(service, service.ask(question, 0)) for question in QUESTIONS}
    killed: list[str] = []
    asked: list[tuple[str, str]] = []
    while len(killed) < kills:
        question = chance.choice(QUESTIONS)
        asked.append((question, service.ask(question, len(asked) + 1)))
        victim = VICTIMS[len(killed) % len(VICTIMS)]
        wait(chance.uniform(0.0, 1.2))
        if service.kill(victim):
            killed.append(victim)
    for question, prompt_id in asked:
        assert answer(service, prompt_id) == undisturbed[question]
    assert service.count("SELECT count(*) FROM jobs WHERE state != 'completed'") == [(0,)]
    twice = "SELECT job_id, count(*) FROM {} GROUP BY job_id HAVING count(*) != 1"
    assert service.count(twice.format("receipts")) == []
    assert service.count(twice.format("attempts WHERE state = 'done'")) == []
    assert service.count("SELECT count(*) FROM receipts") == [(len(asked) + len(QUESTIONS),)]
    assert service.count("SELECT count(*) FROM attempts WHERE state = 'running'") == [(0,)]
    lost = service.count("SELECT state, count(*) FROM attempts GROUP BY state ORDER BY state")
    print(f"{kills} kills, {len(asked)} prompts, attempts: {lost}")


def answer(service: Service, prompt_id: str) -> str:
    """Follow the prompt's events, over every restart, to its receipt; the text that a watching person then sees."""
    text: list[str] = []
    for event in service.client.events(prompt_id):
        if event.name == "restarted":
            text.clear()
        elif event.name == "token":
            text.append(event.data["text"])
        elif event.name == "receipt":
            stored = service.client.status(prompt_id)
            assert stored["answer"] == "".join(text)
            assert stored["receipt_id"] == event.data["id"]
            return "".join(text)
        assert event.name not in ("error", "cancelled"), event.data
    raise AssertionError("no receipt")


@pytest.mark.timeout(170)
def test_twenty_kills(service: Service) -> None:
    """After 20 seeded SIGKILLs each prompt has one answer, the undisturbed one, and one receipt."""
    run_with_kills(service, 20, seed=20)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_three_hundred_kills(service: Service) -> None:
    """The same after 300 kills."""
    run_with_kills(service, 300, seed=300)
