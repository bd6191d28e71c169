"""For every test: the real small model, and how property tests run."""

import gc
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import databases
import postgres_server
from joulebox.errors import JouleboxError
from joulebox.node.fetch import DEFAULT, fetch

# A busy machine makes an example slow, not wrong: what takes too long is told by the time limit of the whole test.
settings.register_profile("joulebox", deadline=None)
settings.load_profile("joulebox")
postgres_server.cut_no_power()
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts a job behind itself
    signal.signal(signal.SIGINT, signal.default_int_handler)
gc.disable()  # until all tests are there: what is imported stays


FIRST = (
    "test_crash_fleet",
    "test_crash",
    "test_whole",
    "test_bench_run",
    "test_up",
    "test_engines",
    "test_pages",
    "test_fleet",
)
"""The files that take longest, in this order: what begins last must be short, or one process works on alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files begin first; the others stay in their order."""
    items.sort(key=lambda item: FIRST.index(item.path.stem) if item.path.stem in FIRST else len(FIRST))


def pytest_collection_finish() -> None:
    """What is loaded by now is not looked through for garbage again and again."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The verified GGUF of SmolLM2-135M-Instruct, fetched once into `.cache`, or into `JOULEBOX_TEST_CACHE`."""
    cache = os.environ.get("JOULEBOX_TEST_CACHE")
    try:
        return fetch(DEFAULT, Path(cache) if cache else Path(__file__).parents[1] / ".cache" / "models")
    except JouleboxError as error:
        pytest.skip(str(error))


@pytest.fixture
def one_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates are counted within one minute, however slow the machine: the library that counts takes no clock."""
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s)


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run in a folder of their own, with their data in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOULEBOX_DATA_DIR", str(tmp_path / "data"))


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | str]:
    """A new database of each kind: the folder of a file, or the URL of one on a real server."""
    if request.param == "sqlite":
        databases.prepare(tmp_path)
        yield tmp_path
    else:
        with databases.postgres() as url:
            yield url


@pytest.fixture(params=["sqlite", "postgres"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | str]:
    """The same without any tables."""
    if request.param == "sqlite":
        yield tmp_path
    else:
        with postgres_server.database() as url:
            yield url


def pytest_sessionfinish() -> None:
    """The Postgres of this test process ends with it, and leaves nothing; what was not looked through goes too."""
    gc.unfreeze()
    postgres_server.end()


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """A process of the suite that has told all its results leaves at once: to take a heap apart for seconds, four times
    over, would end every run. Not where coverage writes down at the very end what it saw."""
    if hasattr(config, "workerinput") and "coverage" not in sys.modules:
        os._exit(0)
