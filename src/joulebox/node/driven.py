"""The engine that a node drives: `open_engine` opens the one it is set to, `KIND:ADDRESS[,key=value...]`.

`llamacpp:` (the same as no setting) and `transformers:` run models in a process of the node's own; the others are
servers on this machine.
An engine on another machine is refused: the meters of this node would not see what it draws.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, Final
from urllib.parse import urlsplit

from joulebox.clock import Clock
from joulebox.errors import JouleboxError
from joulebox.node.engine import Engine, LocalModel
from joulebox.node.engine_process import engine_processes, is_here
from joulebox.node.model_folder import memory_need_bytes
from joulebox.node.models import Registry
from joulebox.node.options import number
from joulebox.node.served import ServedEngine, Setup
from joulebox.settings import Settings
from joulebox.units import S_PER_HOUR

OWN: Final = "llamacpp"
TRANSFORMERS: Final = "transformers"
IN_PROCESS: Final = (OWN, TRANSFORMERS)
"""Engines that run in processes of the node's own, with the models of its list."""
KINDS: Final = {
    "llama-server": "joulebox.node.engines.llama_server",
    "ollama": "joulebox.node.engines.ollama",
    "openai": "joulebox.node.engines.openai",
}
"""Engines that run as servers of their own."""
EVERY_OPTIONS: Final[Mapping[str, str]] = {
    "silence": "seconds of silence, a long prefill included, after which an answer is given up (1800)",
    "process": "what the engine's program is called (15 letters), where it runs for another user or in a container",
}
"""What may follow the address of any of them."""
SILENCE_S: Final = 1_800.0
SILENCE_MAX_S: Final = 24 * S_PER_HOUR
_PORTS: Final = {"http": 80, "https": 443}


def _none() -> Collection[int]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Driven:
    """An engine ready to be driven, its models now (`model` finds one by name or raises `unknown_model`), and which
    processes are its own. `address`: where it is; `advice`: what a person should change so that answers compare."""

    engine: Engine
    models: Callable[[], list[LocalModel]]
    model: Callable[[str], LocalModel]
    address: str
    processes: Callable[[], Collection[int]] = _none
    advice: str | None = None


def open_engine(settings: Settings, clock: Clock) -> Driven:
    """The engine that is set, asked who it is.

    Raises `JouleboxError`: `bad_setting` (no such kind or option, another machine), `engine_missing`.
    """
    kind, address, options = parse(settings.engine or f"{OWN}:")
    if kind == OWN:
        if address or options:
            raise _refused(settings.engine, f"{OWN}: stands alone")
        return _own(settings, clock)
    if kind == TRANSFORMERS:
        return _transformers(settings, clock, address, options)
    module = import_module(KINDS[kind])
    takes = {**module.OPTIONS, **EVERY_OPTIONS}
    if unknown := [name for name in options if name not in takes]:
        raise _refused(settings.engine, f"{kind} takes {', '.join(takes)}; leave out {', '.join(unknown)}")
    setup = Setup(
        url=_checked(kind, address or module.WHERE),
        options=options,
        key=settings.engine_key.get_secret_value() if settings.engine_key else None,
        clock=clock,
        silence_s=number(options, "silence", SILENCE_S, most=SILENCE_MAX_S),
        context_tokens=settings.context_tokens,
        threads=settings.threads,
    )
    return _served(module, setup, settings)


def parse(text: str) -> tuple[str, str, dict[str, str]]:
    """`KIND:ADDRESS[,key=value...]` as kind, address and options. Raises `JouleboxError("bad_setting")`."""
    kind, colon, rest = text.partition(":")
    if not colon or kind not in (*IN_PROCESS, *KINDS):
        raise _refused(text, f"write KIND:ADDRESS, with a kind of {', '.join((*IN_PROCESS, *KINDS))}")
    address, *pairs = rest.split(",")
    options: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals) or name in options:
            raise _refused(text, f"option {name!r} is {'given twice' if name in options else 'not key=value'}")
        options[name] = value
    return kind, address, options


def models_of(settings: Settings, *, folders: bool = False) -> Registry:
    """The models of this machine that the node's engine runs, each with the memory it takes there; with `folders` as if
    that were transformers, whatever is set. Raises `JouleboxError("bad_setting")`."""
    kind, _, options = parse(settings.engine or f"{OWN}:")
    if kind != TRANSFORMERS and not folders:
        return Registry(settings.models_folder, settings.context_tokens)
    need = partial(memory_need_bytes, dtype=options.get("dtype", "auto"))
    return Registry(settings.models_folder, settings.context_tokens, need=need, forms=("gguf", "safetensors"))


def _own(settings: Settings, clock: Clock) -> Driven:
    from joulebox.node.engines.llamacpp import LlamaCpp

    registry = models_of(settings)
    engine = LlamaCpp(clock, settings.threads, settings.context_tokens)
    return Driven(engine=engine, models=registry.list, model=registry.get, address=f"{OWN}:")


def _transformers(settings: Settings, clock: Clock, address: str, options: Mapping[str, str]) -> Driven:
    from joulebox.node.engines.transformers import OPTIONS, Transformers

    if address:
        raise _refused(settings.engine, f"{TRANSFORMERS}: has no address; write {TRANSFORMERS}:,option=value")
    if unknown := [name for name in options if name not in OPTIONS]:
        raise _refused(settings.engine, f"{TRANSFORMERS} takes {', '.join(OPTIONS)}; leave out {', '.join(unknown)}")
    engine = Transformers(clock, settings.threads, settings.context_tokens, options)
    registry = models_of(settings)
    return Driven(engine=engine, models=registry.list, model=registry.get, address=f"{TRANSFORMERS}:")


def _served(module: Any, setup: Setup, settings: Settings) -> Driven:
    """An engine of its own is used where it is seen to run on this machine, and nowhere else."""
    parts = urlsplit(setup.url)
    host, named = parts.hostname or "", setup.options.get("process")
    # Before a container a proxy listens that does none of the work: then only the name tells.
    port = (parts.port or _PORTS[parts.scheme]) if named is None else None
    if named is None and not is_here(host):
        raise _elsewhere(setup.url, f"{host} is no address of this machine")
    engine: ServedEngine = module.open(setup)
    engine.begin()
    names = engine.processes if named is None else (named,)

    def processes() -> Collection[int]:
        return engine_processes(port, names) or ()

    if engine_processes(port, names) == frozenset():
        seen = f"is called {named}" if named else "is seen to listen there"
        raise _elsewhere(setup.url, f"nothing on this machine {seen}")
    if settings.idle_unload_s is not None and not engine.unloads:
        raise JouleboxError(
            "bad_setting",
            f"JOULEBOX_IDLE_UNLOAD_S cannot be used: {engine.name} keeps its model as long as it runs. Leave it out.",
        )
    return Driven(
        engine=engine,
        models=engine.offered,
        model=engine.model,
        address=setup.url,
        processes=processes,
        advice=engine.advice(),
    )


def _checked(kind: str, address: str) -> str:
    """An address without path, query or password."""
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise _refused(f"{kind}:{address}", str(error)) from error
    path = parts.path.rstrip("/").removesuffix("/v1")
    if parts.scheme not in _PORTS or not host or path or parts.query or parts.fragment or "@" in parts.netloc:
        raise _refused(f"{kind}:{address}" if "@" not in parts.netloc else kind, f"write {kind}:http://HOST:PORT")
    return f"{parts.scheme}://{parts.netloc}"


def _elsewhere(url: str, why: str) -> JouleboxError:
    return JouleboxError(
        "bad_setting",
        f"The engine at {url} is not used: {why}, so this node's meters would not see what it draws. Start a node on "
        "the engine's own machine or, if it runs here in a container or for another user, name its program (process=).",
    )


def _refused(text: str | None, why: str) -> JouleboxError:
    return JouleboxError("bad_setting", f"Engine {text} cannot be used: {why}.")
