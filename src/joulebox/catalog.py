"""The catalog: models that can be added by name, with what is known of each. `models.toml` holds the facts and says
where each is from; what could not be verified is `None` here."""

import difflib
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

from joulebox.errors import JouleboxError

FILE: Final = "models.toml"
NEAREST: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What the memory of a model depends on beside its file. `head_length` is that of one key or value; `vocabulary` is
    how many tokens it knows."""

    layers: int
    kv_heads: int
    head_length: int
    width: int
    vocabulary: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogModel:
    """A model of the catalog. It comes from the file `file` of the repository `hf` of the Hugging Face Hub, or from a
    `package` of the Python registry; `ollama` is its name in Ollama's library. `gated`: its terms must be accepted on
    the hub first."""

    id: str
    family: str
    parameters: str
    licence: str
    quantization: str
    aliases: tuple[str, ...] = ()
    hf: str | None = None
    file: str | None = None
    package: str | None = None
    ollama: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    context_tokens: int | None = None
    shape: Shape | None = None
    gated: bool = False


@cache
def catalog() -> tuple[CatalogModel, ...]:
    """Every model of the catalog, by id."""
    text = resources.files("joulebox").joinpath(FILE).read_text(encoding="utf-8")
    return tuple(sorted(map(_model, tomllib.loads(text)["model"]), key=lambda model: model.id))


def _model(fields: dict[str, Any]) -> CatalogModel:
    shape = fields.get("shape")
    told = fields | {"aliases": tuple(fields.get("aliases", ())), "shape": Shape(**shape) if shape else None}
    return CatalogModel(**told)


@cache
def _names() -> dict[str, CatalogModel]:
    """Every name a model goes by: its id, its aliases, its name in Ollama's library."""
    names = {}
    for model in catalog():
        for name in (model.ollama, *model.aliases, model.id):
            if name is not None:
                names[name] = model
    return names


def find(name: str) -> CatalogModel:
    """The model of that name, whatever the case. Raises `unknown_model` with the names that come nearest."""
    wanted = name.strip().lower()
    if (model := _names().get(wanted)) is not None:
        return model
    near = difflib.get_close_matches(wanted, _names(), n=2 * NEAREST)
    near += [name for name in _names() if wanted and name.startswith(wanted)]
    once = {_names()[name].id: name for name in reversed(near)}  # one name of each model, the nearest
    nearest = [name for name in dict.fromkeys(near) if name in once.values()][:NEAREST]
    hint = f"Did you mean {' or '.join(nearest)}? " if nearest else ""
    sentence = (
        f"The catalog has no model {name!r}. {hint}`joulebox models list --catalog` shows what it has; elsewhere "
        "there are hf:OWNER/REPOSITORY, ollama:NAME and files (PATH.gguf)."
    )
    raise JouleboxError("unknown_model", sentence, nearest=nearest)


def known(model_id: str, digest: str) -> CatalogModel | None:
    """The catalog's entry of a model on a node, by its file's digest, else by its name; `None` where there is none.

    A name alone must be the catalog's own id or an alias: people call their files what they like.
    """
    for model in catalog():
        if model.sha256 is not None and digest == f"sha256:{model.sha256}":
            return model
    return _names().get(model_id.lower())


def about(model_id: str, digest: str) -> dict[str, str | None]:
    """Family, parameters and licence of a model on a node, as the catalog has them."""
    model = known(model_id, digest)
    return {
        "family": model.family if model is not None else None,
        "parameters": model.parameters if model is not None else None,
        "licence": model.licence if model is not None else None,
    }
