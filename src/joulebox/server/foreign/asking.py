"""Asking in the words of other APIs: what is common to all of them, put into a prompt of ours.

What a prompt of ours can be told beside (`mode`, `placement`, ...) stands in the object `joulebox` of the request.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from joulebox.errors import JouleboxError
from joulebox.model import Mode
from joulebox.server.bodies import AutoBody, PromptBody
from joulebox.server.campaigns import AUTO
from joulebox.server.following import Following
from joulebox.server.jobs import Priority
from joulebox.server.problems import bad_request
from joulebox.server.service import Service
from joulebox.server.tool_bodies import ToolCallBody

Json = dict[str, Any]
TOKENS_MAX: Final = 2048
"""An answer of which nobody says how long it may be ends here, or where the model's context does."""
WAIT_MAX_S: Final = 600.0
SEEDS: Final = 2**31
ROLES: Final[Mapping[str, str]] = {"developer": "system"}
"""Roles under another name."""
ANY_TAG: Final = ":latest"
"""Ollama's clients put this behind a name that has no tag."""


class TermsBody(BaseModel):
    """What Joulebox can be told beside what the API knows; all of it as in `POST /api/v1/prompts`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    mode: Annotated[Mode | None, Field(description="`quiet` sends nothing until the answer is measured.")] = None
    placement: Annotated[str | None, Field(description="`fastest`, `greenest`, `zone:DE` or `node:NAME`.")] = None
    priority: Annotated[Priority | None, Field(description="Who goes first.")] = None
    deadline: Annotated[str | None, Field(description="Until then it runs in the greenest hours.")] = None
    auto: Annotated[AutoBody | None, Field(description=f"For model `{AUTO}`: what it must be like.")] = None
    max_energy_j: Annotated[
        float | None, Field(gt=0, allow_inf_nan=False, description="The answer ends at so many joules above idle.")
    ] = None
    idempotency_key: Annotated[str | None, Field(description="Asked again with it, the same prompt is heard.")] = None
    follows: Annotated[str | None, Field(description="Id of a prompt of yours: this one goes on from there.")] = None
    receipt_wait_s: Annotated[
        float | None, Field(ge=0, le=WAIT_MAX_S, description="How long to wait for the receipt after the answer.")
    ] = None


class Form(BaseModel):
    """A request of another API: what it says that has no meaning here does no harm."""

    model_config = ConfigDict(extra="ignore", strict=True)

    def refuse(self, harmless: Mapping[str, Sequence[object]], where: str = "") -> None:
        """Refuse fields that cannot be honoured, unless their values ask for nothing.

        Raises `JouleboxError("not_supported")`.
        """
        for name, values in harmless.items():
            if (value := getattr(self, name)) is not None and value not in values:
                how = f"leave it out, or give {_said(values[0])}" if values else "leave it out"
                raise JouleboxError("not_supported", f"{where}{name} is not supported here: {how}.", field=name)


def _said(value: object) -> str:
    return json.dumps(value)


async def begin(
    request: Request, mine: Service, model: str, fields: Json, terms: TermsBody | None, receipt_wait_s: float
) -> Following:
    """Put the prompt in the line, as `POST /api/v1/prompts` does. `fields` are that one's, `None` for what is not said;
    `receipt_wait_s` is the server's. Raises what `Service.ask` raises."""
    terms = terms or TermsBody()
    key = terms.idempotency_key or request.headers.get("idempotency-key")
    files = [file for offer in (await mine.desk.offers()).values() for file in offer.models]
    model = model if any(file.id == model for file in files) else model.removesuffix(ANY_TAG)
    contexts = [file.context_tokens for file in files if model in (file.id, AUTO)]
    own = terms.model_dump(exclude_none=True, exclude={"receipt_wait_s"}) | ({"idempotency_key": key} if key else {})
    said = {name: value for name, value in fields.items() if value is not None}
    if said.get("top_p") in (0, 1):  # clients send these where they ask for nothing
        del said["top_p"]
    said["seed"] = _seed(fields.get("seed"), fields.get("temperature"))
    said.setdefault("max_tokens", min([TOKENS_MAX, *contexts]))
    try:
        body = PromptBody.model_validate({"model": model, **said, **own})
    except ValidationError as error:
        raise bad_request(error) from error
    job = (await mine.take(body)).job
    return Following(
        mine=mine,
        prompt_id=job.id,
        model=job.prompt.model,
        model_reason=job.prompt.model_reason,
        created_s=int(mine.desk.now().timestamp()),
        url=_origin(request),
        wait_s=receipt_wait_s if terms.receipt_wait_s is None else terms.receipt_wait_s,
        quiet=terms.mode == "quiet",
        kept=key is not None,
    )


def _seed(seed: int | None, temperature: float | None) -> int:
    """Others know seeds of any size, and without one another answer each time: the receipt says which it was."""
    if seed is not None:
        return seed % SEEDS
    return secrets.randbelow(SEEDS) if temperature else 0


def _origin(request: Request) -> str:
    """Where this server is found, as far as a proxy in between says."""
    url = request.url
    scheme = request.headers.get("x-forwarded-proto", url.scheme)
    return f"{scheme if scheme in ('http', 'https') else url.scheme}://{url.netloc}"


def turn(
    role: str, content: object, place: str, calls: Sequence[ToolCallBody] | None = None, call_id: str | None = None
) -> Json:
    """One turn of a conversation; `place` names it where it cannot be taken. An assistant that called may have no text.
    Raises `JouleboxError("not_supported")`, `bad_request`."""
    if role == "function":
        sentence = f"{place}: the role function is not supported here: use tools, and the role tool."
        raise JouleboxError("not_supported", sentence, field="messages")
    text = "" if content is None and calls else text_of(content, place)
    told: Json = {"role": ROLES.get(role, role), "content": text}
    if calls:
        told["tool_calls"] = [one.model_dump() for one in calls]
    return told if call_id is None or role != "tool" else told | {"tool_call_id": call_id}


def text_of(content: object, place: str) -> str:
    """Plain text, or the texts of its parts. Raises `JouleboxError`: `not_supported`, `bad_request`."""
    if isinstance(content, str):
        return content
    if content is None:
        raise JouleboxError("bad_request", f"{place} has no text: write something.", field="messages")
    texts = [_part(part, place) for part in content] if isinstance(content, list) else []
    return "".join(texts)


def _part(part: object, place: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    text = part.get("text") if isinstance(part, dict) else None
    if kind not in ("text", "input_text", "output_text"):
        sentence = f"{place} has a part of type {str(kind)[:40]}: only text is supported here."
        raise JouleboxError("not_supported", sentence, field="messages")
    if not isinstance(text, str):
        raise JouleboxError("bad_request", f"{place} has a part without text: give it a text.", field="messages")
    return text
