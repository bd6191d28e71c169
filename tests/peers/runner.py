"""Runs one tool for the harness, in its own environment: `runner.py TOOL TREE SOCKET [HZ]`, then orders on stdin.

Each order is a line of JSON, each answer too. A window is: begin, work until the end, end. The work is simulated:
levels sent to the rig. Needs nothing but Python and the tool. Times are the monotonic clock, one for all processes.
With HZ the tool records so often while the window lasts, where it has such a mode.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

Found = tuple[float, float]
"""Joules that the tool measured, and joules that it puts beside them without having measured them."""


class Tool(Protocol):
    """What each adapter offers: as the tool's own documentation says, and no more."""

    def begin(self) -> None: ...
    def end(self) -> Callable[[], Found]: ...
    def close(self) -> None: ...


class Bare:
    """The least that can be done: each counter read once at the beginning and once at the end, one wrap undone."""

    def __init__(self, tree: Path, hz: float | None) -> None:
        zones = [tree / "intel-rapl:0", tree / "intel-rapl:0:1"]
        self._files = [os.open(zone / "energy_uj", os.O_RDONLY) for zone in zones]
        self._range = int((zones[0] / "max_energy_range_uj").read_text())
        self._first: list[int] = []

    def _read(self) -> list[int]:
        return [int(os.pread(file, 32, 0)) for file in self._files]

    def begin(self) -> None:
        self._first = self._read()

    def end(self) -> Callable[[], Found]:
        last = self._read()
        counts = [b - a + (self._range if b < a else 0) for a, b in zip(self._first, last, strict=True)]
        return lambda: (sum(counts) / 1e6, 0.0)

    def close(self) -> None:
        for file in self._files:
            os.close(file)


class Joulebox:
    """`with joulebox.session(...) as meters:`, then `with meters.measure()` for each task, on the tree by its path."""

    def __init__(self, tree: Path, hz: float | None) -> None:
        joulebox: Any = import_module("joulebox")
        self._session = joulebox.session(meters=[f"powercap:{tree}"])
        self._session.__enter__()
        self._window: Any = None

    def begin(self) -> None:
        self._window = self._session.measure()
        self._window.__enter__()

    def end(self) -> Callable[[], Found]:
        window = self._window
        window.__exit__(None, None, None)
        return lambda: (window.receipt.energy.answer.j, 0.0)

    def close(self) -> None:
        self._session.__exit__(None, None, None)


class JouleboxOnce:
    """`with joulebox.measure(...)`, which opens the meters for one task."""

    def __init__(self, tree: Path, hz: float | None) -> None:
        self._joulebox: Any = import_module("joulebox")
        self._meters = [f"powercap:{tree}"]
        self._run: Any = None

    def begin(self) -> None:
        self._run = self._joulebox.measure(meters=self._meters)
        self._run.__enter__()

    def end(self) -> Callable[[], Found]:
        run = self._run
        run.__exit__(None, None, None)
        return lambda: (run.receipt.energy.answer.j, 0.0)

    def close(self) -> None:
        return


class Codecarbon:
    """`start_task` and `stop_task`; its CPU energy. Memory is booked by a constant of its own and told apart here."""

    def __init__(self, tree: Path, hz: float | None) -> None:
        codecarbon: Any = import_module("codecarbon")
        self._make = partial(
            codecarbon.OfflineEmissionsTracker,
            country_iso_code="DEU",
            save_to_file=False,
            log_level="critical",
            allow_multiple_runs=True,
            measure_power_secs=1 / hz if hz else 15,
        )
        self._tracker = self._make()
        self._recording = hz is not None

    def begin(self) -> None:
        if self._recording:
            self._tracker = self._make()  # one that was stopped does not start again
            self._tracker.start()
        else:
            self._tracker.start_task()

    def end(self) -> Callable[[], Found]:
        if self._recording:
            self._tracker.stop()
            data = self._tracker.final_emissions_data
        else:
            data = self._tracker.stop_task()
        return lambda: (data.cpu_energy * 3.6e6, (data.energy_consumed - data.cpu_energy) * 3.6e6)

    def close(self) -> None:
        return


class Zeus:
    """`ZeusMonitor` windows: CPU and memory. Its watchers for wraps have a rate of their own."""

    def __init__(self, tree: Path, hz: float | None) -> None:
        monitor: Any = import_module("zeus.monitor")
        self._monitor = monitor.ZeusMonitor(gpu_indices=[], cpu_indices=[0])

    def begin(self) -> None:
        self._monitor.begin_window("task", sync_execution=False)

    def end(self) -> Callable[[], Found]:
        found = self._monitor.end_window("task", sync_execution=False)
        return lambda: (sum(found.cpu_energy.values()) + sum(found.dram_energy.values()), 0.0)

    def close(self) -> None:
        return


class PyJoules:
    """`EnergyMeter` on the devices it finds: package and memory of what it lists (core is part of the package)."""

    def __init__(self, tree: Path, hz: float | None) -> None:
        device: Any = import_module("pyJoules.device.device_factory")
        meter: Any = import_module("pyJoules.energy_meter")
        self._meter = meter.EnergyMeter(device.DeviceFactory.create_devices())

    def begin(self) -> None:
        self._meter.start(tag="task")

    def end(self) -> Callable[[], Found]:
        self._meter.stop()
        (found,) = self._meter.get_trace()
        return lambda: ((found.energy["package_0"] + found.energy["dram_0"]) / 1e6, 0.0)

    def close(self) -> None:
        return


class LandauerGap:
    """`joules.Session` phases."""

    def __init__(self, tree: Path, hz: float | None) -> None:
        joules: Any = import_module("joules")
        self._session = joules.Session(interval=1 / hz if hz else 0.1)
        self._phase = ""

    def begin(self) -> None:
        self._phase = self._session.begin("task")

    def end(self) -> Callable[[], Found]:
        found = self._session.end(self._phase)
        return lambda: (found["energy_j"], 0.0)

    def close(self) -> None:
        self._session.close()


TOOLS: dict[str, Callable[[Path, float | None], Tool]] = {
    "bare": Bare,
    "joulebox": Joulebox,
    "joulebox-once": JouleboxOnce,
    "codecarbon": Codecarbon,
    "zeus": Zeus,
    "pyjoules": PyJoules,
    "landauer-gap": LandauerGap,
}


# --- windows ----------------------------------------------------------------------------------------------------------


class Work:
    """The simulated load: levels that the rig's machine takes."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def do(self, start_ns: int, levels: Sequence[tuple[float, float]], duration_s: float) -> None:
        """Take each level at its offset from `start_ns`, then wait for the end."""
        for offset_s, level in levels:
            _sleep_until(start_ns + round(offset_s * 1e9))
            self._socket.sendto(json.dumps({"t_ns": 0, "level": level}).encode(), self._address)
        _sleep_until(start_ns + round(duration_s * 1e9))


def _sleep_until(t_ns: int) -> None:
    while (left_ns := t_ns - time.monotonic_ns()) > 0:
        time.sleep(left_ns / 1e9)


def children_cpu_s() -> float:
    """CPU seconds of all processes that this one started, ended or not."""
    ended = os.times()
    return ended.children_user + ended.children_system + sum(map(_on_cpu_s, _children(os.getpid())))


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *_children(child)]
    return found


def _on_cpu_s(pid: int) -> float:
    on_cpu_ns = 0
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            on_cpu_ns += int((task / "schedstat").read_text().split()[0])
    return on_cpu_ns / 1e9


def window(tool: Tool, work: Work, levels: Sequence[tuple[float, float]], duration_s: float) -> dict[str, Any]:
    """One window: its moments, what the tool found, the CPU seconds of begin and end and those in between."""
    children_s = [children_cpu_s()]
    cpu_s, called_ns = [time.process_time()], time.monotonic_ns()
    tool.begin()
    start_ns = time.monotonic_ns()
    cpu_s.append(time.process_time())
    children_s.append(children_cpu_s())
    work.do(start_ns, levels, duration_s)
    children_s.append(children_cpu_s())
    cpu_s.append(time.process_time())
    end_ns = time.monotonic_ns()
    found = tool.end()
    returned_ns = time.monotonic_ns()
    cpu_s.append(time.process_time())
    children_s.append(children_cpu_s())
    begin_s, during_s, end_s = (
        b - a + d - c for a, b, c, d in zip(cpu_s, cpu_s[1:], children_s, children_s[1:], strict=False)
    )
    j, beside_j = found()
    return {
        "called_ns": called_ns,
        "start_ns": start_ns,
        "end_ns": end_ns,
        "returned_ns": returned_ns,
        "j": j,
        "beside_j": beside_j,
        "calls_cpu_s": begin_s + end_s,
        "during_cpu_s": during_s,
    }


def pairs(tool: Tool, count: int) -> dict[str, float]:
    """CPU seconds of a begin and an end right after one another, many times over."""
    before_s = time.process_time() + children_cpu_s()
    for _ in range(count):
        tool.begin()
        tool.end()
    return {"pair_cpu_s": (time.process_time() + children_cpu_s() - before_s) / count}


def main() -> None:
    """Set the tool up, then do what is ordered until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a tool prints is no answer
    name, tree, address = sys.argv[1:4]
    hz = float(sys.argv[4]) if len(sys.argv) > 4 else None
    tool, work = TOOLS[name](Path(tree), hz), Work(address)
    print(json.dumps({"setup_cpu_s": time.process_time() + children_cpu_s()}), file=answers, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        answer: dict[str, Any]
        try:
            if "pairs" in order:
                answer = pairs(tool, order["pairs"])
            else:
                answer = window(tool, work, order["levels"], order["duration_s"])
        except Exception as error:  # noqa: BLE001 - whatever a tool raises is what it said
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
    tool.close()


if __name__ == "__main__":
    main()
