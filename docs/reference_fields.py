"""The fields of receipts and of the messages between node and server, from the nouns and from `fields.toml`."""

import ast
import dataclasses
import inspect
import tomllib
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from functools import cache
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from joulebox import model, protocol

WORDS: Final = Path(__file__).with_name("fields.toml")
_PLAIN: Final[Mapping[object, str]] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    datetime: "time (ISO 8601)",
    Any: "anything",
}
_UNITS: Final = {
    "j": "J",
    "w": "W",
    "s": "s",
    "ns": "ns",
    "c": "°C",
    "g": "g",
    "kg": "kg",
    "kwh": "kWh",
    "l": "L",
    "years": "years",
    "bytes": "bytes",
    "tokens": "tokens",
    "ratio": "ratio",
}
_OF_THE_NOUN: Final = {
    "Figure": "J",
    "PhaseFigure": "J",
    "ScopeFigure": "J",
    "Grams": "g",
    "Intensity": "g/kWh",
    "IntensitySlot": "g/kWh",
    "Water": "L",
}
"""The unit of `u`, `low` and `high` in these."""
_LEFT_OUT: Final = {("CalibrationRef", "fits"), ("CalibrationRef", "splits"), ("CalibrationRef", "idle")}
"""Evidence, which receipts hold none of: named, but not taken apart."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Field:
    """A row of a table."""

    name: str
    kind: str
    unit: str
    meaning: str


@cache
def words() -> Mapping[str, Mapping[str, str]]:
    """What stands in `fields.toml`: meanings by noun and field."""
    return tomllib.loads(WORDS.read_text(encoding="utf-8"))


@cache
def _beside(module: ModuleType) -> Mapping[tuple[str, str], str]:
    """The strings that stand under fields in the code, as one line each."""
    found = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ClassDef):
            for field, text in zip(node.body, node.body[1:], strict=False):
                match field, text:
                    case (
                        ast.AnnAssign(target=ast.Name(id=name)),
                        ast.Expr(value=ast.Constant(value=str(said))),
                    ):
                        found[node.name, name] = " ".join(said.split())
    return found


def meaning(noun: type, name: str) -> str | None:
    """What a field means, as the code or `fields.toml` says it."""
    for module in (model, protocol):
        if module.__name__ == noun.__module__ and (said := _beside(module).get((noun.__name__, name))) is not None:
            return said
    return words().get(noun.__name__, {}).get(name)


def nouns_of(root: type) -> list[type]:
    """The noun and all that its fields are made of, in the order in which they are met."""
    found: list[type] = [root]
    for noun in found:
        for name, kind in get_type_hints(noun).items():
            if (noun.__name__, name) not in _LEFT_OUT:
                found += [each for each in _nouns_in(kind) if each not in found]
    return found


def _nouns_in(kind: object) -> Iterator[type]:
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        yield kind
    for part in get_args(kind):
        yield from _nouns_in(part)


def fields_of(noun: type) -> list[Field]:
    """The rows of a noun. A meaning that nobody wrote is empty: `gaps` names it."""
    kinds = get_type_hints(noun)
    return [
        Field(
            name=one.name,
            kind="empty list" if (noun.__name__, one.name) in _LEFT_OUT else kind_words(kinds[one.name]),
            unit=_unit(noun.__name__, one.name),
            meaning=meaning(noun, one.name) or "",
        )
        for one in dataclasses.fields(noun)
    ]


def kind_words(kind: object) -> str:
    """A type as a reader of JSON knows it."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (UnionType, Union):
        return " or ".join([*(kind_words(part) for part in parts if part is not NoneType), "null"])
    if origin is Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin is tuple:
        whole = len(parts) == 2 and parts[1] is Ellipsis
        return f"list of {kind_words(parts[0])}" if whole else f"[{', '.join(map(kind_words, parts))}]"
    if origin is dict:
        return f"{kind_words(parts[1])} by name"
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return " or ".join(f"`{one.value}`" for one in kind)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    return _PLAIN[kind]


def _unit(noun: str, name: str) -> str:
    if name in {"u", "low", "high"}:
        return _OF_THE_NOUN.get(noun, "")
    thing, _, whole = name.lower().rpartition("_per_")
    if whole in _UNITS:
        return f"{_UNITS.get(thing.rsplit('_', 1)[-1], '1')}/{_UNITS[whole]}"
    return _UNITS.get(name.lower().rsplit("_", 1)[-1], "")


def table(noun: type) -> str:
    """A noun's fields."""
    rows = [f"| `{one.name}` | {one.kind} | {one.unit} | {one.meaning} |" for one in fields_of(noun)]
    return "\n".join(["| Field | Type | Unit | Meaning |", "|---|---|---|---|", *rows]) + "\n"


def section(noun: type) -> str:
    """A noun with its docstring and its fields."""
    return f"\n## {noun.__name__}\n\n{one_line(noun)}\n\n{table(noun)}"


def one_line(noun: type) -> str:
    """A docstring without its line breaks."""
    return " ".join((inspect.getdoc(noun) or "").split())


RECEIPT: Final = """# Receipt fields

<!-- Made from the code by `make docs`; edits here are lost. -->

A receipt is JSON: `joulebox receipts show ID --json` prints it, `GET /api/v1/receipts/{id}` sends it. Every key is
always there; what is unknown is null, never zero. `u` is an expanded uncertainty (k = 2, about 95 %). What the figures
are: [the method](../explanation/method.md); how to read one: [the quickstart](../quickstart.md).
"""


def receipt_page() -> str:
    """Every field of a receipt with its unit and meaning."""
    return RECEIPT + "".join(section(noun) for noun in nouns_of(model.Receipt))


MESSAGES: Final[Mapping[str, tuple[type, ...]]] = {
    "POST /node/v1/lease": (protocol.LeaseRequest, protocol.Lease),
    "GET /node/v1/attempts/{token}/hold": (),
    "POST /node/v1/attempts/{token}/events": (protocol.Batch, protocol.BatchReply),
    "POST /node/v1/attempts/{token}/finish": (protocol.Finish, protocol.FinishReply),
    "GET /node/v1/attempts/{token}/log": (),
}
"""What a node sends on each of its routes, and what it gets."""


def message_nouns() -> list[type]:
    """All nouns that travel between node and server, each once, in the order in which they are met."""
    met = [noun for pair in MESSAGES.values() for root in pair for noun in nouns_of(root)]
    return list(dict.fromkeys(met))


def gaps() -> list[str]:
    """What is not documented, or documented and gone, each with what to do."""
    nouns = list(dict.fromkeys([*nouns_of(model.Receipt), *message_nouns()]))
    wrong = [
        f"docs/fields.toml: under [{noun.__name__}] say what `{one.name}` means, or put a string under it in the code."
        for noun in nouns
        for one in fields_of(noun)
        if not one.meaning
    ]
    known = {(noun.__name__, one.name) for noun in nouns for one in dataclasses.fields(noun)}
    wrong += [
        f"docs/fields.toml: [{noun}] `{name}` is no field any more: take the line out."
        for noun, meanings in words().items()
        for name in meanings
        if (noun, name) not in known
    ]
    wrong += [f"{noun.__name__} has no docstring: write one." for noun in nouns if not one_line(noun)]
    return wrong
