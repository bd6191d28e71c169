"""Inspect AI through Joulebox: any task of its own, unchanged, with joules beside its scores. In Inspect's own
environment below `.cache/peers`, since it brings a cloud's worth of packages along."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from accuracy_peers import environment
from bench_stage import BenchStage

ROOT = Path(__file__).parents[1]
TASK = Path(__file__).parent / "peers" / "inspect_task.py"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[BenchStage]:
    stage = BenchStage(tmp_path / "server", ["m1"])
    yield stage
    stage.stop()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_task_of_inspect_has_its_joules(stage: BenchStage, tmp_path: Path) -> None:
    """Every call of a task is a prompt of the queue, its receipt in the log; a sample's score is the sum of its calls'
    joules, the total that of all; what no prompt can carry is refused by name."""
    python = environment("inspect-ai", also=ROOT)
    if python is None:
        pytest.skip("inspect-ai cannot be installed here: the registry of packages is away.")
    done = subprocess.run(
        [str(python), "-P", str(TASK), stage.url, str(tmp_path / "logs")],
        capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout.splitlines()[-1])
    kept = {receipt_id: stage.client.receipt(receipt_id) for receipt_id in stage.client.receipt_ids()}
    noted = [call["receipt_id"] for sample in told["samples"] for call in sample["receipts"]]
    assert set(noted) <= set(kept)
    assert len(noted) == len(set(noted)) == 9
    joules = []
    for sample in told["samples"]:
        answers = [kept[call["receipt_id"]] for call in sample["receipts"]]
        usable = all(one["verdict"] != "invalid" for one in answers)
        assert sample["output"] == answers[-1]["id"]
        assert sample["tokens"] == answers[-1]["usage"]["output_tokens"]
        if usable:
            joules.append(sum(one["energy"]["answer"]["j"] for one in answers))
            assert sample["energy"] == pytest.approx(joules[-1])
            assert "± " in sample["told"]
            assert "simulated" in sample["told"]
    assert joules
    assert told["metrics"]["energy"]["total"] == pytest.approx(sum(joules))
    assert "top_p" in told["refused"]
