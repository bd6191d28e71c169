"""The harness behind the comparison with other tools: its truth, and the tree at the kernel's place."""

import random
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from joulebox.clock import SystemClock
from joulebox.rig.powercap_tree import TreeParameters
from side_by_side import CALM_S, KERNELS_PLACE, WAVE_S, Plan, Tool, namespace_refused, session, wave

PYTHON = Path(sys.executable)


def test_joulebox_and_two_bare_readings_agree_with_the_truth_through_wraps(tmp_path: Path) -> None:
    """On one tree, in one run, a bare reader and Joulebox find what the machine drew, through wraps."""
    found = [
        Tool(name="bare", python=PYTHON, at_sys=namespace_refused() is None),
        Tool(name="joulebox", python=PYTHON, environment={"JOULEBOX_DATA_DIR": "data"}),
    ]
    plan = Plan(windows={0.2: lambda name: 2 if name == "bare" else 0}, wraps=True)
    one = session(SystemClock(), tmp_path, 5, TreeParameters(range_uj=20_000_000), found, plan)
    assert one.failed == []
    assert {window.tool for window in one.found} == {"bare", "joulebox"}
    assert sum(window.wraps for window in one.found if not window.first) >= 2
    assert not Path(KERNELS_PLACE, "joulebox-rig.json").exists()
    for window in one.found:
        assert 4.0 < window.truth_j < 9.0
        assert window.lost == 0
        # Two counters one tick apart at up to 45 W, and as much again for each tick that the rig was late with.
        assert abs(window.j - window.truth_j) < 2 * 45 * (0.001 + one.late_max_s)


def test_a_tool_that_ends_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    """A tool that cannot even be imported is noted with its last words, and the rest of the session takes place."""
    found = [Tool(name="bare", python=PYTHON), Tool(name="zeus", python=PYTHON)]
    one = session(SystemClock(), tmp_path, 5, TreeParameters(), found, Plan(windows={0.05: lambda _: 1}))
    assert [name for name, _ in one.failed] == ["zeus"]
    assert "zeus" in one.failed[0][1]
    assert [window.tool for window in one.found] == ["bare", "bare"]


@pytest.mark.parametrize("duration_s", [0.05, 0.2, 1.0])
def test_the_wave_fills_the_window_and_leaves_it_calm(duration_s: float) -> None:
    """Levels change every half wave, wherever it began, and the machine rests at the end."""
    for seed in range(50):
        levels = wave(duration_s, random.Random(seed))
        offsets = [offset_s for offset_s, _ in levels]
        assert offsets[0] == 0.0
        assert levels[-1] == (duration_s - CALM_S, 0.0)
        assert all(b - a <= WAVE_S / 2 + 1e-9 for a, b in pairwise(offsets))
        assert all(a != b for (_, a), (_, b) in pairwise(levels))
