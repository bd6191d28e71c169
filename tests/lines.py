"""A wire with a person's hands on it: a line to a server of this host that passes on what is said, or spoils it."""

import random
import select
import socket
import threading
from contextlib import suppress
from typing import Literal

LineMode = Literal["", "silent", "closed", "half", "garbage", "error", "huge"]
_ERROR = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\nConnection: close\r\n\r\noops"
_HUGE = b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"x": "' + b"x" * 3_000_000


class Line:
    """A TCP line to `upstream` on this host that passes on what is said, or spoils it. Unplugged, nobody listens."""

    def __init__(self, upstream: int) -> None:
        self.mode: LineMode = ""
        self._upstream = upstream
        self._chance = random.Random(upstream)
        self._listener: socket.socket | None = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._serve()

    def _serve(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), name="line", daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._carry, args=(near,), name="line", daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(("127.0.0.1", self._upstream))
        except OSError:
            near.close()
            return
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open |= {near, far}
        with suppress(OSError), near, far:
            while True:
                ready, _, _ = select.select([near, far], [], [])
                for one in ready:
                    data = one.recv(65_536)
                    if not data or not self._pass_on(near, far, one, data):
                        return
        self._open -= {near, far}

    def _pass_on(self, near: socket.socket, far: socket.socket, heard: socket.socket, data: bytes) -> bool:
        """Whether the connection goes on."""
        if heard is near:
            if self.mode == "closed":
                return False
            if self.mode in ("error", "huge"):
                near.sendall(_ERROR if self.mode == "error" else _HUGE)
                return False
            if self.mode != "silent":
                far.sendall(data)
            return True
        if self.mode == "silent":
            return True
        if self.mode == "half":
            near.sendall(data[: len(data) // 2])
            return False
        near.sendall(self._chance.randbytes(len(data)) if self.mode == "garbage" else data)
        return True

    def unplug(self) -> None:
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for one in tuple(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def plug(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            self._serve()
