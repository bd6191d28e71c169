"""The doctor: a machine fit to measure has nothing to mend, and each fault is found, named and can be mended."""

import io
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from joulebox.clock import SimulatedClock
from joulebox.findings import STATES, show_checks, whole_words
from joulebox.node.doctor import LOOK_S, Check, State, broken, examine
from joulebox.units import nanoseconds

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
CPU = "sys/devices/system/cpu"
POLICY = f"{CPU}/cpufreq/policy0"
CLOCK_SOURCE = "sys/devices/system/clocksource/clocksource0/current_clocksource"
ZONE = "sys/class/powercap/intel-rapl:0"
STAT = "proc/stat"


def stat(busy_s: float, steal_s: float = 0.0) -> str:
    """Two cores' `proc/stat`."""
    busy, steal = round(busy_s * TICKS_PER_S), round(steal_s * TICKS_PER_S)
    return f"cpu  {busy} 0 0 90000 0 0 0 {steal} 0 0\ncpu0 1 0 0 1 0 0 0 0 0 0\ncpu1 1 0 0 1 0 0 0 0 0 0\n"


def process(pid: int, name: str, cpu_s: float = 0.0) -> str:
    used = round(cpu_s * TICKS_PER_S)
    return f"{pid} ({name}) S 1 1 1 0 -1 4194304 0 0 0 0 {used} 0 0 0 20 0 1 0 5 1 1\n"


def utmp(*users: str, size: int = 384) -> bytes:
    records = [
        struct.pack("<h2xi32s4s32s", 7, 99, b"pts/0", b"ts/0", user.encode()).ljust(size, b"\0") for user in users
    ]
    return b"".join([struct.pack("<h2xi32s4s32s", 2, 0, b"~", b"~~", b"reboot").ljust(size, b"\0"), *records])


GOOD: dict[str, str | bytes] = {
    STAT: stat(100),
    "proc/uptime": "500.00 900.00\n",
    "proc/cpuinfo": "flags\t\t: fpu vme sse2\n",
    "proc/meminfo": "MemTotal: 16000000 kB\nMemAvailable: 12000000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n",
    "proc/vmstat": "pswpin 10\npswpout 10\n",
    "proc/sys/kernel/watchdog": "0\n",
    "proc/sys/kernel/nmi_watchdog": "0\n",
    "proc/1/stat": process(1, "systemd"),
    "proc/60/stat": process(60, "chronyd"),
    "etc/chrony/chrony.conf": "pool ntp.example.org iburst\nmakestep 1 3\n# makestep 1 -1\n",
    "etc/crontab": "# ntpdate ntp.example.org\n",
    "run/systemd/system/README": "",
    "run/systemd/units/invocation:ssh.service": "",
    "run/systemd/sessions/4": "USER=ada\nCLASS=user\nSTATE=active\n",
    "run/utmp": utmp("ada"),
    f"{POLICY}/scaling_governor": "performance\n",
    f"{POLICY}/energy_performance_preference": "performance\n",
    f"{POLICY}/scaling_min_freq": "800000\n",
    f"{POLICY}/scaling_max_freq": "4200000\n",
    f"{POLICY}/cpuinfo_max_freq": "4200000\n",
    "sys/devices/system/cpu/intel_pstate/no_turbo": "1\n",
    "sys/devices/system/cpu/smt/active": "0\n",
    CLOCK_SOURCE: "tsc\n",
    "sys/class/dmi/id/sys_vendor": "LENOVO\n",
    "sys/class/hwmon/hwmon0/name": "coretemp\n",
    "sys/class/hwmon/hwmon0/temp1_label": "Package id 0\n",
    "sys/class/hwmon/hwmon0/temp1_input": "41000\n",
    "sys/class/power_supply/AC/type": "Mains\n",
    "sys/class/power_supply/BAT0/type": "Battery\n",
    "sys/class/power_supply/BAT0/status": "Full\n",
    "sys/class/power_supply/mouse/type": "Battery\n",
    "sys/class/power_supply/mouse/scope": "Device\n",
    "sys/class/power_supply/mouse/status": "Discharging\n",
    "dev/ttyACM0": "",
    f"{ZONE}/name": "package-0\n",
    f"{ZONE}/energy_uj": "1000\n",
    f"{ZONE}/max_energy_range_uj": "262143328850\n",
    f"{ZONE}/enabled": "1\n",
}
"""A bare machine set up to measure: all of its files that the doctor looks at."""

LATER: dict[str, str | bytes] = {"proc/uptime": "501.00 901.00\n"}
"""What changes while the doctor looks."""


def write(root: Path, files: dict[str, str | bytes]) -> None:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())


def look(root: Path, later: dict[str, str | bytes] | None = None, *meters: str) -> dict[str, Check]:
    """The checks by name, with the files of `later` written in the middle of the look."""
    clock = SimulatedClock()
    clock.call_at(nanoseconds(LOOK_S / 2), lambda: write(root, LATER | (later or {})))
    checks = examine(root, clock, meters or (f"powercap:{root / 'sys/class/powercap'}",))
    assert len({check.name for check in checks}) == len(checks)
    return {check.name: check for check in checks}


def faults(checks: dict[str, Check]) -> dict[str, str]:
    return {name: check.state for name, check in checks.items() if check.state != "ok"}


def test_a_good_machine_has_nothing_to_mend(tmp_path: Path) -> None:
    """Where all is as it should be every check is made and in order, and none asks for anything."""
    write(tmp_path, GOOD)
    checks = look(tmp_path)
    assert faults(checks) == {}
    assert all(check.why and check.found and not check.mend for check in checks.values())
    assert not broken(list(checks.values()))
    assert len(checks) == 21


@dataclass(frozen=True)
class Fault:
    """Files that differ from the good machine's (`None`: absent), the check that must tell, and a word it must say."""

    check: str
    state: str
    word: str
    now: dict[str, str | bytes | None]
    later: dict[str, str | bytes] | None = None


BATTERY = "sys/class/power_supply/BAT0/status"
MEMORY = "MemTotal: 16000000 kB\nMemAvailable: {} kB\nSwapTotal: {} kB\nSwapFree: {} kB\n"
INTEL = "sys/devices/system/cpu/intel_pstate/no_turbo"
WANTED = "etc/systemd/system/timers.target.wants"
TIMERS = "run/systemd/units/invocation:apt-daily.timer"
OTHER = "proc/70/stat"
CC1_LATER = process(70, "cc1", 3.8)
FAULTS = [
    Fault("CPU governor", "warn", "powersave", {f"{POLICY}/scaling_governor": "powersave\n"}),
    Fault("CPU governor", "warn", "schedutil", {f"{CPU}/cpufreq/policy1/scaling_governor": "schedutil\n"}),
    Fault("CPU governor", "unknown", "no frequency", {f"{POLICY}/scaling_governor": None}),
    Fault("energy preference", "warn", "balance", {f"{POLICY}/energy_performance_preference": "balance_power\n"}),
    Fault("turbo", "warn", "on", {INTEL: "0\n"}),
    Fault("turbo", "warn", "on", {INTEL: None, "sys/devices/system/cpu/cpufreq/boost": "1\n"}),
    Fault("SMT", "warn", "share a core", {"sys/devices/system/cpu/smt/active": "1\n"}),
    Fault("CPU frequency", "warn", "below the CPU's 4.20 GHz", {f"{POLICY}/scaling_max_freq": "2000000\n"}),
    Fault("clock source", "warn", "hpet", {CLOCK_SOURCE: "hpet\n"}),
    Fault("temperature", "warn", "shows no CPU temperature", {"sys/class/hwmon/hwmon0/name": "nvme\n"}),
    Fault("temperature", "warn", "71 °C", {"sys/class/hwmon/hwmon0/temp1_input": "71000\n"}),
    Fault("temperature", "warn", "cannot be read", {"sys/class/hwmon/hwmon0/temp1_input": "warm\n"}),
    Fault("battery", "bad", "discharging", {BATTERY: "Discharging\n"}),
    Fault("battery", "warn", "charging", {BATTERY: "Charging\n"}),
    Fault("energy meter", "bad", "energy_uj", {f"{ZONE}/energy_uj": None}),
    Fault("virtual machine", "warn", "hypervisor", {"proc/cpuinfo": "flags\t\t: fpu hypervisor sse2\n"}),
    Fault("virtual machine", "warn", "QEMU", {"sys/class/dmi/id/sys_vendor": "QEMU\n"}),
    Fault("stolen time", "bad", "10.0%", {}, {STAT: stat(100, steal_s=0.2)}),
    Fault("stolen time", "warn", "0.5%", {}, {STAT: stat(100, steal_s=0.01)}),
    Fault("free memory", "warn", "1.0 GiB", {"proc/meminfo": MEMORY.format(1024**2, 0, 0)}),
    Fault("free memory", "bad", "0.1 GiB", {"proc/meminfo": MEMORY.format(100_000, 0, 0)}),
    Fault("free memory", "unknown", "not shown", {"proc/meminfo": "SwapTotal: 0 kB\n"}),
    Fault("swap", "warn", "100 of 200 MiB", {"proc/meminfo": MEMORY.format(12_000_000, 204_800, 102_400)}),
    Fault("swap", "bad", "moving now", {}, {"proc/vmstat": "pswpin 15\npswpout 10\n"}),
    Fault("systemd timers", "warn", "apt-daily", {TIMERS: ""}),
    Fault("systemd timers", "warn", "fstrim", {f"{WANTED}/fstrim.timer": ""}),
    Fault("cron", "warn", "cron", {OTHER: process(70, "cron")}),
    Fault("updates", "warn", "unattended-upgrade", {OTHER: process(70, "unattended-upgr")}),
    Fault("background services", "warn", "tracker-miner", {OTHER: process(70, "tracker-miner-f")}),
    Fault("load now", "bad", "cc1 0.80", {OTHER: process(70, "cc1", 3)}, {OTHER: CC1_LATER, STAT: stat(101)}),
    Fault("load now", "warn", "0.20 of 2 cores", {}, {STAT: stat(100.2)}),
    Fault("load now", "unknown", "does not tell", {}, {STAT: ""}),
    Fault("users", "warn", "ada, bob", {"run/systemd/sessions/5": "USER=bob\nCLASS=user\n"}),
    Fault("users", "warn", "ada, eve", {"run/utmp": utmp("ada", "eve", size=400)}),
    Fault("time keeping", "warn", "no daemon", {"proc/60/stat": None}),
    Fault("time keeping", "warn", "systemd-timesyncd", {"proc/61/stat": process(61, "systemd-timesyn")}),
    Fault("time keeping", "bad", "makestep", {"etc/chrony/chrony.conf": "makestep 1.0 -1\n"}),
    Fault("time keeping", "bad", "cron sets", {"etc/cron.d/clock": "*/5 * * * * root /usr/sbin/ntpdate pool\n"}),
    Fault("kernel watchdogs", "warn", "nmi_watchdog on", {"proc/sys/kernel/nmi_watchdog": "1\n"}),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.check}: {fault.word}")
def test_each_fault_is_found_alone(tmp_path: Path, fault: Fault) -> None:
    """One thing wrong changes one check, which says what it found and, unless it cannot know, how to mend it."""
    write(tmp_path, GOOD)
    for name, text in fault.now.items():
        if text is None:
            (tmp_path / name).unlink()
        else:
            write(tmp_path, {name: text})
    checks = look(tmp_path, fault.later)
    assert faults(checks) == {fault.check: fault.state}
    check = checks[fault.check]
    assert fault.word in check.found
    assert bool(check.mend) == (fault.state != "unknown")
    assert broken(list(checks.values())) == (fault.state == "bad")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (STAT, stat(100)),
        ("proc/61/stat", process(61, "postgresql-like")),
        ("run/systemd/sessions/5", "USER=gdm\nCLASS=greeter\nSTATE=active\n"),
        ("run/systemd/sessions/6", "USER=bob\nCLASS=user\nSTATE=closing\n"),
        (f"{POLICY}/scaling_min_freq", "4200000\n"),
    ],
    ids=["same load", "another name", "login screen", "closed session", "fixed frequency"],
)
def test_what_is_no_fault_is_not_told(tmp_path: Path, name: str, text: str) -> None:
    """Things that only look like a fault leave a good machine good."""
    write(tmp_path, GOOD | {name: text})
    assert faults(look(tmp_path)) == {}


def test_a_masked_timer_is_off(tmp_path: Path) -> None:
    """A timer that is enabled but masked starts nothing."""
    write(tmp_path, GOOD | {"usr/lib/systemd/system/timers.target.wants/fstrim.timer": ""})
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    (tmp_path / "etc/systemd/system/fstrim.timer").symlink_to("/dev/null")
    assert faults(look(tmp_path)) == {}


def test_a_meter_that_is_named_must_open(tmp_path: Path) -> None:
    """A named meter of an unknown kind breaks measurements, with the sentence that says which kinds there are."""
    write(tmp_path, GOOD)
    check = look(tmp_path, None, "abacus:/dev/beads")["energy meter"]
    assert (check.state, "abacus" in check.found) == ("bad", True)


@contextmanager
def nobody() -> Iterator[None]:
    """Without root's rights, so that file permissions mean something."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_what_may_not_be_read_is_told(tmp_path_factory: pytest.TempPathFactory) -> None:
    """CPU counters and devices that the user may not open are told with the command that opens them."""
    root = tmp_path_factory.mktemp("machine")
    write(root, GOOD)
    for folder in (root, *root.parents):
        if folder.name.startswith(("machine", "popen-", "pytest-")):
            folder.chmod(0o755)
    (root / ZONE / "energy_uj").chmod(0)
    (root / "dev/ttyACM0").chmod(0)
    clock = SimulatedClock()
    clock.call_at(1, lambda: None)
    with nobody():
        checks = {check.name: check for check in examine(root, clock)}
    assert (checks["CPU energy counters"].state, checks["devices"].state) == ("bad", "warn")
    assert "chmod a+r" in checks["CPU energy counters"].mend
    assert "ttyACM0" in checks["devices"].found
    assert "energy meter" not in checks


@pytest.mark.parametrize("text", ["", "rubbish \x00 -1 ( ) : = nan\n", "9" * 25], ids=["empty", "rubbish", "digits"])
def test_odd_files_break_nothing(tmp_path: Path, text: str) -> None:
    """Whatever stands in the machine's files, the doctor ends with checks, never with a trace of Python."""
    write(tmp_path, dict.fromkeys(GOOD, text))
    checks = look(tmp_path, dict.fromkeys(LATER, text))
    assert {"load now", "free memory", "temperature", "users"} <= set(checks)


def test_an_empty_root_is_unknown_not_well(tmp_path: Path) -> None:
    """Where nothing can be read, nothing is called in order but what needs no file."""
    checks = {check.name: check.state for check in examine(tmp_path, SimulatedClock())}
    assert [name for name, state in checks.items() if state == "ok"] == ["users"]
    assert checks["load now"] == checks["CPU governor"] == checks["free memory"] == "unknown"


def test_this_machine_is_examined() -> None:
    """On the machine this runs on every check has all its words, and the look takes its second."""
    clock = SimulatedClock()
    checks = examine(clock=clock)
    assert clock.now_ns() == nanoseconds(LOOK_S)
    assert {"energy meter", "temperature", "load now", "free memory"} <= {check.name for check in checks}
    for check in checks:
        assert check.found, check
        assert check.why, check
        assert bool(check.mend) == (check.state in ("warn", "bad")), check


def test_the_terminal_tells_the_worst_first() -> None:
    """Each check has its state, why it matters and how to mend it, the worst first; a sentence tells of the whole."""
    named = {
        state: Check(state, cast("State", state), f"found {state}", f"why {state}", f"mend {state}") for state in STATES
    }
    shown = io.StringIO()
    show_checks([named["ok"], named["warn"], named["bad"]], shown)
    said = shown.getvalue()
    assert [said.index(f"{state}: found") for state in ("bad", "warn", "ok")] == sorted(
        said.index(f"{state}: found") for state in ("bad", "warn", "ok")
    )
    assert ("Mend: mend bad" in said, "why bad" in said, "why ok" in said) == (True, True, False)
    for states, words in (
        (("bad", "warn"), "1 thing breaks measurements here; 1 more make them less repeatable."),
        (("bad", "bad"), "2 things break measurements here; 0 more make them less repeatable."),
        (("warn",), "Nothing breaks measurements here; 1 thing makes them less repeatable."),
        (("warn", "warn", "ok"), "Nothing breaks measurements here; 2 things make them less repeatable."),
        (("ok", "unknown"), "This machine is fit to measure."),
    ):
        assert whole_words([named[state] for state in states]) == words
