"""The real service on free ports: server processes and node processes with the real small model, watched as `up`
does."""

import hashlib
import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import databases
from joulebox.client import Client
from joulebox.clock import SystemClock
from joulebox.errors import JouleboxError
from joulebox.node.models import Registry
from joulebox.supervisor import Supervisor
from joulebox.units import nanoseconds
from postgres_server import PostgresServer

CLOCK = SystemClock()
SYSTEM = "You are a helpful assistant."
MODEL = "smollm2"


def wait(wait_s: float) -> None:
    """Let real time pass: real processes are at work."""
    CLOCK.sleep_until(CLOCK.now_ns() + nanoseconds(wait_s))


class Service:
    """Servers and nodes in `folder`, on SQLite or, where one is given, on a database of `postgres`. `settings` are
    `JOULEBOX_*` variables for all of them. Node number n speaks to server number n."""

    def __init__(
        self,
        folder: Path,
        model: Path,
        settings: Mapping[str, str],
        postgres: PostgresServer | None = None,
        count: int = 1,
    ) -> None:
        Registry(folder).add(model, MODEL, default_system=SYSTEM)
        self.folder = folder
        self.postgres = postgres
        self.supervisor = self._supervisor()
        common = {"JOULEBOX_MODELS_DIR": str(folder), "JOULEBOX_THREADS": "1", **settings}
        self.urls: list[str] = []
        if postgres is None:
            databases.prepare(folder)
        else:
            postgres.execute("CREATE DATABASE stage")
            common["JOULEBOX_DATABASE_URL"] = postgres.url("stage")
        for number in range(count):
            self.urls.append(self._start(number, common))
        self.url = self.urls[0]
        self.clients = [Client(url) for url in self.urls]
        self.client = self.clients[0]
        threading.Thread(target=self._watch, daemon=True).start()
        self.victims = [f"{kind}{number or ''}" for number in range(count) for kind in ("node", "engine", "server")]
        self.victims += ["postgres"] if postgres is not None else []
        self._join()

    def _supervisor(self) -> Supervisor:
        return Supervisor(CLOCK)

    def _watch(self) -> None:
        self.supervisor.watch()

    def _start(self, number: int, common: dict[str, str]) -> str:
        """One server, whose address is told, and a node that speaks to it."""
        data_dir = self.folder / str(number) if number else self.folder
        data_dir.mkdir(exist_ok=True)
        server, own = f"server{number or ''}", common | {"JOULEBOX_DATA_DIR": str(data_dir)}
        url = self.supervisor.start(server, ["serve", "--port", "0"], own)
        self.supervisor.keep_port(server, url)
        named = {"JOULEBOX_NODE": f"stage{number or ''}", "JOULEBOX_SERVER": url}
        self.supervisor.start(f"node{number or ''}", ["node"], named | own)
        return url

    def _join(self) -> None:
        """Wait until every node offers its models."""
        for _ in range(300):
            if {len(model["nodes"]) for model in self.client.models()} == {len(self.clients)}:
                return
            wait(0.1)
        raise AssertionError("the nodes did not join")

    def stop(self) -> None:
        """End everything."""
        for client in self.clients:
            client.close()
        self.supervisor.stop()
        if self.postgres is not None:
            self.postgres.execute("DROP DATABASE stage WITH (FORCE)")

    def pid(self, victim: str) -> int | None:
        """The process of `server`, `node` or `engine`, with a number behind it after the first; an engine is its node's
        child."""
        if not victim.startswith("engine"):
            return self.supervisor.pid(victim)
        node = self.supervisor.pid(victim.replace("engine", "node"))
        children = Path(f"/proc/{node}/task/{node}/children")
        numbers = children.read_text().split() if children.exists() else []
        return int(numbers[0]) if numbers else None

    def kill(self, victim: str) -> bool:
        """SIGKILL, if there is such a process at this moment. Postgres is started again at once."""
        if victim == "postgres" and self.postgres is not None:
            self.postgres.kill()
            self.postgres.start()
            return True
        pid = self.pid(victim)
        if pid is None:
            return False
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def ask(self, question: str, seed: int = 0, **fields: object) -> str:
        """Queue a prompt, at one server after the other; its id. Tried again while that is away, never queued twice."""
        client = self.clients[seed % len(self.clients)]
        key = hashlib.sha256(f"{question} {seed} {fields}".encode()).hexdigest()
        sent = {"model": MODEL, "prompt": question, "seed": seed, "idempotency_key": key, **fields}
        return str(self._patiently(lambda: client.submit(**sent))["id"])

    def status(self, prompt_id: str) -> dict[str, Any]:
        """Where a prompt is. Tried again while the server is away."""
        return self._patiently(lambda: self.client.status(prompt_id))

    def _patiently(self, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        for _ in range(120):
            try:
                return call()
            except JouleboxError as error:
                if error.code not in ("no_server", "no_node", "database"):
                    raise
                wait(0.25)
        raise AssertionError("the server did not come back")

    def query(self, sql: str) -> list[tuple[object, ...]]:
        """What the database holds; numbers as numbers."""
        if self.postgres is not None:
            rows = self.postgres.execute(sql, "stage")
            return [tuple(int(value) if value.isdecimal() else value for value in row) for row in rows]
        with closing(sqlite3.connect(f"file:{self.folder / 'joulebox.db'}?mode=ro", uri=True)) as connection:
            return connection.execute(sql).fetchall()
