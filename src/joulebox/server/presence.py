"""Who is there: a node is present while one of its connections is open, or was answered a moment ago and not cut."""

from dataclasses import dataclass, fields
from typing import Any, Final

from joulebox.clock import Clock
from joulebox.errors import JouleboxError
from joulebox.protocol import LeaseRequest
from joulebox.server.grid import check_zone
from joulebox.units import nanoseconds

BETWEEN_S = 3.0
"""A node that was answered comes back within this; until then its name is still its own."""
MODEL_NAME_MAX: Final = 200
DIGEST_MAX: Final = 100
WORDS_MAX: Final = 500
THINGS_MAX: Final = 10_000
"""So long is any name that a node tells of itself, and so many things it may offer."""


@dataclass(slots=True)
class Visit:
    """One node process, told apart by its instance."""

    node: str
    instance: str
    open: int = 0
    answered_ns: int = 0
    cut: bool = False


def taken(node: str) -> str:
    """Why a node is not let in."""
    return f"Another node called {node} is connected: give this one another name, or stop the other one."


class Presence:
    """The open connections of all nodes. A name belongs to one process at a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._visits: dict[str, Visit] = {}

    def enter(self, node: str, instance: str) -> Visit:
        """Note a connection that was opened. Raises `JouleboxError("node_name_taken")`, with `retry_s` where nobody is
        on the line and the name is only kept for a while: its process may have died in between."""
        visit = self._visits.get(node)
        if visit is None or visit.instance != instance:
            if visit is not None and self._is_here(visit):
                soon = {} if visit.open else {"retry_s": BETWEEN_S}
                raise JouleboxError("node_name_taken", taken(node), **soon)
            visit = self._visits[node] = Visit(node=node, instance=instance)
        visit.open += 1
        visit.cut = False
        return visit

    def leave(self, visit: Visit, *, cut: bool) -> None:
        """Note that a connection ended: `cut` by the other side, or answered to its end."""
        visit.open -= 1
        visit.cut = cut
        visit.answered_ns = self._clock.now_ns()

    def here(self, node: str) -> bool:
        """Whether this node is present."""
        visit = self._visits.get(node)
        return visit is not None and self._is_here(visit)

    def _is_here(self, visit: Visit) -> bool:
        if visit.open > 0:
            return True
        return not visit.cut and self._clock.now_ns() - visit.answered_ns < nanoseconds(BETWEEN_S)


def check_offer(request: LeaseRequest) -> None:
    """Refuse names that none would have, and more things than any machine has. Raises `JouleboxError`:
    `bad_request`, `unknown_zone`.

    Looked at when an offer has changed: it is in every request, and most are the same again.
    """
    files = (*request.models, *request.unfit)
    things = (*files, *request.channels, request.engine, *request.bands)
    if len(things) + len(request.missing) > THINGS_MAX:
        raise JouleboxError("bad_request", f"A node may offer at most {THINGS_MAX} things: this is more.")
    told = [text for thing in things for text in _values(thing) if isinstance(text, str)]
    told += [*request.missing, request.loaded or "", request.host or ""]
    if wrong := next((text for text in told if len(text) > WORDS_MAX or not text.isprintable()), None):
        sentence = f"What a node tells of itself are words of at most {WORDS_MAX} printable characters"
        raise JouleboxError("bad_request", f"{sentence}, and not {wrong[:40]!r}.")
    if request.zone is not None:
        check_zone(request.zone)
    if any(len(file.id) > MODEL_NAME_MAX or len(file.digest) > DIGEST_MAX for file in files):
        raise JouleboxError("bad_request", f"A model's name has at most {MODEL_NAME_MAX} characters.")


def _values(thing: Any) -> list[Any]:
    return [getattr(thing, one.name) for one in fields(thing)]
