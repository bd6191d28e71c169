"""`transformers:`: Hugging Face transformers in a process of the node's own, one for each model.

Takes the models of this node's list: folders of safetensors as they are, GGUF files turned back into plain numbers when
they are loaded. torch and transformers are the node's own (`joulebox[transformers]`) or those of another environment
(`python=`), where nothing of Joulebox is needed. The process keeps nothing of one prompt for the next.
"""

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from joulebox.clock import Clock
from joulebox.errors import JouleboxError
from joulebox.model import EngineInfo, Prompt, Usage
from joulebox.node.engine import Event, Finished, LocalModel, Started, Token
from joulebox.node.engine_child import CALM_S, SILENCE_S, ChildEngine, EngineChild
from joulebox.node.engines import transformers_process
from joulebox.node.engines.transformers_process import Task
from joulebox.node.models import check_memory
from joulebox.node.options import choice

NAME: Final = "transformers"
OPTIONS: Final[Mapping[str, str]] = {
    "python": "the Python of the environment that has torch and transformers, where it is not the node's own",
    "device": "`cpu` or `cuda`; without it the first graphics card that torch can use",
    "dtype": "`float32`, `bfloat16` or `float16` to reckon in; without it as the weights are stored",
}
DTYPES: Final = ("auto", "float32", "bfloat16", "float16")
DEVICES: Final = ("auto", "cpu", "cuda")
LOOK_S: Final = 60.0
"""Asking a Python for the versions of its packages takes less."""


class Transformers(ChildEngine[EngineChild]):
    """The engine of models in Hugging Face's form. Not for two threads at once, but `cancel` and `loaded` may be used
    from any. Raises `JouleboxError`: `bad_setting` for an option that makes no sense, `engine_missing`."""

    takes_tools = False

    def __init__(
        self, clock: Clock, threads: int | None, context_tokens: int, options: Mapping[str, str] | None = None
    ) -> None:
        options = options or {}
        self._python = options.get("python", sys.executable)
        self._device = choice(options, "device", "auto", DEVICES)
        self._dtype = choice(options, "dtype", "auto", DTYPES)
        self._clock = clock
        self._threads = threads
        self._context_tokens = context_tokens
        self._answer: _Answer | None = None
        found = _installed(self._python)
        self.info = EngineInfo(name=NAME, version=f"{found['transformers']}, torch {found['torch']}")

    def load(self, model: LocalModel) -> None:
        self.unload()
        check_memory(model.file)
        if not model.path.exists():
            sentence = (
                f"The files of {model.file.id} are not at {model.path} any more: put them back or remove the model."
            )
            raise JouleboxError("broken_model", sentence)
        task = Task(
            path=str(model.path),
            name=model.file.id,
            context_tokens=min(self._context_tokens, model.file.context_tokens),
            threads=self._threads,
            device=self._device,
            dtype=self._dtype,
            memory_bytes=model.file.memory_bytes,
        )
        # By its path: a Python of another environment knows nothing of Joulebox.
        child = EngineChild(model, [self._python, "-P", str(transformers_process.__file__)])
        try:
            about = child.begun(asdict(task))
        except BaseException:
            child.end()
            raise
        version = f"{about['transformers']}, torch {about['torch']}, {about['device']}, {about['dtype']}"
        self.info = EngineInfo(name=NAME, version=version)
        self._child = child

    def generate(self, prompt: Prompt) -> Iterator[Event]:
        child = self._asked()
        ask = _ask(prompt, child.model)
        answer = self._answer = _Answer(child)
        try:
            yield Started(t_ns=self._clock.now_ns())
            answer.begin(ask)
            while (event := self._next(answer)) is not None:
                yield event
        except GeneratorExit:
            answer.cancel()
            self._drain(answer)
            raise
        finally:
            self._answer = None
            answer.end()

    def cancel(self) -> None:
        answer = self._answer
        if answer is not None:
            answer.cancel()

    def _next(self, answer: "_Answer") -> Event | None:
        """What comes next, of a cancelled answer only its end; nothing after that. Raises `JouleboxError`."""
        while not answer.over:
            try:
                line = answer.child.line(SILENCE_S)
            except (TimeoutError, ValueError) as error:
                raise answer.child.death(error) from error
            t_ns = self._clock.now_ns()
            if line is None and not answer.cancelled:
                raise answer.child.death(None)
            if line is None or "text" not in line:
                answer.over = True
                return answer.finished(t_ns, line or {})
            if not answer.cancelled:
                answer.shown += line["n"]
                return Token(t_ns=t_ns, text=line["text"], n=line["n"])
        return None

    def _drain(self, answer: "_Answer") -> None:
        """Until the engine has stopped or was ended: before that nothing else may be measured."""
        with contextlib.suppress(JouleboxError):
            while self._next(answer) is not None:
                pass


class _Answer:
    """One answer of a process, which may be cancelled from another thread."""

    def __init__(self, child: EngineChild) -> None:
        self.child = child
        self.shown = 0
        self.over = False
        self.cancelled = False
        self._begun = False
        self._watch: threading.Timer | None = None
        self._lock = threading.Lock()

    def begin(self, ask: Mapping[str, Any]) -> None:
        """Hand the prompt over."""
        with self._lock:
            self.child.send(ask)
            self._begun = True
            if self.cancelled:
                self._stop()

    def cancel(self) -> None:
        """Have it end after the token in work; a process that reads its prompt for longer is ended."""
        with self._lock:
            if self._begun and not self.cancelled and not self.over:
                self._stop()
            self.cancelled = True

    def _stop(self) -> None:
        self.child.send({"cancel": True})
        self._watch = threading.Timer(CALM_S, self.child.kill)
        self._watch.daemon = True
        self._watch.start()

    def end(self) -> None:
        """It is over: the process stays."""
        with self._lock:
            self.over = True
            if self._watch is not None:
                self._watch.cancel()

    def finished(self, t_ns: int, line: dict[str, Any]) -> Finished:
        """The end, with what was counted; of an answer whose process had to be ended, what was shown of it. Raises
        `JouleboxError` where the process says why there is no answer."""
        if "code" in line:
            raise JouleboxError(line.pop("code"), line.pop("detail"), **line)
        usage = Usage(
            input_tokens=line.get("input_tokens"),
            cached_tokens=0,
            output_tokens=line.get("output_tokens", self.shown),
        )
        # Of a cancelled answer text was left out, also where its process came to an end of its own just then.
        reason = "cancelled" if self.cancelled else line.get("end", "cancelled")
        return Finished(t_ns=t_ns, usage=usage, finish_reason=reason)


def _ask(prompt: Prompt, model: LocalModel) -> dict[str, Any]:
    """The prompt as the process takes it. Raises `JouleboxError("bad_request")` for what transformers cannot do."""
    if prompt.json_schema is not None:
        sentence = "The engine transformers cannot hold a model to a JSON schema: leave it out, or use another engine."
        raise JouleboxError("bad_request", sentence)
    messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
    if model.default_system is not None and not any(message["role"] == "system" for message in messages):
        messages.insert(0, {"role": "system", "content": model.default_system})
    return {
        "messages": messages,
        "max_tokens": prompt.max_tokens,
        "temperature": prompt.temperature,
        "top_p": prompt.top_p,
        "seed": prompt.seed,
        "stop": list(prompt.stop),
    }


def _installed(python: str) -> dict[str, str]:
    """Which versions that Python has. Raises `JouleboxError("engine_missing")`."""
    command = [python, "-P", str(transformers_process.__file__), "--about"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=LOOK_S, check=True)
        found: dict[str, str] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        sentence = f"{python} cannot be run as the Python of the engine transformers ({type(error).__name__})"
        raise JouleboxError("engine_missing", f"{sentence}: give the one of an environment with torch.") from error
    missing = [name for name in transformers_process.PACKAGES if name not in found]
    if missing:
        sentence = f"The engine transformers needs {', '.join(missing)}, which {python} does not have: "
        raise JouleboxError("engine_missing", f"{sentence}run pip install 'joulebox[transformers]'.")
    return found
