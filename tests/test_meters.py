"""Every meter driver: what all must do, then what each alone does."""

import errno
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from joulebox.errors import JouleboxError
from joulebox.model import ReadingKind, Sampling
from joulebox.node.meter import Meter, MeterFault
from joulebox.node.meters import KINDS, found, hwmon, open_meters, parse, perf, power_model, powercap

RANGE_UJ = 262_143_328_850


def zone(folder: Path, zone_id: str, name: str, energy_uj: int = 1_000, *, flat: bool = True) -> Path:
    """A zone as the kernel shows it: nested in its parents, and once more flat, by a link."""
    control, *numbers = zone_id.split(":")
    nested = folder / control
    for depth in range(len(numbers)):
        nested = nested / ":".join([control, *numbers[: depth + 1]])
    nested.mkdir(parents=True, exist_ok=True)
    (nested / "name").write_text(f"{name}\n")
    (nested / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    (nested / "energy_uj").write_text(f"{energy_uj}\n")
    (nested / "enabled").write_text("1\n")
    if not (nested / "subsystem").is_symlink():
        (nested / "subsystem").symlink_to(folder)
    if flat and not (folder / zone_id).is_symlink():
        (folder / zone_id).symlink_to(nested)
    return nested


def build_powercap(root: Path) -> Path:
    folder = root / "class" / "powercap"
    zone(folder, "intel-rapl:0", "package-0", 5_000)
    zone(folder, "intel-rapl:0:0", "core", 3_000)
    zone(folder, "intel-rapl:0:1", "dram", 2_000)
    return folder


def sensor(chip: Path, number: int, label: str | None, milli_c: int) -> None:
    chip.mkdir(parents=True, exist_ok=True)
    (chip / f"temp{number}_input").write_text(f"{milli_c}\n")
    if label is not None:
        (chip / f"temp{number}_label").write_text(f"{label}\n")


def build_hwmon(root: Path) -> Path:
    folder = root / "class" / "hwmon"
    sensor(folder / "hwmon0", 1, "Composite", 38_000)
    (folder / "hwmon0" / "name").write_text("nvme\n")
    for number, label in ((1, "Package id 0"), (2, "Core 0"), (3, "Core 1")):
        sensor(folder / "hwmon1", number, label, 45_000 + number)
    (folder / "hwmon1" / "name").write_text("coretemp\n")
    return folder


def stat_line(busy: int) -> str:
    return f"cpu  {busy} 10 100 90000 7 1 2 33 4 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n"


def build_model(root: Path) -> Path:
    folder = root / "proc"
    folder.mkdir(parents=True)
    (folder / "stat").write_text(stat_line(400))
    return folder


@dataclass(frozen=True)
class Case:
    """How to build what a driver reads, which file of it is read, and what it holds later."""

    build: Callable[[Path], Path]
    file: str
    later: str
    raw: tuple[int, ...]
    raw_later: tuple[int, ...]


CASES = {
    "powercap": Case(build_powercap, "intel-rapl:0/energy_uj", "6000\n", (5_000, 3_000, 2_000), (6_000, 3_000, 2_000)),
    "hwmon": Case(build_hwmon, "hwmon1/temp1_input", "51000\n", (45_001,), (51_000,)),
    "model": Case(build_model, "stat", stat_line(480), (513,), (593,)),
}


def opened(kind: str, folder: Path) -> Meter:
    return open_meters([f"{kind}:{folder}"])[0]


def refused(*addresses: str) -> JouleboxError:
    with pytest.raises(JouleboxError) as caught:
        open_meters(addresses)
    return caught.value


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# --- what every driver must do ----------------------------------------------------------------------------------------


def test_every_driver_is_in_this_suite() -> None:
    """A driver that is registered is checked here, or by a module `test_meter_*` that says so; `none:` has no file."""
    modules = [import_module(path.stem) for path in Path(__file__).parent.glob("test_meter_*.py")]
    assert set(CASES) | {"none"} | {kind for module in modules for kind in module.CONFORMS} == set(KINDS)


@pytest.mark.parametrize("kind", CASES)
def test_reads_what_the_kernel_shows(kind: str, tmp_path: Path) -> None:
    """A reading holds one whole number a channel, follows the file, and the channels stay as they are."""
    case = CASES[kind]
    folder = case.build(tmp_path)
    meter = opened(kind, folder)
    channels = meter.channels()
    assert meter.read() == case.raw
    (folder / case.file).write_text(case.later)
    assert meter.read() == case.raw_later
    assert meter.channels() == channels
    assert len({channel.name for channel in channels}) == len(channels) == len(case.raw)
    assert all(channel.tick_s > 0 and channel.step > 0 and channel.accuracy for channel in channels)
    assert not any(channel.simulated for channel in channels)
    meter.close()


@pytest.mark.parametrize("kind", CASES)
def test_closes_for_good(kind: str, tmp_path: Path) -> None:
    """Closing twice is harmless, gives back every descriptor, and reading afterwards is a fault."""
    folder = CASES[kind].build(tmp_path)
    with no_descriptors_left():
        meter = opened(kind, folder)
        meter.close()
        meter.close()
    with pytest.raises(MeterFault, match="closed"):
        meter.read()


@pytest.mark.parametrize("kind", CASES)
def test_missing_folder_is_named(kind: str, tmp_path: Path) -> None:
    """A folder that does not exist is refused with its path and a remedy."""
    error = refused(f"{kind}:{tmp_path / 'nowhere'}")
    assert error.code == "meter_unreadable"
    assert str(tmp_path / "nowhere") in error.detail
    assert error.detail.endswith(".")


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("content", ["", "watts\n", "\x00\xff\x07", "12 13 x\n"])
def test_garbage_at_opening_is_refused(kind: str, content: str, tmp_path: Path) -> None:
    """A file without a number is refused by name, and nothing stays open."""
    case = CASES[kind]
    folder = case.build(tmp_path)
    (folder / case.file).write_text(content)
    with no_descriptors_left():
        error = refused(f"{kind}:{folder}")
    assert error.code == "meter_unreadable"
    assert case.file.rpartition("/")[2] in error.detail


@pytest.mark.parametrize("kind", CASES)
def test_unreadable_file_is_refused(kind: str, tmp_path: Path) -> None:
    """A directory where a file should be is refused by name, and nothing stays open."""
    case = CASES[kind]
    folder = case.build(tmp_path)
    (folder / case.file).unlink()
    (folder / case.file).mkdir()
    with no_descriptors_left():
        error = refused(f"{kind}:{folder}")
    assert error.code == "meter_unreadable"
    assert case.file.rpartition("/")[2] in error.detail


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("content", ["", "gone\n"])
def test_file_that_breaks_later_is_a_fault_until_it_is_back(kind: str, content: str, tmp_path: Path) -> None:
    """A file that loses its number in the middle is a fault of this once; the next good reading counts again."""
    case = CASES[kind]
    folder = case.build(tmp_path)
    meter = opened(kind, folder)
    (folder / case.file).write_text(content)
    with pytest.raises(MeterFault, match=case.file.rpartition("/")[2]):
        meter.read()
    (folder / case.file).write_text(case.later)
    assert meter.read() == case.raw_later
    meter.close()


@pytest.mark.parametrize("kind", CASES)
def test_readings_of_the_rig_are_simulated(kind: str, tmp_path: Path) -> None:
    """A folder with the rig's mark gives simulated channels."""
    folder = CASES[kind].build(tmp_path)
    (folder / "joulebox-rig.json").write_text("{}")
    meter = opened(kind, folder)
    assert all(channel.simulated for channel in meter.channels())
    meter.close()


def test_none_covers_nothing() -> None:
    """`none:` opens anywhere, reads nothing and says that the wall is not covered."""
    (meter,) = open_meters(["none:"])
    assert (meter.channels(), meter.read(), meter.missing) == ((), (), ("wall",))
    meter.close()
    meter.close()
    with pytest.raises(MeterFault):
        meter.read()


# --- powercap ---------------------------------------------------------------------------------------------------------


def scopes(meter: Meter) -> dict[str, tuple[str, str | None]]:
    return {channel.name: (channel.scope, channel.part_of) for channel in meter.channels()}


def test_powercap_tells_zones_apart(tmp_path: Path) -> None:
    """Two packages, their parts, their memory and the platform each get one channel, in order, with the right scope."""
    folder = tmp_path / "powercap"
    for package in (0, 1):
        zone(folder, f"intel-rapl:{package}", f"package-{package}")
        zone(folder, f"intel-rapl:{package}:0", "core")
        zone(folder, f"intel-rapl:{package}:1", "uncore")
        zone(folder, f"intel-rapl:{package}:2", "dram")
    zone(folder, "intel-rapl:2", "psys")
    meter = opened("powercap", folder)
    one_package = [("cpu", None), ("cpu", "cpu"), ("cpu", "cpu"), ("dram", None)]
    assert list(scopes(meter).values()) == [*one_package, *one_package, ("platform", None)]
    assert list(scopes(meter))[4:6] == ["package-1", "package-1/core"]
    assert meter.missing == ("wall",)
    assert all(
        (channel.kind, channel.sampling) == (ReadingKind.ENERGY_J, Sampling.COUNTER) for channel in meter.channels()
    )
    memory = next(channel for channel in meter.channels() if channel.scope == "dram")
    assert memory.gain_u_ratio > meter.channels()[0].gain_u_ratio > 0
    meter.close()


@pytest.mark.parametrize("flat", [True, False])
def test_powercap_counts_no_zone_twice(flat: bool, tmp_path: Path) -> None:
    """A zone listed flat and nested, or nested only, or by the folder of its control type, is one channel."""
    folder = tmp_path / "powercap"
    zone(folder, "intel-rapl:0", "package-0", flat=flat)
    zone(folder, "intel-rapl:0:0", "dram", flat=flat)
    for address in (folder, folder / "intel-rapl"):
        meter = opened("powercap", address)
        assert list(scopes(meter)) == ["package-0", "package-0/dram"]
        meter.close()


def test_powercap_leaves_out_the_same_counter_by_another_way(tmp_path: Path) -> None:
    """`intel-rapl-mmio` shows package 0 once more: left out beside `intel-rapl`, read where it is alone."""
    both, alone = tmp_path / "both", tmp_path / "alone"
    zone(both, "intel-rapl:0", "package-0", 11)
    zone(both, "intel-rapl-mmio:0", "package-0", 22)
    zone(both, "dtpm:0", "package-0", 33)
    zone(alone, "intel-rapl-mmio:0", "package-0", 22)
    for folder, expected in ((both, (11,)), (alone, (22,))):
        meter = opened("powercap", folder)
        assert meter.read() == expected
        meter.close()


def test_powercap_wraps_one_step_after_the_largest_count(tmp_path: Path) -> None:
    """The period is 2^32 steps of 61.035 µJ, not the kernel's largest count of 2^32 - 1."""
    meter = opened("powercap", build_powercap(tmp_path))
    assert meter.channels()[0].wrap_raw == 2**32 * 61_035 // 1_000
    meter.close()


def test_powercap_says_what_it_does_not_see(tmp_path: Path) -> None:
    """Without a memory zone memory is missing; so are graphics cards with their own supply, not those inside a CPU."""
    zone(tmp_path / "class" / "powercap", "intel-rapl:0", "package-0")
    for name, vendor, kind in (
        ("0000:00:02.0", "0x8086", "0x030000"),
        ("0000:01:00.0", "0x10de", "0x030200"),
        ("0000:01:00.1", "0x10de", "0x040300"),
        ("0000:02:00.0", "0x1002", "0x120000"),
        ("0000:03:00.0", "0x1002", "0x030000"),
    ):
        device = tmp_path / "bus" / "pci" / "devices" / name
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor}\n")
        (device / "class").write_text(f"{kind}\n")
    meter = opened("powercap", tmp_path / "class" / "powercap")
    assert meter.missing == ("wall", "dram", "gpu0", "gpu1")
    meter.close()


@pytest.mark.parametrize("file", ["energy_uj", "max_energy_range_uj", "name"])
def test_powercap_names_the_file_that_is_not_there(file: str, tmp_path: Path) -> None:
    """A zone without one of its files is refused, naming that file."""
    folder = build_powercap(tmp_path)
    (folder / "intel-rapl:0:1" / file).unlink()
    error = refused(f"powercap:{folder}")
    assert error.code == "meter_unreadable"
    assert f"intel-rapl:0:1/{file}" in error.detail


def test_powercap_without_zones_says_no_rapl(tmp_path: Path) -> None:
    """A folder without RAPL zones is refused, saying that this machine shows no RAPL."""
    (tmp_path / "dtpm").mkdir()
    assert "shows no RAPL" in refused(f"powercap:{tmp_path}").detail


def test_powercap_that_only_root_may_read_says_what_to_run() -> None:
    """Counters that are readable by root only are refused to others with the command that opens them."""
    with tempfile.TemporaryDirectory(dir="/tmp") as root:
        folder = build_powercap(Path(root))
        Path(root).chmod(0o755)
        energy = folder / "intel-rapl" / "intel-rapl:0" / "energy_uj"
        energy.chmod(0)
        root_runs = os.geteuid() == 0
        if root_runs:
            os.seteuid(65534)
        try:
            error = refused(f"powercap:{folder}")
        finally:
            if root_runs:
                os.seteuid(0)
    assert error.code == "meter_unreadable"
    assert "Permission denied" in error.detail
    assert "sudo chmod a+r" in error.detail


# --- hwmon ------------------------------------------------------------------------------------------------------------


def names(meter: Meter) -> list[str]:
    return [channel.name for channel in meter.channels()]


def test_hwmon_reads_each_cpu_once(tmp_path: Path) -> None:
    """One sensor a CPU: no cores, no drives; of an AMD chip the temperature and not its control value."""
    folder = build_hwmon(tmp_path)
    for chip in (2, 3):
        sensor(folder / f"hwmon{chip}", 1, "Tctl", 70_000)
        sensor(folder / f"hwmon{chip}", 2, "Tdie", 60_000)
        (folder / f"hwmon{chip}" / "name").write_text("k10temp\n")
    meter = opened("hwmon", folder)
    assert names(meter) == ["coretemp/Package id 0", "k10temp/Tdie", "k10temp-1/Tdie"]
    assert meter.read() == (45_001, 60_000, 60_000)
    channel = meter.channels()[0]
    assert (channel.kind, channel.sampling, channel.step, channel.scope) == (
        ReadingKind.TEMPERATURE_C,
        Sampling.SNAPSHOT,
        1e-3,
        "cpu",
    )
    meter.close()


def test_hwmon_falls_back_to_thermal_zones(tmp_path: Path) -> None:
    """Where hwmon knows no CPU, the thermal zones beside it are read, those of the CPU only."""
    (tmp_path / "hwmon").mkdir()
    for number, kind in enumerate(("acpitz", "x86_pkg_temp", "iwlwifi_1")):
        thermal = tmp_path / "thermal" / f"thermal_zone{number}"
        thermal.mkdir(parents=True)
        (thermal / "type").write_text(f"{kind}\n")
        (thermal / "temp").write_text("41000\n")
    meter = opened("hwmon", tmp_path / "hwmon")
    assert names(meter) == ["x86_pkg_temp/thermal_zone1"]
    assert meter.read() == (41_000,)
    meter.close()


def test_sensor_without_a_value_now_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sensor that answers EAGAIN has no reading at this moment; one that answers EIO is at fault."""
    meter = opened("hwmon", build_hwmon(tmp_path))

    def answer(number: int) -> Callable[[int, int, int], bytes]:
        def pread(descriptor: int, length: int, offset: int) -> bytes:
            raise OSError(number, os.strerror(number))

        return pread

    monkeypatch.setattr(os, "pread", answer(errno.EAGAIN))
    assert meter.read() == (None,)
    monkeypatch.setattr(os, "pread", answer(errno.EIO))
    with pytest.raises(MeterFault, match="Input/output error"):
        meter.read()
    meter.close()


# --- the power model's busy time --------------------------------------------------------------------------------------


def test_model_counts_busy_core_seconds(tmp_path: Path) -> None:
    """Idle, waiting, stolen and guest time are not counted; the channel is a counter of core-seconds."""
    meter = opened("model", build_model(tmp_path))
    channel = meter.channels()[0]
    assert meter.read() == (400 + 10 + 100 + 1 + 2,)
    assert (channel.kind, channel.sampling, channel.scope) == (ReadingKind.BUSY_RATIO, Sampling.COUNTER, "machine")
    assert channel.step == channel.tick_s == 1 / os.sysconf("SC_CLK_TCK")
    meter.close()


def test_model_sees_this_machine_work() -> None:
    """A core kept busy for a fifth of a second shows up in the counter, which never goes back."""
    meter = opened("model", Path("/proc"))
    assert meter.address == "model:"
    (first,) = meter.read()
    until_s = time.process_time() + 0.2
    while time.process_time() < until_s:
        pass
    (last,) = meter.read()
    assert first is not None
    assert last is not None
    assert (last - first) * meter.channels()[0].step >= 0.1
    meter.close()


# --- addresses, and what is found -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "code", "says"),
    [
        ("toaster:kitchen", "unknown_meter", f"Joulebox reads {', '.join(KINDS)}."),
        ("powercap", "bad_setting", "KIND:ADDRESS"),
        ("", "bad_setting", "KIND:ADDRESS"),
        ("none:,tick_s=1", "bad_setting", "takes no options; leave out tick_s"),
        ("none:,tick_s", "bad_setting", "not of the form key=value"),
        ("none:,=1", "bad_setting", "not of the form key=value"),
        ("none:,tick_s=1,tick_s=2", "bad_setting", "'tick_s' is given twice"),
    ],
)
def test_bad_address_is_one_sentence(address: str, code: str, says: str) -> None:
    """An address that cannot be used is refused with what to write instead."""
    error = refused(address)
    assert (error.code, says in error.detail) == (code, True)


def test_address_keeps_its_colons() -> None:
    """Only the first colon parts kind and address."""
    assert parse("powercap:/a:b") == ("powercap", "/a:b", {})
    assert parse("powercap:/a:b,x=1,y=http://c:2/=") == ("powercap", "/a:b", {"x": "1", "y": "http://c:2/="})


def test_the_same_kind_twice_is_refused(tmp_path: Path) -> None:
    """Two powercap meters would count the same packages twice."""
    folder = build_powercap(tmp_path)
    assert refused(f"powercap:{folder}", f"powercap:{folder / 'intel-rapl'}").code == "bad_setting"


def test_one_bad_meter_closes_the_others(tmp_path: Path) -> None:
    """Where one of several meters cannot be opened, none stays open."""
    folder = build_powercap(tmp_path)
    with no_descriptors_left():
        refused(f"powercap:{folder}", f"hwmon:{tmp_path / 'nowhere'}")


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's own meters out of sight, whatever it has."""
    monkeypatch.setattr(perf, "WHERE", str(tmp_path / "perf"))
    for package in ("pynvml", "amdsmi", "zeus_apple_silicon"):
        monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.usefixtures("bare")
def test_a_machine_without_a_meter_is_modelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no address and no energy meter the model is read, and the list says what was looked for and why not."""
    monkeypatch.setattr(powercap, "WHERE", str(tmp_path / "powercap"))
    opened_meters = open_meters([])
    assert "model:" in [meter.address for meter in opened_meters]
    for meter in opened_meters:
        meter.close()
    by_kind = {finding.kind: finding for finding in found()}
    assert set(by_kind) >= {"powercap", "perf", "nvml", "amdsmi", "apple", "hwmon", "model"}
    assert not by_kind["powercap"].found
    assert "shows no RAPL" in by_kind["powercap"].sentence
    assert by_kind["model"].used


@pytest.mark.usefixtures("bare")
def test_a_machine_with_a_meter_is_not_modelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With RAPL found, the model is left aside, and the list says so."""
    monkeypatch.setattr(powercap, "WHERE", str(build_powercap(tmp_path)))
    with no_descriptors_left():
        opened_meters = open_meters([])
        kinds = {meter.address.partition(":")[0] for meter in opened_meters}
        for meter in opened_meters:
            meter.close()
    assert "powercap" in kinds
    assert "model" not in kinds
    model = next(finding for finding in found() if finding.kind == "model")
    assert model.found
    assert not model.used
    assert "Not used" in model.sentence


@pytest.mark.usefixtures("bare")
def test_a_machine_where_nothing_can_be_read_has_no_meter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a meter and without Linux's /proc/stat nothing is opened: absence, never a guess."""
    monkeypatch.setattr(powercap, "WHERE", str(tmp_path))
    monkeypatch.setattr(hwmon, "WHERE", str(tmp_path / "hwmon"))
    monkeypatch.setattr(power_model, "WHERE", str(tmp_path / "proc"))
    assert open_meters([]) == []


def test_drivers_are_imported_when_wanted() -> None:
    """Importing the package loads no driver."""
    code = "import sys, joulebox.node.meters as m; sys.exit(any(path in sys.modules for path in m.KINDS.values()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
