"""`ipmi:HOST`, or `ipmi:` for this machine's own BMC: the power that DCMI tells, asked with Debian's `ipmitool`.

Each reading starts the program once and, over the network, opens a session: on the measured machine itself that is
work which the reading then shows. The password goes through the environment, where other users cannot see it.
"""

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import which
from typing import Final

from joulebox.errors import JouleboxError
from joulebox.model import Channel, ReadingKind, Sampling
from joulebox.node.meter import MeterFault
from joulebox.node.options import choice, host_and_port, number, secret, whole

WHERE: Final = ""
LOOKS_FOR: Final = "this machine's own BMC (ipmitool and /dev/ipmi0)"
DEVICES: Final = ("/dev/ipmi0", "/dev/ipmi/0", "/dev/ipmidev/0")
OPTIONS: Final[Mapping[str, str]] = {
    "user": "the BMC's user",
    "password": "its password (better: password_file)",
    "password_file": "a file whose first line is the password",
    "interface": "lanplus or lan (lanplus)",
    "cipher": "cipher suite, 0 to 17 (ipmitool's choice)",
    "level": "privilege to ask for: USER, OPERATOR or ADMINISTRATOR (USER)",
    "scope": "platform, or wall where the maker says that it is measured at the supply's input (platform)",
    "accuracy": "the meter's error in percent, as the maker or a calibration says (10)",
    "tick": "seconds after which the BMC shows something new (1)",
    "timeout": "seconds to wait for an answer (5)",
}
_PORT: Final = 623
_WATTS: Final = re.compile(r"^\s*Instantaneous power reading:\s*(\d+)\s*Watts\s*$", re.MULTILINE)
_MEAN: Final = re.compile(r"^\s*Average power reading over sample period:\s*(\d+)\s*Watts\s*$", re.MULTILINE)
_PERIOD: Final = re.compile(r"Sampling period:\s*(\d+)\s*(Milliseconds|Seconds)\.?\s*$", re.MULTILINE)
"""Version 1.8.19 prints it behind the time, on the same line."""
_STATE: Final = re.compile(r"^\s*Power reading state is:\s*(\S.*?)\s*$", re.MULTILINE)
_MEAN_MOST_S: Final = 10.0
"""A mean over longer tells nothing of one answer; many BMCs count it since they started."""


class IpmiMeter:
    """Watts at this moment; the mean too, where the BMC takes it over a short time."""

    missing: Sequence[str] = ()

    def __init__(self, address: str, options: Mapping[str, str]) -> None:
        """Ask once. Raises `JouleboxError`: `bad_setting`, `meter_unreadable`."""
        host, port = host_and_port(address, "ipmi:", _PORT) if address else ("", _PORT)
        self.address = f"ipmi:{host}:{port}" if host else "ipmi:"
        self._timeout_s = number(options, "timeout", 5.0, most=60.0)
        tick_s = number(options, "tick", 1.0, most=600.0)
        percent = number(options, "accuracy", 10.0, most=100.0)
        scope = choice(options, "scope", "platform", ("platform", "wall"))
        self.command = [_program(host), *_session(host, port, options), "dcmi", "power", "reading"]
        self._environment = {**os.environ, "IPMI_PASSWORD": secret(options, "password") or ""}
        self._closed = False
        self._mean = False
        try:
            report = self._report()
            readings_of(report, mean=False)
        except MeterFault as fault:
            raise JouleboxError(
                "meter_unreadable",
                f"The BMC {f'at {host}:{port}' if host else 'of this machine'} does not tell its power: {fault}. Check "
                "address, user, password and that it knows DCMI power readings, or leave it out.",
            ) from fault
        period_s = _period_s(report)
        self._mean = period_s is not None
        # DCMI does not say where in the machine its watts are measured, nor how well.
        accuracy = f"as the operator says: {percent:g} %" if "accuracy" in options else "not stated by DCMI: 10 % taken"
        kinds = [("power", Sampling.SNAPSHOT, tick_s)]
        if period_s is not None:
            kinds.append(("mean power", Sampling.MEAN, period_s))
        self._channels = tuple(
            Channel(
                name=name,
                meter=self.address,
                kind=ReadingKind.POWER_W,
                sampling=sampling,
                scope=scope,
                step=1.0,
                tick_s=channel_tick_s,
                gain_u_ratio=percent / 100,
                accuracy=accuracy,
            )
            for name, sampling, channel_tick_s in kinds
        )

    def channels(self) -> Sequence[Channel]:
        """One, or two with the mean."""
        return self._channels

    def read(self) -> Sequence[int | None]:
        """Whole watts; `None` for a mean that is not there."""
        if self._closed:
            raise MeterFault("the meter is closed")
        return readings_of(self._report(), mean=self._mean)

    def close(self) -> None:
        """Nothing stays open between readings."""
        self._closed = True

    def _report(self) -> str:
        try:
            done = subprocess.run(
                self.command, env=self._environment, stdin=subprocess.DEVNULL, capture_output=True,
                timeout=self._timeout_s, check=False, encoding="utf-8", errors="replace",
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise MeterFault(f"ipmitool had no answer within {self._timeout_s:g} s") from error
        except OSError as error:
            raise MeterFault(f"ipmitool cannot be started ({error.strerror})") from error
        if done.returncode != 0:
            said = " ".join(done.stderr.split()) or " ".join(done.stdout.split()) or f"code {done.returncode}"
            raise MeterFault(f"ipmitool says: {said[:200]}")
        return done.stdout


def open(address: str, options: Mapping[str, str]) -> IpmiMeter:  # noqa: A001 - the name every driver offers
    """The BMC at `HOST[:PORT]`, or this machine's where empty. Raises `bad_setting`, `meter_unreadable`."""
    return IpmiMeter(address, options)


def readings_of(report: str, *, mean: bool) -> tuple[int | None, ...]:
    """Watts in what `ipmitool dcmi power reading` prints, with the mean where wanted. Raises `MeterFault`."""
    now = _WATTS.search(report)
    if now is None:
        raise MeterFault("ipmitool's answer holds no power reading")
    state = _STATE.search(report)
    if state is None:
        raise MeterFault("ipmitool's answer is cut off")
    if state[1] != "activated":
        raise MeterFault(f"the BMC's power reading is {state[1]}")
    if not mean:
        return (int(now[1]),)
    over = _MEAN.search(report)
    return int(now[1]), int(over[1]) if over and _period_s(report) is not None else None


def _period_s(report: str) -> float | None:
    """The time the BMC takes its mean over, where it is short enough to be of use."""
    found = _PERIOD.search(report)
    if found is None:
        return None
    period_s = int(found[1]) * (1e-3 if found[2] == "Milliseconds" else 1.0)
    return period_s if 0 < period_s <= _MEAN_MOST_S else None


def _program(host: str) -> str:
    program = which("ipmitool")
    if program is None:
        raise JouleboxError("meter_unreadable", "An IPMI meter needs ipmitool: install it (apt-get install ipmitool).")
    if not host and not any(Path(device).exists() for device in DEVICES):
        raise JouleboxError(
            "meter_unreadable",
            f"This machine shows no BMC: there is no {DEVICES[0]}. Load the kernel modules ipmi_si and ipmi_devintf, "
            "give the BMC's address as ipmi:HOST, or leave it out.",
        )
    return program


def _session(host: str, port: int, options: Mapping[str, str]) -> list[str]:
    """The arguments for a session; `-E` takes the password from the environment."""
    if not host:
        return []
    interface = choice(options, "interface", "lanplus", ("lanplus", "lan"))
    level = choice(options, "level", "USER", ("USER", "OPERATOR", "ADMINISTRATOR"))
    session = ["-I", interface, "-H", host, "-p", str(port), "-L", level, "-E", "-R", "1"]
    if "user" in options:
        session += ["-U", options["user"]]
    if "cipher" in options:
        session += ["-C", str(whole(options, "cipher", 3, most=17))]
    return session
