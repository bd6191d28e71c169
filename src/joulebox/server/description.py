"""The OpenAPI document, in the words of its own version: the framework describes streams in those of a later one."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

Json = dict[str, Any]


def describe(app: FastAPI) -> None:
    """Have `/openapi.json` be a document of the version that it names."""
    plain = app.openapi

    def described() -> Json:
        schema = plain()
        for media in _medias(schema):
            media.pop("itemSchema", None)  # of OpenAPI 3.2
        return schema

    app.openapi = described  # type: ignore[method-assign]


def _medias(schema: Json) -> Iterator[Json]:
    for path in schema["paths"].values():
        for operation in path.values():
            for response in operation.get("responses", {}).values():
                yield from response.get("content", {}).values()
