"""Prompts as people send them: what may stand in a request, and the nouns it becomes."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from joulebox.errors import JouleboxError
from joulebox.model import Message, Mode, Prompt
from joulebox.server.campaigns import AUTO, EVERYTHING
from joulebox.server.grid import check_zone
from joulebox.server.jobs import FASTEST, NODE_PREFIX, ZONE_PREFIX, Priority
from joulebox.server.paging import moment
from joulebox.server.placement import GREENEST, Wish
from joulebox.server.texts import Kept
from joulebox.server.tool_bodies import TOOLS_MAX, Choice, MessageBody, Text, ToolBody, tools_of

Json = dict[str, Any]
SCHEMA_MAX: Final = 20_000
"""So many characters a JSON schema may have: an engine makes a grammar of it."""
EXAMPLE: Final[Json] = {"model": "small", "prompt": "Why is the sky blue?", "max_tokens": 64}


class AutoBody(BaseModel):
    """What a model must be like that the server chooses."""

    model_config = ConfigDict(extra="forbid", strict=True)

    category: Annotated[Kept, Field(max_length=64, description="Of the table; `all` for all together.")] = EVERYTHING
    min_accuracy: Annotated[float, Field(ge=0, le=1, description="Right in so many of such prompts, at least.")] = 0.0
    max_energy_j: Annotated[
        float | None, Field(gt=0, allow_inf_nan=False, description="A mean answer takes no more.")
    ] = None


def _packed(schema: Mapping[str, Any]) -> str:
    """A JSON schema as a prompt keeps it. Raises `JouleboxError("bad_request")` for one that no engine should meet."""
    packed = json.dumps(schema, separators=(",", ":"), ensure_ascii=False)
    if len(packed) > SCHEMA_MAX:
        raise JouleboxError("bad_request", f"The JSON schema is longer than {SCHEMA_MAX} characters: make it shorter.")
    return packed


class PromptBody(BaseModel):
    """A prompt as people send it: either `prompt` or `messages`."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [EXAMPLE]})

    model: Annotated[Kept, Field(max_length=200, description="Id of a model, as `GET /api/v1/models` lists it.")]
    prompt: Annotated[Text | None, Field(description="What to ask; or give `messages`.")] = None
    messages: Annotated[list[MessageBody] | None, Field(max_length=1_000, description="A conversation.")] = None
    system: Annotated[Text | None, Field(description="How the model is to behave.")] = None
    max_tokens: Annotated[int, Field(ge=1, description="The answer ends here at the latest.")] = 256
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 0.0
    top_p: Annotated[
        float | None, Field(gt=0, le=1, description="Above temperature 0: only the likeliest tokens of so much chance.")
    ] = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    json_schema: Annotated[
        dict[str, Any] | None, Field(description="The answer is JSON of this JSON schema and nothing else.")
    ] = None
    tools: Annotated[
        list[ToolBody] | None,
        Field(max_length=TOOLS_MAX, description="Functions that the model may call; whoever asks runs them."),
    ] = None
    tool_choice: Annotated[
        Choice | None,
        Field(description="`auto` (the model decides), `none`, `required`, or the function that must be called."),
    ] = None
    stop: Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=16)] = []
    mode: Annotated[Mode, Field(description="`quiet` sends nothing until the answer is measured.")] = "live"
    placement: Annotated[
        Kept | None,
        Field(
            max_length=100, description="`fastest`, `greenest`, `zone:DE` or `node:NAME`; with a deadline `greenest`."
        ),
    ] = None
    priority: Annotated[
        Priority | None,
        Field(description="Who goes first: `interactive` where nothing is said, `deferrable` with a deadline."),
    ] = None
    deadline: Annotated[
        str | None,
        Field(
            max_length=40, description="Until then it runs in the greenest hours of the forecast: 2026-11-24T06:00Z."
        ),
    ] = None
    auto: Annotated[AutoBody | None, Field(description=f"For model `{AUTO}`: what it must be like.")] = None
    max_energy_j: Annotated[
        float | None, Field(gt=0, allow_inf_nan=False, description="The answer ends at so many joules above idle.")
    ] = None
    idempotency_key: Annotated[Kept | None, Field(min_length=1, max_length=200)] = None
    follows: Annotated[
        Kept | None, Field(max_length=32, description="Id of a prompt with an answer: this one goes on from there.")
    ] = None

    def to_prompt(self) -> Prompt:
        """The noun. Raises `JouleboxError("bad_request")`."""
        if (self.prompt is None) == (self.messages is None):
            raise JouleboxError("bad_request", "Give either prompt or messages, one of the two.")
        turns = [turn.to_message(f"messages.{at}") for at, turn in enumerate(self.messages or ())]
        if self.prompt is not None:
            turns = [Message(role="user", content=self.prompt)]
        if self.system is not None:
            turns.insert(0, Message(role="system", content=self.system))
        tools, choice = tools_of(self.tools, self.tool_choice)
        if tools and self.json_schema is not None:
            sentence = "Give tools or a JSON schema of the answer, one of the two: a call is no such answer."
            raise JouleboxError("bad_request", sentence, field="tools")
        return Prompt(
            model=self.model,
            messages=tuple(turns),
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            seed=self.seed,
            stop=tuple(self.stop),
            mode=self.mode,
            max_energy_j=self.max_energy_j,
            top_p=self.top_p,
            json_schema=_packed(self.json_schema) if self.json_schema is not None else None,
            tools=tools,
            tool_choice=choice,
        )

    def to_wish(self, now: datetime) -> Wish:
        """Where and until when it may run, spelled as nodes are. Raises `JouleboxError`: `bad_request`,
        `unknown_zone`."""
        deadline = moment(self.deadline, "deadline") if self.deadline is not None else None
        if deadline is not None and deadline <= now:
            raise JouleboxError(
                "bad_request", f"The deadline {self.deadline} is over: it is {now:%Y-%m-%dT%H:%MZ} now."
            )
        if deadline is not None and self.priority not in {None, "deferrable"}:
            raise JouleboxError(
                "bad_request", f"A deadline is for deferrable work: leave out priority {self.priority}."
            )
        if deadline is not None and self.placement == FASTEST:
            raise JouleboxError("bad_request", "placement fastest and a deadline contradict each other: leave one out.")
        policy = self.placement or (FASTEST if deadline is None else GREENEST)
        if policy in {FASTEST, GREENEST}:
            return Wish(policy=policy, deadline=deadline)
        kind, _, name = policy.partition(":")
        if kind not in {"zone", "node"}:
            known = f"{FASTEST}, {GREENEST}, {ZONE_PREFIX}DE or {NODE_PREFIX}NAME"
            raise JouleboxError("bad_request", f"placement {policy} is unknown: use {known}.")
        if kind == "node" and not name:
            raise JouleboxError("bad_request", "placement node: needs the name of a node, like node:desk.")
        line = ZONE_PREFIX + check_zone(name) if kind == "zone" else policy
        return Wish(policy=line, line=line, deadline=deadline)

    def to_priority(self) -> Priority:
        """Its class."""
        return self.priority or ("interactive" if self.deadline is None else "deferrable")
