"""Cursors and moments as people send them."""

from datetime import UTC, datetime
from typing import Final

from joulebox.errors import JouleboxError

CURSOR_MAX: Final = 18
"""Longer numbers fit no database."""


def number(cursor: str) -> int:
    """Where a page begins. Raises `JouleboxError("bad_request")`."""
    if not (cursor.isdecimal() and cursor.isascii() and len(cursor) <= CURSOR_MAX):
        raise JouleboxError("bad_request", "The cursor is none that this server gave: leave it out to begin anew.")
    return int(cursor)


def moment(text: str, what: str = "since") -> datetime:
    """A day or a moment as people write it; without a zone it is UTC. Raises `JouleboxError("bad_request")`."""
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise JouleboxError(
            "bad_request", f"{what} {text!r} is no time: write 2026-11-23 or 2026-11-23T10:00Z."
        ) from error
