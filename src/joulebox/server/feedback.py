"""What people tell the operator."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from joulebox.errors import JouleboxError

KEPT_MAX: Final = 1_000
"""So many messages are kept; nobody can fill the disk with them."""
MESSAGE_MAX: Final = 4_000
CONTACT_MAX: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message, and where its sender may be answered, if they said so."""

    number: int
    at: datetime
    message: str
    contact: str | None


def checked(message: str, contact: str) -> tuple[str, str | None]:
    """Both without the space around them. Raises `JouleboxError("bad_request")` for what is empty or too long."""
    message, contact = message.strip(), contact.strip()
    if not message:
        raise JouleboxError("bad_request", "The message is empty: write what you want to say.")
    if len(message) > MESSAGE_MAX or len(contact) > CONTACT_MAX:
        sentence = f"A message has at most {MESSAGE_MAX} characters, an address {CONTACT_MAX}: shorten it."
        raise JouleboxError("bad_request", sentence)
    return message, contact or None
