"""A real server process, a simulated node process and real runner processes: a whole campaign in seconds."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from joulebox.client import Client
from joulebox.clock import SystemClock
from joulebox.supervisor import Supervisor
from joulebox.units import nanoseconds

CLOCK = SystemClock()
NODE = Path(__file__).with_name("simulated_node.py")
RUN_S = 150.0


class BenchStage:
    """Server and node in `folder`. What is killed is started again at once."""

    def __init__(self, folder: Path, models: Sequence[str]) -> None:
        self.folder = folder
        self.models = list(models)
        self.supervisor = Supervisor(CLOCK)
        settings = {"JOULEBOX_DATA_DIR": str(folder), "JOULEBOX_GRACE_S": "0.3", "JOULEBOX_ATTEMPTS_MAX": "9"}
        settings |= {"JOULEBOX_ZONE": "DE", "JOULEBOX_CONTROL_EVERY_S": "0"}
        self.url = self.supervisor.start("server", ["serve", "--port", "0"], settings)
        self.supervisor.keep_port("server", self.url)
        self.node = self._node()
        self.client = Client(self.url)
        while not self.client.models():
            wait(0.02)

    def _node(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, str(NODE), self.url, "rig", *self.models])

    def stop(self) -> None:
        """End everything."""
        self.client.close()
        self.node.kill()
        self.node.wait()
        self.supervisor.stop()

    def runner(self, *arguments: str) -> subprocess.Popen[str]:
        """`joulebox bench run` as a process."""
        command = [sys.executable, "-m", "joulebox", "bench", "run", "--server", self.url, *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *arguments: str) -> str:
        """The same to its end; what it said on stderr."""
        runner = self.runner(*arguments)
        out, told = runner.communicate(timeout=RUN_S)
        assert runner.returncode == 0, told + out
        return told

    def run_with_kills(self, path: Path, kills: int, seed: int, *arguments: str) -> int:
        """The same while runner, server and node are killed in turn, each after a few more lines of the campaign, at a
        moment that the seed decides; how many kills hit something alive."""
        chance = random.Random(seed)
        hit, runner = 0, self.runner("--out", str(path), *arguments)
        for number in range(kills):
            wanted = _lines(path) + chance.randint(1, 3)
            while _lines(path) < wanted and runner.poll() is None:
                wait(0.02)
            wait(chance.uniform(0.0, 0.2))
            if number % 3 == 0:
                hit += runner.poll() is None
                runner.kill()
                runner.communicate()
                begun = path.exists() and path.stat().st_size
                runner = self.runner(*(("--resume", str(path)) if begun else ("--out", str(path), *arguments)))
            elif number % 3 == 1 and (pid := self.supervisor.pid("server")) is not None:
                os.kill(pid, signal.SIGKILL)
                self.supervisor_watches()
                hit += 1
            else:
                self.node.kill()
                self.node.wait()
                self.node = self._node()
                hit += 1
        out, told = runner.communicate(timeout=RUN_S)
        assert runner.returncode == 0, told + out
        return hit

    def supervisor_watches(self) -> None:
        """Have the supervisor start again what dies, from the first kill on."""
        if not self._watched:
            import threading

            threading.Thread(target=self.supervisor.watch, daemon=True).start()
            self._watched = True

    _watched = False


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait(wait_s: float) -> None:
    """Let real time pass: real processes are at work."""
    CLOCK.sleep_until(CLOCK.now_ns() + nanoseconds(wait_s))
