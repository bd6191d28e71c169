"""The API as the server itself documents it (OpenAPI), each route with a command that can be run as it stands."""

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from joulebox.server.access import Need
from joulebox.server.foreign.problems import OLLAMA, OPENAI
from joulebox.server.pages.backend import Backend
from joulebox.server.pages.frame import NOWHERE, View, page, render, view_of
from joulebox.wording import Tongue, marked

Json = dict[str, Any]

NODES_OWN: Final = "/node/"
"""What nodes and servers say to each other is no API for people."""
NEEDS: Final[Mapping[Need, str]] = {
    "anyone": marked("for everybody"),
    "link": marked("for whoever knows the address"),
    "read": marked("needs the scope read"),
    "ask": marked("needs the scope ask"),
    "owner": marked("for who asked, or an administrator"),
    "admin": marked("needs the scope admin"),
    "tokens": marked("needs a token with the scope admin"),
}
WITH_TOKEN: Final = frozenset({"admin", "tokens"})
STREAM: Final = "text/event-stream"
METHODS: Final = ("get", "post", "put", "patch", "delete")


def render_reference(
    schema: Mapping[str, Any], origin: str, models: Sequence[Mapping[str, Any]] = (), view: View = NOWHERE
) -> str:
    """The page of an OpenAPI document; `origin` is where this server is found."""
    _ = view._
    groups: dict[str, list[Json]] = {}
    for path, method, operation in _operations(schema):
        found = _told(path, method, operation, _) | {
            "command": command(schema, path, method, operation, origin, models)
        }
        groups.setdefault(_group(path), []).append(found)
    return render("reference.html", view, groups=groups)


def _operations(schema: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, item in schema["paths"].items():
        if not path.startswith(NODES_OWN):
            yield from ((path, method, item[method]) for method in METHODS if method in item)


def _group(path: str) -> str:
    """`prompts` of `/api/v1/prompts/{prompt_id}`; whose words a route speaks, or `server`, where it is not ours."""
    found = re.match(r"/api/v1/(\w+)", path)
    if found is not None:
        return found[1]
    return "openai" if path.startswith(OPENAI) else "ollama" if path.startswith(OLLAMA) else "server"


def _told(path: str, method: str, operation: Mapping[str, Any], _: Tongue) -> Json:
    need = operation.get("x-joulebox-needs", "anyone")
    return {
        "method": method.upper(),
        "path": path,
        "words": " ".join(str(operation.get("description") or operation.get("summary") or "").split()),
        "need": _(NEEDS[need]) if need in NEEDS else "",
        "parameters": [
            (one["name"], " ".join(str(one.get("description", "")).split()))
            for one in operation.get("parameters", ())
            if one["in"] == "query"
        ],
    }


def command(
    schema: Mapping[str, Any],
    path: str,
    method: str,
    operation: Mapping[str, Any],
    origin: str,
    models: Sequence[Mapping[str, Any]] = (),
) -> str:
    """What a shell runs: ids and the token are variables of that shell, `$PROMPT_ID` and so on."""
    parts = ["curl"]
    answers = operation.get("responses", {}).get("200", {}).get("content", {})
    if STREAM in answers:
        parts.append("-N")
    if method != "get":
        parts.append(f"-X {method.upper()}")
    if operation.get("x-joulebox-needs") in WITH_TOKEN:
        parts.append('-H "Authorization: Bearer $TOKEN"')
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if body is not None:
        made = example(body, schema)
        if models and isinstance(made, dict) and "model" in made:
            made["model"] = models[0]["id"]
        parts += ["-H 'Content-Type: application/json'", f"-d {shlex.quote(json.dumps(made, ensure_ascii=False))}"]
    address = re.sub(r"\{(\w+)\}", lambda found: f"${found[1].upper()}", f"{origin}{path}")
    return " ".join([*parts, f'"{address}"'])


def example(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> Any:
    """A value that fits a schema: its own example, else what is required of it and no more."""
    if "$ref" in schema:
        return example(whole["components"]["schemas"][schema["$ref"].rpartition("/")[2]], whole)
    if schema.get("examples"):
        return json.loads(json.dumps(schema["examples"][0]))
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return example(schema["anyOf"][0], whole)
    match schema.get("type"):
        case "object":
            fields = schema.get("properties", {})
            return {name: example(fields[name], whole) for name in schema.get("required", ())}
        case "array":
            return [example(schema["items"], whole)] if schema.get("minItems") else []
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
    return "text"


def add(routes: APIRouter, backend: Callable[[Request], Backend]) -> None:
    """The route of the API's page."""

    @routes.get("/api")
    async def reference_page(request: Request) -> Response:
        origin, models = str(request.base_url).rstrip("/"), await backend(request).models()
        return page(request, render_reference(request.app.openapi(), origin, models, view_of(request)))
