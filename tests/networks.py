"""A machine of its own on a network of its own, as far as the kernel is concerned: a network namespace with one line to
this machine, whose packets can be dropped without a word to either side."""

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

_NUMBERS = itertools.count()
DROP = "add table inet cut; add chain inet cut in { type filter hook input priority 0; policy drop; }; "
DROP += "add chain inet cut out { type filter hook output priority 0; policy drop; }"


class Network:
    """The other machine's network; `here` and `there` are the addresses of the two ends of the line."""

    def __init__(self, name: str, here: str, there: str) -> None:
        self.name = name
        self.here = here
        self.there = there

    def command(self, command: Sequence[str]) -> list[str]:
        """A command as it is run over there."""
        return ["ip", "netns", "exec", self.name, *command]

    def cut(self) -> None:
        """From now on no packet passes, and nobody is told: as if the machine had lost its power or its cable."""
        subprocess.run(self.command(["nft", DROP]), check=True)

    def mend(self) -> None:
        """Packets pass again."""
        subprocess.run(self.command(["nft", "delete table inet cut"]), check=True)


@contextmanager
def network() -> Iterator[Network]:
    """A network that is there as long as the block lasts; the test is skipped where none may be made."""
    missing = [tool for tool in ("ip", "nft") if shutil.which(tool) is None]
    if missing or os.geteuid():
        pytest.skip(f"network namespaces need root, iproute2 and nftables ({', '.join(missing) or 'not root'})")
    number = os.getpid() % 8192 * 8 + next(_NUMBERS) % 8
    name, line = f"joulebox{number}", f"jb{number}"
    pair = [f"10.213.{number // 64 % 256}.{number % 64 * 4 + end}" for end in (1, 2)]
    ready = (
        f"ip netns add {name}",
        f"ip link add {line} type veth peer name inside netns {name}",
        f"ip addr add {pair[0]}/30 dev {line}",
        f"ip link set {line} up",
        f"ip -n {name} addr add {pair[1]}/30 dev inside",
        f"ip -n {name} link set inside up",
    )
    try:
        for command in ready:
            made = subprocess.run(command.split(), check=False, capture_output=True, text=True)
            if made.returncode:
                pytest.skip(f"no network namespace can be made here: {made.stderr.strip()}")
        yield Network(name, *pair)
    finally:
        for command in (f"ip link delete {line}", f"ip netns delete {name}"):
            subprocess.run(command.split(), check=False, capture_output=True)
