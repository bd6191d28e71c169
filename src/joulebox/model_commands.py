"""`joulebox models ...`: what is on this machine, what could be, and fetching it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from joulebox.command_help import Whole
from joulebox.errors import JouleboxError
from joulebox.terminal import say, say_json
from joulebox.token_commands import JsonOption

if TYPE_CHECKING:
    from joulebox.catalog import CatalogModel
    from joulebox.console import Progress
    from joulebox.model import ModelFile
    from joulebox.node.hub import HubFile
    from joulebox.node.models import Registry
    from joulebox.settings import Settings

models_app = typer.Typer(help="Models on this machine.", no_args_is_help=True, rich_markup_mode=None, cls=Whole)

DEFAULT_MODEL: Final = "smollm2-135m-instruct"
DataOption = Annotated[Path | None, typer.Option("--data-dir", help="Where database, models and results are kept.")]


@models_app.command("list")
def models_list(
    as_json: JsonOption = False,
    from_catalog: Annotated[bool, typer.Option("--catalog", help="What could be added by name, instead.")] = False,
    data_dir: DataOption = None,
) -> None:
    """Models of the node's engine, with file size and memory need; with --catalog those that can be added by name."""
    from joulebox.wording import size

    registry = registry_of(data_dir)
    if from_catalog:
        _show_catalog(registry, as_json=as_json)
        return
    room_bytes = registry.room_bytes()
    files = _files(registry, data_dir)
    if as_json:
        say_json([_described(file, room_bytes) for file in files])
        return
    if not files:
        say(f"No models yet. Add one: joulebox models add {DEFAULT_MODEL}, or joulebox models add PATH.gguf")
        say("More: joulebox models list --catalog")
    for file in files:
        fits = "" if (file.memory_bytes or 0) <= room_bytes else "  does not fit"
        takes = f"memory {size(file.memory_bytes)}" if file.memory_bytes is not None else "memory as its engine decides"
        say(
            f"{file.id}  {file.quantization}  file {size(file.size_bytes)}, "
            f"{takes} with {file.context_tokens} tokens of context{fits}"
        )
    say(f"This machine has {size(room_bytes)} of memory for a model.")
    for trouble in registry.troubles():
        say(trouble.detail, error=True)


def _files(registry: "Registry", data_dir: Path | None) -> "list[ModelFile]":
    """Those of the engine that is set; of the node's own, those on its list."""
    from joulebox.clock import SystemClock
    from joulebox.settings import load_settings

    settings = load_settings(data_dir=data_dir)
    if settings.engine is None:
        return [model.file for model in registry.list()]
    from joulebox.node.driven import open_engine

    return [model.file for model in open_engine(settings, SystemClock()).models()]


@models_app.command("show")
def models_show(
    name: Annotated[str, typer.Argument(help="A model of the catalog.", metavar="NAME")],
    as_json: JsonOption = False,
    data_dir: DataOption = None,
) -> None:
    """All that the catalog knows of a model: size, memory, licence, where it comes from, whether it fits here."""
    from joulebox.catalog import find

    registry = registry_of(data_dir)
    facts = _facts(find(name), registry)
    if as_json:
        say_json(facts)
        return
    say("\n".join(f"{label:14}{text}" for label, text in _lines(facts)))


@models_app.command("add")
def models_add(
    source: Annotated[
        str,
        typer.Argument(
            help="A name of the catalog, hf:OWNER/NAME[/FILE.gguf], ollama:NAME, a GGUF file or a model's folder.",
            metavar="SOURCE",
        ),
    ],
    name: Annotated[str | None, typer.Option("--name", help="Call it so.")] = None,
    data_dir: DataOption = None,
) -> None:
    """Take up a model, if it fits this machine's memory; one that is not here is fetched."""
    from joulebox.catalog import find
    from joulebox.settings import load_settings

    settings = load_settings(data_dir=data_dir)
    kind, _, rest = source.partition(":")
    if kind == "hf":
        _add_from_hub(settings, *_hub_source(rest), name)
        _say_who_offers(settings)
    elif kind == "ollama":
        _pull(settings, rest, name)
    elif source.lower().endswith(".gguf") or "/" in source or Path(source).exists():
        _add_file(settings, source, name)
        if not Path(source).is_dir():
            _say_who_offers(settings)
    else:
        _add_known(settings, find(source), name)


@models_app.command("remove")
def models_remove(
    name: Annotated[str, typer.Argument(help="Name of a model; see `joulebox models list`.")],
    data_dir: DataOption = None,
) -> None:
    """Forget a model; your own file stays where it is."""
    registry_of(data_dir).remove(name)
    say(f"{name} removed.")


# --- where models come from -------------------------------------------------------------------------------------------


def _add_known(settings: "Settings", model: "CatalogModel", name: str | None) -> None:
    """A model of the catalog, from where this node's engine has its models."""
    if _ollama_of(settings) is not None:
        if model.ollama is None:
            sentence = f"{model.id} has no name in Ollama's library that is known here: give one with ollama:NAME."
            raise JouleboxError("model_fetch", sentence)
        _pull(settings, model.ollama, name, model)
    elif _engine_of(settings)[0]:
        sentence = f"This node's engine ({settings.engine}) brings its own models: add {model.id} there."
        raise JouleboxError("bad_request", sentence)
    elif model.hf is not None:
        _add_from_hub(settings, model.hf, model.file, name or model.id, model)
    else:
        registry = registry_of_settings(settings)
        fetch_default_model(registry)
        _say_added(registry.get(DEFAULT_MODEL).file)


def _add_file(settings: "Settings", source: str, name: str | None) -> None:
    from joulebox.console import Progress

    path = Path(source)
    if not path.exists():
        sentence = f"There is no file {source}. Give the path of a GGUF file, or of a folder of safetensors."
        raise JouleboxError("broken_model", sentence)
    progress = Progress()
    registry = _registry_for(path, settings)
    file = registry.add(path, name, lambda done, total: progress.share("reading the file", done, total)).file
    progress.clear()
    _say_added(file)
    if path.is_dir() and file.id not in {model.file.id for model in registry_of_settings(settings).list()}:
        say("A folder of safetensors is run by the engine transformers: set JOULEBOX_ENGINE=transformers:")


def _registry_for(path: Path, settings: "Settings") -> "Registry":
    """The list as the engine has it that runs what lies at `path`."""
    if not path.is_dir():
        return registry_of_settings(settings)
    from joulebox.node.driven import models_of

    return models_of(settings, folders=True)


def _add_from_hub(
    settings: "Settings", repository: str, file_name: str | None, name: str | None, model: "CatalogModel | None" = None
) -> None:
    from joulebox.console import Progress
    from joulebox.node.hub import Hub, check_fits, choose, fetch_into, named

    registry = registry_of_settings(settings)
    progress = Progress()
    progress.say(f"asking for {repository}")
    hub = Hub()
    files = hub.files(repository)
    room_bytes, context = registry.room_bytes(), registry.context_tokens
    file = named(files, file_name) if file_name is not None else choose(files, room_bytes, context)
    check_fits(file, context, room_bytes)
    progress.clear()
    if file_name is None and len(files) > 1:
        say(f"{repository} has {len(files)} files; {file.quantization} is taken.")
    _say_what_comes(file, model, hub.endpoint)

    def share(done: int, total: int) -> None:
        progress.share(f"fetching {file.name}", done, total)

    try:
        added = fetch_into(registry, hub, file, name, share).file
    except KeyboardInterrupt:
        progress.clear()
        say("What came is kept: the same command goes on with it.", error=True)
        raise
    progress.clear()
    if name is not None and added.id != name:
        say(f"It is here already, as {added.id}.")
    _say_added(added)


def _say_what_comes(file: "HubFile", model: "CatalogModel | None", endpoint: str) -> None:
    """Size and licence, before anything is fetched; where a gated one asks for its terms to be accepted."""
    from joulebox.wording import size

    licence = model.licence if model is not None else file.licence
    told = f"licence: {licence}" if licence else f"its licence is not told: look at {endpoint}/{file.repository}"
    say(f"{file.name}  {file.quantization}  {size(file.size_bytes)}  {told}")
    if file.gated:
        say(f"It is gated: its terms must be accepted at {endpoint}/{file.repository}, and HF_TOKEN set.")


def _pull(settings: "Settings", pulled: str, name: str | None, model: "CatalogModel | None" = None) -> None:
    """Have Ollama fetch a model; a node whose engine is that Ollama offers it by itself."""
    import os

    from joulebox.catalog import catalog
    from joulebox.console import Progress
    from joulebox.node.engines.ollama_pull import DEFAULT, pull

    if not pulled:
        raise JouleboxError("bad_request", "Say which: ollama:NAME, such as ollama:llama3.2:1b.")
    if name is not None:
        raise JouleboxError("bad_request", "A model in Ollama keeps its name there: leave --name out.")
    base_url = _ollama_of(settings)
    if base_url is None:
        host = os.environ.get("OLLAMA_HOST") or DEFAULT
        base_url = host if "://" in host else f"http://{host}"
    model = model or next((one for one in catalog() if one.ollama == pulled), None)
    if model is not None:
        _check_held(settings, model)
        say(f"{pulled}  {model.parameters}  licence: {model.licence}")
    progress = Progress()
    pull(base_url, pulled, lambda done, total: progress.share(f"Ollama fetches {pulled}", done, total))
    progress.clear()
    say(f"{pulled} is in the Ollama at {base_url}.")
    if _ollama_of(settings) is None:
        say(f"A node offers it with JOULEBOX_ENGINE=ollama:{base_url}.")


def _ollama_of(settings: "Settings") -> str | None:
    """The address of the Ollama that this node's engine is; `None` where it is another engine."""
    from joulebox.node.engines.ollama_pull import DEFAULT

    kind, address = _engine_of(settings)
    return (address or DEFAULT) if kind == "ollama" else None


def _engine_of(settings: "Settings") -> tuple[str, str]:
    """Kind and address of the engine that is set; nothing of one that runs what is on this machine's list."""
    if settings.engine is None:
        return "", ""
    from joulebox.node.driven import IN_PROCESS, parse

    kind, address, _ = parse(settings.engine)
    return ("" if kind in IN_PROCESS else kind), address


def _check_held(settings: "Settings", model: "CatalogModel") -> None:
    """Refuse what this node cannot hold, before Ollama fetches it: of its files only the catalog's kind is known."""
    from joulebox.node.fitting import fits, largest_fitting, need_bytes
    from joulebox.wording import size

    registry = registry_of_settings(settings)
    context, room_bytes = registry.context_tokens, registry.room_bytes()
    if fits(model, context, room_bytes) is not False:
        return
    need, best = need_bytes(model, context), largest_fitting(context, room_bytes)
    takes = f"needs about {size(need)}" if need is not None else "is larger than that"
    hint = f"the largest of the catalog that fits is {best.id}" if best is not None else "none of the catalog fits"
    sentence = f"This node has {size(room_bytes)} of memory for models, and {model.id} {takes}: {hint}."
    raise JouleboxError("model_too_big", sentence)


def _hub_source(rest: str) -> tuple[str, str | None]:
    from joulebox.node.hub import hub_source

    return hub_source(rest)


def _say_who_offers(settings: "Settings") -> None:
    """A file is for the node's own engine; another one has its own models."""
    if _engine_of(settings)[0]:
        say(f"The engine that is set ({settings.engine}) does not run it: leave JOULEBOX_ENGINE out.", error=True)


def _say_added(file: "ModelFile") -> None:
    from joulebox.wording import size

    say(f"{file.id}: file {size(file.size_bytes)}, memory {size(file.memory_bytes)}")


# --- the catalog ------------------------------------------------------------------------------------------------------


def _facts(model: "CatalogModel", registry: "Registry") -> dict[str, Any]:
    """All that is known of a model, with what it takes on this machine."""
    from dataclasses import asdict

    from joulebox.node.fitting import fits, need_bytes

    context, room_bytes = registry.context_tokens, registry.room_bytes()
    here = [
        one.file.id
        for one in registry.list()
        if one.file.id == model.id or (model.sha256 is not None and one.file.digest == f"sha256:{model.sha256}")
    ]
    facts = asdict(model) | {
        "memory_bytes": need_bytes(model, context),
        "fits": fits(model, context, room_bytes),
        "here": here[0] if here else None,
    }
    del facts["shape"]
    return facts


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """What of the facts people read, by label."""
    from joulebox.wording import size

    source = f"hf:{facts['hf']}/{facts['file']}" if facts["hf"] else f"package {facts['package']}"
    known = [
        ("name", ", ".join((facts["id"], *facts["aliases"]))),
        ("family", facts["family"]),
        ("parameters", facts["parameters"]),
        ("quantisation", facts["quantization"]),
        ("file", size(facts["size_bytes"]) if facts["size_bytes"] else "the hub tells its size"),
        ("memory", size(facts["memory_bytes"]) if facts["memory_bytes"] else "told when it is added"),
        ("fits here", {True: "yes", False: "no", None: "told when it is added"}[facts["fits"]]),
        ("context", f"{facts['context_tokens']} tokens" if facts["context_tokens"] else None),
        ("licence", f"{facts['licence']}{'; gated: to be accepted first' if facts['gated'] else ''}"),
        ("from", source),
        ("in Ollama", facts["ollama"]),
        ("here as", facts["here"]),
    ]
    return [(label, text) for label, text in known if text is not None]


def _show_catalog(registry: "Registry", *, as_json: bool) -> None:
    """One line a model, those that fit first."""
    from joulebox.catalog import catalog
    from joulebox.wording import size

    facts = [_facts(model, registry) for model in catalog()]
    if as_json:
        say_json(facts)
        return
    words = {True: "fits", False: "too big", None: "?"}
    rows = [
        (
            one["id"],
            one["quantization"],
            size(one["size_bytes"]) if one["size_bytes"] else "?",
            f"here as {one['here']}" if one["here"] else words[one["fits"]],
            one["licence"] + (" (gated)" if one["gated"] else ""),
        )
        for one in sorted(facts, key=lambda one: (one["fits"] is False, one["fits"] is None, one["id"]))
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        say("  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[4]]))
    room, context = size(registry.room_bytes()), registry.context_tokens
    say(f"This machine has {room} of memory for a model; a context of {context} tokens is reckoned with.")
    say("Add one: joulebox models add NAME. More of one: joulebox models show NAME.")


# --- shared with other commands ---------------------------------------------------------------------------------------


def registry_of(data_dir: Path | None) -> "Registry":
    """The models of this machine."""
    from joulebox.settings import load_settings

    return registry_of_settings(load_settings(data_dir=data_dir))


def registry_of_settings(settings: "Settings") -> "Registry":
    """The models of this machine, as the settings say."""
    from joulebox.node.models import Registry

    if settings.engine is not None:
        from joulebox.node.driven import models_of

        return models_of(settings)
    return Registry(settings.models_folder, settings.context_tokens)


def fetch_default_model(registry: "Registry", progress: "Progress | None" = None) -> None:
    """Fetch the default model, showing how far it is."""
    from joulebox.console import Progress
    from joulebox.node.fetch import fetch_default

    shown = progress or Progress()
    shown.say(f"fetching {DEFAULT_MODEL} (98 MB, once)")
    fetch_default(registry, lambda done, total: shown.share(f"fetching {DEFAULT_MODEL}", done, total))
    shown.clear()


def _described(file: "ModelFile", room_bytes: int) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(file) | {"fits": (file.memory_bytes or 0) <= room_bytes}
