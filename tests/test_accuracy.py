"""Receipts against the known truth of the simulated machine, on a clock that is handed in."""

from collections import defaultdict
from pathlib import Path
from statistics import median

import pytest

from joulebox.accounting import account, receipt_bytes
from joulebox.clock import SimulatedClock
from joulebox.evidence import decode_trace, encode_trace
from joulebox.node.meters import open_meters
from joulebox.node.recorder import Recorder
from joulebox.rig.physics import Machine
from joulebox.rig.powercap_tree import RigPowercap, TreeParameters
from lab import PROMPTS, RANGE_UJ, Compared, campaign, errors, summary
from traces import PLACEMENT, factors


def simulated(folder: Path, seed: int, tree: TreeParameters, idle_s: float = 4.0) -> list[Compared]:
    folder.mkdir(exist_ok=True)
    clock = SimulatedClock()
    machine = Machine(seed)
    rig = RigPowercap(clock, machine, folder, tree)
    recorder = Recorder([rig.following(meter) for meter in open_meters(rig.addresses)], clock, reading_hz=10.0)
    recorder.start()
    compared = list(campaign(clock, recorder, machine.activity, lambda: machine, folder, seed, idle_s))
    recorder.stop()
    rig.close()
    return compared


@pytest.mark.parametrize("seed", range(5))
def test_thirty_prompts(tmp_path: Path, seed: int) -> None:
    """Thirty answers of 0.3 to 5 s, wraps included: median error <= 1 %, the truth in at least 26 intervals."""
    compared = simulated(tmp_path, seed, TreeParameters(range_uj=RANGE_UJ))
    print(summary(compared))
    assert len(compared) == PROMPTS
    assert sum(one.wraps for one in compared) > 20
    assert median(one.error_ratio for one in compared) <= 0.01
    assert sum(abs(one.j - one.truth_j) <= one.u_j for one in compared) >= 26
    assert sum(abs(one.j - one.truth_j) <= one.u_rest_j for one in compared) >= 26
    assert {one.receipt.verdict for one in compared} == {"valid"}
    assert all(one.receipt.simulated for one in compared)


def test_intervals_are_honest(tmp_path: Path) -> None:
    """Over 180 answers the interval of every figure, its gain part left out, holds the truth in 90 % at least, and that
    of the active energy is a few percent wide: it does not cover by being vast."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    widths = []
    for seed in range(20, 26):
        idle = Machine(seed)
        for one in simulated(tmp_path / str(seed), seed, TreeParameters(range_uj=RANGE_UJ), idle_s=15.0):
            for name, error in errors(one, idle).items():
                found[name].append(error)
            assert one.receipt.energy.active is not None
            widths.append(found["active"][-1][1] / one.receipt.energy.active.j)
    for name, pairs in found.items():
        inside = sum(abs(error_j) <= u_j for error_j, u_j in pairs) / len(pairs)
        error_j, u_j = (median(abs(pair[i]) for pair in pairs) for i in range(2))
        print(f"{name:8}{len(pairs):4} figures, {inside:6.1%} inside; median error {error_j:.4f} J, U {u_j:.4f} J")
        assert inside >= 0.90, name
    assert len(widths) == 180
    assert median(widths) <= 0.03


def test_gain_is_covered(tmp_path: Path) -> None:
    """Counters that show 4 % too much move every figure by 4 %, which the interval's gain part covers."""
    compared = simulated(tmp_path, 7, TreeParameters(gain_error=0.04))
    assert median(one.error_ratio for one in compared) == pytest.approx(0.04, abs=0.002)
    assert all(abs(one.j - one.truth_j) <= one.u_j for one in compared)
    assert not any(abs(one.j - one.truth_j) <= one.u_rest_j for one in compared)


def test_active_excludes_the_tail(tmp_path: Path) -> None:
    """Energy above idle is what the work added: the tail after the answer is a figure of its own, above zero."""
    for one in simulated(tmp_path, 3, TreeParameters()):
        energy = one.receipt.energy
        assert energy.answer is not None
        assert energy.active is not None
        assert energy.tail is not None
        assert energy.full is not None
        assert energy.active.j < energy.answer.j < energy.full.j
        assert energy.tail.j > 0


def test_receipts_repeat(tmp_path: Path) -> None:
    """A stored trace gives equal bytes every time."""
    for one in simulated(tmp_path, 1, TreeParameters())[:5]:
        again = account(decode_trace(encode_trace(one.trace)), factors(), receipt_id="r", placement=PLACEMENT)
        assert receipt_bytes(again) == receipt_bytes(one.receipt)
