"""An idle machine that is another one after the answer makes what lies above idle doubtful."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agreeing import PLUGS, Lab
from joulebox.accounting import account
from joulebox.model import Reason, Trace
from joulebox.rig.physics import Machine, MachineParameters
from test_closure import traces_of
from traces import PLACEMENT, channel, factors, series, trace


def found_in(run: Trace) -> list[Reason]:
    """What the receipt says of it."""
    reasons = account(run, factors(), receipt_id="r", placement=PLACEMENT).reasons
    return [one for one in reasons if one.code == "idle_drift"]


def drawn(before_w: float, busy_w: float, after_w: float) -> Callable[[float], float]:
    """Joules of a machine that works from 30 s to 32 s, and idles at another power afterwards."""
    return lambda t_s: before_w * min(t_s, 30) + busy_w * min(max(t_s - 30, 0), 2) + after_w * max(t_s - 32, 0)


@pytest.mark.parametrize(
    ("after_w", "level"), [(10.0, None), (9.95, None), (8.0, "suspect"), (12.0, "note"), (10.05, None)]
)
def test_another_idle_power_afterwards(after_w: float, level: str | None) -> None:
    """Lower afterwards is suspect, higher may be fans and is a note, and what does not matter is not told."""
    counter = channel(gain_u_ratio=0.01)
    (*found,) = found_in(trace(series(counter, drawn(10.0, 40.0, after_w), 33.2)))
    assert [one.level for one in found] == ([level] if level else [])
    if found:
        assert f"cpu: 10.0 W before, {after_w:.1f} W after" in found[0].sentence


def test_a_short_idle_record_tells_nothing() -> None:
    """Where the idle record cannot say what noise does, nothing is called drift."""
    run = trace(series(channel(gain_u_ratio=0.01), drawn(10.0, 40.0, 8.0), 33.2))
    short = replace(run.spans[0], start_ns=run.spans[0].end_ns - 5_000_000_000)
    assert found_in(run) != []
    assert found_in(replace(run, spans=(short, *run.spans[1:]))) == []


@pytest.mark.parametrize("name", PLUGS)
@pytest.mark.parametrize("tail_s", [0.3, 0.8, 2.0])
def test_noise_and_tails_are_no_drift(tmp_path: Path, name: str, tail_s: float) -> None:
    """On a machine that is only noisy, and whose power comes down after the work, no receipt is suspect for it."""
    for seed in range(2):
        lab = Lab(seed, PLUGS[name])
        lab.machine = Machine(seed, parameters=MachineParameters(tail_s=tail_s))
        lab.zones.machine = lab.wall.machine = lab.machine
        for run in traces_of(lab, tmp_path, [lab.zones, lab.plug], (), (1.0, 5.0, 1.0, 5.0), 60.0):
            assert [one for one in found_in(run) if one.level != "note"] == []
