"""The pages for operators: the fleet is set up word for word; the clean machine knows every check of the doctor."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import postgres_server

HOW_TO = Path(__file__).parents[1] / "docs" / "how-to"
UNITS = sorted((HOW_TO / "systemd").glob("*.service"))


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder that Postgres reaches too, which does not run as root."""
    path = Path(tempfile.mkdtemp(prefix="joulebox-fleet-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def programs(folder: Path) -> Path:
    """The programs of Postgres, which where the test is run by root become `nobody` first: a person is not root."""
    user = "nobody" if os.geteuid() == 0 else None
    real = postgres_server._binaries(folder, user)
    wrapped = folder / "bin"
    wrapped.mkdir()
    change = "setpriv --reuid=nobody --regid=nogroup --clear-groups " if user else ""
    for name in ("initdb", "pg_ctl", "createdb"):
        made = wrapped / name
        made.write_text(f'#!/bin/sh\nexec {change}"{real / name}" "$@"\n')
        made.chmod(0o755)
    return wrapped


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_fleet_page_word_for_word(folder: Path, smollm2: Path) -> None:
    """Every block of the page in its order, in an empty folder: two servers on a Postgres and two nodes answer with
    receipts, a drained node is passed over, and everything ends."""
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("Postgres does not run as root, and there is no setpriv to be somebody else")
    work = folder / "work"
    work.mkdir()
    work.chmod(0o777)
    kept = work / "models"
    kept.mkdir(parents=True)
    shutil.copy(smollm2, kept / smollm2.name)
    blocks = re.findall(
        r"^```bash\n(.*?)^```$", (HOW_TO / "run-a-fleet.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    assert len(blocks) == 6
    path = f"{programs(folder)}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JOULEBOX_")}
    script = "set -e\n" + "\n".join(blocks)
    with (folder / "out").open("w+") as out:
        shell = subprocess.Popen(
            ["bash", "-c", script], cwd=work, env=environment | {"PATH": path}, stdout=out, stderr=out, process_group=0
        )
        try:
            code = shell.wait(240)
        finally:
            end(shell.pid, work, path)
        out.seek(0)
        said = out.read()
    assert code == 0, said
    answers = [json.loads((work / name).read_text()) for name in ("answer.json", "answer2.json", "elsewhere.json")]
    assert "Paris" in answers[0]["answer"]
    assert [one["receipt"]["verdict"] in ("valid", "suspect") for one in answers] == [True] * 3, answers
    assert answers[2]["receipt"]["node"] == "two", "one was drained"
    assert re.search(r"^one +draining since .*: new fans", (work / "drained.txt").read_text(), re.MULTILINE)
    assert re.search(r"^one +(idle|busy)", said, re.MULTILINE)
    assert not (work / "postgres" / "postmaster.pid").exists()


def end(group: int, work: Path, path: str) -> None:
    """Whatever a failed page has left running."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
    if (work / "postgres" / "postmaster.pid").exists():
        stop = ["pg_ctl", "-D", str(work / "postgres"), "-m", "immediate", "-w", "stop"]
        subprocess.run(stop, env=os.environ | {"PATH": path}, check=False, capture_output=True)


def test_the_clean_machine_page_knows_every_check() -> None:
    """Each name under which the doctor reports stands in the table of the page, and no other."""
    source = (HOW_TO.parents[1] / "src" / "joulebox" / "node" / "doctor.py").read_text("utf-8")
    known = set(re.findall(r'(?:_check|_awake|Check)\(\s*(?:seen,\s*)?"([^"]+)"', source))
    table = "".join(
        line.split("|")[1]
        for line in (HOW_TO / "clean-machine.md").read_text("utf-8").splitlines()
        if line[:3] == "| `"
    )
    assert set(re.findall(r"`([^`]+)`", table)) == known


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_the_units_are_well_formed(unit: Path, tmp_path: Path) -> None:
    """The checker of systemd finds nothing to say about them."""
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not here: install systemd to check the units")
    copy = tmp_path / unit.name
    copy.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.MULTILINE))
    checked = subprocess.run([tool, "verify", str(copy)], capture_output=True, text=True, check=False)
    assert unit.name not in checked.stderr, checked.stderr
    assert checked.returncode == 0, checked.stderr
