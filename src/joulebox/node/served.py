"""An engine that runs as a server of its own, on this machine: what all of these have in common.

A driver below `node.engines` says what its engine's pages are called and what is written there; the order of things,
what may go wrong and how it is told stand here once. The models are the engine's, by the names that it gives them.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final

import httpx2

from joulebox.clock import Clock
from joulebox.errors import JouleboxError
from joulebox.model import EngineInfo, ModelFile, Prompt
from joulebox.node.engine import Event, LocalModel, Started
from joulebox.node.engine_http import EngineHttp, Line, Refusal, Tally, Unreadable, events, said
from joulebox.node.models import check_memory
from joulebox.node.parts import machine_parts
from joulebox.node.tool_calls import calls_of
from joulebox.units import nanoseconds

LOG: Final = logging.getLogger("joulebox.node")
LOAD_WAIT_S: Final = 600.0
"""A model that takes longer to load is given up."""
UNLOAD_WAIT_S: Final = 30.0
LOOK_S: Final = 0.05
UNKNOWN: Final = "unknown"
"""What stands where an engine does not tell a digest, a quantization or its version."""
_GARBAGE: Final = (Unreadable, ValueError, KeyError, IndexError, TypeError, AttributeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a driver is opened with: the engine's address, what followed it, its key, and the node's own settings."""

    url: str
    options: Mapping[str, str]
    key: str | None
    clock: Clock
    silence_s: float
    context_tokens: int
    threads: int | None


class ServedEngine(ABC):
    """Drives one engine over HTTP. Not for two threads at once, but `cancel` and `loaded` may be used from any."""

    name: ClassVar[str]
    """As receipts and sentences call it."""
    processes: ClassVar[Sequence[str]] = ()
    """What its processes are called where it cannot be seen who listens."""
    takes_tools: ClassVar[bool] = False
    """Whether `request` puts the functions of a prompt to it, and `read` its calls into `tally` (`tool_calls`)."""
    apart: ClassVar[bool] = True
    """Whether its models are in memory each by itself, so that one can go and another stay."""

    def __init__(self, setup: Setup) -> None:
        """Nothing is asked yet."""
        self.info = EngineInfo(name=self.name, version=UNKNOWN)
        self.http = EngineHttp(self.name, setup.url, setup.key, setup.silence_s)
        self.setup = setup
        self._clock = setup.clock
        self._model: LocalModel | None = None
        self._line: Line | None = None
        self._away = False
        self._has_gpu = bool(machine_parts().gpus)

    # --- what a driver says -------------------------------------------------------------------------------------------

    @abstractmethod
    def version(self) -> str:
        """The engine's own version, `UNKNOWN` where it does not tell."""

    @abstractmethod
    def listed(self) -> list[LocalModel]:
        """The models it offers."""

    @abstractmethod
    def held(self) -> Collection[str]:
        """The names of those that are in memory, ready to answer as this node asks."""

    @abstractmethod
    def bring(self, name: str) -> None:
        """Have it put a model in memory, and wait for that. Nothing where it is there already."""

    @abstractmethod
    def drop(self, name: str) -> None:
        """Have it free the memory; nothing where it cannot."""

    @property
    def unloads(self) -> bool:
        """Whether it can free the memory of a model and go on running."""
        return False

    @property
    def resident(self) -> bool:
        """Whether it has its model from its own start on, so that there is nothing to load."""
        return False

    @abstractmethod
    def request(self, prompt: Prompt, model: LocalModel) -> tuple[str, dict[str, Any]]:
        """Where a prompt is sent, and how it is put."""

    @abstractmethod
    def read(self, piece: Mapping[str, Any], tally: Tally) -> str:
        """The text of a piece of the answer; what else it tells goes into `tally`. Raises `Refusal`."""

    def pieces(self, response: httpx2.Response) -> Iterator[tuple[int, dict[str, Any]]]:
        """The pieces of an answer with their times: server-sent events."""
        return events(response, self._clock)

    def refusal(self, refusal: Refusal, model: LocalModel | None) -> JouleboxError:
        """What an error of the engine means."""
        return self.http.refused(refusal, model)

    def working(self) -> bool:
        """Whether an answer is under way, where the engine tells."""
        return False

    def advice(self) -> str | None:
        """What a person should change about the engine so that answers compare, as a sentence."""
        return None

    # --- what all do --------------------------------------------------------------------------------------------------

    def models(self) -> list[LocalModel]:
        """The models the engine offers now. Raises `JouleboxError`."""
        found: list[LocalModel] = []
        with self._told():
            found = sorted(self.listed(), key=lambda model: model.file.id)
        return [_on_a_card(model) for model in found] if self._has_gpu else found

    def offered(self) -> list[LocalModel]:
        """The same before every lease: none while the engine does not answer, which the log tells once."""
        try:
            found = self.models()
        except JouleboxError as error:
            if not self._away:
                LOG.warning("no model is offered: %s", error.detail)
            self._away = True
            return []
        self._away = False
        return found

    def model(self, name: str) -> LocalModel:
        """The model with the id `name`. Raises `JouleboxError("unknown_model")`."""
        known = {model.file.id: model for model in self.models()}
        if name not in known:
            listed = ", ".join(known) or "none yet"
            raise JouleboxError("unknown_model", f"There is no model {name} here. Known: {listed}.", known=[*known])
        return known[name]

    def begin(self) -> list[LocalModel]:
        """Ask the engine who it is and what it has. Raises `JouleboxError("engine_missing")` where nothing answers."""
        try:
            with self._told():
                self.info = EngineInfo(name=self.name, version=self.version())
            found = self.models()
            with self._told():
                held = self.held() if self.resident else ()
            self._model = next((model for model in found if str(model.path) in held), None)
            return found
        except JouleboxError as error:
            if error.code != "engine_died":
                raise
            raise JouleboxError("engine_missing", f"The engine of this node is not there. {error.detail}") from error

    @property
    def loaded(self) -> LocalModel | None:
        """The engine is asked each time: others may use it, and it may unload by itself."""
        model = self._model
        if model is None:
            return None
        with suppress(JouleboxError), self._told():
            return model if str(model.path) in self.held() else None
        return None

    def load(self, model: LocalModel) -> None:
        """What else is in memory is unloaded first, whoever loaded it."""
        self.unload()
        name = str(model.path)
        self._check(model, {str(one.path) for one in self.models()})
        with self._told(model):
            self.info = EngineInfo(name=self.name, version=self.version())
            if self.apart:
                for other in sorted(set(self.held()) - {name}):
                    self.drop(other)
            self.bring(name)
            if name not in self.held():
                sentence = f"{self.name} was asked to load {model.file.id}, and does not hold it: look into its log."
                raise JouleboxError("engine_died", sentence)
        self._model = model

    def unload(self) -> None:
        """Frees the memory where the engine can do that; else the model only counts as not in use."""
        model, self._model = self._model, None
        if model is not None:
            with suppress(JouleboxError), self._told(model):
                self.drop(str(model.path))

    def generate(self, prompt: Prompt) -> Iterator[Event]:
        """`Started`, `Token`..., `Finished`. Closing the iterator cancels the answer."""
        model = self._model
        if model is None:
            raise JouleboxError("engine_died", "No model is loaded: load one before asking.")
        line, tally = Line(), Tally(calls=calls_of(prompt))
        self._line = line
        try:
            yield Started(t_ns=self._clock.now_ns())
            with self._told(model, line):
                yield from self._stream(prompt, model, line, tally)
        except GeneratorExit:
            if not line.complete:
                self._calm()
            raise
        finally:
            self._line = None
        if line.cancelled and not line.complete:
            self._calm()
            yield from tally.ending(self._clock.now_ns(), "cancelled")

    def cancel(self) -> None:
        """End the answer under way from another thread."""
        line = self._line
        if line is not None:
            line.cancel()

    def close(self) -> None:
        """Speak to the engine no more."""
        self.http.close()

    def _stream(self, prompt: Prompt, model: LocalModel, line: Line, tally: Tally) -> Iterator[Event]:
        """Tokens as they arrive, then `Finished`; nothing more once the answer is cancelled."""
        path, body = self.request(prompt, model)
        finish_ns = 0
        with self.http.stream(path, body, line) as response:
            for t_ns, piece in self.pieces(response):
                if line.cancelled:
                    return
                yield from tally.piece(t_ns, self.read(piece, tally))
                if tally.finish_reason and not finish_ns:
                    finish_ns = t_ns
        if line.cancelled:
            return
        if not finish_ns:
            raise self.http.cut_short()
        line.complete = True
        yield from tally.ending(finish_ns, tally.finish_reason)

    def _check(self, model: LocalModel, names: Collection[str]) -> None:
        """Refuse before anything is begun what the engine does not have, or this machine cannot hold."""
        if str(model.path) not in names:
            there = f"It has {', '.join(sorted(names))}." if names else "It has none."
            raise JouleboxError("unknown_model", f"{self.name} has no model {model.path} any more. {there}")
        check_memory(model.file)

    def _calm(self) -> None:
        """After a cancelled answer, until the engine has stopped, as far as it tells."""
        with suppress(JouleboxError), self._told():
            self.wait_until(lambda: not self.working(), UNLOAD_WAIT_S)

    def wait_until(self, true: Callable[[], bool], wait_s: float) -> bool:
        """Ask again and again until something is so; whether it was, within `wait_s`."""
        deadline_ns = self._clock.now_ns() + nanoseconds(wait_s)
        while not (there := true()) and self._clock.now_ns() < deadline_ns:
            self._clock.sleep_until(self._clock.now_ns() + nanoseconds(LOOK_S))
        return there

    @contextmanager
    def _told(self, model: LocalModel | None = None, line: Line | None = None) -> Iterator[None]:
        """Whatever goes wrong within becomes a `JouleboxError`, but what a cancelled `line` breaks."""
        try:
            yield
        except Refusal as error:
            raise self.refusal(error, model) from error
        except httpx2.HTTPError as error:
            if line is None or not line.cancelled:
                raise self.http.broken(error) from error
        except _GARBAGE as error:
            if line is None or not line.cancelled:
                raise self.http.unreadable(str(error) or type(error).__name__) from error


def model_of(
    name: str,
    *,
    context_tokens: int,
    model_id: str | None = None,
    digest: str | None = None,
    quantization: str | None = None,
    size_bytes: int | None = None,
    memory_bytes: int | None = None,
) -> LocalModel:
    """A model as an engine tells of it, under the name by which the engine knows it; `None`: it does not tell."""
    file = ModelFile(
        id=model_id or name,
        digest=digest or UNKNOWN,
        quantization=quantization or UNKNOWN,
        size_bytes=size_bytes,
        memory_bytes=memory_bytes,
        context_tokens=context_tokens,
    )
    return LocalModel(file=file, path=Path(name))


def _on_a_card(model: LocalModel) -> LocalModel:
    """A graphics card has memory of its own: what a model takes of the machine's is unknown, and the engine decides."""
    return replace(model, file=replace(model.file, memory_bytes=None))


def refuse_error(piece: Mapping[str, Any]) -> None:
    """Raises `Refusal` where a piece of the answer is an error."""
    if piece.get("error"):
        raise Refusal(0, said(piece))


def whole(value: object) -> int | None:
    """A whole number as JSON tells it, or `None`."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def seconds_of(value: object, unit_s: float) -> float | None:
    """A time in seconds that JSON tells in `unit_s`, or `None`."""
    return value * unit_s if isinstance(value, int | float) and not isinstance(value, bool) else None
