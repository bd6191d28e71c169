"""The part of the pages' stage that those who run a server see: keys, messages, what is set."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import Request

from joulebox.errors import JouleboxError
from joulebox.server.access import Act, Caller
from joulebox.server.feedback import Message
from joulebox.server.pages import Rules

Json = dict[str, Any]
NOW = datetime(2026, 11, 23, 10, 20, tzinfo=UTC)
RULES = Rules(
    public=("ask",),
    retention_days=30,
    requests_per_minute=600,
    asks_per_minute=30,
    outstanding_max=20,
    prompts_per_day=500,
)


def _key(key_id: str, name: str, *scopes: str, **more: Any) -> Json:
    told = {"id": key_id, "name": name, "scopes": list(scopes), "created": "2026-11-02T09:12:00+00:00"}
    ends = dict.fromkeys(("expires", "revoked", "used", "outstanding_max", "prompts_per_day", "joules_per_day"))
    return told | ends | more


KEYS = (
    _key("01JD2Q8M4VXA7K3C", "old laptop", "admin", revoked="2026-11-20T17:01:00+00:00"),
    _key("01JD2Q9B7N5TR2WE", "lab-3", "node", used="2026-11-23T10:04:00+00:00"),
    _key("01JD2QAF3H8YZ6PM", "Anna", "ask", expires="2027-02-01T00:00:00+00:00", prompts_per_day=50),
)
ACTS = (
    Act(at=NOW, actor="local", name="local", act="token_create", subject="01JD2QAF3H8YZ6PM", detail="Anna: ask"),
    Act(at=NOW - timedelta(days=3), actor="local", name="local", act="drain", subject="atelier", detail="new disk"),
)


class StageOperating:
    """Satisfies `Operated` from memory."""

    def __init__(self) -> None:
        self.kept = [
            Message(
                number=2,
                at=NOW,
                message="The table is lovely.\nCould it show latency too?",
                contact="anna@joulebox.test",
            ),
            Message(number=1, at=NOW - timedelta(days=2), message="Thank you!", contact=None),
        ]

    def now(self) -> datetime:
        return NOW

    async def make_token(self, form: Mapping[str, Any]) -> Mapping[str, Any]:
        if not form["name"]:
            raise JouleboxError("bad_request", "The field name cannot be used: it is empty.")
        return _key("01JD2QBZ9D4GS1FJ", form["name"], *form["scopes"]) | {"token": "jb_01JD2QBZ9D4GS1FJ_" + "x" * 43}

    async def tokens(self) -> Sequence[Mapping[str, Any]]:
        return KEYS

    async def revoke_token(self, token_id: str) -> None:
        raise JouleboxError("not_found", f"There is no token {token_id}: `joulebox tokens list` shows them.")

    async def acts(self, limit: int) -> tuple[Sequence[Act], None]:
        return ACTS, None

    async def messages(self) -> Sequence[Message]:
        return self.kept

    async def forget_message(self, number: int) -> None:
        self.kept = [one for one in self.kept if one.number != number]

    async def forget_node(self, name: str) -> None:
        raise JouleboxError("not_ready", f"{name} is idle: stop it first, so that it does not come back.")


class StageDoor:
    """Satisfies `Door`: a gate that knows no key."""

    async def sign_in(self, request: Request, text: str) -> tuple[str, Caller]:
        raise JouleboxError("unauthorized", "This key is not known, has expired or was revoked: use another.")

    async def signed(self, request: Request) -> Caller | None:
        return None
