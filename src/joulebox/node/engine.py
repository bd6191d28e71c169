"""The contract of an inference engine: load, generate timed tokens, unload. One model at a time, prompt cache off."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from joulebox.model import EngineInfo, ModelFile, Prompt, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModel:
    """A model that an engine can load. `path` is where its file lies or, of an engine that keeps its models itself, the
    name it goes by there. `default_system` is put before a conversation that has no system message: very small models
    answer with nonsense without one."""

    file: ModelFile
    path: Path
    default_system: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The engine has taken the request (`t_s` of the design is the moment before it was handed over)."""

    t_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A piece of the answer, stamped on arrival. `n` is how many tokens it holds, as far as the engine tells."""

    t_ns: int
    text: str
    n: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The end of the answer. The times are the engine's own, `None` where it tells none: reading the prompt, writing
    the answer, loading the model within this answer, waiting in the engine's own line."""

    t_ns: int
    usage: Usage
    finish_reason: str
    prefill_s: float | None = None
    decode_s: float | None = None
    load_s: float | None = None
    queue_s: float | None = None
    calls: tuple[tuple[str, str], ...] = ()
    """What the model called: names of functions, and their arguments as JSON."""


Event = Started | Token | Finished


class Engine(Protocol):
    """What a node can drive. `takes_tools`: prompts with functions that a model may call, too. Every failure is a
    `JouleboxError`: `engine_missing`, `broken_model`, `unknown_model`, `engine_died`, `prompt_too_long`,
    `model_too_big`, `bad_request`. After a cancelled answer `loaded` may be `None`: an engine that would not stop was
    ended."""

    info: EngineInfo

    @property
    def takes_tools(self) -> bool:
        """Whether it does."""

    @property
    def loaded(self) -> LocalModel | None:
        """The model in memory now, `None` if none or if the engine died."""

    def load(self, model: LocalModel) -> None:
        """Put `model` in memory, ready to answer; whatever was there before is unloaded first."""

    def unload(self) -> None:
        """Free the memory; nothing happens where nothing is loaded. Never raises."""

    def generate(self, prompt: Prompt) -> Iterator[Event]:
        """`Started`, `Token`..., `Finished`. Closing the iterator cancels the answer."""

    def cancel(self) -> None:
        """End the answer under way from another thread; `generate` then finishes with `finish_reason` `cancelled`."""
