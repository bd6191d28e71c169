"""What a node does while nobody asks: it keeps the model for a while, unloads it, and suspends its machine at last."""

import fcntl
import logging
import shlex
import socket
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from joulebox.clock import Clock
from joulebox.errors import JouleboxError
from joulebox.model import IdlePolicy
from joulebox.protocol import LEASE_WAIT_S
from joulebox.settings import Settings
from joulebox.units import nanoseconds, seconds

LOG: Final = logging.getLogger("joulebox.node")
COMMAND_S: Final = 60.0
"""A suspend command that takes longer, awake, is given up."""
FALL_ASLEEP_S: Final = 30.0
"""So long a command may have ended before the machine sleeps; `systemctl suspend` does not wait."""
SLEPT_S: Final = 1.0
"""The machine has slept where the calendar went on so much longer than the clock that stands still meanwhile."""
LOOK_S: Final = 0.2
MAC_LENGTH: Final = 17
"""Six bytes as they are written; other kinds of cards have longer addresses, and no magic packet wakes them."""
_SIOCGIFADDR: Final = 0x8915


@dataclass(frozen=True, slots=True)
class Rest:
    """What is due after so long without a job; nothing without a policy. `command` suspends the machine."""

    policy: IdlePolicy = field(default_factory=IdlePolicy)
    command: Sequence[str] = ()

    def wait_s(self, idle_s: float, *, loaded: bool) -> float:
        """For how long a node that has been idle so long may wait for a job: until the next thing is due."""
        due_s = [self.policy.unload_s if loaded else None, self.policy.suspend_s]
        left_s = [one - idle_s for one in due_s if one is not None]
        return max(min([*left_s, LEASE_WAIT_S]), 0.0)

    def unloads(self, idle_s: float) -> bool:
        """Whether a loaded model has been kept long enough."""
        return self.policy.unload_s is not None and idle_s >= self.policy.unload_s

    def suspends(self, idle_s: float) -> bool:
        """Whether the machine has been awake long enough."""
        return self.policy.suspend_s is not None and idle_s >= self.policy.suspend_s


def rest_of(settings: Settings) -> Rest:
    """The policy that is set. Raises `JouleboxError("bad_setting")` where half of it is, or nobody could wake it."""
    suspend_s, command = settings.idle_suspend_s, shlex.split(settings.suspend_command or "")
    if (suspend_s is None) != (not command):
        raise JouleboxError("bad_setting", "idle_suspend_s and suspend_command belong together: set both, or neither.")
    mac = settings.wake_mac or (card_towards(settings.server) if suspend_s is not None else None)
    if suspend_s is not None and mac is None:
        sentence = "A node that suspends must be woken, but no network card leads to the server: set wake_mac."
        raise JouleboxError("bad_setting", sentence)
    policy = IdlePolicy(
        unload_s=settings.idle_unload_s,
        suspend_s=suspend_s,
        mac=mac if suspend_s is not None else None,
        wake_max_s=settings.wake_max_s,
    )
    return Rest(policy, command)


def card_towards(server: str) -> str | None:
    """The address of the network card by which this machine reaches a server; `None` where there is none (the server is
    here), or the system does not tell (it is reached by IPv6)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((urlsplit(server).hostname or "", 9))  # nothing is sent: only the way is looked up
        except OSError:
            return None
        own = socket.inet_aton(probe.getsockname()[0])
        for _, name in socket.if_nameindex():
            try:
                told = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                mac = Path(f"/sys/class/net/{name}/address").read_text(encoding="ascii").strip()
            except OSError:
                continue
            if told[20:24] == own and len(mac) == MAC_LENGTH and set(mac) - set("0:"):
                return mac
    return None


def sleep_by(command: Sequence[str], clock: Clock) -> float:
    """Have a command suspend the machine; comes back when it is awake again. How long it slept, in seconds: 0 where it
    did not, as when the command refused (an exit code other than 0)."""
    begun_ns, begun = clock.now_ns(), clock.utc()

    def slept_s() -> float:
        lasted_s = (clock.utc() - begun).total_seconds() - seconds(clock.now_ns() - begun_ns)
        return lasted_s if lasted_s >= SLEPT_S else 0.0

    try:
        code = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=COMMAND_S, check=False).returncode
    except (OSError, subprocess.TimeoutExpired) as error:
        LOG.warning("the suspend command does not work: %s", error)
        return slept_s()
    if code:
        LOG.warning("the suspend command refused (exit code %d)", code)
        return slept_s()
    end_ns = clock.now_ns() + nanoseconds(FALL_ASLEEP_S)
    while not slept_s() and clock.now_ns() < end_ns:
        clock.sleep_until(clock.now_ns() + nanoseconds(LOOK_S))
    return slept_s()
