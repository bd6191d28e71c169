"""The machine a program runs on, as far as server and node must agree on it."""

import hashlib
import os
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def running_host() -> str | None:
    """The same for all programs on one running machine, containers included, and for no other; `None` where the system
    does not tell. Nothing can be read from it but that two programs share a machine."""
    try:
        return hashlib.sha256(b"joulebox " + _BOOT.read_bytes().strip()).hexdigest()[:16]
    except OSError:
        return None


def own_cpu_s() -> float:
    """Seconds of processor time this process has used, all its threads together."""
    used = os.times()
    return used.user + used.system
