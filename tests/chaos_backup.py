"""A backup made while people are answered, restored elsewhere and looked through by a server of its own."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

from chaos_stage import Stage
from chaos_watch import Watch, follows
from joulebox.client import Client
from joulebox.clock import SystemClock
from joulebox.units import seconds

CLOCK = SystemClock()


def saved(stage: Stage, watch: Watch, folder: Path) -> tuple[str, list[str]]:
    """What came of it, as a sentence; and what is wrong."""
    known = list(stage.patiently(lambda: list(stage.client.receipt_ids())))
    file, begun_ns = folder / "backup.zip", CLOCK.now_ns()
    here = _environment(stage, stage.folder, "stage")
    done = watch.done()
    made = json.loads(_joulebox("backup", str(file), "--json", settings=here))
    took_s, meanwhile = seconds(CLOCK.now_ns() - begun_ns), watch.done() - done
    if stage.postgres is not None:
        stage.postgres.execute("CREATE DATABASE restored")
    there = _environment(stage, folder / "restored", "restored")
    _joulebox("restore", str(file), "--json", settings=there)
    with _Served(there) as url, Client(url) as client:
        found, wrong = list(client.receipt_ids()), []
        for receipt_id in found:
            evidence, kept = client.evidence(receipt_id), client.receipt_bytes(receipt_id)
            if kept != stage.patiently(partial(stage.client.receipt_bytes, receipt_id)):
                wrong.append(f"backup: receipt {receipt_id} is not the one that was saved")
            elif not follows(evidence, stage, receipt_id):
                wrong.append(f"backup: receipt {receipt_id} does not follow from its restored evidence")
    lost = set(known) - set(found)
    wrong += [f"backup: {len(lost)} receipts that were there before are missing"] if lost else []
    sentence = (
        f"A backup under load took {took_s:.1f} s while {meanwhile} prompts ended; restored into a new database it "
        f"holds {len(found)} receipts ({made['rows']['jobs']} prompts), all {len(known)} that were there before it "
        "among them, each as it was and made again of the restored evidence to the last bit."
    )
    return (f"Backup under load: {len(wrong)} things are wrong, below." if wrong else sentence), wrong


def _environment(stage: Stage, data: Path, database: str) -> dict[str, str]:
    own = {"JOULEBOX_DATA_DIR": str(data)}
    return own | ({"JOULEBOX_DATABASE_URL": stage.postgres.url(database)} if stage.postgres is not None else {})


def _joulebox(*command: str, settings: dict[str, str]) -> str:
    whole = [sys.executable, "-m", "joulebox", *command]
    return subprocess.run(whole, env=os.environ | settings, check=True, stdout=subprocess.PIPE, text=True).stdout


class _Served:
    """A server on what was restored, as long as the block lasts."""

    def __init__(self, settings: dict[str, str]) -> None:
        command = [sys.executable, "-m", "joulebox", "serve", "--port", "0"]
        self._process = subprocess.Popen(command, env=os.environ | settings, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> str:
        assert self._process.stdout is not None
        return next(word for word in self._process.stdout.readline().split() if word.startswith("http"))

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
