"""What those who run the server do, by API, command and page alike: tokens, nodes they are done with, messages, and the
log of it."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from joulebox.errors import JouleboxError
from joulebox.server.access import Act, Caller, Scope, Token, new_token, shown
from joulebox.server.desk import Desk
from joulebox.server.feedback import Message
from joulebox.server.jobs import NodeRecord
from joulebox.server.node_now import NodeNow
from joulebox.server.paging import number
from joulebox.server.problems import bad_request
from joulebox.server.store import Store
from joulebox.server.texts import Kept

Json = dict[str, Any]
Quota = Annotated[int | None, Field(ge=0, le=2**31 - 1)]


class TokenBody(BaseModel):
    """A token to be made."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[Kept, Field(min_length=1, max_length=64, description="Whose it is, or what for.")]
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=4)]
    expires_days: Annotated[float | None, Field(gt=0, le=36_500, allow_inf_nan=False)] = None
    outstanding_max: Annotated[Quota, Field(description="In place of the setting of that name; 0: any number.")] = None
    prompts_per_day: Annotated[Quota, Field(description="In place of the setting of that name; 0: any number.")] = None
    joules_per_day: Annotated[
        float | None,
        Field(ge=0, allow_inf_nan=False, description="In place of the setting of that name; 0: any number."),
    ] = None


class Operating:
    """For one caller, whom the gate let in. Every method may raise `JouleboxError`."""

    def __init__(self, desk: Desk, store: Store, caller: Caller, forget_token: Callable[[str], None]) -> None:
        self._desk = desk
        self._store = store
        self._caller = caller
        self._forget_token = forget_token

    def now(self) -> datetime:
        """Calendar time."""
        return self._desk.now()

    # --- tokens -------------------------------------------------------------------------------------------------------

    async def make_token(self, form: Mapping[str, Any]) -> Json:
        """Make a token from a form. Raises `JouleboxError("bad_request")`."""
        try:
            return await self.create_token(TokenBody.model_validate(dict(form)))
        except ValidationError as error:
            raise bad_request(error) from error

    async def create_token(self, body: TokenBody) -> Json:
        """Make a token; its text is in this answer and nowhere else."""
        now = self.now()
        token_id, text, kept = new_token()
        token = Token(
            id=token_id,
            name=body.name,
            scopes=tuple(dict.fromkeys(body.scopes)),
            hash=kept,
            created=now,
            expires=now + timedelta(days=body.expires_days) if body.expires_days else None,
            outstanding_max=body.outstanding_max,
            prompts_per_day=body.prompts_per_day,
            joules_per_day=body.joules_per_day,
        )
        act = self._acted("token_create", token_id, f"{body.name}: {', '.join(body.scopes)}")
        await self._store.access.add_token(token, act)
        return shown(token) | {"token": text}

    async def tokens(self) -> list[Json]:
        """Every token there ever was, without its text."""
        return [shown(token) for token in await self._store.access.tokens()]

    async def revoke_token(self, token_id: str) -> Json:
        """Revoke a token; one that is revoked stays so. Raises `JouleboxError("not_found")`."""
        await self._store.access.revoke(token_id, self._acted("token_revoke", token_id))
        self._forget_token(token_id)
        token = await self._store.access.token(token_id)
        if token is None:
            raise JouleboxError("not_found", f"There is no token {token_id}: `joulebox tokens list` shows them.")
        return shown(token)

    # --- the log ------------------------------------------------------------------------------------------------------

    async def acts(self, limit: int, cursor: str | None = None) -> tuple[Sequence[Act], str | None]:
        """The audit log, newest first, and the next page's cursor."""
        before = number(cursor) if cursor is not None else None
        acts, following = await self._store.access.acts(limit, before)
        return acts, str(following) if following is not None else None

    async def note(self, act: str, subject: str, detail: str = "") -> None:
        """Write down what the caller does."""
        await self._store.access.note(self._acted(act, subject, detail))

    def _acted(self, act: str, subject: str, detail: str = "") -> Act:
        actor = self._caller.token_id or ""
        return Act(at=self.now(), actor=actor, name=self._caller.name, act=act, subject=subject, detail=detail)

    # --- messages -----------------------------------------------------------------------------------------------------

    async def messages(self) -> Sequence[Message]:
        """What people told the operator, newest first."""
        return await self._store.feedback.messages()

    async def forget_message(self, number: int) -> None:
        """Forget one. Raises `JouleboxError("not_found")`."""
        if not await self._store.feedback.remove(number):
            raise JouleboxError("not_found", f"There is no message {number}: `joulebox feedback` shows them.")

    # --- nodes --------------------------------------------------------------------------------------------------------

    async def nodes(self) -> list[tuple[NodeRecord, NodeNow]]:
        """Every node that is there or was not forgotten, with what it does now."""
        forgotten = await self._store.hidden.forgotten()
        return [(node, now) for node, now in await self._desk.nodes() if not _gone(node, now, forgotten)]

    async def node(self, name: str) -> tuple[NodeRecord, NodeNow]:
        """One of them. Raises `JouleboxError("not_found")`."""
        found = next((one for one in await self.nodes() if one[0].offer.node == name), None)
        if found is None:
            raise JouleboxError("not_found", f"There is no node {name}.")
        return found

    async def forget_node(self, name: str) -> Json:
        """Show a node that is away no more, until it comes back; receipts and reports keep what it did.

        Raises `JouleboxError`: `not_found`; `not_ready` where it is not away.
        """
        _record, now = await self.node(name)
        if now.state != "away":
            raise JouleboxError("not_ready", f"{name} is {now.state}: stop it first, so that it does not come back.")
        await self._store.hidden.forget(name, self.now())
        await self.note("forget_node", name)
        return {"name": name, "forgotten": True}


def _gone(node: NodeRecord, now: NodeNow, forgotten: Mapping[str, datetime]) -> bool:
    """Whether a node has not been seen since it was forgotten."""
    since = forgotten.get(node.offer.node)
    return since is not None and now.state == "away" and node.seen <= since
