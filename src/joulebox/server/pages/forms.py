"""What forms send, bounded and read as it was typed."""

from typing import Final
from urllib.parse import parse_qs

from fastapi import Request

from joulebox.errors import JouleboxError
from joulebox.server.texts import NO_NUL, NUL

FORM_MAX_BYTES: Final = 1_000_000


async def fields(request: Request) -> dict[str, str]:
    """The fields of a form as they were sent, bounded. Raises `JouleboxError`: `body_too_large`, `bad_request`."""
    return {name: values[-1] for name, values in (await every_field(request)).items()}


async def every_field(request: Request) -> dict[str, list[str]]:
    """The same with all values of each field."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_MAX_BYTES:
            raise JouleboxError(
                "body_too_large", f"The form is larger than {FORM_MAX_BYTES} bytes. Shorten the prompt."
            )
    try:
        found = parse_qs(body.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=64)
    except ValueError as error:
        raise JouleboxError("bad_request", "The form is not valid UTF-8. Send it from the page itself.") from error
    if any(NUL in value for values in found.values() for value in values):
        raise JouleboxError("bad_request", f"The form cannot be used: {NO_NUL}.")
    return {name: [value.replace("\r\n", "\n") for value in values] for name, values in found.items()}
