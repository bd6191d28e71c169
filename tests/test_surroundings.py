"""What else went on around an answer: seen by two looks at the machine, told by name, never subtracted."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from joulebox.accounting import account
from joulebox.accounting.surroundings import Finding, findings
from joulebox.accounting.validity import RULES
from joulebox.clock import SimulatedClock
from joulebox.evidence import decode_trace, encode_trace
from joulebox.model import Message, ModelFile, NeighboursSeen, ProgramLoad, Prompt, Reason, Receipt, Trace
from joulebox.node.engine import Event, LocalModel
from joulebox.node.engines.scripted import Script, Scripted
from joulebox.node.measurement import Conditions, Machine, measure
from joulebox.node.meters import open_meters
from joulebox.node.neighbours import Census, Process, scan, witnessed
from joulebox.node.recorder import Recorder
from joulebox.protocol import Lease
from joulebox.rig.physics import Machine as SimulatedMachine
from joulebox.rig.powercap_tree import RigPowercap
from joulebox.units import nanoseconds
from traces import PLACEMENT, channel, factors, series, trace, work

QUIET = NeighboursSeen(
    window_s=5.0,
    own_s=6.0,
    server_s=None,
    foreign=(),
    foreign_s=0.0,
    unexplained_s=0.01,
    steal_s=0.0,
    disk_bytes=20_000,
    network_bytes=3_000,
    throttled=0,
)
OURS = {"foreign_load", "shared_host", "steal", "throttled"}


def receipt_of(**changes: object) -> Receipt:
    """A receipt of a quiet machine of two cores but for these changes."""
    counter = series(channel(), work(10.0, 50.0, 30.0, 32.0), 34.0)
    run = trace(counter, neighbours=replace(QUIET, **changes))  # type: ignore[arg-type]
    return account(run, factors(), receipt_id="r1", placement=PLACEMENT)


def reasons(**changes: object) -> list[Reason]:
    return [reason for reason in receipt_of(**changes).reasons if reason.code in OURS]


def programs(*loads: tuple[str, float]) -> dict[str, object]:
    return {
        "foreign": tuple(ProgramLoad(name=name, cpu_s=cpu_s) for name, cpu_s in loads),
        "foreign_s": sum(cpu_s for _, cpu_s in loads),
    }


def test_a_quiet_machine_has_no_such_reason() -> None:
    """What every idle system does is not told; nor is anything where nobody looked, as in old evidence."""
    assert reasons() == []
    assert reasons(**programs(("systemd", 0.03)), unexplained_s=0.04) == []
    assert reasons(window_s=None, **programs(("cc1", 5.0))) == []
    run = trace(series(channel(), work(10.0, 50.0, 30.0, 32.0), 34.0))
    assert run.neighbours is None
    assert not {reason.code for reason in account(run, factors(), receipt_id="r", placement=PLACEMENT).reasons} & OURS


@pytest.mark.parametrize(
    ("cpu_s", "own_s", "level"), [(0.25, 6.0, "note"), (1.2, 6.0, "suspect"), (3.0, 6.0, "invalid")]
)
def test_foreign_programs_are_named(cpu_s: float, own_s: float, level: str) -> None:
    """A program that worked beside the answer is named, and counts the more, the more it did."""
    (reason,) = reasons(**programs(("apt-get", cpu_s), ("sshd", 0.01)))
    assert (reason.code, reason.level) == ("foreign_load", level)
    assert f"in the 5.0 s around the answer: apt-get used {cpu_s:g} core-seconds" in reason.sentence
    assert "sshd" not in reason.sentence


def test_what_is_small_beside_the_work_is_only_noted() -> None:
    """A percent of what the engine itself did on many cores makes no receipt suspect."""
    assert [reason.level for reason in reasons(**programs(("cc1", 1.0)), own_s=300.0)] == ["note"]


def test_work_that_no_process_explains_counts() -> None:
    """What other containers or short-lived programs did is told without a name."""
    (reason,) = reasons(unexplained_s=1.5)
    assert reason.level == "suspect"
    assert "programs that cannot be named used 1.5 core-seconds" in reason.sentence


def test_disks_and_network_count() -> None:
    """A copy that costs little processor time still draws power."""
    (disk,) = reasons(disk_bytes=400_000_000)
    assert (disk.code, disk.level) == ("foreign_load", "suspect")
    assert "the disks moved 400 MB" in disk.sentence
    (network,) = reasons(network_bytes=9_000_000)
    assert "the network carried 9.0 MB" in network.sentence
    assert [reason.level for reason in reasons(**programs(("rsync", 4.0)), network_bytes=9_000_000)] == ["invalid"]


def test_measured_work_may_use_disks_and_network() -> None:
    """Where any work stands in the answer's place, what it copies is no sign of anybody else."""
    counter = series(channel(), work(10.0, 50.0, 30.0, 32.0), 34.0)
    copied = replace(QUIET, disk_bytes=400_000_000, network_bytes=9_000_000)
    run = trace(counter, neighbours=copied, model=None, engine=None, seed=None)
    receipt = account(run, factors(), receipt_id="r", placement=PLACEMENT)
    assert not {reason.code for reason in receipt.reasons} & OURS


def test_the_server_on_the_same_machine_is_told_apart() -> None:
    """A server beside the node is a note, a busy one makes the receipt suspect, and no energy is taken away."""
    assert reasons(server_s=0.01) == []
    assert [(one.code, one.level) for one in reasons(server_s=0.1)] == [("shared_host", "note")]
    assert [(one.code, one.level) for one in reasons(server_s=0.5)] == [("shared_host", "suspect")]
    assert receipt_of(server_s=0.5).energy == receipt_of().energy


def test_steal_and_heat() -> None:
    """Time the hypervisor took and cores slowed by heat are told, in their own levels."""
    assert [(one.code, one.level) for one in reasons(steal_s=0.05)] == [("steal", "suspect")]
    assert [(one.code, one.level) for one in reasons(steal_s=0.5)] == [("steal", "invalid")]
    assert [(one.code, one.level) for one in reasons(throttled=3)] == [("throttled", "invalid")]
    assert set(RULES) >= OURS


def found(**changes: Any) -> list[Finding]:
    """What is told of a machine that was as quiet as none is, but for these changes."""
    nothing = replace(QUIET, window_s=8.0, own_s=0.0, unexplained_s=None, disk_bytes=0, network_bytes=0)
    return list(findings(trace(neighbours=replace(nothing, **changes))))


def levels(**changes: Any) -> list[tuple[str, str]]:
    return [(one.code, one.level) for one in found(**changes)]


@pytest.mark.parametrize(
    ("window_s", "own_s", "foreign_s", "level"),
    [
        (8.0, 0.0, 0.32, None),
        (8.0, 0.0, 0.33, "note"),
        (8.0, 0.0, 0.56, "note"),
        (8.0, 0.0, 0.57, "suspect"),
        (8.0, 0.0, 4.0, "suspect"),
        (8.0, 0.0, 4.25, "invalid"),
        (8.0, 17.0, 4.25, "suspect"),
        (8.0, 16.9, 4.25, "invalid"),
        (8.0, 100.0, 2.0, "note"),
        (8.0, 99.0, 2.0, "suspect"),
        (8.0, 200.0, 2.125, "suspect"),
        (1.0, 0.0, 0.05, None),
        (1.0, 0.0, 0.06, "note"),
        (1.0, 0.0, 0.1, "note"),
        (1.0, 0.0, 0.11, "suspect"),
        (0.5, 0.0, 0.5, "suspect"),
        (0.5, 0.0, 0.51, "invalid"),
    ],
)
def test_how_much_foreign_work_counts(window_s: float, own_s: float, foreign_s: float, level: str | None) -> None:
    """What programs may do grows with the window and with the engine's own work, and is never below a floor; the limit
    itself is still allowed."""
    told = levels(window_s=window_s, own_s=own_s, **programs(("cc1", foreign_s)))
    assert told == ([("foreign_load", level)] if level else [])


@pytest.mark.parametrize(
    ("loads", "unseen_s", "sentence"),
    [
        ((4.0, 1.0, 0.5, 0.5), 0.0, "p0 used 4 core-seconds, p1 used 1 core-seconds, p2 used 0.5 core-seconds"),
        ((9.5, 0.5), 0.0, "p0 used 9.5 core-seconds, p1 used 0.5 core-seconds"),
        ((9.6, 0.4), 0.0, "p0 used 9.6 core-seconds"),
        ((9.5, 0.5), 0.99, "p0 used 9.5 core-seconds"),
        ((9.5, 0.5), 1.0, "p0 used 9.5 core-seconds, programs that cannot be named used 1 core-seconds"),
        ((0.25, 0.25), 16.0, "p0 used 0.25 core-seconds, programs that cannot be named used 16 core-seconds"),
    ],
)
def test_who_is_worth_a_name(loads: tuple[float, ...], unseen_s: float, sentence: str) -> None:
    """Three names at most, of those that did a twentieth of all of it; the first in any case; what has none is told
    from a tenth of the rest on."""
    named = programs(*((f"p{number}", cpu_s) for number, cpu_s in enumerate(loads)))
    (one,) = found(unexplained_s=unseen_s + 0.04 if unseen_s else None, **named)
    assert one.details == ("8.0 s", sentence)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"disk_bytes": 40_000_000}, None),
        ({"disk_bytes": 40_000_001}, "the disks moved 40 MB"),
        ({"disk_bytes": 16_000_000, "window_s": 2.0}, None),
        ({"disk_bytes": 16_000_001, "window_s": 2.0}, "the disks moved 16 MB"),
        ({"disk_bytes": 900_000_000_000}, "the disks moved 900000 MB"),
        ({"network_bytes": 4_000_000}, None),
        ({"network_bytes": 4_000_001}, "the network carried 4.0 MB"),
        ({"network_bytes": 1_000_000, "window_s": 1.0}, None),
        ({"network_bytes": 1_000_001, "window_s": 1.0}, "the network carried 1.0 MB"),
        ({"network_bytes": 900_000_000_000}, "the network carried 900000.0 MB"),
        ({"disk_bytes": 40_000_001, **programs(("cc1", 0.3))}, "the disks moved 40 MB"),
    ],
)
def test_how_much_disks_and_network_may_do(changes: dict[str, Any], told: str | None) -> None:
    """Both may move so much a second and so much in any case; beyond it they alone make a receipt suspect."""
    assert [(one.level, one.details[1]) for one in found(**changes)] == ([("suspect", told)] if told else [])


@pytest.mark.parametrize("busy", [{"disk_bytes": 10**9}, {"network_bytes": 10**9}])
def test_disks_make_nothing_better(busy: dict[str, object]) -> None:
    """Where programs alone make a receipt invalid, disks or network beside them leave it so."""
    assert levels(**programs(("cc1", 5.0)), **busy) == [("foreign_load", "invalid")]


@pytest.mark.parametrize(
    ("window_s", "own_s", "server_s", "level"),
    [
        (8.0, 0.0, 0.02, None),
        (8.0, 0.0, 0.03, "note"),
        (8.0, 0.0, 0.4, "note"),
        (8.0, 0.0, 0.41, "suspect"),
        (8.0, 100.0, 2.0, "note"),
        (8.0, 99.0, 2.0, "suspect"),
        (1.0, 0.0, 0.1, "note"),
        (1.0, 0.0, 0.11, "suspect"),
    ],
)
def test_how_busy_a_server_may_be(window_s: float, own_s: float, server_s: float, level: str | None) -> None:
    """A server is busy beyond a twentieth of a core, if that is more than a fiftieth of the engine's work."""
    told = levels(window_s=window_s, own_s=own_s, server_s=server_s)
    assert told == ([("shared_host", level)] if level else [])


@pytest.mark.parametrize(
    ("window_s", "steal_s", "level"),
    [
        (8.0, 0.032, None),
        (8.0, 0.033, "suspect"),
        (8.0, 0.32, "suspect"),
        (8.0, 0.33, "invalid"),
        (1.0, 0.02, None),
        (1.0, 0.03, "suspect"),
        (1.0, 0.1, "suspect"),
        (1.0, 0.11, "invalid"),
    ],
)
def test_how_much_may_be_stolen(window_s: float, steal_s: float, level: str | None) -> None:
    """Of the time of all cores a share may be stolen, and a little in any case."""
    assert levels(window_s=window_s, steal_s=steal_s) == ([("steal", level)] if level else [])


def test_heat_is_counted() -> None:
    """A machine slowed by heat is told with how often, whether or not anything else was looked at."""
    assert found(window_s=None, throttled=3) == [Finding("throttled", "invalid", ("3 times",))]


def test_neighbours_travel_with_the_evidence() -> None:
    """What was seen is part of the trace as it is stored; bytes without it are still read."""
    run = trace(neighbours=replace(QUIET, foreign=(ProgramLoad(name="cc1 é", cpu_s=0.5),)))
    assert decode_trace(encode_trace(run)) == run
    blob = encode_trace(trace())
    old = blob.replace(b',"neighbours":null', b"")
    size = int.from_bytes(blob[4:8], "big") - (len(blob) - len(old))
    assert decode_trace(old[:4] + size.to_bytes(4, "big") + old[8:]) == trace()


def process(pid: int, name: str, cpu_s: float, parent: int = 1) -> Process:
    return Process(pid=pid, start_ticks=0, name=name, parent=parent, kernel=False, cpu_s=cpu_s, children_cpu_s=0.0)


def census(*processes: Process, throttled: int | None = 7) -> Census:
    return Census(
        uptime_s=10.0 + sum(each.cpu_s for each in processes),
        cores=2,
        busy_s=sum(each.cpu_s for each in processes),
        steal_s=0.0,
        disk_sectors=0,
        network_bytes=0,
        processes=processes,
        throttled=throttled,
    )


def test_joulebox_itself_is_not_foreign() -> None:
    """Server and siblings below the given parent, and whatever was started as joulebox, are the server's share; of many
    foreign programs the five greatest are named, and any name can be printed."""
    busy = [(50 + number, f"p{number}\x1b", 1.0 + number) for number in range(7)]
    before = [process(2, "up", 1), process(3, "python", 1, 2), process(4, "python", 1, 2), process(5, "joulebox", 1)]
    after = [process(2, "up", 1), process(3, "python", 3, 2), process(4, "python", 2, 2), process(5, "joulebox", 2)]
    seen = witnessed(
        census(*before, *(process(pid, name, 0.0) for pid, name, _ in busy)),
        census(*after, *(process(*one) for one in busy), throttled=9),
        own=3,
        server=2,
    )
    assert (seen.own_s, seen.server_s, seen.throttled) == (2.0, 2.0, 2)
    assert [load.name for load in seen.foreign] == ["p6?", "p5?", "p4?", "p3?", "p2?"]
    assert seen.foreign_s == 28.0
    alone = [process(3, "python", 1)]
    assert witnessed(census(*alone), census(*alone), own=3, server=None).server_s is None


def test_throttling_is_counted(tmp_path: Path) -> None:
    """The counters of all cores and packages are one number; a processor without them tells nothing."""
    assert scan(tmp_path).throttled is None
    for core, counts in {"cpu0": (3, 1), "cpu1": (2, 1), "cpufreq": (9, 9)}.items():
        folder = tmp_path / "sys/devices/system/cpu" / core / "thermal_throttle"
        folder.mkdir(parents=True)
        for part, count in zip(("core", "package"), counts, strict=True):
            (folder / f"{part}_throttle_count").write_text(f"{count}\n")
    assert scan(tmp_path).throttled == 7


BURN = "import time\nend = time.process_time() + 0.4\nwhile time.process_time() < end: pass"


class Disturbed(Scripted):
    """An engine during whose answers a foreign program burns processor time, for real."""

    def generate(self, prompt: Prompt) -> Iterator[Event]:
        subprocess.run([sys.executable, "-c", BURN], check=True)
        yield from super().generate(prompt)


def measured(recorder: Recorder, clock: SimulatedClock, folder: Path, conditions: Conditions) -> Trace:
    """The trace of one answer of the disturbed engine."""
    (folder / "m.gguf").touch()
    file = ModelFile(id="m", digest="d", quantization="q", size_bytes=1, memory_bytes=1, context_tokens=4096)
    prompt = Prompt(model="m", messages=(Message(role="user", content="hi"),))
    return measure(
        Lease(token="t", job_id="j", attempt=1, prompt=prompt, queued_s=0.0, placement_reason=""),
        LocalModel(file=file, path=folder / "m.gguf"),
        Machine(node="n", zone="DE", cores=2, memory_bytes=8_000_000_000),
        Disturbed(clock, Script(load_s=0.0, tokens=5)),
        recorder,
        clock,
        lambda *_, **__: None,
        0,
        conditions,
    ).trace


def test_a_real_run_sees_what_worked_beside_it(tmp_path: Path) -> None:
    """Two real looks around an answer find the processor time of what the node started as the node's own."""
    clock = SimulatedClock()
    seen = measured(
        Recorder([], clock, 10.0), clock, tmp_path, Conditions(look=scan, server_pid=os.getppid())
    ).neighbours
    assert seen is not None
    assert seen.own_s >= 0.35
    assert seen.window_s is not None
    assert 0.35 <= seen.window_s < 60.0
    assert seen.server_s is not None


def test_a_simulated_machine_has_no_neighbours(tmp_path: Path) -> None:
    """The processes of this machine say nothing of a simulated one: nobody looks."""
    clock = SimulatedClock()
    rig = RigPowercap(clock, SimulatedMachine(1), tmp_path)
    recorder = Recorder(open_meters(rig.addresses), clock, 10.0)
    recorder.start()
    clock.sleep_until(nanoseconds(5.0))
    assert measured(recorder, clock, tmp_path, Conditions(look=scan)).neighbours is None
    recorder.stop()
    rig.close()
