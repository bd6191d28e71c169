"""The real service on a free port: a server process and a node process with the real small model, watched as `up`
does."""

import hashlib
import os
import signal
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from joulebox.client import Client
from joulebox.clock import SystemClock
from joulebox.errors import JouleboxError
from joulebox.node.models import Registry
from joulebox.supervisor import Supervisor
from joulebox.units import nanoseconds

CLOCK = SystemClock()
SYSTEM = "You are a helpful assistant."
MODEL = "smollm2"


def wait(wait_s: float) -> None:
    """Let real time pass: real processes are at work."""
    CLOCK.sleep_until(CLOCK.now_ns() + nanoseconds(wait_s))


class Service:
    """Server and node in `folder`. `settings` are `JOULEBOX_*` variables for both."""

    def __init__(self, folder: Path, model: Path, **settings: str) -> None:
        Registry(folder).add(model, MODEL, default_system=SYSTEM)
        self.folder = folder
        self.database = folder / "joulebox.db"
        self.supervisor = Supervisor(CLOCK)
        common = {"JOULEBOX_DATA_DIR": str(folder), "JOULEBOX_THREADS": "1", **settings}
        self.url = self.supervisor.start("server", ["serve", "--port", "0"], common)
        self.supervisor.keep_port("server", self.url)
        self.supervisor.start("node", ["node"], {"JOULEBOX_NODE": "stage"} | common | {"JOULEBOX_SERVER": self.url})
        threading.Thread(target=self.supervisor.watch, daemon=True).start()
        self.client = Client(self.url)
        self._join()

    def _join(self) -> None:
        """Wait until the node offers its model."""
        for _ in range(200):
            if self.client.models():
                return
            wait(0.1)
        raise AssertionError("the node did not join")

    def stop(self) -> None:
        """End everything."""
        self.client.close()
        self.supervisor.stop()

    def pid(self, victim: str) -> int | None:
        """The process of `server`, `node` or `engine`; the engine is the node's child."""
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

    def ask(self, question: str, seed: int = 0, **fields: object) -> str:
        """Queue a prompt; its id. Tried again while the server is away, never queued twice."""
        key = hashlib.sha256(f"{question} {seed} {fields}".encode()).hexdigest()
        sent = {"model": MODEL, "prompt": question, "seed": seed, "idempotency_key": key, **fields}
        return str(self._patiently(lambda: self.client.submit(**sent))["id"])

    def status(self, prompt_id: str) -> dict[str, Any]:
        """Where a prompt is. Tried again while the server is away."""
        return self._patiently(lambda: self.client.status(prompt_id))

    def _patiently(self, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        for _ in range(120):
            try:
                return call()
            except JouleboxError as error:
                if error.code not in ("no_server", "no_node"):
                    raise
                wait(0.25)
        raise AssertionError("the server did not come back")

    def query(self, sql: str) -> list[tuple[object, ...]]:
        """What the database holds."""
        with sqlite3.connect(f"file:{self.database}?mode=ro", uri=True) as connection:
            return connection.execute(sql).fetchall()
