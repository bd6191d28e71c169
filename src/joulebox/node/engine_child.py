"""A process of the node's own that holds one model: started, spoken to by lines of JSON, and told of when it ends.

A crash of the model never takes the node down. The process gets its task as the first line of stdin and answers with
one line: what it has loaded, or `{"code": ..., "detail": ...}`. Its stdin ends with its parent, and then it leaves.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import IO, Any, Final, Generic, TypeVar

from joulebox.errors import JouleboxError
from joulebox.node.engine import LocalModel

LOAD_WAIT_S: Final = 600.0
"""A model that takes longer to load is given up."""
END_WAIT_S: Final = 5.0
SILENCE_S: Final = 1_800.0
"""An engine that says nothing for so long, a long prefill included, is given up."""
CALM_S: Final = 3.0
"""An engine that is still at work so long after its answer was cancelled is ended, and loaded again when needed."""
# OpenMP threads spin between two steps, which makes decoding three times faster than sleeping. The default count keeps
# them spinning for milliseconds after the answer; this one is as fast and stops at once.
ENVIRONMENT: Final = {"GOMP_SPINCOUNT": "10000"}
_LOG_LINES: Final = 20
_LOG_LINE_BYTES: Final = 500
_PIECE_BYTES: Final = 1 << 16


class EngineChild:
    """The process of one model. `ENVIRONMENT` gives way to what is set already."""

    def __init__(self, model: LocalModel, command: Sequence[str]) -> None:
        self.model = model
        # A session of its own: Ctrl-C in the terminal is for the node, which then ends its engine.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT | os.environ,
            start_new_session=True,
        )
        stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        assert stdin is not None
        assert stdout is not None
        assert stderr is not None
        self._stdin, self._stdout, self._log = stdin, stdout, _Log(stderr)
        self._writing = threading.Lock()
        self._left = b""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def begun(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """What it says when it has loaded its model, as `task` tells. Raises `JouleboxError` where it has not."""
        self.send(task)
        try:
            reply = self.line(LOAD_WAIT_S)
        except TimeoutError as error:
            name = self.model.file.id
            sentence = f"{name} was not loaded within {LOAD_WAIT_S:.0f} s: use a smaller model or a faster disk."
            raise JouleboxError("engine_died", sentence) from error
        if reply is None:
            raise self._death_in_load()
        if "code" in reply:
            raise JouleboxError(reply.pop("code"), reply.pop("detail"), **reply)
        return reply

    def send(self, message: Mapping[str, Any]) -> None:
        """One line to its stdin; where it has died nothing happens, which is told to whoever reads."""
        with self._writing, contextlib.suppress(OSError):
            self._stdin.write(json.dumps(message).encode() + b"\n")
            self._stdin.flush()

    def line(self, wait_s: float) -> dict[str, Any] | None:
        """What it says next, `None` where it has ended. Raises `TimeoutError`, `ValueError` where that is no JSON."""
        line = self._line(wait_s)
        if line is None:
            return None
        value: dict[str, Any] = json.loads(line)
        return value

    def _line(self, wait_s: float) -> bytes | None:
        # Past the buffer of the pipe's object: what lies there would not be seen by the selector.
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdout, selectors.EVENT_READ)
            while b"\n" not in self._left:
                if not selector.select(wait_s):
                    raise TimeoutError
                piece = os.read(self._stdout.fileno(), _PIECE_BYTES)
                if not piece:
                    return None
                self._left += piece
        line, _, self._left = self._left.partition(b"\n")
        return line

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """End the process and give back its pipes; never raises."""
        process = self._process
        process.terminate()
        try:
            process.wait(END_WAIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
        for pipe in (self._stdin, self._stdout):
            with contextlib.suppress(OSError):
                pipe.close()

    def death(self, error: Exception | None) -> JouleboxError:
        """Why its answer ended too soon; afterwards the process is certainly gone."""
        name = self.model.file.id
        how = self._how()
        if how is None:
            said = f" ({type(error).__name__}: {error})" if error is not None else ""
            detail = f"The engine process of {name} broke off its answer{said} and was ended. Ask again."
        else:
            detail = f"The engine process of {name} {how} before the answer was complete{self._log.last()}. Ask again."
        self.kill()
        return JouleboxError("engine_died", detail, exit_code=self._process.returncode)

    def _death_in_load(self) -> JouleboxError:
        """A crash of the loader is the file's fault, unless it was killed from outside."""
        how = self._how() or "fell silent"
        code = self._process.returncode
        if code in (-signal.SIGKILL, -signal.SIGTERM):
            name = self.model.file.id
            sentence = f"The engine process {how} while it loaded {name}: is there enough memory? Try a smaller model."
            return JouleboxError("engine_died", sentence, exit_code=code)
        sentence = f"The engine process {how} while it read {self.model.path}{self._log.last()}. Fetch the file again."
        return JouleboxError("broken_model", sentence, exit_code=code)

    def _how(self) -> str | None:
        """How the process ended, as a verb; `None` while it lives."""
        try:
            code = self._process.wait(END_WAIT_S)
        except subprocess.TimeoutExpired:
            return None
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"


_Child = TypeVar("_Child", bound=EngineChild)


class ChildEngine(Generic[_Child]):
    """What engines share whose model is in such a process."""

    _child: _Child | None = None

    @property
    def loaded(self) -> LocalModel | None:
        child = self._child
        return child.model if child is not None and child.alive else None

    @property
    def pid(self) -> int | None:
        """The engine process, `None` where none runs."""
        child = self._child
        return child.pid if child is not None and child.alive else None

    def unload(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end()

    def _asked(self) -> _Child:
        """The process that is to answer. Raises `JouleboxError("engine_died")` where there is none any more."""
        child = self._child
        if child is None:
            raise JouleboxError("engine_died", "No model is loaded: load one before asking.")
        if not child.alive:
            raise child.death(None)
        return child


class _Log:
    """The last lines the process wrote on stderr, for the sentence when it fails. Its thread sleeps in `readline`."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._lines: deque[bytes] = deque(maxlen=_LOG_LINES)
        self._thread = threading.Thread(target=self._read, name="engine-log", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._pipe as pipe:
            while line := pipe.readline(_LOG_LINE_BYTES):
                self._lines.append(line)

    def last(self) -> str:
        """The last line, as the end of a sentence about a process that has ended; empty where it said nothing."""
        self._thread.join(END_WAIT_S)
        lines = [text for line in self._lines if (text := line.decode(errors="replace").strip())]
        return f" (it said: {lines[-1]})" if lines else ""
