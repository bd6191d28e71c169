"""Writes the pages of docs/reference from the code (`make docs`); `tests/test_reference.py` compares them.

What is public and not documented is a gap: `gaps()` names each with what to do, and the build fails.
"""

import ast
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

import dashboard
import joulebox
import reference_cli
import reference_fields
import reference_http
import reference_seeing
from joulebox.accounting.validity import RULES
from joulebox.catalog import CatalogModel, catalog
from joulebox.errors import REGISTRY
from joulebox.node import driven
from joulebox.node.fitting import need_bytes
from joulebox.node.meters import KINDS
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
_VERDICTS: Final = """# Verdict codes

<!-- Made from the code by `make docs`; edits here are lost. -->

Each receipt has a verdict: `valid`, `suspect` or `invalid`. The worst of its reasons decides; a note changes no
verdict. A reason has a code, a sentence and what to do, as below (… stands for details). Some codes are graver the more
there was of it: the level is the usual one, and [the method](../explanation/method.md#the-verdict) says when it is
another.

| Code | Level | Sentence | What to do |
|---|---|---|---|
"""
_ENVIRONMENT: Final = """# Environment variables

<!-- Made from the code by `make docs`; edits here are lost. -->

Every [setting](settings.md) has a variable: its name in capitals after `JOULEBOX_`. With `_FILE` at its end the
variable names a file that holds the value, for secrets. Flags win over variables, those over `joulebox.toml`.

"""
_OTHER: Final = """
Beside these, other programs' variables that Joulebox heeds, and a few of its own:

| Variable | Who reads it | What it does |
|---|---|---|
"""
VARIABLES: Final[Mapping[str, tuple[str, str]]] = {
    "XDG_DATA_HOME": ("all", "where the data folder is, if `JOULEBOX_DATA_DIR` does not say so"),
    "NO_COLOR": ("command line", "prints without colours"),
    "COLUMNS": ("command line", "how wide tables and receipts may be"),
    "HF_TOKEN": ("`joulebox models add`", "your token for the Hugging Face Hub, for models whose terms you accepted"),
    "HF_ENDPOINT": ("`joulebox models add`", "another hub than huggingface.co"),
    "OLLAMA_HOST": ("`joulebox models add`", "where Ollama answers, where it is not the node's engine"),
    "DISPLAY": ("`joulebox up --open`", "whether there is a screen to open a browser on; `WAYLAND_DISPLAY` likewise"),
    "WAYLAND_DISPLAY": ("`joulebox up --open`", "the same, under Wayland"),
    "JOULEBOX_READY_FD": (
        "Joulebox itself",
        "how `joulebox up` learns that a process it started is ready; not for people",
    ),
    "JOULEBOX_LIFELINE": ("Joulebox itself", "how such a process ends with `joulebox up`; not for people"),
    "JOULEBOX_TEST_CACHE": ("tests", "folder of the fetched test model, in place of `.cache`"),
    "JOULEBOX_FAULTS": ("tests", "`all`: every fault of every instrument (`make faults`)"),
}
"""Variables that are no settings. A test looks for others in the code."""
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


def verdicts_page() -> str:
    """Every verdict code with its sentence and what to do."""
    return _VERDICTS + "".join(
        f"| `{code}` | {rule.level} | {rule.sentence.replace('{}', '…')} | {rule.remedy} |\n"
        for code, rule in sorted(RULES.items())
    )


def environment_page() -> str:
    """Every variable: those of settings, and the others."""
    names = ", ".join(f"`JOULEBOX_{name.upper()}`" for name in sorted(Settings.model_fields))
    rows = [f"| `{name}` | {who} | {what} |\n" for name, (who, what) in VARIABLES.items()]
    return f"{_ENVIRONMENT}{names}.\n{_OTHER}{''.join(rows)}"


PAGES: Final[dict[str, Callable[[], str]]] = {
    "command-line.md": reference_cli.command_line_page,
    "environment.md": environment_page,
    "errors.md": errors_page,
    "http-api.md": reference_http.http_page,
    "models.md": models_page,
    **reference_seeing.PAGES,
    "node-protocol.md": reference_http.protocol_page,
    "receipt.md": reference_fields.receipt_page,
    "settings.md": settings_page,
    "verdicts.md": verdicts_page,
}


def gaps() -> list[str]:
    """Everything public that is not documented, each with what to do."""
    wrong = [
        f"settings.py: {name} has no description that ends with a full stop: give its Field one."
        for name, field in Settings.model_fields.items()
        if not (field.description or "").endswith(".")
    ]
    wrong += [f"errors.py: {code} has no title: write one." for code, row in REGISTRY.items() if not row.title]
    wrong += [
        f"accounting/validity.py: {code} has no sentence or no remedy: write both."
        for code, rule in RULES.items()
        if not (rule.sentence.endswith(".") and rule.remedy.endswith("."))
    ]
    wrong += [*reference_cli.gaps(), *reference_http.gaps(), *reference_fields.gaps()]
    return [*wrong, *_variables(), *_meters(), *_engines()]


def _variables() -> list[str]:
    """Variables that the code reads by name and that no page knows."""
    read = {
        word
        for path in Path(joulebox.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for word in _read_of_environment(node)
    }
    known = {*VARIABLES, *(f"JOULEBOX_{name.upper()}" for name in Settings.model_fields)}
    return [
        f"{name} is read from the environment: make it a setting, or put it into VARIABLES of docs/reference.py."
        for name in sorted(read - known)
    ]


def _read_of_environment(node: ast.AST) -> list[str]:
    match node:
        case ast.Call(
            func=ast.Attribute(value=ast.Attribute(attr="environ")), args=[ast.Constant(value=str(name)), *_]
        ):
            return [name]
        case ast.Call(func=ast.Attribute(attr="getenv"), args=[ast.Constant(value=str(name)), *_]):
            return [name]
        case ast.Subscript(value=ast.Attribute(attr="environ"), slice=ast.Constant(value=str(name))):
            return [name]
    return []


def _meters() -> list[str]:
    """Kinds of meters without a page, or with options that their page does not name."""
    from importlib import import_module

    index = (FOLDER / "meters" / "README.md").read_text(encoding="utf-8")
    wrong = []
    for kind, module in KINDS.items():
        if f"[{kind}]({kind}.md)" not in index and f"| {kind} |" not in index:
            wrong.append(f"docs/reference/meters/README.md: give the meter {kind} a row in the table.")
        page = FOLDER / "meters" / f"{kind}.md"
        if kind == "none":
            continue
        if not page.is_file():
            wrong.append(
                f"docs/reference/meters/{kind}.md is missing: say what it covers, its options, how it was tested."
            )
            continue
        text = page.read_text(encoding="utf-8")
        wrong += [
            f"docs/reference/meters/{kind}.md: the option `{option}` is not on the page."
            for option in import_module(module).OPTIONS
            if f"`{option}`" not in text
        ]
    return wrong


def _engines() -> list[str]:
    """Engines that the page on engines does not name."""
    page = FOLDER / "engines.md"
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    return [
        f"docs/reference/engines.md: the engine `{kind}` is not on the page: give it a row."
        for kind in driven.KINDS
        if f"`{kind}" not in text
    ]


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


def write() -> list[str]:
    """Write all pages; the names of those that were not up to date."""
    stale = []
    for name, page in PAGES.items():
        path, text = FOLDER / name, page()
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            stale.append(name)
    return stale


def main() -> None:
    """Write all pages; exit 1 where something public is not documented."""
    for name in write():
        print(f"docs/reference/{name} is written anew: commit it.")
    dashboard.main()
    if wrong := gaps():
        print("Not documented:", *wrong, sep="\n  ", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
