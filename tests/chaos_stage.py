"""What `make chaos` breaks: the real service on a disk of its own, its node behind a line that can be cut.

The disk is a file with ext4 on a loop device, so that it can be full, turn read-only as a failing one does, and lose
what was not flushed as in a power cut; the name of the server is in a hosts file of its own. Both need root and a mount
namespace (`chaos.py` makes one); without them the service runs in a plain folder and these faults say so.
"""

import fcntl
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from chaos_line import Line
from joulebox.client import AWAY
from joulebox.clock import SystemClock
from joulebox.errors import JouleboxError
from joulebox.supervisor import Child, Supervisor
from postgres_server import PostgresServer
from stage import Service, wait

CLOCK = SystemClock()
NAME: Final = "joulebox.test"
DISK_BYTES: Final = 640 * 1024 * 1024
SHUTDOWN: Final = 0x8004587D
"""ext4's ioctl that ends a file system at once; it comes back as after a power cut."""
NO_FLUSH: Final = 2
WAITED_OUT: Final = (*AWAY, "no_node", "unknown_model")
"""Nothing was taken; a model whose file is not what it was is offered by nobody."""
PATIENCE: Final = 1_200
"""Quarters of a second."""


class NotMadeError(Exception):
    """A fault that could not be made here; why."""


class Disk:
    """An ext4 of its own at `place`."""

    def __init__(self, image: Path, place: Path) -> None:
        """Raises `NotMadeError` where there can be none."""
        self.place = place
        self._image = image
        if os.geteuid() != 0 or not shutil.which("mkfs.ext4"):
            raise NotMadeError("a disk of its own needs root and mkfs.ext4")
        with image.open("wb") as file:
            file.truncate(DISK_BYTES)
        place.mkdir()
        for command in (["mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0", str(image)], self._mounting()):
            made = subprocess.run(command, check=False, capture_output=True, text=True)
            if made.returncode:
                raise NotMadeError(f"no loop device can be had: {made.stderr.strip()}")
        self.place.chmod(0o755)

    def _mounting(self) -> list[str]:
        return ["mount", "-o", "loop,errors=remount-ro", str(self._image), str(self.place)]

    def fill(self) -> Path:
        """Not one byte is left; the file that takes them all."""
        ballast = self.place / "ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(self.place).free)
        with ballast.open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"\0" * 512)
        return ballast

    def cut_power(self) -> None:
        """At once nothing is written any more, and what was not flushed is gone."""
        descriptor = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", NO_FLUSH))
        finally:
            os.close(descriptor)

    def turn_read_only(self) -> None:
        """As a disk that reported an error; the kernel then lets nobody write until it was checked."""
        found = subprocess.run(["losetup", "-j", str(self._image), "-O", "NAME", "-n"], capture_output=True, check=True)
        trigger = Path("/sys/fs/ext4") / Path(found.stdout.decode().strip()).name / "trigger_fs_error"
        if not trigger.exists():
            raise NotMadeError("this kernel's ext4 has no trigger_fs_error")
        trigger.write_text("chaos")

    def begin_anew(self) -> None:
        """Unmount, check, mount. Nobody may have it open."""
        left = 200
        while subprocess.run(["umount", str(self.place)], check=False, capture_output=True).returncode:
            left -= 1
            assert left, f"the disk stays busy: {self._holders()}"
            wait(0.05)
        subprocess.run(["fsck.ext4", "-p", str(self._image)], check=False, capture_output=True)
        subprocess.run(self._mounting(), check=True)

    def _holders(self) -> list[str]:
        """Who has what open on it."""
        found = []
        for link in Path("/proc").glob("[0-9]*/fd/*"):
            with suppress(OSError):
                if link.readlink().is_relative_to(self.place):
                    found.append(f"{link.parts[2]} {link.readlink().name}")
        return found

    def close(self) -> None:
        """Unmount it, whoever has it open."""
        subprocess.run(["umount", "-l", str(self.place)], check=False, capture_output=True)


class Names:
    """The hosts file of this mount namespace, and no other way to know a name."""

    def __init__(self, folder: Path) -> None:
        """Raises `NotMadeError` where there can be none."""
        if os.geteuid() != 0:
            raise NotMadeError("names of its own need root")
        self._hosts = folder / "hosts"
        self.know()
        resolver = folder / "resolv.conf"
        resolver.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        for own, known in ((self._hosts, "/etc/hosts"), (resolver, "/etc/resolv.conf")):
            done = subprocess.run(["mount", "--bind", str(own), known], check=False, capture_output=True, text=True)
            if done.returncode:
                raise NotMadeError(f"no names of its own can be had: {done.stderr.strip()}")

    def know(self) -> None:
        """The server's name is known."""
        self._hosts.write_text(f"127.0.0.1 localhost\n127.0.0.1 {NAME}\n")

    def forget(self) -> None:
        """It is not."""
        self._hosts.write_text("127.0.0.1 localhost\n")


class Watched(Supervisor):
    """Starts again what dies, as a service manager does: it never gives up, and not without `power`."""

    def __init__(self) -> None:
        super().__init__(CLOCK)
        self.power = threading.Event()
        self.power.set()
        self.over = False

    def watch(self) -> None:
        """Until the end."""
        while not self.over:
            with suppress(JouleboxError):
                super().watch()
                return
            wait(1.0)
            for child in self._children:
                if child.process is not None and child.process.poll() is not None and not self.over:
                    child.failed_starts = 0
                    self._spawn(child)

    def _spawn(self, child: Child) -> None:
        while not self.power.wait(0.2):
            if self.over:
                return
        super()._spawn(child)

    def stop(self) -> None:
        """End all children."""
        self.over = True
        super().stop()


class Stage(Service):
    """The service on `disk`; where that is `None`, in the plain folder."""

    line: Line

    def __init__(
        self,
        folder: Path,
        model: Path,
        settings: Mapping[str, str],
        postgres: PostgresServer | None,
        disk: Disk | None,
        names: Names | None,
    ) -> None:
        self.place, self.disk, self.names = folder, disk, names
        data = (disk.place if disk is not None else folder) / "data"
        data.mkdir()
        super().__init__(data, model, settings, postgres)

    def _supervisor(self) -> Supervisor:
        return Watched()

    @property
    def watched(self) -> Watched:
        """The service manager."""
        assert isinstance(self.supervisor, Watched)
        return self.supervisor

    def _start(self, number: int, common: dict[str, str]) -> str:
        own = common | {"JOULEBOX_DATA_DIR": str(self.folder)}
        path = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent / "stepped"), os.environ["PYTHONPATH"]])}
        clocks = {name: path | {"CHAOS_CLOCK": str(self.clock_of(name))} for name in ("server", "node")}
        url = self.supervisor.start("server", ["serve", "--port", "0"], own | clocks["server"])
        self.supervisor.keep_port("server", url)
        self.line = Line(int(url.rpartition(":")[2]))
        host = NAME if self.names is not None else "127.0.0.1"
        named = {"JOULEBOX_NODE": "stage", "JOULEBOX_SERVER": f"http://{host}:{self.line.port}"}
        self.supervisor.start("node", ["node"], named | own | clocks["node"])
        return url

    def clock_of(self, name: str) -> Path:
        """The file that says by how many seconds that process' calendar is off."""
        return self.place / f"{name}.clock"

    def signal(self, victim: str, number: signal.Signals) -> bool:
        """Send a signal; whether there was such a process."""
        pid = self.pid(victim)
        if pid is None:
            return False
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            return True
        return False

    def everything_dies(self) -> None:
        """SIGKILL to each process, and none begins again before `everything_begins`."""
        self.watched.power.clear()
        numbers = [self.pid(victim) for victim in ("node", "engine", "server")]
        for pid in filter(None, numbers):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.postgres is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.postgres.pid, signal.SIGKILL)
            self.postgres.kill()
        for pid in filter(None, numbers):
            while Path(f"/proc/{pid}").exists() and "Z" not in _state(pid):
                wait(0.02)

    def everything_begins(self) -> None:
        """After the power is back."""
        if self.postgres is not None:
            self.postgres.start()
        self.watched.power.set()

    def stop(self) -> None:
        """End everything."""
        self.watched.power.set()
        super().stop()
        self.line.stop()

    def _patiently(self, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        for _ in range(PATIENCE):
            try:
                return call()
            except JouleboxError as error:
                if error.code not in WAITED_OUT:
                    raise
                wait(0.25)
        raise AssertionError("the server did not come back")

    def patiently(self, call: Callable[[], Any]) -> Any:
        """The same for any call."""
        return self._patiently(lambda: {"found": call()})["found"]


def _state(pid: int) -> str:
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return "Z"


class Rig:
    """The simulated machine's meters, in a process of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "joulebox", "rig", "run", "--folder", str(folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.meters = self.process.stdout.readline().split('"')[1]
        self.powercap = Path(self.meters.split()[0].partition(":")[2])

    def stop(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait()
