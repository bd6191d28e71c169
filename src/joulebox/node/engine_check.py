"""The doctor's look at the engine: does it answer, which version is it, what has it, and does its cache disturb."""

from typing import Final

from joulebox.clock import Clock, SystemClock
from joulebox.errors import JouleboxError
from joulebox.node.doctor import Check, State
from joulebox.node.driven import IN_PROCESS, Driven, open_engine
from joulebox.settings import Settings

NAME: Final = "engine"
WHY: Final = "It makes the answers: what it takes from a cache, or does for others, falsifies the figures."
MODELS_TOLD: Final = 4


def check_engine(settings: Settings, clock: Clock | None = None) -> Check:
    """What the engine that is set says of itself. Never raises for what it finds."""
    try:
        driven = open_engine(settings, clock or SystemClock())
        found = _found(driven)
    except JouleboxError as error:
        state: State = "warn" if settings.engine is None else "bad"  # meters are read without an engine too
        return Check(NAME, state, settings.engine or "llama.cpp", WHY, error.detail)
    if driven.advice is not None:
        return Check(NAME, "warn", found, WHY, driven.advice)
    return Check(NAME, "ok", found, WHY, "")


def _found(driven: Driven) -> str:
    """`ollama 0.13.1 at http://127.0.0.1:11434, with gemma2:2b, llama3:8b and 3 more models`."""
    where = (
        "in a process of the node's own" if driven.address.removesuffix(":") in IN_PROCESS else f"at {driven.address}"
    )
    names = [model.file.id for model in driven.models()]
    more = len(names) - MODELS_TOLD
    last = f" and {more} more" if more > 0 else ""
    told = f"with {', '.join(names[:MODELS_TOLD])}{last}" if names else "with no model yet"
    return f"{driven.engine.info.name} {driven.engine.info.version} {where}, {told}"
