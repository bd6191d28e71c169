"""The routes for those who run the server: tokens, nodes they are done with, the log of what administrators did."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query

from joulebox.server.operating import TokenBody
from joulebox.server.problems import NewRouter
from joulebox.server.service import Mine

Json = dict[str, Any]
Limit = Annotated[int, Query(ge=1, le=100)]


def router(new: NewRouter) -> APIRouter:
    """All of them."""
    routes = new()

    @routes.post("/api/v1/tokens", status_code=201)
    async def create(body: TokenBody, mine: Mine) -> Json:
        """Make a token. Its text is in this answer and nowhere else."""
        return await mine.operating.create_token(body)

    @routes.get("/api/v1/me")
    async def me(mine: Mine) -> Json:
        """What you may have and have used: prompts in hand; prompts and joules of the last 24 hours. `pending_j` is
        expected of prompts that are not over; `unknown` receipts have no energy, and of `unexpected` prompts no receipt
        tells what to expect: both count for nothing."""
        return await mine.standing()

    @routes.get("/api/v1/tokens")
    async def tokens(mine: Mine) -> Json:
        """Every token there ever was, without its text."""
        return {"tokens": await mine.operating.tokens()}

    @routes.delete("/api/v1/tokens/{token_id}")
    async def revoke(token_id: str, mine: Mine) -> Json:
        """Revoke a token. Other servers on the same database refuse it within ten seconds."""
        return await mine.operating.revoke_token(token_id)

    @routes.delete("/api/v1/nodes/{name}")
    async def forget(name: str, mine: Mine) -> Json:
        """Show a node that is away no more, until it comes back. Receipts and reports keep what it did."""
        return await mine.operating.forget_node(name)

    @routes.get("/api/v1/audit")
    async def audit(mine: Mine, limit: Limit = 50, cursor: str | None = None) -> Json:
        """What administrators did, newest first."""
        acts, following = await mine.operating.acts(limit, cursor)
        told = [asdict(act) | {"at": act.at.isoformat(timespec="milliseconds")} for act in acts]
        return {"acts": told, "next_cursor": following}

    return routes
