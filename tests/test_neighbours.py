"""Who else used the machine: by name, told apart, never counted twice, and at a cost that a guard can bear."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulebox.node.neighbours import Census, Load, Neighbours, Process, compare, scan

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
NODE, SERVER = 300, 400


def process(
    pid: int,
    name: str,
    cpu_s: float,
    parent: int = 1,
    *,
    children_s: float = 0.0,
    born: int = 0,
    kernel: bool = False,
) -> Process:
    return Process(
        pid=pid,
        start_ticks=born,
        name=name,
        parent=parent,
        kernel=kernel,
        cpu_s=cpu_s,
        children_cpu_s=children_s,
    )


def census(
    *processes: Process,
    uptime_s: float = 100.0,
    busy_s: float | None = 50.0,
    steal_s: float | None = 0.0,
    disk_sectors: int | None = 1_000,
    network_bytes: int | None = 5_000,
) -> Census:
    return Census(
        uptime_s=uptime_s,
        cores=4,
        busy_s=busy_s,
        steal_s=steal_s,
        disk_sectors=disk_sectors,
        network_bytes=network_bytes,
        processes=processes,
    )


def between(before: Sequence[Process], after: Sequence[Process], busy_s: float = 20.0) -> Neighbours:
    """Ten seconds on a machine whose node is process 300 and whose server is process 400."""
    return compare(census(*before), census(*after, uptime_s=110.0, busy_s=50.0 + busy_s), own=(NODE,), server=(SERVER,))


def named(seen: Neighbours) -> dict[str, float]:
    return {load.name: load.cpu_s for load in seen.foreign}


def test_foreign_programs_are_summed_by_name() -> None:
    """Processes of one name are one load, the greatest stands first, and who did nothing is not listed."""
    before = [process(1, "init", 5), process(20, "cc1", 1), process(21, "cc1", 2), process(22, "sshd", 9)]
    after = [process(1, "init", 5.5), process(20, "cc1", 2), process(21, "cc1", 5), process(22, "sshd", 9)]
    assert between(before, after).foreign == (Load(name="cc1", cpu_s=4.0), Load(name="init", cpu_s=0.5))


def test_own_server_and_kernel_are_told_apart() -> None:
    """Children belong to the nearest marked ancestor, kernel threads to nobody, and the rest is unexplained."""
    before = [
        process(1, "init", 1),
        process(2, "kthreadd", 0, parent=0, kernel=True),
        process(9, "kworker/u8:1-writeback", 3, parent=2, kernel=True),
        process(100, "joulebox", 1),
        process(NODE, "joulebox", 2, parent=100),
        process(301, "llama", 10, parent=NODE),
        process(SERVER, "joulebox", 4, parent=NODE),
        process(401, "python", 0, parent=SERVER),
    ]
    after = [
        before[0],
        before[1],
        process(9, "kworker/u8:1-writeback", 3.25, parent=2, kernel=True),
        process(100, "joulebox", 1.5),
        process(NODE, "joulebox", 3, parent=100),
        process(301, "llama", 18, parent=NODE),
        process(SERVER, "joulebox", 5, parent=NODE),
        process(401, "python", 2, parent=SERVER),
    ]
    seen = between(before, after, busy_s=14.0)
    assert (seen.own_s, seen.server_s, seen.kernel_s) == (9.0, 3.0, 0.25)
    assert named(seen) == {"joulebox": 0.5}
    assert seen.unexplained_s == pytest.approx(14.0 - 12.75)


def test_born_in_between_counts_in_full() -> None:
    """A program that started after the first look counts with all it used, its ended children too."""
    before = [process(1, "init", 1)]
    after = [process(1, "init", 1), process(50, "make", 0.5, born=10_500, children_s=6.0)]
    assert named(between(before, after)) == {"make": 0.5, "children of make": 6.0}


def test_born_and_ended_in_between_is_seen_in_its_parent() -> None:
    """What came and went between the looks is the growth of its parent's ended children, under the parent's name."""
    before = [process(1, "init", 1), process(30, "cron", 2, children_s=100.0)]
    after = [process(1, "init", 1), process(30, "cron", 2, children_s=103.0)]
    assert named(between(before, after)) == {"children of cron": 3.0}


def test_time_before_the_first_look_is_not_counted_again() -> None:
    """Of a program that ended between the looks only what it used after the first is counted, and its name is told."""
    before = [process(1, "init", 1), process(30, "bash", 2), process(31, "apt-get", 40, parent=30, children_s=5.0)]
    after = [process(1, "init", 1), process(30, "bash", 2, children_s=47.0)]
    assert named(between(before, after)) == {"children of bash (apt-get)": 2.0}


def test_a_whole_family_that_ended_is_counted_once() -> None:
    """When a parent ends after its child, the grandparent's credit holds both, and neither past is counted again."""
    before = [process(1, "init", 1), process(30, "bash", 2), process(31, "make", 3, 30), process(32, "cc1", 20, 31)]
    after = [process(1, "init", 1), process(30, "bash", 2, children_s=24.5)]
    assert named(between(before, after)) == {"children of bash (make, cc1)": 1.5}


def test_an_orphan_ends_in_the_hands_of_who_adopted_it() -> None:
    """When its parent is gone too, the ancestor that was credited waited for the end."""
    before = [process(1, "init", 1, children_s=7), process(30, "bash", 2), process(31, "sh", 0, 30)]
    after = [process(1, "init", 1, children_s=508), process(30, "bash", 2)]
    seen = between([*before, process(32, "daemon", 500, parent=31)], after)
    assert named(seen) == {"children of init (daemon)": 1.0}


def test_an_end_nobody_waited_for_is_unexplained() -> None:
    """Where the living parent was not credited, the last seconds are unexplained, and nobody else's credit shrinks."""
    before = [process(1, "init", 1), process(30, "bash", 2), process(31, "lost", 500, parent=30)]
    after = [process(1, "init", 1, children_s=3), process(30, "bash", 2)]
    seen = between(before, after, busy_s=4.0)
    assert (named(seen), seen.unexplained_s) == ({"children of init": 3.0}, 1.0)


def test_a_dead_engine_stays_own() -> None:
    """An engine that ended belongs to the node that waited for it; what it used before is not counted again."""
    before = [process(1, "init", 1), process(NODE, "joulebox", 2), process(301, "llama", 300, parent=NODE)]
    after = [process(1, "init", 1), process(NODE, "joulebox", 2, children_s=304.0)]
    seen = between(before, after)
    assert (seen.own_s, seen.foreign) == (4.0, ())


def test_an_orphaned_engine_stays_own() -> None:
    """A process born to the node and adopted by another still belongs to the node."""
    before = [process(1, "init", 1), process(NODE, "joulebox", 2), process(301, "llama", 3, parent=NODE)]
    after = [process(1, "init", 1), process(NODE, "joulebox", 2), process(301, "llama", 8, parent=1)]
    assert between(before, after).own_s == 5.0


def test_a_number_used_again_is_another_process() -> None:
    """The same pid with another start time is a new program, whose time is not reckoned from the old one's."""
    before = [process(1, "init", 1), process(50, "old", 90, born=5)]
    after = [process(1, "init", 1, children_s=90), process(50, "new", 2, born=10_100)]
    assert named(between(before, after)) == {"new": 2.0}


def test_kernel_threads_that_ended_take_nothing_from_others() -> None:
    """The kernel's threads come and go without a parent's credit: no program's children shrink by them."""
    before = [process(1, "init", 1), process(9, "kworker/1:0", 2, parent=2, kernel=True)]
    after = [process(1, "init", 1, children_s=5.0)]
    assert named(between(before, after)) == {"children of init": 5.0}


def test_the_machine_as_a_whole() -> None:
    """Window, disk, network and stolen time are the machine's own counters."""
    before = census(uptime_s=100, busy_s=50, steal_s=1.0, disk_sectors=1_000, network_bytes=5_000)
    after = census(uptime_s=103.5, busy_s=51, steal_s=1.25, disk_sectors=1_008, network_bytes=9_000)
    seen = compare(before, after, own=())
    assert (seen.window_s, seen.busy_s, seen.steal_s, seen.cores) == (3.5, 1.0, 0.25, 4)
    assert (seen.disk_bytes, seen.network_bytes) == (4_096, 4_000)


def test_what_the_machine_does_not_tell_is_none() -> None:
    """Absent counters, and counters that fell because a device left, give no figure rather than zero."""
    before = census(busy_s=None, steal_s=None, disk_sectors=1_000, network_bytes=None)
    after = census(busy_s=None, steal_s=None, disk_sectors=10, network_bytes=None)
    seen = compare(before, after, own=())
    assert (seen.busy_s, seen.unexplained_s, seen.steal_s) == (None, None, None)
    assert (seen.disk_bytes, seen.network_bytes) == (None, None)


FATES = {True: ("stays", "ends", "born", "passes"), False: ("born", "passes")}
"""What becomes of a process, by whether its parent was there at the first look."""
GONE = ("ends", "passes")
one_each = st.lists(
    st.tuples(st.integers(0, 7), st.integers(0, 3), st.integers(0, 300), st.integers(0, 50), st.integers(0, 3)),
    min_size=2,
    max_size=8,
)


@settings(max_examples=150)
@given(one_each)
def test_never_more_than_was_done(drawn: list[tuple[int, int, int, int, int]]) -> None:
    """Whatever comes and goes, waited for, adopted or not, all that is named is never more than the work done."""
    parents, fates, credit = [0], ["stays"], [0] * len(drawn)
    for index, (parent, fate, *_) in enumerate(drawn[1:], start=1):
        parents.append(parent % index)
        choices = FATES[fates[parents[-1]] in ("stays", "ends")]
        fates.append(choices[fate % len(choices)])
    for index in reversed(range(1, len(drawn))):
        _, _, past, work, adopted = drawn[index]
        heir = parents[index]
        while fates[heir] in GONE and adopted:
            heir, adopted = parents[heir], adopted - 1
        if fates[index] in GONE and (adopted or fates[heir] in GONE):
            credit[heir] += past * (fates[index] == "ends") + work + credit[index]

    def look(*present: str, now: bool) -> list[Process]:
        return [
            process(
                index + 1,
                f"p{index}",
                (past * (fates[index] != "born") + work * now) / TICKS_PER_S,
                parents[index] + 1 if index else 0,
                children_s=credit[index] * now / TICKS_PER_S,
            )
            for index, (_, _, past, work, _) in enumerate(drawn)
            if fates[index] in present
        ]

    seen = between(look("stays", "ends", now=False), look("stays", "born", now=True))
    assert seen.foreign_s <= sum(work for *_, work, _ in drawn) / TICKS_PER_S + 1e-5


# --- the look ---------------------------------------------------------------------------------------------------------


def stat_line(pid: int, name: str, parent: int, flags: int, ticks: tuple[int, int, int, int], born: int) -> str:
    user, system, child_user, child_system = ticks
    used = f"{user} {system} {child_user} {child_system}"
    return f"{pid} ({name}) S {parent} 1 1 0 -1 {flags} 9 9 9 9 {used} 20 0 1 0 {born} 1 1\n"


def build(root: Path) -> Path:
    """A small machine: init, a kernel thread, a program with brackets in its name."""
    files = {
        "proc/stat": "cpu  100 20 30 9000 40 5 6 70 8 0\ncpu0 50 10 15 1 1\ncpu1 1 1 1 1 1 1\nintr 1 2 3\n",
        "proc/uptime": "1234.56 2000.00\n",
        "proc/1/stat": stat_line(1, "systemd", 0, 0x400100, (50, 50, 300, 100), 3),
        "proc/9/stat": stat_line(9, "kworker/0:1-events", 2, 0x4208060, (0, 25, 0, 0), 4),
        "proc/77/stat": stat_line(77, "a) (b", 1, 0x400000, (150, 50, 0, 0), 5_000),
        "proc/self/stat": stat_line(77, "a) (b", 1, 0, (1, 1, 1, 1), 5_000),
        "proc/88/status": "Name: it ended while it was looked at\n",
        "proc/diskstats": "".join(
            f"   8 0 {name} 1 0 {sectors} 0 1 0 {sectors} 0 0 0 0\n"
            for name, sectors in {
                "loop0": 1_000, "sda": 10, "sda1": 7, "sda2": 3, "sdaa": 100, "nvme0n1": 1, "nvme0n1p1": 1,
                "nvme0n10": 5, "mmcblk0": 2, "mmcblk0p1": 2, "dm-0": 10, "md0": 10, "zram0": 50,
            }.items()
        ),
        "proc/net/dev": "Inter-| Receive\n face |bytes\n    lo: 900 1 0 0 0 0 0 0 900 1 0 0 0 0 0 0\n"
        "  eth0: 100 1 0 0 0 0 0 0 11 1 0 0 0 0 0 0\ndocker0: 100 1 0 0 0 0 0 0 11 1 0 0 0 0 0 0\n",
        "sys/class/net/eth0/device/vendor": "0x8086\n",
    }  # fmt: skip
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_look_reads_the_files(tmp_path: Path) -> None:
    """Processes, cores, busy and stolen time, whole disks and hardware network cards, each once."""
    seen = scan(build(tmp_path))
    assert (seen.uptime_s, seen.cores) == (1234.56, 2)
    assert (seen.busy_s, seen.steal_s) == (161 / TICKS_PER_S, 70 / TICKS_PER_S)
    assert (seen.disk_sectors, seen.network_bytes) == (2 * (10 + 100 + 1 + 5 + 2), 111)
    by_pid = {each.pid: each for each in seen.processes}
    assert sorted(by_pid) == [1, 9, 77]
    assert (by_pid[77].name, by_pid[77].parent, by_pid[77].start_ticks) == ("a) (b", 1, 5_000)
    assert by_pid[77].cpu_s == 200 / TICKS_PER_S
    assert by_pid[1].children_cpu_s == 400 / TICKS_PER_S
    assert (by_pid[9].kernel, by_pid[1].kernel) == (True, False)


def test_without_hardware_cards_all_but_the_loopback_count(tmp_path: Path) -> None:
    """In a container no network interface has hardware: then all of them count, the loopback apart."""
    build(tmp_path)
    (tmp_path / "sys/class/net/eth0/device/vendor").unlink()
    (tmp_path / "sys/class/net/eth0/device").rmdir()
    assert scan(tmp_path).network_bytes == 222


@pytest.mark.parametrize("text", [None, "", "cpu\n", "rubbish ( ) \x00 nan -\n" * 3])
def test_a_look_never_breaks(tmp_path: Path, text: str | None) -> None:
    """Files that are absent, empty or nonsense make figures unknown, not zero, and raise nothing."""
    if text is not None:
        for name in ("stat", "uptime", "diskstats", "net/dev", "5/stat"):
            (tmp_path / "proc" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "proc" / name).write_text(text)
    seen = scan(tmp_path)
    assert (seen.cores, seen.busy_s, seen.steal_s, seen.uptime_s) == (None, None, None, None)
    assert (seen.disk_sectors, seen.network_bytes, seen.processes) == (None, None, ())


# --- this machine -----------------------------------------------------------------------------------------------------

BURN = """
import pathlib, sys, time
pathlib.Path("/proc/self/comm").write_text(sys.argv[1])
print(flush=True)
while time.process_time() < float(sys.argv[2]): pass
sys.stdin.readline()
"""


@contextmanager
def burner(name: str, cpu_s: float) -> Iterator[subprocess.Popen[str]]:
    """A process of that name that uses so much CPU time, then waits."""
    child = subprocess.Popen(
        [sys.executable, "-c", BURN, name, str(cpu_s)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        child.stdout.readline()
        yield child
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


needs_linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")


@needs_linux
def test_a_real_neighbour_is_seen_by_name() -> None:
    """A process that burns CPU here is seen under its name with the time it used, another one as own."""
    before = scan()
    with burner("loud-neighbour", 0.3) as foreign, burner("engine", 0.2) as engine:
        deadline = time.monotonic() + 20
        while (cpu_s(foreign.pid) < 0.28 or cpu_s(engine.pid) < 0.18) and time.monotonic() < deadline:
            time.sleep(0.01)
        seen = compare(before, scan(), own=(engine.pid,))
    assert named(seen)["loud-neighbour"] == pytest.approx(0.3, abs=0.05)
    assert seen.own_s == pytest.approx(0.2, abs=0.05)
    assert "engine" not in named(seen)
    assert seen.busy_s is not None
    assert seen.busy_s >= 0.2


@needs_linux
def test_a_real_neighbour_that_ended_is_seen_in_its_parent() -> None:
    """A process that came, burnt CPU and went between two looks is seen in what this one was credited with."""
    own = Path("/proc/self/comm")
    name = own.read_text()
    own.write_text(f"parent{os.getpid()}")  # every other test process has the same name, and children too
    try:
        before = scan()
        with burner("came-and-went", 0.3) as child:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
            assert child.wait(timeout=20) == 0
        seen = named(compare(before, scan(), own=()))
    finally:
        own.write_text(name)
    assert seen[f"children of parent{os.getpid()}"] == pytest.approx(0.3, abs=0.1)


@needs_linux
def test_a_look_is_cheap_and_leaves_nothing_open() -> None:
    """With a hundred processes a look takes under 5 ms of CPU, and no descriptor stays open."""
    with ExitStack() as stack:
        for _ in range(max(0, 100 - len(scan().processes))):
            child = subprocess.Popen(["sleep", "60"])
            stack.callback(child.wait)
            stack.callback(child.send_signal, signal.SIGKILL)
        opened = len(list(Path("/proc/self/fd").iterdir()))
        costs_s: list[float] = []
        seen = scan()
        for _ in range(21):
            started = time.thread_time()
            seen = scan()
            costs_s.append(time.thread_time() - started)
        assert len(seen.processes) >= 100
        assert median(costs_s) < 0.005 * len(seen.processes) / 100
        assert len(list(Path("/proc/self/fd").iterdir())) == opened
