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
from contextlib import suppress
from pathlib import Path

import pytest

import postgres_server

HOW_TO = Path(__file__).parents[1] / "docs" / "how-to"
PAGE = HOW_TO / "run-a-fleet.md"
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


def alone() -> list[str]:
    """Where this is run by root the page has a network of its own, so that its ports are nobody else's."""
    own = ["unshare", "--net", "bash", "-c", "ip link set lo up"]
    if os.geteuid() or subprocess.run(own, check=False, capture_output=True).returncode:
        return ["bash", "-c"]
    return ["unshare", "--net", "bash", "-c", 'ip link set lo up; exec bash -c "$0"']


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_fleet_page_word_for_word(folder: Path, smollm2: Path) -> None:
    """Every block of the page in its order, in an empty folder but for the model's file: two servers on a Postgres and
    two nodes with tokens answer with receipts, a drained node is passed over, and everything ends."""
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("Postgres does not run as root, and there is no setpriv to be somebody else")
    work = folder / "work"
    (work / "models" / "models").mkdir(parents=True)
    work.chmod(0o777)
    shutil.copy(smollm2, work / "models" / "models" / smollm2.name)
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 6
    path = f"{programs(folder)}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JOULEBOX_")}
    command = [*alone(), "set -e\n" + "\n".join(blocks)]
    with (folder / "out").open("w+") as out:
        shell = subprocess.Popen(
            command, cwd=work, env=environment | {"PATH": path}, stdout=out, stderr=out, process_group=0
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
    receipts = [one["receipt"] for one in answers]
    assert all(one["energy"]["answer"]["j"] > 0 and one["carbon"]["total"]["g"] > 0 for one in receipts)
    assert {one["zone"] for one in receipts} <= {"DE", "FR"}
    assert receipts[2]["node"] == "two", "one was drained"
    assert re.search(r"^one +draining since .*: new fans", (work / "drained.txt").read_text(), re.MULTILINE)
    assert len(re.findall(r"^(?:one|two) +(?:idle|busy)", said, re.MULTILINE)) >= 2
    assert (work / "one.token").stat().st_mode & 0o777 == 0o600
    assert not (work / "postgres" / "postmaster.pid").exists()


def end(group: int, work: Path, path: str) -> None:
    """Whatever a failed page has left running."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
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
