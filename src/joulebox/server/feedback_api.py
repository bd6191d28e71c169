"""The routes to read and forget what people told the operator."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path

from joulebox.server.problems import NewRouter
from joulebox.server.service import Mine

Json = dict[str, Any]
Number = Annotated[int, Path(ge=1, le=2**31 - 1)]


def router(new: NewRouter) -> APIRouter:
    """Both of them."""
    routes = new()

    @routes.get("/api/v1/feedback")
    async def feedback(mine: Mine) -> Json:
        """What people told the operator on the page About, newest first."""
        messages = await mine.operating.messages()
        return {"messages": [asdict(one) | {"at": one.at.isoformat(timespec="seconds")} for one in messages]}

    @routes.delete("/api/v1/feedback/{number}")
    async def forget(mine: Mine, number: Number) -> Json:
        """Forget a message."""
        await mine.operating.forget_message(number)
        return {"number": number, "removed": True}

    return routes
