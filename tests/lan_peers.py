"""The other side of meters on a network: real servers as processes, and wires that spoil what goes through."""

import contextlib
import grp
import os
import pwd
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

BIN = Path(sys.executable).parent
LONG_S = 10.0
SHORT_S = 0.02


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """A port that nobody had a moment ago."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(*command: str | Path) -> Iterator["Server"]:
    """A server as a process of its own, ended afterwards. What it says goes to a file: a full pipe would stop it."""
    with tempfile.TemporaryFile("w+") as said:
        started = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=said)
        try:
            yield Server(started, said)
        finally:
            started.kill()
            started.wait()


@dataclass(frozen=True)
class Server:
    """A process that will serve."""

    started: "subprocess.Popen[bytes]"
    said: IO[str]

    def until(self, answers: Callable[[], bool]) -> None:
        """Wait until it answers. Raises `RuntimeError` with what it said."""
        waiting = threading.Event()
        for _ in range(round(LONG_S / SHORT_S)):
            if answers():
                return
            if self.started.poll() is not None:
                break
            waiting.wait(SHORT_S)
        self.said.seek(0)
        raise RuntimeError(f"{self.started.args!r} does not answer: {self.said.read()}")


def listens(port: int) -> bool:
    """Whether something accepts connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def snmpsim(folder: Path) -> Iterator[int]:
    """The SNMP simulator on the .snmprec files in `folder`; gives its port."""
    port = free_port(socket.SOCK_DGRAM)
    user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    command: list[str | Path] = [
        BIN / "snmpsim-command-responder",
        f"--process-user={user}",
        f"--process-group={group}",
        "--quiet",
    ]
    command += [f"--data-dir={folder}", f"--cache-dir={folder / 'cache'}", f"--agent-udpv4-endpoint=127.0.0.1:{port}"]
    with process(*command) as server:
        server.until(lambda: f"0100007F:{port:04X}" in Path("/proc/net/udp").read_text())
        yield port


@contextmanager
def sushy_static(folder: Path, *options: str | Path) -> Iterator[int]:
    """The Redfish server of sushy-tools on the resources in `folder`; gives its port."""
    port = free_port()
    with process(BIN / "sushy-static", "-i", "127.0.0.1", "-p", str(port), "-m", folder, *options) as server:
        server.until(lambda: listens(port))
        yield port


@contextmanager
def bmc(file: Path) -> Iterator[int]:
    """A BMC that says by IPMI what stands in `file`; gives its port."""
    port = free_port(socket.SOCK_DGRAM)
    with process(sys.executable, Path(__file__).with_name("lan_bmc.py"), str(port), file) as server:
        server.until(lambda: f":{port:04X} " in Path("/proc/net/udp").read_text() + _udp6())
        yield port


def _udp6() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/net/udp6").read_text()
    return ""


class TcpPeer:
    """A server whose answer to what it hears the test sets: pieces with a pause between, then (`None`) the end."""

    def __init__(self, answer: Callable[[bytes], Iterable[bytes | None]]) -> None:
        self.answer = answer
        self.connections = 0
        self._stop = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        self._listener.settimeout(SHORT_S)
        while not self._stop.is_set():
            try:
                connection, _ = self._listener.accept()
            except (TimeoutError, OSError):
                continue
            self.connections += 1
            self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(SHORT_S)
        with connection, contextlib.suppress(OSError):
            while not self._stop.is_set():
                try:
                    heard = connection.recv(65_536)
                except TimeoutError:
                    continue
                if not heard:
                    return
                for count, piece in enumerate(self.answer(heard)):
                    if piece is None or (count > 1 and self._stop.wait(SHORT_S / 2)):
                        return
                    connection.sendall(piece)

    def close(self) -> None:
        """End it and its connections."""
        self._stop.set()
        for thread in self._threads:
            thread.join(LONG_S)
        self._listener.close()


class UdpWire:
    """Datagrams to a port and back; `spoil` changes each answer, or swallows it with `None`."""

    def __init__(self, port: int) -> None:
        self.spoil: Callable[[bytes], bytes | None] = lambda answer: answer
        self._stop = threading.Event()
        self._near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._near.bind(("127.0.0.1", 0))
        self._far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._far.connect(("127.0.0.1", port))
        self.port: int = self._near.getsockname()[1]
        self._asker: Any = None
        self._threads = [threading.Thread(target=turn, daemon=True) for turn in (self._there, self._back)]
        for thread in self._threads:
            thread.start()

    def _there(self) -> None:
        self._near.settimeout(SHORT_S)
        while not self._stop.is_set():
            with contextlib.suppress(OSError):
                question, self._asker = self._near.recvfrom(65_536)
                self._far.send(question)

    def _back(self) -> None:
        self._far.settimeout(SHORT_S)
        while not self._stop.is_set():
            with contextlib.suppress(OSError):
                heard = self._far.recv(65_536)
                answer = self.spoil(heard)
                if answer is not None:
                    self._near.sendto(answer, self._asker)

    def close(self) -> None:
        """End it."""
        self._stop.set()
        for thread in self._threads:
            thread.join(LONG_S)
        self._near.close()
        self._far.close()
