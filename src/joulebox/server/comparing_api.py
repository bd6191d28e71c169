"""The route of comparing: one prompt, several models, one node. It is not blind; the page Compare is."""

import secrets
from typing import Annotated, Any, Final

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from joulebox.server.bodies import EXAMPLE
from joulebox.server.comparing import MODELS_MAX, MODELS_MIN, in_order
from joulebox.server.problems import NewRouter
from joulebox.server.service import Mine
from joulebox.server.texts import Kept
from joulebox.server.tool_bodies import Text

Json = dict[str, Any]
SEED_MAX: Final = 2**31 - 1
COMPARED: Final[Json] = {"models": ["small", "large"], "prompt": EXAMPLE["prompt"], "max_tokens": 64}


class ComparisonBody(BaseModel):
    """One prompt for several models."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [COMPARED]})

    models: Annotated[
        list[Annotated[Kept, Field(max_length=200)]],
        Field(min_length=MODELS_MIN, max_length=MODELS_MAX, description="Ids that one node has all of."),
    ]
    prompt: Annotated[Text, Field(description="What to ask each of them.")]
    system: Annotated[Text | None, Field(description="How the models are to behave.")] = None
    max_tokens: Annotated[int, Field(ge=1, description="Each answer ends here at the latest.")] = 256
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 0.0
    seed: Annotated[int, Field(ge=0, le=SEED_MAX)] = 0
    order_seed: Annotated[
        int | None, Field(ge=0, le=SEED_MAX, description="Decides who goes first; drawn by lot where it is left out.")
    ] = None


def router(new: NewRouter) -> APIRouter:
    """It alone."""
    routes = new()

    @routes.post("/api/v1/comparisons", status_code=202)
    async def compare(body: ComparisonBody, mine: Mine) -> Json:
        """Have each of the models answer the prompt on one node that has them all, quietly, one after the other in an
        order that `order_seed` decides. `prompts` are ordinary prompts in that order: follow each by its id."""
        order_seed = secrets.randbelow(SEED_MAX) if body.order_seed is None else body.order_seed
        order = in_order(list(dict.fromkeys(body.models)), order_seed)
        form = body.model_dump(exclude={"models", "order_seed"}, exclude_none=True)
        node, asked = await mine.asked_in_turn(order, form)
        return {"node": node, "order_seed": order_seed, "prompts": [await mine.status(one) for one in asked.values()]}

    return routes
