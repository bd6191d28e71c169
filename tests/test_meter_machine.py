"""Meters inside the machine: NVIDIA by a stand-in library, AMD and Apple by stand-in packages, perf events, rails."""

import json
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from conformance import conforms, refused
from joulebox.model import ReadingKind, Sampling
from joulebox.node.meter import MeterFault
from joulebox.node.meters import found, open_meters, perf, powercap

CONFORMS = ("nvml", "perf", "amdsmi", "apple")
HERE = Path(__file__).parent
NOT_SUPPORTED, DRIVER_NOT_LOADED, GPU_IS_LOST, UNHEARD_OF = 3, 9, 15, 4_711


# --- nvml -------------------------------------------------------------------------------------------------------------


class Cards:
    """A process in which NVIDIA's real Python package loads the stand-in library, and the file that library reads."""

    def __init__(self, library: Path, control: Path) -> None:
        self._control = control
        self.told: dict[str, int] = {}
        self.tell()
        environment = {"LD_LIBRARY_PATH": str(library.parent), "JOULEBOX_NVML_CONTROL": str(control)}
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "nvml_session.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def tell(self, **values: int) -> None:
        """Change what the library says, e.g. `energy0=5` or `energy0__rc=15`."""
        self.told.update({key.replace("__", "."): value for key, value in values.items()})
        fresh = self._control.with_suffix(".new")
        fresh.write_text("".join(f"{key} {value}\n" for key, value in self.told.items()))
        fresh.replace(self._control)

    def ask(self, *command: Any) -> Any:
        """What the process answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def end(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


def built(folder: Path, *flags: str) -> Path:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler (Debian: gcc libc6-dev) to build the stand-in for NVIDIA's library")
    library = folder / "libnvidia-ml.so.1"
    source = HERE / "nvml_stand_in.c"
    subprocess.run(["cc", "-shared", "-fPIC", *flags, "-o", str(library), str(source)], check=True)
    return library


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cards]:
    folder = tmp_path_factory.mktemp("nvml")
    cards = Cards(built(folder), folder / "control")
    yield cards
    cards.end()


@pytest.fixture
def cards(process: Cards) -> Iterator[Cards]:
    """Two well cards, nothing open."""
    process.told = {"energy0": 1_000, "energy1": 2_000, "temperature0": 40, "temperature1": 50}
    process.tell()
    yield process
    process.ask("close")
    assert process.ask("users") == {"is": 0}


def channels(cards: Cards) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in cards.ask("open")["is"]["channels"]}


def test_nvml_conforms(cards: Cards) -> None:
    """The NVIDIA driver does what every meter must do."""
    cards.ask("open")
    assert cards.ask("conforms", [1_000, 40, 2_000, 50]) == {"is": 4}


def test_nvml_reads_the_energy_of_each_card(cards: Cards) -> None:
    """Each card has its own counter and temperature under its number and UUID, and each follows its own card."""
    opened = cards.ask("open")["is"]
    names = [one["name"] for one in opened["channels"]]
    assert names == [f"gpu{n}/GPU-0000-000{n}/{what}" for n in (0, 1) for what in ("energy", "temperature")]
    assert [one["scope"] for one in opened["channels"]] == ["gpu0", "gpu0", "gpu1", "gpu1"]
    energy, warmth = opened["channels"][:2]
    assert (energy["kind"], energy["sampling"], energy["step"], energy["tick_s"]) == ("energy_j", "counter", 1e-3, 0.1)
    assert (warmth["kind"], warmth["step"]) == ("temperature_c", 1.0)
    assert "5 %" in energy["accuracy"]
    assert energy["gain_u_ratio"] == 0.05
    assert "cpu" in opened["missing"]
    cards.tell(energy1=2**40 + 1, temperature0=41)
    assert cards.ask("read") == {"is": [1_000, 41, 2**40 + 1, 50]}


@pytest.mark.parametrize(
    ("capability", "sampling", "tick_s"),
    [(61, "snapshot", 0.1), (80, "snapshot", 0.1), (86, "mean", 1.0), (90, "mean", 1.0)],
)
def test_nvml_without_a_counter_reads_power(cards: Cards, capability: int, sampling: str, tick_s: float) -> None:
    """Without energy counter there is power: a mean over 1 s on Ampere and newer, a moment's on GA100 and older."""
    cards.tell(energy0__rc=NOT_SUPPORTED, power0=87_654, capability0=capability)
    power = channels(cards)["gpu0/GPU-0000-0000/power"]
    assert (power["kind"], power["sampling"], power["step"], power["tick_s"]) == ("power_w", sampling, 1e-3, tick_s)
    assert cards.ask("read") == {"is": [87_654, 40, 2_000, 50]}


def test_nvml_says_what_its_figures_hold(cards: Cards) -> None:
    """With MIG on the energy is the whole card's, and an H100 looks a quarter of the time: both are said."""
    cards.tell(mig0=1, capability0=90, mig1__rc=NOT_SUPPORTED)
    told = channels(cards)
    assert "whole card" in told["gpu0/GPU-0000-0000/energy"]["accuracy"]
    assert "quarter of the time" in told["gpu0/GPU-0000-0000/energy"]["accuracy"]
    assert "MIG" not in told["gpu1/GPU-0000-0001/energy"]["accuracy"]
    assert "quarter" not in told["gpu1/GPU-0000-0001/energy"]["accuracy"]


def test_nvml_without_temperature_reads_the_rest(cards: Cards) -> None:
    """A card that has no temperature sensor still gives its energy."""
    cards.tell(temperature0__rc=NOT_SUPPORTED)
    assert list(channels(cards)) == [
        f"gpu{n}" for n in ("0/GPU-0000-0000/energy", "1/GPU-0000-0001/energy", "1/GPU-0000-0001/temperature")
    ]


@pytest.mark.parametrize("code", [GPU_IS_LOST, UNHEARD_OF])
@pytest.mark.parametrize("call", ["energy1", "temperature0"])
def test_nvml_return_codes_become_faults(cards: Cards, call: str, code: int) -> None:
    """A call that fails later is a fault naming the card, never a number; when the card is back it reads on."""
    cards.ask("open")
    cards.tell(**{f"{call}__rc": code})
    fault = cards.ask("read")["fault"]
    assert f"gpu{call[-1]}" in fault
    assert ("GPU is lost" in fault) == (code == GPU_IS_LOST)
    cards.tell(**{f"{call}__rc": 0})
    assert cards.ask("read") == {"is": [1_000, 40, 2_000, 50]}


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"init__rc": DRIVER_NOT_LOADED}, "Driver Not Loaded"),
        ({"gpus": 0}, "shows no card"),
        ({"handle1__rc": GPU_IS_LOST}, "GPU is lost"),
        ({"energy0__rc": UNHEARD_OF}, "told by the stand-in"),
        ({"energy0__rc": NOT_SUPPORTED, "power0__rc": NOT_SUPPORTED}, "Not Supported"),
    ],
)
def test_nvml_that_cannot_be_opened_says_why(cards: Cards, told: Mapping[str, int], says: str) -> None:
    """No driver, no card, a lost card or a card without figures: refused in one sentence, the library given back."""
    cards.tell(**told)
    code, detail = cards.ask("open")["refused"]
    assert code == "meter_unreadable"
    assert says in detail
    assert cards.ask("users") == {"is": 0}


def test_nvml_is_found(cards: Cards) -> None:
    """`meters list` finds the cards, and the sentence names their channels."""
    finding = cards.ask("found")["is"]
    assert (finding["found"], finding["used"], len(finding["channels"])) == (True, True, 4)
    assert "gpu1/GPU-0000-0001/energy" in finding["sentence"]


def test_nvml_of_an_old_driver_has_no_mig(tmp_path: Path) -> None:
    """A library without the function that asks for MIG still reads."""
    cards = Cards(built(tmp_path, "-DOLD_DRIVER"), tmp_path / "control")
    cards.tell(gpus=1, energy0=7, temperature0=30)
    assert len(channels(cards)) == 2
    assert cards.ask("read") == {"is": [7, 30]}
    cards.end()


def test_nvml_without_library_is_a_finding(tmp_path: Path) -> None:
    """Where NVIDIA's library cannot be loaded the finding says so, and what to install."""
    (tmp_path / "libnvidia-ml.so.1").write_text("no library")
    cards = Cards(tmp_path / "libnvidia-ml.so.1", tmp_path / "control")
    finding = cards.ask("found")["is"]
    assert not finding["found"]
    assert "NVML Shared Library Not Found" in finding["sentence"]
    assert "driver" in finding["sentence"]
    cards.end()


def test_nvml_without_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the Python package the sentence names the extra that brings it; an address is refused."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "joulebox[nvidia]" in refused("nvml:").detail
    assert refused("nvml:0").code == "bad_setting"


# --- amdsmi and apple: stand-in packages with the documented functions, no hardware -----------------------------------

AMDSMI = '''
"""The documented part of AMD's Python package that the driver uses."""
class AmdSmiException(Exception): ...
class AmdSmiLibraryException(AmdSmiException): ...
is_open, fails = False, ""
cards = [("0000:03:00.0", "uuid-a", 1000), ("0000:83:00.0", "uuid-b", 2000), ("0000:83:00.1", "uuid-c", 2000)]
counter = "energy_accumulator"
def check(name):
    if fails == name:
        raise AmdSmiLibraryException(f"{name} said no")
def amdsmi_init():
    global is_open
    check("init")
    is_open = True
def amdsmi_shut_down():
    global is_open
    is_open = False
    check("shut_down")
def amdsmi_get_processor_handles():
    return cards
def amdsmi_get_gpu_device_bdf(handle):
    return handle[0]
def amdsmi_get_gpu_device_uuid(handle):
    return handle[1]
def amdsmi_get_energy_count(handle):
    check("energy")
    return {counter: "N/A" if fails == "N/A" else handle[2], "counter_resolution": 15.259, "timestamp": 1}
'''

APPLE = '''
"""The documented part of zeus-apple-silicon that the driver uses."""
class AppleEnergyMetrics:
    def __init__(self, **parts):
        for name in ("cpu_total_mj", "dram_mj", "gpu_mj", "gpu_sram_mj", "ane_mj"):
            setattr(self, name, parts.get(name))
shown, fails = {"cpu_total_mj": 10, "gpu_mj": 20, "dram_mj": 30, "ane_mj": 0}, False
class AppleEnergyMonitor:
    def get_cumulative_energy(self):
        if fails:
            raise RuntimeError("Failed to create IOReport subscription.")
        return AppleEnergyMetrics(**shown)
'''


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Any]:
    """Puts a package in the place of one that is not installed, and gives it."""

    def put(name: str, text: str) -> Any:
        module = ModuleType(name)
        exec(text, vars(module))
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return put


def test_amdsmi_reads_each_card_once(package: Callable[[str, str], Any]) -> None:
    """Counts in the library's resolution, one channel a card: the partitions of a card are one device."""
    amd = package("amdsmi", AMDSMI)
    told = conforms("amdsmi:", [1_000, 2_000])
    assert [channel.name for channel in told] == ["gpu0/uuid-a/energy", "gpu1/uuid-b/energy"]
    assert told[0].step == pytest.approx(15.259e-6)
    assert (told[1].scope, told[1].kind, told[1].sampling) == ("gpu1", ReadingKind.ENERGY_J, Sampling.COUNTER)
    assert not amd.is_open


def test_amdsmi_reads_older_versions_too(package: Callable[[str, str], Any]) -> None:
    """Before ROCm 6.4 the count is called `power`."""
    package("amdsmi", AMDSMI).counter = "power"
    (meter,) = open_meters(["amdsmi:"])
    assert meter.read() == (1_000, 2_000)
    meter.close()


def test_amdsmi_faults(package: Callable[[str, str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's errors and a count that is none are faults, at opening a refusal that leaves nothing open."""
    amd = package("amdsmi", AMDSMI)
    (meter,) = open_meters(["amdsmi:"])
    for failure, says in (("energy", "energy said no"), ("N/A", "'N/A'")):
        amd.fails = failure
        with pytest.raises(MeterFault, match=says):
            meter.read()
        assert "said no" in refused("amdsmi:").detail or "'N/A'" in refused("amdsmi:").detail
    amd.fails = "shut_down"
    meter.close()
    amd.fails = "init"
    assert refused("amdsmi:").code == "meter_unreadable"
    amd.fails, amd.cards = "", []
    assert "no card" in refused("amdsmi:").detail
    assert not amd.is_open
    assert refused("amdsmi:0").code == "bad_setting"
    monkeypatch.setitem(sys.modules, "amdsmi", None)
    assert "pip install amdsmi" in refused("amdsmi:").detail


def test_apple_reads_the_parts_a_chip_has(package: Callable[[str, str], Any]) -> None:
    """Each part that the chip counts is a channel with its scope; a part that is not there is said to be missing."""
    apple = package("zeus_apple_silicon", APPLE)
    told = conforms("apple:", [10, 20, 30, 0])
    assert [(channel.name, channel.scope) for channel in told] == [
        ("cpu_total", "cpu"),
        ("gpu", "gpu0"),
        ("dram", "dram"),
        ("ane", "ane"),
    ]
    apple.shown = {"cpu_total_mj": 1, "gpu_mj": 2, "gpu_sram_mj": 3}
    (meter,) = open_meters(["apple:"])
    assert [(channel.scope, channel.part_of) for channel in meter.channels()] == [
        ("cpu", None),
        ("gpu0", None),
        ("gpu0", "gpu0"),
    ]
    assert meter.missing == ("wall", "dram")
    apple.shown = {"cpu_total_mj": 4, "gpu_mj": None}
    assert meter.read() == (4, None, None)
    meter.close()


def test_apple_faults(package: Callable[[str, str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's error is a fault, at opening a refusal; so are a chip without counters and a missing package."""
    apple = package("zeus_apple_silicon", APPLE)
    (meter,) = open_meters(["apple:"])
    apple.fails = True
    with pytest.raises(MeterFault, match="IOReport"):
        meter.read()
    meter.close()
    assert "IOReport" in refused("apple:").detail
    apple.fails, apple.shown = False, {}
    assert "no energy counter" in refused("apple:").detail
    assert refused("apple:1").code == "bad_setting"
    monkeypatch.setitem(sys.modules, "zeus_apple_silicon", None)
    assert "zeus-apple-silicon" in refused("apple:").detail


# --- perf -------------------------------------------------------------------------------------------------------------

SCALE = "2.3283064365386962890625e-10"


def event(folder: Path, name: str, config: str, scale: str = SCALE, unit: str = "Joules") -> None:
    (folder / "events").mkdir(parents=True, exist_ok=True)
    (folder / "events" / name).write_text(f"event={config}\n")
    (folder / "events" / f"{name}.scale").write_text(f"{scale}\n")
    (folder / "events" / f"{name}.unit").write_text(f"{unit}\n")


def power_source(root: Path, kind: int = 22, cpumask: str = "0,18") -> Path:
    """As `/sys/bus/event_source/devices/power` of an Intel server."""
    folder = root / "bus" / "event_source" / "devices" / "power"
    for name, config in (("energy-pkg", "0x02"), ("energy-ram", "0x03"), ("energy-cores", "0x01")):
        event(folder, name, config)
    (folder / "type").write_text(f"{kind}\n")
    (folder / "cpumask").write_text(f"{cpumask}\n")
    return folder


class Counters:
    """Descriptors that hand out counts, in the place of the kernel's: this machine has no RAPL."""

    def __init__(self) -> None:
        self.opened: list[tuple[int, int, int]] = []
        self.writers: list[int] = []

    def open(self, kind: int, config: int, cpu: int) -> int:
        self.opened.append((kind, config, cpu))
        reader, writer = os.pipe()
        self.writers.append(writer)
        return reader

    def count(self, *counts: int) -> None:
        for writer, count in zip(self.writers, counts, strict=True):
            os.write(writer, struct.pack("=Q", count))

    def gone(self) -> None:
        for writer in self.writers:
            os.close(writer)
        self.writers = []


@pytest.fixture
def counters(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counters]:
    counters = Counters()
    monkeypatch.setattr(perf, "perf_event_open", counters.open)
    yield counters
    counters.gone()


def test_perf_reads_each_package(tmp_path: Path, counters: Counters) -> None:
    """Two packages with their parts, in the kernel's scale, without a wrap; one platform counter for the machine."""
    folder = power_source(tmp_path)
    event(folder, "energy-psys", "0x05")
    (meter,) = open_meters([f"perf:{folder}"])
    told = {channel.name: channel for channel in meter.channels()}
    assert counters.opened == [(22, 2, 0), (22, 1, 0), (22, 3, 0), (22, 5, 0), (22, 2, 18), (22, 1, 18), (22, 3, 18)]
    assert [(one.scope, one.part_of) for one in told.values()][:4] == [
        ("cpu", None),
        ("cpu", "cpu"),
        ("dram", None),
        ("platform", None),
    ]
    package = told["package-1/energy-pkg"]
    assert (package.kind, package.sampling, package.wrap_raw) == (ReadingKind.ENERGY_J, Sampling.COUNTER, None)
    assert package.step == 2**-32
    assert package.tick_s == 0.001
    assert package.gain_u_ratio > 0
    counters.count(*range(2**63, 2**63 + 7))
    assert meter.read() == tuple(range(2**63, 2**63 + 7))
    counters.gone()
    with pytest.raises(MeterFault, match="package-0/energy-pkg: the kernel counts no longer on CPU 0"):
        meter.read()
    meter.close()
    meter.close()
    with pytest.raises(MeterFault, match="closed"):
        meter.read()


@pytest.mark.parametrize(("cpumask", "cpus"), [("0", [0]), ("0-1", [0, 1]), ("0,18", [0, 18]), ("0-1,4", [0, 1, 4])])
def test_perf_reads_one_cpu_a_package(tmp_path: Path, counters: Counters, cpumask: str, cpus: list[int]) -> None:
    """The kernel's list of CPUs says where to count."""
    (meter,) = open_meters([f"perf:{power_source(tmp_path, cpumask=cpumask)}"])
    assert [cpu for _, config, cpu in counters.opened if config == 2] == cpus
    assert meter.missing == ("wall",)
    meter.close()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("type", "power"),
        ("cpumask", ""),
        ("cpumask", "0,x"),
        ("events/energy-pkg", "umask=0x02"),
        ("events/energy-pkg", "event=0xfffffffffffffffff"),
        ("events/energy-pkg.scale", "0"),
        ("events/energy-pkg.scale", "nan"),
        ("events/energy-pkg.scale", "much"),
        ("events/energy-pkg.unit", "Watts"),
    ],
)
def test_perf_names_the_file_that_is_wrong(tmp_path: Path, counters: Counters, file: str, content: str) -> None:
    """A file that does not say what it must is refused by name, and nothing stays open."""
    folder = power_source(tmp_path)
    (folder / file).write_text(content)
    error = refused(f"perf:{folder}")
    assert error.code == "meter_unreadable"
    assert file in error.detail


def test_perf_without_rapl_says_so(tmp_path: Path) -> None:
    """A machine without the source, or without an event in it, is refused; its mark makes a source simulated."""
    assert "shows no RAPL" in refused(f"perf:{tmp_path}").detail
    folder = power_source(tmp_path)
    shutil.rmtree(folder / "events")
    assert "energy-pkg" in refused(f"perf:{folder}").detail


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (PermissionError(13, "Permission denied"), "perf_event_paranoid"),
        (OSError(22, "Invalid argument"), "Invalid argument"),
        (OSError("perf events of RAPL are known on x86 only"), "x86 only"),
    ],
)
def test_perf_that_is_not_allowed_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, says: str
) -> None:
    """Where the kernel refuses, the sentence says why and what to run."""

    def no(kind: int, config: int, cpu: int) -> int:
        raise error

    monkeypatch.setattr(perf, "perf_event_open", no)
    assert says in refused(f"perf:{power_source(tmp_path)}").detail


def test_perf_asks_the_real_kernel(tmp_path: Path) -> None:
    """The real system call counts: the kernel's own CPU clock in the place of RAPL goes on by what time passed."""
    folder = power_source(tmp_path, kind=1, cpumask="0")
    shutil.rmtree(folder / "events")
    event(folder, "energy-pkg", "0x0", scale="1e-9")
    try:
        (meter,) = open_meters([f"perf:{folder}"])
    except Exception as error:  # noqa: BLE001
        pytest.skip(f"this machine does not let perf events be counted: {error}")
    before_ns = time.monotonic_ns()
    (first,) = meter.read()
    started_ns = time.monotonic_ns()
    while time.monotonic_ns() - started_ns < 20_000_000:
        pass
    ended_ns = time.monotonic_ns()
    (last,) = meter.read()
    after_ns = time.monotonic_ns()
    meter.close()
    assert first is not None
    assert last is not None
    assert 0.99 * (ended_ns - started_ns) <= last - first <= 1.01 * (after_ns - before_ns)


def test_perf_and_powercap_are_one(tmp_path: Path, counters: Counters, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both named are refused; found both, only powercap is used, and the list says so; found alone, perf is used."""
    zone = tmp_path / "powercap" / "intel-rapl:0"
    zone.mkdir(parents=True)
    for name, content in (("name", "package-0"), ("energy_uj", "5"), ("max_energy_range_uj", "262143328850")):
        (zone / name).write_text(content)
    folder = power_source(tmp_path)
    assert "same counters" in refused(f"perf:{folder}", f"powercap:{zone.parent}").detail
    monkeypatch.setattr(perf, "WHERE", str(folder))
    monkeypatch.setattr(powercap, "WHERE", str(zone.parent))
    assert {one.kind: one.used for one in found() if one.kind in ("powercap", "perf")} == {
        "powercap": True,
        "perf": False,
    }
    assert not any(meter.address.startswith("perf") for meter in opened_and_closed())
    monkeypatch.setattr(powercap, "WHERE", str(tmp_path))
    assert {one.kind: one.used for one in found() if one.found}["perf"]
    assert any(meter.address.startswith("perf") for meter in opened_and_closed())


def opened_and_closed() -> list[Any]:
    meters = open_meters([])
    for meter in meters:
        meter.close()
    return meters


# --- rails of hwmon ---------------------------------------------------------------------------------------------------


def chip(folder: Path, number: int, name: str, files: Mapping[str, str | int]) -> Path:
    where = folder / f"hwmon{number}"
    where.mkdir(parents=True)
    (where / "name").write_text(f"{name}\n")
    for file, content in files.items():
        (where / file).write_text(f"{content}\n")
    return where


def jetson(root: Path) -> Path:
    """A Jetson's INA3221 (volts and amperes), an ACPI meter (means), an EPYC's counters, an SCMI rail."""
    folder = root / "class" / "hwmon"
    ina: dict[str, str | int] = {
        "in1_label": "VDD_IN",
        "in1_input": 5_000,
        "curr1_input": 1_200,
        "in2_label": "VDD CPU",
        "in2_input": 5_000,
    }
    chip(folder, 0, "ina3221", {**ina, "curr2_input": 300, "in7_input": 9, "update_interval": 20})
    chip(folder, 1, "power_meter", {"power1_average": 61_000_000, "power1_average_interval": 1_000, "power1_input": 9})
    chip(
        folder,
        2,
        "amd_energy",
        {"energy1_label": "Ecore000", "energy1_input": 1, "energy2_label": "Esocket0", "energy2_input": 77},
    )
    chip(folder, 3, "scmi_sensors", {"power1_label": "big", "power1_input": 2_500_000})
    chip(folder, 4, "cpu_thermal", {"temp1_input": 42_000})
    return folder


def test_rails_are_read_on_request_only(tmp_path: Path) -> None:
    """Without the option hwmon gives temperatures; with `on` every rail too, as a share that is never added."""
    folder = jetson(tmp_path)
    (meter,) = open_meters([f"hwmon:{folder}"])
    assert meter.read() == (42_000,)
    meter.close()
    told = conforms(f"hwmon:{folder},rails=on", [42_000, 6_000_000, 1_500_000, 61_000_000, 77, 2_500_000])
    assert [(one.name, one.kind.value, one.sampling.value, one.tick_s) for one in told[1:]] == [
        ("ina3221/VDD_IN", "power_w", "snapshot", 0.02),
        ("ina3221/VDD CPU", "power_w", "snapshot", 0.02),
        ("power_meter/power1", "power_w", "mean", 1.0),
        ("amd_energy/Esocket0", "energy_j", "counter", 0.001),
        ("scmi_sensors/big", "power_w", "snapshot", 1.0),
    ]
    assert all((one.part_of, one.step) == ("platform", 1e-6) for one in told[1:])


def test_rails_get_the_scope_the_operator_names(tmp_path: Path) -> None:
    """A named rail counts as the scope that was named for it; others are left out."""
    told = conforms(
        f"hwmon:{jetson(tmp_path)},rails=VDD_IN:platform+VDD_CPU:cpu+amd_energy/Esocket0:gpu1",
        [42_000, 6_000_000, 1_500_000, 77],
    )
    assert [(one.scope, one.part_of) for one in told[1:]] == [("platform", None), ("cpu", None), ("gpu1", None)]
    assert all("10 % assumed" in one.accuracy and one.gain_u_ratio == 0.1 for one in told[1:])


@pytest.mark.parametrize(
    "rails", ["VDD_OUT:cpu", "VDD_IN", "VDD_IN:moon", "VDD_IN:cpu+VDD_IN:wall", "on+VDD_IN:cpu", ":cpu"]
)
def test_rails_that_cannot_be_meant_are_refused(tmp_path: Path, rails: str) -> None:
    """A label that is not there, no scope, a strange one, or a rail twice: refused with the rails there are."""
    error = refused(f"hwmon:{jetson(tmp_path)},rails={rails}")
    assert error.code == "bad_setting"
    assert "ina3221/VDD_IN, ina3221/VDD_CPU, power_meter/power1" in error.detail


def test_rails_that_are_not_there_are_refused(tmp_path: Path) -> None:
    """A machine without rails is refused where they are asked for, and a rail that breaks later is a fault."""
    bare = tmp_path / "bare"
    chip(bare, 0, "coretemp", {"temp1_label": "Package id 0", "temp1_input": 40_000})
    assert "no power rail" in refused(f"hwmon:{bare},rails=on").detail
    folder = jetson(tmp_path)
    (meter,) = open_meters([f"hwmon:{folder},rails=VDD_IN:wall"])
    (folder / "hwmon0" / "curr1_input").write_text("")
    with pytest.raises(MeterFault, match="curr1_input"):
        meter.read()
    meter.close()
