"""What a measuring machine should be: each check says what it found, why that matters, and how to mend it.

`bad` breaks measurements (figures would be wrong or not there), `warn` makes them less repeatable or dearer in time,
`unknown` means that this machine does not tell. Nothing is changed, no command is run, and only files below a root are
read, but for the meters, which are opened as a node would open them.
"""

import os
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from joulebox.clock import Clock, SystemClock
from joulebox.errors import JouleboxError
from joulebox.model import ReadingKind
from joulebox.node import sysfs
from joulebox.node.meter import Meter, MeterFault
from joulebox.node.meters import Finding, found, hwmon, open_meters
from joulebox.node.neighbours import Census, Neighbours, compare, scan
from joulebox.node.parts import hypervisor
from joulebox.units import nanoseconds

LOOK_S: Final = 1.0
BUSY_WARN_CORES: Final = 0.1
BUSY_BAD_CORES: Final = 0.5
STEAL_WARN_RATIO: Final = 0.002
STEAL_BAD_RATIO: Final = 0.02
MEMORY_WARN_BYTES: Final = 2 * 1024**3
MEMORY_BAD_BYTES: Final = 512 * 1024**2
HOT_C: Final = 60.0
"""An idle CPU above this was busy just now, or its cooling is poor."""

State = Literal["ok", "warn", "bad", "unknown"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. `mend` is empty where there is nothing to mend."""

    name: str
    state: State
    found: str
    why: str
    mend: str


def examine(
    root: Path = Path("/"), clock: Clock | None = None, meters: Sequence[str] = (), engine: str | None = None
) -> list[Check]:
    """Look at the machine whose files stand below `root`; takes one second on `clock` to see what runs now.

    `meters` are the addresses a node was given; without any, what this machine has is looked for (`root` `/` only).
    `engine` is the program that the node drives: it belongs here.
    Never raises for what it finds: files that are absent or odd make a check `unknown`, or leave it out.
    """
    clock = clock or SystemClock()
    before = scan(root)
    swaps = _swaps(root)
    clock.sleep_until(clock.now_ns() + nanoseconds(LOOK_S))
    after = scan(root)
    look = compare(before, after, own=(os.getpid(),))
    seen = _Seen(root=root, census=after, look=look, swaps=_swaps(root) - swaps, meters=tuple(meters), engine=engine)
    return [check for each in _CHECKS if (check := each(seen)) is not None]


def broken(checks: Sequence[Check]) -> bool:
    """Whether something here breaks measurements."""
    return any(check.state == "bad" for check in checks)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the checks look at: the files, the processes, and one second of the machine's life. `swaps`: pages moved."""

    root: Path
    census: Census
    look: Neighbours
    swaps: int
    meters: tuple[str, ...]
    engine: str | None = None

    @property
    def cpu(self) -> Path:
        return self.root / "sys/devices/system/cpu"

    @property
    def virtual(self) -> str | None:
        return hypervisor(self.root)

    def text(self, path: str) -> str | None:
        return sysfs.text_in(self.root / path)

    def each_core(self, name: str) -> list[str]:
        """What the cores' frequency files of that name hold, each text once."""
        files = sorted(self.cpu.glob(f"cpufreq/policy*/{name}")) or sorted(self.cpu.glob(f"cpu[0-9]*/cpufreq/{name}"))
        return sorted({text for file in files if (text := sysfs.text_in(file))})

    def running(self, names: Sequence[str]) -> list[str]:
        """Which of these programs run; the kernel knows 15 letters of a name."""
        short = {name[:15]: name for name in names}
        return sorted({short[each.name] for each in self.census.processes if each.name in short} - {self.engine})


def _check(name: str, state: State, seen: str, why: str, mend: str) -> Check:
    return Check(name, state, seen, why, mend if state in ("warn", "bad") else "")


def _number(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None


def _listed(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


# --- the CPU ----------------------------------------------------------------------------------------------------------


def _governor(seen: _Seen) -> Check | None:
    why = "A governor that follows the load makes the same prompt cost differently from run to run."
    governors = seen.each_core("scaling_governor")
    if not governors:
        where = "the host decides" if seen.virtual else "this kernel shows no frequency control"
        return _check("CPU governor", "unknown", f"not shown: {where}", why, "")
    state: State = "ok" if governors in (["performance"], ["userspace"]) else "warn"
    return _check("CPU governor", state, ", ".join(governors), why, "Run `sudo cpupower frequency-set -g performance`.")


def _energy_preference(seen: _Seen) -> Check | None:
    preferences = seen.each_core("energy_performance_preference")
    if not preferences:
        return None
    return _check(
        "energy preference",
        "ok" if preferences == ["performance"] else "warn",
        ", ".join(preferences),
        "It tells the CPU how eagerly to save; desktop power profiles change it while the machine runs.",
        "Write `performance` into every `/sys/devices/system/cpu/cpufreq/policy*/energy_performance_preference`, and "
        "stop power-profiles-daemon or tuned.",
    )


def _turbo(seen: _Seen) -> Check | None:
    off = sysfs.text_in(seen.cpu / "intel_pstate/no_turbo")
    boost = sysfs.text_in(seen.cpu / "cpufreq/boost")
    if off not in ("0", "1") and boost not in ("0", "1"):
        return None
    on = off == "0" if off in ("0", "1") else boost == "1"
    file, value = ("intel_pstate/no_turbo", "1") if off in ("0", "1") else ("cpufreq/boost", "0")
    return _check(
        "turbo",
        "warn" if on else "ok",
        "on" if on else "off",
        "With turbo, power and speed hang on the temperature of the moment: a warm machine measures otherwise.",
        f"Run `echo {value} | sudo tee /sys/devices/system/cpu/{file}`, or keep it on and compare warm runs only.",
    )


def _threads(seen: _Seen) -> Check | None:
    active = sysfs.text_in(seen.cpu / "smt/active")
    if active not in ("0", "1"):
        return None
    return _check(
        "SMT",
        "warn" if active == "1" else "ok",
        "two threads share a core" if active == "1" else "off",
        "Where threads share a core, time and energy hang on which of them the engine gets.",
        "Run `echo off | sudo tee /sys/devices/system/cpu/smt/control`, or give the engine one thread a core.",
    )


def _frequency(seen: _Seen) -> Check | None:
    """A range is the governor's affair; a limit below what the CPU can do says that something turns it down."""
    low, high, top = (
        [number for text in seen.each_core(name) if (number := _number(text)) is not None]
        for name in ("scaling_min_freq", "scaling_max_freq", "cpuinfo_max_freq")
    )
    if not low or not high:
        return None
    fixed = low == high
    capped = bool(top) and max(high) < max(top)
    span = f"{min(low) / 1e6:.2f} GHz" if fixed else f"{min(low) / 1e6:.2f} to {max(high) / 1e6:.2f} GHz"
    return _check(
        "CPU frequency",
        "warn" if capped and not fixed else "ok",
        f"{'fixed at ' if fixed else ''}{span}" + (f", below the CPU's {max(top) / 1e6:.2f} GHz" if capped else ""),
        "A limit that something set (heat, battery, a power profile) may move during an answer.",
        "Find who set it (thermald, tlp, power-profiles-daemon), stop it, or fix the frequency yourself.",
    )


def _clock_source(seen: _Seen) -> Check | None:
    source = seen.text("sys/devices/system/clocksource/clocksource0/current_clocksource")
    if not source:
        return None
    slow = source in ("hpet", "acpi_pm", "jiffies", "refined-jiffies", "pit")
    return _check(
        "clock source",
        "warn" if slow else "ok",
        source,
        "Every reading is stamped; a slow or coarse clock costs time and blurs the ends of the answer.",
        "See `dmesg | grep -i tsc` for why the kernel left the CPU's own counter.",
    )


# --- heat, power, meters ----------------------------------------------------------------------------------------------


def _temperature(seen: _Seen) -> Check | None:
    why = "Without a temperature nobody sees throttling, or a machine that is still warm from the run before."
    try:
        sensor = hwmon.open(str(seen.root / "sys/class/hwmon"), {})
    except JouleboxError as error:
        mend = "Load the sensor's kernel module: `sudo modprobe coretemp` (Intel) or `k10temp` (AMD)."
        return _check("temperature", "warn", error.detail.partition(". ")[0], why, mend)
    try:
        raw = sensor.read()
        channels = sensor.channels()
    except MeterFault as error:
        return _check(
            "temperature", "bad", f"sensor does not answer: {error}", why, "See `dmesg`; leave the sensor out."
        )
    finally:
        sensor.close()
    read = [(each.name, value * each.step) for each, value in zip(channels, raw, strict=True) if value is not None]
    if not read:
        return _check("temperature", "warn", "sensors without a value now", why, "Look again; see `dmesg`.")
    hot = any(value_c > HOT_C for _, value_c in read)
    return _check(
        "temperature",
        "warn" if hot else "ok",
        _listed([f"{name} {value_c:.0f} °C" for name, value_c in read]),
        why if not hot else f"Above {HOT_C:.0f} °C at rest the CPU soon throttles under load.",
        "Let it cool, then look at fans, dust and what runs.",
    )


def _battery(seen: _Seen) -> Check | None:
    supplies = sorted((seen.root / "sys/class/power_supply").glob("*"))
    states = [
        sysfs.text_in(each / "status") or "Unknown"
        for each in supplies
        if sysfs.text_in(each / "type") == "Battery" and sysfs.text_in(each / "scope") != "Device"
    ]
    if not states:
        return None
    state: State = "bad" if "Discharging" in states else "warn" if "Charging" in states else "ok"
    return _check(
        "battery",
        state,
        ", ".join(states).lower(),
        "On battery the machine saves power and a wall meter reads nothing; while charging, a wall meter reads more.",
        "Plug it in and wait until it is full, or take the battery out.",
    )


def _energy_meters(seen: _Seen) -> Check | None:
    why = "Without a meter the energy is modelled from how busy the cores were, grade D."
    if seen.meters:
        return _named_meters(seen.meters)
    if seen.root != Path("/"):
        return None
    metered = [finding for finding in found() if finding.found and _measures_energy(finding)]
    if not metered:
        return _check(
            "energy meter",
            "warn",
            "none on this machine",
            why,
            "Connect one and name it, such as `powercap:` or a plug's address (see `joulebox meters list`).",
        )
    names = [each.address for each in metered]
    scopes = {channel.scope for each in metered for channel in each.channels}
    bare = [gpu for gpu in sysfs.gpus(seen.root / "sys") if gpu not in scopes and not scopes & {"wall", "platform"}]
    if bare:
        return _check(
            "energy meter", "warn", f"{_listed(names)}; nothing for {_listed(bare)}", why, "Meter it as well."
        )
    return _check("energy meter", "ok", _listed(names), why, "")


def _measures_energy(finding: Finding) -> bool:
    return any(channel.kind in (ReadingKind.ENERGY_J, ReadingKind.POWER_W) for channel in finding.channels)


def _named_meters(addresses: Sequence[str]) -> Check:
    """Open all at once, as a node does; then read each once."""
    name, why = "energy meter", "A meter that was named and does not answer leaves every receipt without energy."
    try:
        meters = open_meters(addresses)
    except JouleboxError as error:
        return _check(name, "bad", error.detail, why, "Mend what the sentence says, or leave this meter out.")
    try:
        silent = [f"{meter.address}: {fault}" for meter in meters if (fault := _fault(meter))]
    finally:
        for meter in meters:
            meter.close()
    mend = "Look at its cable, power and address; `joulebox meters check` reads it again."
    return _check(name, "bad" if silent else "ok", _listed(silent or list(addresses)), why, mend)


def _fault(meter: Meter) -> str | None:
    try:
        meter.read()
    except MeterFault as error:
        return str(error) or "does not answer"
    return None


def _counters(seen: _Seen) -> Check | None:
    """The CPU's own energy counters: there for root only since 2020 (CVE-2020-8694)."""
    try:
        files = sorted((seen.root / "sys/class/powercap").glob("*/energy_uj"))
    except OSError:
        return None
    if not files:
        return None
    refused = [file for file in files if not _readable(file)]
    return _check(
        "CPU energy counters",
        "ok" if not refused else "warn" if seen.meters else "bad",
        f"{len(refused)} of {len(files)} may not be read" if refused else f"{len(files)} readable",
        "The CPU counts its own energy, but the kernel shows the counters to root only unless it is told otherwise.",
        "Run `sudo chmod a+r /sys/class/powercap/*/energy_uj` (until the next start), or add a udev rule that does it.",
    )


def _readable(file: Path) -> bool:
    """Whether this program may read it; a file that fails otherwise is another check's affair."""
    try:
        file.read_bytes()
    except PermissionError:
        return False
    except OSError:
        return True
    return True


def _devices(seen: _Seen) -> Check | None:
    """Serial ports and graphics cards that this program may not open; `None` where there are none of either."""
    devices = [
        device
        for pattern in ("ttyACM*", "ttyUSB*", "nvidiactl", "nvidia[0-9]*")
        for device in sorted((seen.root / "dev").glob(pattern))
    ]
    if not devices:
        return None
    refused = [device.name for device in devices if not os.access(device, os.R_OK | os.W_OK, effective_ids=True)]
    names = _listed(refused or [device.name for device in devices])
    return _check(
        "devices",
        "warn" if refused else "ok",
        f"{names} may not be opened" if refused else names,
        "A meter or graphics card behind a device that the node may not open cannot be read.",
        "Run `sudo usermod -aG dialout,video USER` for the node's user, then log in anew.",
    )


# --- virtual machines -------------------------------------------------------------------------------------------------


def _virtual(seen: _Seen) -> Check | None:
    if seen.virtual is None:
        return None
    return _check(
        "virtual machine",
        "warn",
        f"runs on {seen.virtual}",
        "A guest has no energy counters, its cores may be taken away, and the host's other guests heat the same CPU.",
        "Measure on the bare machine, or with a wall meter on a host that runs nothing else.",
    )


def _steal(seen: _Seen) -> Check | None:
    look = seen.look
    if seen.virtual is None and not look.steal_s:
        return None
    why = "Stolen time makes the answer slower and books another guest's work as this machine's waiting."
    if look.steal_s is None or not look.window_s or not look.cores:
        return _check("stolen time", "unknown", "this machine does not tell", why, "")
    ratio = look.steal_s / (look.window_s * look.cores)
    state: State = "bad" if ratio > STEAL_BAD_RATIO else "warn" if ratio > STEAL_WARN_RATIO else "ok"
    return _check(
        "stolen time",
        state,
        f"{ratio:.1%} of the cores in {look.window_s:.1f} s",
        why,
        "Give the guest cores of its own (pinning), or stop the host's other guests.",
    )


# --- memory -----------------------------------------------------------------------------------------------------------


def _memory(root: Path) -> dict[str, int]:
    """`proc/meminfo` in bytes."""
    lines = re.findall(r"^(\w+):\s+(\d+) kB", sysfs.text_in(root / "proc/meminfo") or "", re.M)
    return {name: int(number) * 1024 for name, number in lines}


def _swaps(root: Path) -> int:
    """Pages moved to or from swap since the machine started."""
    counts = re.findall(r"^pswp(?:in|out) (\d+)", sysfs.text_in(root / "proc/vmstat") or "", re.M)
    return sum(int(count) for count in counts)


def _free_memory(seen: _Seen) -> Check | None:
    why = "A model must fit whole: otherwise it is read from disk again while it answers."
    free = _memory(seen.root).get("MemAvailable")
    if free is None:
        return _check("free memory", "unknown", "not shown", why, "")
    state: State = "bad" if free < MEMORY_BAD_BYTES else "warn" if free < MEMORY_WARN_BYTES else "ok"
    return _check("free memory", state, f"{free / 1024**3:.1f} GiB", why, "Stop other programs, or add memory.")


def _swap(seen: _Seen) -> Check | None:
    memory = _memory(seen.root)
    total = memory.get("SwapTotal")
    if total is None:
        return None
    used = total - memory.get("SwapFree", total)
    state: State = "bad" if seen.swaps > 0 else "warn" if used > 0 else "ok"
    where = "none" if not total else f"{used / 1024**2:.0f} of {total / 1024**2:.0f} MiB used"
    return _check(
        "swap",
        state,
        f"{where}{', pages are moving now' if seen.swaps > 0 else ''}",
        "A page that comes back from swap during an answer costs time and energy that are not the model's.",
        "Run `sudo swapoff -a`, and take swap out of `/etc/fstab`.",
    )


# --- who else is awake ------------------------------------------------------------------------------------------------

SCHEDULERS: Final = ("cron", "crond", "anacron", "atd", "fcron")
UPDATERS: Final = (
    "unattended-upgrade", "apt", "apt-get", "apt.systemd.daily", "aptd", "dpkg", "dnf", "dnf-automatic", "yum",
    "zypper", "pacman", "packagekitd", "snapd", "snap", "flatpak", "fwupd", "update-notifier", "gnome-software",
)  # fmt: skip
BACKGROUND: Final = (
    "updatedb", "updatedb.mlocate", "updatedb.plocate", "tracker-miner-fs-3", "tracker-miner-fs", "localsearch-3",
    "baloo_file", "dockerd", "containerd", "kubelet", "podman", "Xorg", "Xwayland", "gnome-shell", "kwin_wayland",
    "plasmashell", "bluetoothd", "ModemManager", "cupsd", "cups-browsed", "avahi-daemon", "thermald", "tuned",
    "power-profiles-daemon", "whoopsie", "apport", "syncthing", "dropbox", "ollama", "mysqld", "postgres", "clamd",
    "freshclam", "node_exporter", "prometheus", "telegraf", "netdata", "zabbix_agentd",
)  # fmt: skip


def _timers(seen: _Seen) -> Check | None:
    """Timers that systemd holds active; from what is enabled where it does not show them."""
    run = seen.root / "run/systemd"
    if not (run / "system").is_dir():
        return None
    active = {path.name.removeprefix("invocation:") for path in (run / "units").glob("invocation:*.timer")}
    names = sorted(name.removesuffix(".timer") for name in active or _enabled_timers(seen.root))
    return _check(
        "systemd timers",
        "warn" if names else "ok",
        f"{len(names)}: {_listed(names)}" if names else "none",
        "A timer may start work in the middle of an answer.",
        "Run `sudo systemctl stop '*.timer'` for a session, or `sudo systemctl mask --now NAME.timer` for good.",
    )


def _enabled_timers(root: Path) -> set[str]:
    folders = ("run/systemd/system", "etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system")
    wanted = {path.name for each in folders for path in (root / each / "timers.target.wants").glob("*.timer")}
    return {name for name in wanted if not _masked(root / "etc/systemd/system" / name)}


def _masked(unit: Path) -> bool:
    return unit.is_symlink() and str(unit.readlink()) == os.devnull


def _schedulers(seen: _Seen) -> Check | None:
    return _awake(
        seen,
        "cron",
        SCHEDULERS,
        "It wakes every minute and may start work in the middle of an answer.",
        "Run `sudo systemctl disable --now cron` (or crond, atd).",
    )


def _updaters(seen: _Seen) -> Check | None:
    return _awake(
        seen,
        "updates",
        UPDATERS,
        "Updates download and unpack when they like, and replace drivers that a calibration rests on.",
        "Run `sudo systemctl mask --now unattended-upgrades snapd packagekit`, and update by hand between sessions.",
    )


def _background(seen: _Seen) -> Check | None:
    return _awake(
        seen,
        "background services",
        BACKGROUND,
        "They wake the CPU, search disks or change power settings while the machine should be idle.",
        "Stop what a measuring machine does not need: `sudo systemctl disable --now NAME`.",
    )


def _awake(seen: _Seen, name: str, programs: Sequence[str], why: str, mend: str) -> Check | None:
    if not seen.census.processes:
        return None
    running = seen.running(programs)
    return _check(name, "warn" if running else "ok", _listed(running) or "none running", why, mend)


def _load(seen: _Seen) -> Check | None:
    look = seen.look
    why = "Whatever else runs is in the figure: a meter cannot tell whose joules it counts."
    if look.busy_s is None or not look.window_s:
        return _check("load now", "unknown", "this machine does not tell", why, "")
    cores = max(0.0, look.busy_s - look.own_s) / look.window_s
    state: State = "bad" if cores > BUSY_BAD_CORES else "warn" if cores > BUSY_WARN_CORES else "ok"
    who = _listed([f"{load.name} {load.cpu_s / look.window_s:.2f}" for load in look.foreign], most=3)
    busy = f"{cores:.2f} of {look.cores or '?'} cores busy"
    return _check("load now", state, f"{busy}: {who}" if who and state != "ok" else busy, why, "Stop these programs.")


def _users(seen: _Seen) -> Check | None:
    """One person is most likely who asks."""
    users = sorted({*_sessions(seen.root), *_utmp(seen.root)})
    return _check(
        "users",
        "warn" if len(users) > 1 else "ok",
        _listed(users) or "nobody is logged in",
        "Whoever else works here shares the machine, and does not know that it measures.",
        "Ask them to log out while it measures.",
    )


def _sessions(root: Path) -> Iterator[str]:
    for file in (root / "run/systemd/sessions").glob("*"):
        lines = dict(line.partition("=")[::2] for line in (sysfs.text_in(file) or "").splitlines())
        if lines.get("CLASS", "").startswith("user") and lines.get("STATE") != "closing" and lines.get("USER"):
            yield lines["USER"]


_USER_PROCESS: Final = 7
_UTMP_HEAD: Final = struct.Struct("<h2xi32s4s32s")
"""type, pid, line, id, user; the rest (host, times, address) is 384 or 400 bytes in all, by architecture."""


def _utmp(root: Path) -> Iterator[str]:
    try:
        records = (root / "run/utmp").read_bytes()
    except OSError:
        return
    size = next((size for size in (384, 400) if len(records) % size == 0), 384)
    for start in range(0, len(records) - size + 1, size):
        kind, _, _, _, user = _UTMP_HEAD.unpack_from(records, start)
        if kind == _USER_PROCESS and (name := user.partition(b"\0")[0].decode("utf-8", "replace")):
            yield name


# --- time -------------------------------------------------------------------------------------------------------------

_TIME_DAEMONS: Final = ("chronyd", "ntpd", "ntpsec", "systemd-timesyncd", "openntpd")


def _time(seen: _Seen) -> Check | None:
    if not seen.census.processes:
        return None
    why = "Joules are measured on a clock that never steps, but grid data and other machines' meters need the calendar."
    steps = _steps(seen.root)
    daemons = seen.running(_TIME_DAEMONS)
    if steps:
        return _check(
            "time keeping", "bad", steps, why, "Let one daemon slew: chrony with `makestep 1 3` and no ntpdate."
        )
    if len(daemons) > 1:
        return _check("time keeping", "warn", f"{_listed(daemons)} pull at one clock", why, "Keep one of them.")
    if daemons:
        return _check("time keeping", "ok", f"{daemons[0]}, slews", why, "")
    return _check("time keeping", "warn", "no daemon: the calendar drifts", why, "Install chrony.")


def _steps(root: Path) -> str | None:
    """What would set the clock in one step at any time: chrony that may always step, or ntpdate from cron."""
    chrony = [root / "etc/chrony/chrony.conf", root / "etc/chrony.conf", *(root / "etc/chrony/conf.d").glob("*.conf")]
    for file in chrony:
        if re.search(r"^\s*makestep\s+\S+\s+-\d", sysfs.text_in(file) or "", re.M):
            return f"{file.name} lets chrony step at any time (makestep with a negative limit)"
    for file in (root / "etc/crontab", *(root / "etc").glob("cron.*/*"), *(root / "var/spool/cron").rglob("*")):
        if re.search(r"^[^#\n]*\b(ntpdate|sntp|rdate|htpdate)\b", sysfs.text_in(file) or "", re.M):
            return f"cron sets the clock in steps ({file.name})"
    return None


def _watchdogs(seen: _Seen) -> Check | None:
    on = [name for name in ("watchdog", "nmi_watchdog") if seen.text(f"proc/sys/kernel/{name}") == "1"]
    if seen.text("proc/sys/kernel/watchdog") is None and not on:
        return None
    return _check(
        "kernel watchdogs",
        "warn" if on else "ok",
        f"{' and '.join(on)} on" if on else "off",
        "They wake every core every few seconds, and the NMI one keeps a performance counter.",
        "Run `sudo sysctl kernel.watchdog=0 kernel.nmi_watchdog=0`.",
    )


_CHECKS: Final[tuple[Callable[[_Seen], Check | None], ...]] = (
    _energy_meters,
    _counters,
    _devices,
    _temperature,
    _virtual,
    _steal,
    _battery,
    _load,
    _users,
    _free_memory,
    _swap,
    _governor,
    _energy_preference,
    _turbo,
    _threads,
    _frequency,
    _clock_source,
    _time,
    _timers,
    _schedulers,
    _updaters,
    _background,
    _watchdogs,
)
