"""A conversation: its turns, the functions that a model may call, and its calls. Nouns of `joulebox.model`, which has
their story."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Role = Literal["system", "user", "assistant", "tool"]

AUTO: Final = "auto"
"""The model decides whether to call a function."""
REQUIRED: Final = "required"
"""The answer is a call of one of the functions."""
FUNCTION_PREFIX: Final = "function:"
"""The answer is a call of the function that follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that a model may call. `parameters` is the JSON schema of its arguments, as JSON."""

    name: str
    description: str
    parameters: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call of a function; whoever asked runs it. `arguments` is the JSON of an object, as the model wrote it."""

    id: str
    name: str
    arguments: str

    def __str__(self) -> str:
        """As people read it."""
        return f"{self.name}({self.arguments})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation. One of a `tool` is what came of the assistant's call `tool_call_id`."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


def must_call(tools: Sequence[Tool], choice: str) -> tuple[Tool, ...]:
    """Those of the functions of which the answer must be a call; none where the model decides."""
    if choice == REQUIRED:
        return tuple(tools)
    return tuple(tool for tool in tools if choice == FUNCTION_PREFIX + tool.name)


def needs_tools(tools: Sequence[Tool], messages: Sequence[Message]) -> bool:
    """Whether an engine must know of functions: they may be called, or were before."""
    return bool(tools) or any(turn.role == "tool" or turn.tool_calls for turn in messages)


def called(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    """Calls in OpenAI's form."""
    return [
        {"id": one.id, "type": "function", "function": {"name": one.name, "arguments": one.arguments}} for one in calls
    ]


def arguments_of(text: str) -> dict[str, Any] | None:
    """The arguments that a text is the JSON of; `None` where it is no object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def with_calls(answer: str, calls: Sequence[ToolCall]) -> str:
    """An answer as people read it: its text, then its calls, one a line."""
    return "\n".join([*([answer] if answer else []), *map(str, calls)])
