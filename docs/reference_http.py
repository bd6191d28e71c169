"""The public routes and those of nodes as pages, from the OpenAPI document that the server itself gives."""

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from joulebox.protocol import VERSION
from joulebox.server.access import TABLE
from joulebox.server.app import build_app
from joulebox.settings import Settings
from reference_fields import MESSAGES, message_nouns, one_line, section

Json = dict[str, Any]
ANSWERS: Final = Path(__file__).with_name("answers.toml")
NODE: Final = "/node/v1/"
OURS: Final = ("/api/v1/", "/healthz", "/readyz")
"""Routes whose answers are described here, field by field. Those of other makers' forms are described by them."""
NEEDS: Final[Mapping[str, str]] = {
    "anyone": "nothing",
    "link": "the address alone, which cannot be guessed",
    "read": "the scope `read`",
    "ask": "the scope `ask`",
    "owner": "to be the prompt's owner, or an administrator",
    "node": "the scope `node`",
    "server": "to be another server on the same database",
    "admin": "the scope `admin`",
    "tokens": "a token with the scope `admin`, also where the server is open",
}
HTTP: Final = """# HTTP API

<!-- Made from the code by `make docs`; edits here are lost. -->

The service describes itself at `/openapi.json`; this page is made of that. Bodies are JSON. A token goes into the
header `Authorization: Bearer TOKEN`; who needs one is told in
[let others reach the server](../how-to/expose-a-server.md). A failure is a problem document (RFC 9457) with a `code`:
see [errors](errors.md). Lists take `limit` and `cursor`.
"""
PROTOCOL: Final = f"""# Node protocol

<!-- Made from the code by `make docs`; edits here are lost. -->

What server and node say to each other: HTTP and JSON, version {VERSION}. A node only calls out; nobody calls it. The
order of things is told in [architecture](../../ARCHITECTURE.md#the-wire-between-server-and-node-protocolpy). The token
in an address is the fence: whatever comes with the token of an attempt that is over is answered 409 `stale_attempt`. A
node with another version is answered 426 `protocol_version`. Silence is no sign of trouble: a hold is silent by design.
"""


@cache
def document() -> Json:
    """What `/openapi.json` says."""
    return build_app(Settings(data_dir=Path("nowhere"))).openapi()


@cache
def answers() -> Json:
    """What stands in `answers.toml`."""
    return tomllib.loads(ANSWERS.read_text(encoding="utf-8"))


def routes() -> list[tuple[str, str, Json]]:
    """Method, path and operation of every public route, by path."""
    order = ("get", "post", "put", "patch", "delete")
    return [
        (method.upper(), path, operations[method])
        for path, operations in sorted(document()["paths"].items())
        for method in order
        if method in operations
    ]


def http_page() -> str:
    """Every route that is not for nodes, with what it takes and answers."""
    text = HTTP + "".join(_route(*one) for one in routes() if not one[1].startswith(NODE))
    for name, fields in answers()["objects"].items():
        rows = [f"| `{field}` | {meaning} |" for field, meaning in fields.items()]
        text += "\n".join([f"\n## {name}", "", "| Field | Meaning |", "|---|---|", *rows, ""])
    return text


def _route(method: str, path: str, operation: Json) -> str:
    parts = [f"\n## {method} {path}\n\n{_said(operation)}\n\nNeeds {NEEDS[TABLE[method, path]]}.\n"]
    given = [
        (one["name"], one["in"], one.get("required", False), one["schema"], one.get("description"))
        for one in operation.get("parameters", ())
    ]
    if given:
        rows = [
            f"| `{name}` | {where} | {_kind(schema)} | {_default(schema, required)} | {_meaning(schema, told, name)} |"
            for name, where, required, schema, told in given
        ]
        parts.append(
            "\n".join(["", "| Parameter | In | Takes | Default | Meaning |", "|---|---|---|---|---|", *rows, ""])
        )
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if body is not None:
        parts.append(_body(body))
    if (told := answers()["routes"].get(f"{method} {path}")) is not None:
        parts.append(f"\nAnswers: {told}\n")
    if "204" in operation["responses"]:
        parts.append(f"\n204: {operation['responses']['204']['description']}\n")
    return "".join(parts)


def _body(schema: Json, name: str = "") -> str:
    """A body's fields, and those of the objects in it."""
    noun = _resolved(schema)
    if "properties" not in noun:
        return f"\nThe body: {_kind(schema)}.\n"
    required = noun.get("required", ())
    rows = [
        f"| `{called}` | {_kind(one)} | {_default(one, field in required)} | {_meaning(one, name=called)} |"
        for field, one in noun["properties"].items()
        for called in [f"{name}{field}"]
    ]
    head = ["", "| Field of the body | Takes | Default | Meaning |", "|---|---|---|---|"] if not name else []
    within = [_body(inner, f"{name}{field}.") for field, one in noun["properties"].items() for inner in _objects(one)]
    text = "\n".join([*head, *rows, ""])
    return text + "".join(within)


def _objects(schema: Json) -> list[Json]:
    """The objects that a field may hold, alone or in a list."""
    inner = [schema.get("items", {}), *schema.get("anyOf", ())] if "$ref" not in schema else [schema]
    found = [one for one in inner if "$ref" in one and "properties" in _resolved(one)]
    return found + [one["items"] for one in inner if "$ref" in one.get("items", {})]


def _resolved(schema: Json) -> Json:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    noun: Json = document()["components"]["schemas"][reference.rsplit("/", 1)[-1]]
    return noun


def _kind(schema: Json) -> str:
    """A JSON schema in words."""
    noun = _resolved(schema)
    if "anyOf" in noun:
        return " or ".join(dict.fromkeys(_kind(one) for one in noun["anyOf"]))
    if "enum" in noun or "const" in noun:
        choices = noun["enum"] if "enum" in noun else [noun["const"]]
        return " or ".join(f"`{one}`" for one in choices)
    names = {"string": "text", "integer": "whole number", "boolean": "true or false", "object": "object"}
    kind = str(noun.get("type", "anything"))
    if kind == "array":
        return f"list of {_kind(noun.get('items', {}))}"
    limits = [
        text.format(_number(noun[name]))
        for name, text in (
            ("minimum", "at least {}"),
            ("exclusiveMinimum", "more than {}"),
            ("maximum", "at most {}"),
            ("maxLength", "at most {} characters"),
        )
        if name in noun
    ]
    return ", ".join([names.get(kind, kind), *limits])


def _number(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value


def _default(schema: Json, required: bool) -> str:
    if required:
        return "required"
    value = schema.get("default")
    return "" if value is None or value == [] else f"`{value}`"


def _meaning(schema: Json, told: str | None = None, name: str = "") -> str:
    """What the code says of a parameter or field, else what `answers.toml` does."""
    words = answers()["words"]
    said = told or schema.get("description") or words.get(name) or words.get(name.rsplit(".", 1)[-1])
    return " ".join((said or _resolved(schema).get("description") or "").split())


def _said(operation: Json) -> str:
    return " ".join(operation.get("description", "").split())


def protocol_page() -> str:
    """The routes for nodes, and every message with its fields."""
    text = PROTOCOL
    for method, path, operation in routes():
        if path.startswith(NODE):
            told = f"{_said(operation)}{_messages(f'{method} {path}')} Needs {NEEDS[TABLE[method, path]]}."
            text += f"\n## {method} {path}\n\n{told}\n"
    return text + "".join(section(noun) for noun in message_nouns())


def _messages(route: str) -> str:
    """What a node sends there and gets, as links to the nouns."""
    if not (pair := MESSAGES[route]):
        return ""
    sent, got = (f"[{one.__name__}](#{one.__name__.lower()})" for one in pair)
    return f" Takes {sent}; answers {got}."


def gaps() -> list[str]:
    """What is not documented, each with what to do."""
    wrong = []
    known = {f"{method} {path}" for method, path, _ in routes()}
    for method, path, operation in routes():
        name = f"{method} {path}"
        if not re.search(r"[.!?]$", _said(operation)):
            wrong.append(
                f"{name} has no sentence: give the function of this route a docstring that ends with a full stop."
            )
        if TABLE.get((method, path)) is None:
            wrong.append(f"{name} is not in access.TABLE: say there who may use it.")
        if path.startswith(OURS) and name not in answers()["routes"]:
            wrong.append(f'docs/answers.toml: under [routes] write what "{name}" answers, in a sentence.')
        if path.startswith(OURS):
            wrong += [
                f"{name}: give {field} a description in the code, or a line under [words] of docs/answers.toml."
                for field in re.findall(
                    r"^\| (`[^`]+`) \|(?:[^|\n]*\|){2,3}  \|$", _route(method, path, operation), re.M
                )
            ]
        if path.startswith(NODE) and name not in MESSAGES:
            wrong.append(f"{name}: name the messages it takes and answers in MESSAGES of docs/reference_fields.py.")
    gone = sorted(set(answers()["routes"]) - known)
    wrong += [f'docs/answers.toml: there is no route "{name}" any more: take the line out.' for name in gone]
    return wrong + [f"{noun.__name__} has no docstring: write one." for noun in message_nouns() if not one_line(noun)]
