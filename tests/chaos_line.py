"""The line between a node and its server, with a hand on it: it can be slow, swallow everything, or be cut.

`python chaos_line.py PORT` prints the port that it listens on, and takes a state a line on its stdin; it ends with it.
"""

import asyncio
import contextlib
import subprocess
import sys
from typing import Literal

State = Literal["good", "slow", "silent", "cut"]
STATES: dict[str, State] = {"good": "good", "slow": "slow", "silent": "silent", "cut": "cut"}
SLOW_S = 0.3
PIECE_BYTES = 16_384
CONNECTIONS_MAX = 64


class Line:
    """The process of a line, which ends with this one. `be` may be called at any moment: `slow` holds each piece of
    16 kB back for 0.3 s, `silent` takes pieces and hands none on (a cable that is out), `cut` ends every connection and
    refuses new ones."""

    def __init__(self, to_port: int) -> None:
        command = [sys.executable, __file__, str(to_port)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def be(self, state: State) -> None:
        """From now on."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{state}\n")
        self._process.stdin.flush()

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


class Relay:
    """Inside that process: every connection is handed on to another port, at most `CONNECTIONS_MAX` at once."""

    def __init__(self, to_port: int) -> None:
        self.to_port = to_port
        self.state: State = "good"
        self._open: set[asyncio.StreamWriter] = set()

    async def run(self) -> None:
        """Until stdin ends."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=PIECE_BYTES)
        print(server.sockets[0].getsockname()[1], flush=True)
        loop = asyncio.get_running_loop()
        while word := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
            self.state = STATES[word]
            if word == "cut":
                for writer in list(self._open):
                    writer.transport.abort()
        server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.state == "cut" or len(self._open) >= 2 * CONNECTIONS_MAX:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.to_port, limit=PIECE_BYTES)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, far_writer)
        self._open.update(pair)
        try:
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        finally:
            for one in pair:
                self._open.discard(one)
                one.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(PIECE_BYTES):
                while self.state == "silent":  # noqa: ASYNC110  # somebody else changes it, seldom
                    await asyncio.sleep(0.05)
                if self.state == "slow":
                    await asyncio.sleep(SLOW_S)
                writer.write(piece)
                await writer.drain()
            writer.write_eof()


if __name__ == "__main__":
    asyncio.run(Relay(int(sys.argv[1])).run())
