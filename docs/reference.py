"""Writes the pages of docs/reference from the code (`make docs`); `tests/test_reference.py` compares them."""

import types
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

import dashboard
import reference_seeing
from joulebox.catalog import CatalogModel, catalog
from joulebox.errors import REGISTRY
from joulebox.node.fitting import need_bytes
from joulebox.settings import Settings
from joulebox.wording import size

FOLDER: Final = Path(__file__).with_name("reference")
_ERRORS: Final = """# Errors

<!-- Made from the code by `make docs`; edits here are lost. -->

Every failure has a code. Over HTTP it comes as a problem document (RFC 9457) with `code` and a `detail` that says what
is wrong and what to do; on the command line as one sentence and an exit code. *Certain* means that the failure surely
left nothing behind; where it does not, look before you try again.

| Code | Meaning | HTTP | Exit | Certain |
|---|---|--:|--:|---|
"""
_SETTINGS: Final = """# Settings

<!-- Made from the code by `make docs`; edits here are lost. -->

Flags win over environment variables, those over `joulebox.toml` in the working folder (keys as in the first column).
Any variable may instead be named with `_FILE` at its end and hold the path of a file with the value, for secrets. A
wrong value is refused with a sentence that names the setting.

| Setting | Environment | Takes | Default | Meaning |
|---|---|---|---|---|
"""
_MODELS: Final = """# Models

<!-- Made from the catalog by `make docs`; edits here are lost. -->

What [`joulebox models add NAME`](../how-to/add-a-model.md) knows. `src/joulebox/models.toml` says where each fact is
from; what could not be verified is left out. *Memory* is what loading takes at most with a context of 4096 tokens.
*Gated*: the terms must be accepted on the hub first.

| Name | Also | Family | Parameters | Weights | File | Memory | Context | Licence | Hugging Face | Ollama |
|---|---|---|---|---|--:|--:|--:|---|---|---|
"""
_CONTEXT_TOKENS: Final = 4096
_FROM_THE_SYSTEM: Final = {
    "data_dir": "`$XDG_DATA_HOME/joulebox`, else `~/.local/share/joulebox`",
    "node": "the machine's name",
}
_LIMITS: Final = {
    "ge": "at least {}",
    "gt": "more than {}",
    "le": "at most {}",
    "lt": "less than {}",
    "min_length": "at least {} character",
    "max_length": "at most {} characters",
}


def errors_page() -> str:
    """Every failure with a name: what it means, and how HTTP and the command line say it."""
    return _ERRORS + "".join(
        f"| `{code}` | {row.title} | {row.status} | {row.exit_code} | {'yes' if row.definite else 'no'} |\n"
        for code, row in sorted(REGISTRY.items())
    )


def settings_page() -> str:
    """Every setting with its environment variable, kind, default and meaning."""
    return _SETTINGS + "".join(
        f"| `{name}` | `JOULEBOX_{name.upper()}` | {_takes(field)} | {_default(name, field)} | {field.description} |\n"
        for name, field in Settings.model_fields.items()
    )


def models_page() -> str:
    """Every model of the catalog, with what it takes."""
    return _MODELS + "".join(f"| {' | '.join(_cells(model))} |\n" for model in catalog())


def _cells(model: CatalogModel) -> list[str]:
    need = need_bytes(model, _CONTEXT_TOKENS)
    page = f"[{model.hf}](https://huggingface.co/{model.hf})" if model.hf else f"(package {model.package})"
    return [
        f"`{model.id}`",
        ", ".join(f"`{name}`" for name in model.aliases),
        model.family,
        model.parameters,
        model.quantization,
        size(model.size_bytes) if model.size_bytes is not None else "",
        size(need) if need is not None else "",
        str(model.context_tokens or ""),
        f"{model.licence}{', gated' if model.gated else ''}",
        page,
        f"`{model.ollama}`" if model.ollama else "",
    ]


PAGES: Final[dict[str, Callable[[], str]]] = {
    "errors.md": errors_page,
    "models.md": models_page,
    **reference_seeing.PAGES,
    "settings.md": settings_page,
}


def _takes(field: FieldInfo) -> str:
    limits = [
        text.format(value)
        for part in field.metadata
        for name, text in _LIMITS.items()
        if (value := getattr(part, name, None)) is not None
    ]
    return ", ".join([_kind(field.annotation), *limits])


def _kind(annotation: object) -> str:
    """A type in words a reader of settings knows."""
    if get_origin(annotation) in (types.UnionType, Union):
        return " or ".join(_kind(part) for part in get_args(annotation) if part is not types.NoneType)
    if get_origin(annotation) is tuple:
        return "list of " + _kind(get_args(annotation)[0])
    if get_origin(annotation) is dict:
        return "degrees Celsius, of all or by scope"
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(annotation))
    return {
        str: "text",
        int: "whole number",
        float: "number",
        bool: "true or false",
        Path: "path",
        SecretStr: "secret text",
    }[annotation]  # type: ignore[index]


def _default(name: str, field: FieldInfo) -> str:
    if field.default_factory is dict:
        return "none"
    if field.default_factory is not None:
        return _FROM_THE_SYSTEM[name]
    return "none" if field.default in (None, ()) else f"`{field.default}`"


def main() -> None:
    """Write all pages."""
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")
    dashboard.main()


if __name__ == "__main__":
    main()
