"""A node for tests in a process of its own: a scripted engine, no meters. On SIGUSR1 it writes down its threads.

`python lone_node.py SERVER FOLDER NAME TOKEN_S [SUSPEND_S SUSPEND_COMMAND...]`
"""

import json
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

from joulebox.client import Client
from joulebox.clock import SystemClock
from joulebox.model import IdlePolicy, ModelFile
from joulebox.node.agent import Agent
from joulebox.node.engine import LocalModel
from joulebox.node.engines.scripted import Script, Scripted
from joulebox.node.measurement import Machine
from joulebox.node.recorder import Recorder
from joulebox.node.rest import Rest
from joulebox.node.spool import Spool

CLOCK = SystemClock()
MODEL = ModelFile(id="m", digest="sha256:0", quantization="Q4_1", size_bytes=1, memory_bytes=2, context_tokens=512)
MEMORY_BYTES = 8_000_000_000


MAC = "02:00:5e:00:53:01"


def main(server: str, folder: Path, name: str, token_s: float, rest: Rest) -> None:
    """Work until killed; the second token of an answer comes after `token_s`."""
    path = folder / "m.gguf"
    path.touch()

    def tell(*_: object) -> None:
        part = folder / "threads.part"
        part.write_text(json.dumps({one.name: one.native_id for one in threading.enumerate()}))
        part.rename(folder / "threads")

    def leave(*_: object) -> None:  # as the command does
        raise KeyboardInterrupt

    signal.signal(signal.SIGUSR1, tell)
    signal.signal(signal.SIGTERM, leave)
    agent = Agent(
        Client(server),
        Machine(node=name, zone="DE", cores=2, memory_bytes=MEMORY_BYTES),
        Scripted(CLOCK, Script(load_s=0.0, prefill_s=0.0, token_s=token_s, tokens=2)),
        Recorder([], CLOCK, 10.0),
        lambda: [LocalModel(file=MODEL, path=path)],
        Spool(folder / "undelivered"),
        CLOCK,
        MEMORY_BYTES,
        rest=rest,
    )
    with suppress(KeyboardInterrupt):
        agent.run()


if __name__ == "__main__":
    suspend_s = float(sys.argv[5]) if sys.argv[5:] else None
    policy = IdlePolicy(suspend_s=suspend_s, mac=MAC, wake_max_s=60.0)
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], float(sys.argv[4]), Rest(policy, sys.argv[6:]))
