"""Kill the processes of a `Service` at random moments under load, then look whether every prompt came to its end."""

import random
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor

from joulebox.client import AWAY, Client
from joulebox.errors import JouleboxError
from stage import Service, wait

QUESTIONS = ("Name three fruits.", "What is water?", "Count to ten.", "Say hello in French.", "Why is the sky blue?")
LINE = 4
KILLS_AT_ONCE = 5
"""After so many one prompt may be answered in peace, so that none is given up for too many lost attempts."""
PATIENCE = 5
"""A client gives a server up that is away for 10 s; on a machine with much else to do a restart takes longer."""
SETTINGS = {"JOULEBOX_METERS": "none:", "JOULEBOX_ATTEMPTS_MAX": "9"}


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
    client = service.clients[sum(prompt_id.encode()) % len(service.clients)]
    for _ in range(PATIENCE):
        try:
            return _followed(service, client, prompt_id)
        except JouleboxError as error:
            if error.code not in AWAY:
                raise
    raise AssertionError("the server did not come back")


def _followed(service: Service, client: Client, prompt_id: str) -> str:
    text: list[str] = []
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
