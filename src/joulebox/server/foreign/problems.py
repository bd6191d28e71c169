"""Failures as the APIs of others say them: OpenAI's for all below `/v1/`, Ollama's for all below `/api/` but our own.

The sentence stays the same. Statuses do, but for 422, which neither of the two knows: there it is 400.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from fastapi.responses import JSONResponse

from joulebox.errors import REGISTRY, JouleboxError

Json = dict[str, Any]
Headers = Mapping[str, str]
Form = Callable[[JouleboxError, Headers], JSONResponse]
"""A failure, and the headers that go with it in any form."""

OPENAI: Final = "/v1/"
OLLAMA: Final = "/api/"
OURS: Final = "/api/v1/"
OPENAI_CODES: Final = {
    "unauthorized": "invalid_api_key",
    "unknown_model": "model_not_found",
    "prompt_too_long": "context_length_exceeded",
    "too_many_requests": "rate_limit_exceeded",
    "quota_used": "insufficient_quota",
}
"""What OpenAI has a word for; everything else keeps its own."""
AGAIN: Final = frozenset({"no_server", "database"})
AGAIN_S: Final = 60
"""OpenAI's own clients ask again by themselves where it may help, and wait so long for it at most."""


_ON_NODES: Final = "Models are kept on the nodes: use `joulebox models` there."
_NO_VECTORS: Final = "Joulebox writes text: it makes no embeddings."
REFUSED: Final[Mapping[str, str]] = {
    "/api/pull": _ON_NODES,
    "/api/push": _ON_NODES,
    "/api/create": _ON_NODES,
    "/api/copy": _ON_NODES,
    "/api/delete": _ON_NODES,
    "/api/embed": _NO_VECTORS,
    "/api/embeddings": _NO_VECTORS,
    "/v1/embeddings": _NO_VECTORS,
}
"""What others have and Joulebox has not, with a better word than that nothing is there."""


def form_of(path: str) -> Form | None:
    """The form for this address; `None` where it is our own, a problem document."""
    if path.startswith(OPENAI):
        return openai_form
    if path.startswith(OLLAMA) and not path.startswith(OURS):
        return ollama_form
    return None


def openai_form(error: JouleboxError, headers: Headers) -> JSONResponse:
    """As OpenAI's clients read it; `x-should-retry` keeps them from asking a prompt again that was answered so."""
    wait_s = error.extra.get("retry_after_s")
    again = error.code in AGAIN or (isinstance(wait_s, int | float) and wait_s <= AGAIN_S)
    retry = {"x-should-retry": "true" if again else "false"}
    return JSONResponse({"error": openai_error(error)}, _status(error), {**headers, **retry})


def openai_error(error: JouleboxError) -> Json:
    """The object `error` of an answer, or of a stream that breaks off."""
    kind = "server_error" if error.failure.status >= 500 else "invalid_request_error"
    if error.failure.status == 429:
        kind = "insufficient_quota" if error.code == "quota_used" else "requests"
    code = OPENAI_CODES.get(error.code, error.code)
    return {"message": error.detail, "type": kind, "param": error.extra.get("field"), "code": code}


def ollama_form(error: JouleboxError, headers: Headers) -> JSONResponse:
    """As Ollama's clients read it; `code` is ours."""
    return JSONResponse(ollama_error(error), _status(error), dict(headers))


def ollama_error(error: JouleboxError) -> Json:
    """The whole answer, or the last line of a stream that breaks off."""
    return {"error": error.detail, "code": error.code}


def _status(error: JouleboxError) -> int:
    return 400 if error.failure.status == 422 else error.failure.status


def _documented(description: str, schema: Json) -> dict[int | str, Json]:
    return {"default": {"description": description, "content": {"application/json": {"schema": schema}}}}


_TEXT: Final[Json] = {"type": "string"}
_CODES: Final = sorted(OPENAI_CODES.get(code, code) for code in REGISTRY)
OPENAI_PROBLEMS: Final = _documented(
    "A failure, as OpenAI says it.",
    {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": _TEXT | {"description": "What is wrong and what to do, in one sentence."},
                    "type": _TEXT,
                    "param": {"type": ["string", "null"]},
                    "code": _TEXT | {"enum": _CODES},
                },
            }
        },
    },
)
OLLAMA_PROBLEMS: Final = _documented(
    "A failure, as Ollama says it.",
    {
        "type": "object",
        "required": ["error", "code"],
        "properties": {"error": _TEXT, "code": _TEXT | {"enum": sorted(REGISTRY)}},
    },
)
"""What their routes may answer, as `/openapi.json` tells it."""
