"""Functions that a model may call, as people send and read them: in OpenAI's form, with their limits."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from joulebox.conversation import AUTO, FUNCTION_PREFIX, REQUIRED, Message, Role, Tool, ToolCall, arguments_of
from joulebox.errors import JouleboxError

Json = dict[str, Any]
TOOLS_MAX: Final = 64
TOOL_MAX: Final = 20_000
"""So many characters one function may have, with its description and the JSON schema of its arguments."""
TOOLS_CHARACTERS_MAX: Final = 100_000
"""All of them together."""
CALLS_MAX: Final = 128
"""So many calls one answer may have."""
CALL_MAX: Final = 100_000
"""So many characters the arguments of one may have."""
NONE: Final = "none"
Text = Annotated[str, Field(max_length=1_000_000)]
Name = Annotated[
    str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$", description="1 to 64 letters, digits, underscores, dots or dashes.")
]
CallId = Annotated[str, Field(min_length=1, max_length=200)]
_CALLS: Final = TypeAdapter(tuple[ToolCall, ...])


class _Body(BaseModel):
    """What is said beside, such as `strict`, asks for nothing here."""

    model_config = ConfigDict(extra="ignore", strict=True)


class FunctionBody(_Body):
    """A function that a model may call."""

    name: Name
    description: Annotated[str | None, Field(max_length=TOOL_MAX, description="What it is for.")] = None
    parameters: Annotated[Json | None, Field(description="The JSON schema of its arguments: of an object.")] = None


class ToolBody(_Body):
    """A tool: a function."""

    type: Annotated[Literal["function"], Field(description="`function`.")] = "function"
    function: FunctionBody

    def to_tool(self) -> Tool:
        """The noun. Raises `JouleboxError("bad_request")`."""
        name, schema = self.function.name, self.function.parameters or {}
        if schema.get("type", "object") != "object":
            sentence = f"The parameters of function {name} must be a JSON schema of the type object."
            raise JouleboxError("bad_request", sentence, field="tools")
        packed = json.dumps({"type": "object", **schema}, separators=(",", ":"), ensure_ascii=False)
        tool = Tool(name=name, description=self.function.description or "", parameters=packed)
        if _size(tool) > TOOL_MAX:
            sentence = f"Function {name} is longer than {TOOL_MAX} characters: make its schema shorter."
            raise JouleboxError("bad_request", sentence, field="tools")
        return tool


class CalledBody(_Body):
    """Which function was called, and with what."""

    name: Name
    arguments: Annotated[str, Field(max_length=CALL_MAX, description="The JSON of an object.")]


class ToolCallBody(_Body):
    """A call that an answer had."""

    id: CallId
    type: Annotated[Literal["function"], Field(description="`function`.")] = "function"
    function: CalledBody


class NamedFunction(_Body):
    """A function by its name."""

    name: Name


class ChoiceBody(_Body):
    """The function that must be called."""

    type: Annotated[Literal["function"], Field(description="`function`.")] = "function"
    function: NamedFunction


class MessageBody(BaseModel):
    """One turn of a conversation. One of role `tool` is what came of a call."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: Role
    content: Text
    tool_calls: Annotated[
        list[ToolCallBody] | None, Field(max_length=CALLS_MAX, description="What the assistant called.")
    ] = None
    tool_call_id: Annotated[CallId | None, Field(description="Of role `tool`: which call this came of.")] = None

    def to_message(self, place: str) -> Message:
        """The noun; `place` names it. Raises `JouleboxError("bad_request")`."""
        if (self.role == "tool") != (self.tool_call_id is not None):
            what = "needs a tool_call_id" if self.role == "tool" else "has a tool_call_id, which is for the role tool"
            raise JouleboxError("bad_request", f"{place} {what}.", field="messages")
        if self.tool_calls and self.role != "assistant":
            raise JouleboxError("bad_request", f"{place}: only the assistant has tool_calls.", field="messages")
        return Message(
            role=self.role,
            content=self.content,
            tool_calls=tuple(_call(one, place) for one in self.tool_calls or ()),
            tool_call_id=self.tool_call_id,
        )


def _call(body: ToolCallBody, place: str) -> ToolCall:
    function = body.function
    if arguments_of(function.arguments or "{}") is None:
        sentence = f"{place}: the arguments of {function.name} must be the JSON of an object."
        raise JouleboxError("bad_request", sentence, field="messages")
    return ToolCall(id=body.id, name=function.name, arguments=function.arguments or "{}")


Choice = Literal["none", "auto", "required"] | ChoiceBody


def functions_of(tools: Sequence[Json] | None) -> list[Json] | None:
    """Those tools of another API that are functions; `None` where there are none. Raises
    `JouleboxError("not_supported")` for any other."""
    for place, one in enumerate(tools or ()):
        if (kind := one.get("type", "function")) != "function":
            sentence = f"tools.{place} is of the type {str(kind)[:40]}: only functions are supported here."
            raise JouleboxError("not_supported", sentence, field="tools")
    return list(tools) if tools else None


def tools_of(bodies: Sequence[ToolBody] | None, choice: Choice | None) -> tuple[tuple[Tool, ...], str]:
    """The functions, none where none may be called, and which must be. Raises `JouleboxError("bad_request")`."""
    tools = tuple(body.to_tool() for body in bodies or ())
    names = [tool.name for tool in tools]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise JouleboxError("bad_request", f"Function {twice} is there twice: give each its own name.", field="tools")
    if sum(map(_size, tools)) > TOOLS_CHARACTERS_MAX:
        sentence = f"The tools are longer than {TOOLS_CHARACTERS_MAX} characters together: send fewer."
        raise JouleboxError("bad_request", sentence, field="tools")
    if choice == NONE:
        return (), AUTO
    if isinstance(choice, ChoiceBody):
        name = choice.function.name
        if name not in names:
            sentence = f"tool_choice names the function {name}, which is not among the tools."
            raise JouleboxError("bad_request", sentence, field="tool_choice")
        return tools, FUNCTION_PREFIX + name
    if choice == REQUIRED and not tools:
        raise JouleboxError("bad_request", "tool_choice required needs tools: give some.", field="tool_choice")
    return tools, choice or AUTO


def check_answered(messages: Sequence[Message]) -> None:
    """Refuse what came of a call that nobody made. Raises `JouleboxError("bad_request")`."""
    called: set[str] = set()
    for place, message in enumerate(messages):
        called |= {call.id for call in message.tool_calls}
        if message.role == "tool" and message.tool_call_id not in called:
            which = str(message.tool_call_id)[:40]
            sentence = f"messages.{place} answers the call {which}, which no turn before it made."
            raise JouleboxError("bad_request", sentence, field="messages")


def _size(tool: Tool) -> int:
    return len(tool.description) + len(tool.parameters)


# --- calls as people read them ----------------------------------------------------------------------------------------


def read_calls(told_: object) -> tuple[ToolCall, ...]:
    """The calls that a node tells of. Raises `JouleboxError("bad_request")` where they cannot be."""
    try:
        calls = _CALLS.validate_python(told_ or ())
    except ValidationError as error:
        raise JouleboxError("bad_request", "The calls of the answer cannot be read.") from error
    check_calls(calls)
    return calls


def check_calls(calls: Sequence[ToolCall]) -> None:
    """Refuse what no engine calls. Raises `JouleboxError("bad_request")`."""
    if len(calls) > CALLS_MAX:
        raise JouleboxError("bad_request", f"An answer has {CALLS_MAX} calls at most.")
    if any(len(one.id) > 200 or len(one.name) > 200 or len(one.arguments) > CALL_MAX for one in calls):
        raise JouleboxError("bad_request", f"The arguments of a call have {CALL_MAX} characters at most.")
    if any(arguments_of(one.arguments) is None for one in calls):
        raise JouleboxError("bad_request", "The arguments of a call must be the JSON of an object.")


def from_calls(calls: Sequence[Mapping[str, Any]]) -> tuple[ToolCall, ...]:
    """Calls in OpenAI's form, as nouns."""
    return tuple(ToolCall(id=one["id"], **one["function"]) for one in calls)
