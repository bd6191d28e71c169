"""The routes for those who run the server: tokens, and the log of what administrators did."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from joulebox.server.access import Scope
from joulebox.server.service import Mine

Json = dict[str, Any]
Limit = Annotated[int, Query(ge=1, le=100)]
Quota = Annotated[int | None, Field(ge=0, le=2**31 - 1)]


class TokenBody(BaseModel):
    """A token to be made."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(min_length=1, max_length=64, description="Whose it is, or what for.")]
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=4)]
    expires_days: Annotated[float | None, Field(gt=0, le=36_500, allow_inf_nan=False)] = None
    outstanding_max: Annotated[Quota, Field(description="In place of the setting of that name; 0: any number.")] = None
    prompts_per_day: Annotated[Quota, Field(description="In place of the setting of that name; 0: any number.")] = None
    joules_per_day: Annotated[
        float | None,
        Field(ge=0, allow_inf_nan=False, description="In place of the setting of that name; 0: any number."),
    ] = None


def router() -> APIRouter:
    """Tokens and audit log."""
    routes = APIRouter()

    @routes.post("/api/v1/tokens", status_code=201)
    async def create(body: TokenBody, mine: Mine) -> Json:
        """Make a token. Its text is in this answer and nowhere else."""
        return await mine.create_token(
            body.name,
            body.scopes,
            body.expires_days,
            outstanding_max=body.outstanding_max,
            prompts_per_day=body.prompts_per_day,
            joules_per_day=body.joules_per_day,
        )

    @routes.get("/api/v1/me")
    async def me(mine: Mine) -> Json:
        """What you may have and have used: prompts in hand; prompts and joules of the last 24 hours. `pending_j` is
        expected of prompts that are not over; `unknown` receipts have no energy, and of `unexpected` prompts no receipt
        tells what to expect: both count for nothing."""
        return await mine.standing()

    @routes.get("/api/v1/tokens")
    async def tokens(mine: Mine) -> Json:
        """Every token there ever was, without its text."""
        return {"tokens": await mine.tokens()}

    @routes.delete("/api/v1/tokens/{token_id}")
    async def revoke(token_id: str, mine: Mine) -> Json:
        """Revoke a token. Other servers on the same database refuse it within ten seconds."""
        return await mine.revoke_token(token_id)

    @routes.get("/api/v1/audit")
    async def audit(mine: Mine, limit: Limit = 50, cursor: str | None = None) -> Json:
        """What administrators did, newest first."""
        acts, following = await mine.acts(limit, cursor)
        told = [asdict(act) | {"at": act.at.isoformat(timespec="milliseconds")} for act in acts]
        return {"acts": told, "next_cursor": following}

    return routes
