"""Functions that a model may call, in the words of engines: how they are put to one, and what of its answer is a call.

Engines that know functions of themselves are told them in OpenAI's form. To any other they are told in plain words, and
earlier calls and what came of them stand in the conversation as text. Where the answer must be a call it is held to a
JSON schema, so that even a very small model calls one.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Final

from joulebox.conversation import Message, Tool, arguments_of, called, must_call
from joulebox.model import Prompt

Json = dict[str, Any]
CALLS: Final = "tool_calls"
"""How an answer ended that calls."""
HOW: Final = (
    "You can call functions. To call one, answer with nothing but a JSON object of this form: "
    '{"name": "the function", "arguments": {}}. These are the functions, with the JSON schema of their arguments:'
)
OPENINGS: Final = ("{", "```json", "<tool_call>")
"""How models begin that write their call into their text."""
_CLOSINGS: Final = ("```", "</tool_call>")


# --- what is asked ----------------------------------------------------------------------------------------------------


def turn(message: Message) -> Json:
    """A turn in OpenAI's form."""
    told: Json = {"role": message.role, "content": message.content}
    if message.tool_calls:
        told["tool_calls"] = called(message.tool_calls)
    return told if message.tool_call_id is None else told | {"tool_call_id": message.tool_call_id}


def functions(tools: Sequence[Tool]) -> list[Json]:
    """Functions in OpenAI's form."""
    return [
        {
            "type": "function",
            "function": {
                "name": one.name,
                "description": one.description,
                "parameters": json.loads(one.parameters),
            },
        }
        for one in tools
    ]


def choice(prompt: Prompt) -> Json:
    """Which of them are to be called, in OpenAI's form."""
    forced = must_call(prompt.tools, prompt.tool_choice)
    if len(forced) == len(prompt.tools) or not forced:
        return {"tool_choice": "required" if forced else "auto"}
    return {"tool_choice": {"type": "function", "function": {"name": forced[0].name}}}


def in_words(prompt: Prompt) -> Prompt:
    """The same for an engine, or a model, that knows no functions."""
    names = {call.id: call.name for message in prompt.messages for call in message.tool_calls}
    turns = [_in_words(message, names) for message in prompt.messages]
    if not prompt.tools:
        return replace(prompt, messages=tuple(turns))
    listed = [HOW, *(f"{one.name}: {one.description}\n{one.parameters}" for one in prompt.tools)]
    at = next((place for place, one in enumerate(turns) if one.role == "system"), None)
    said = [turns.pop(at).content] if at is not None else []
    system = Message(role="system", content="\n\n".join([*said, "\n".join(listed)]))
    return replace(prompt, messages=(system, *turns), tools=())


def _in_words(message: Message, names: dict[str, str]) -> Message:
    if message.role == "tool":
        name = names.get(message.tool_call_id or "", "the function")
        return Message(role="user", content=f"{name} answered: {message.content}")
    calls = [json.dumps({"name": one.name, "arguments": arguments_of(one.arguments)}) for one in message.tool_calls]
    return Message(role=message.role, content="\n".join(filter(None, [message.content, *calls])))


def schema(prompt: Prompt) -> Json | None:
    """What an answer is held to that must be a call; `None` where it need not be."""
    forms = [
        {
            "type": "object",
            "properties": {"name": {"const": tool.name}, "arguments": json.loads(tool.parameters)},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in must_call(prompt.tools, prompt.tool_choice)
    ]
    return {"anyOf": forms} if forms else None


# --- what comes back --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Calls:
    """The calls of one answer as they come: told apart by the engine (`take`), or written into the text (`shown`).
    `tools` are those that may be called; with `forced` the answer is nothing else."""

    tools: Sequence[Tool] = ()
    forced: bool = False
    _told: dict[int, list[str]] = field(default_factory=dict)
    _held: str = ""
    _plain: bool = False
    _moved: bool = False

    def take(self, told: Sequence[Json] | None) -> None:
        """Pieces of calls in OpenAI's form; where no number is told each is a call of its own."""
        for piece in told or ():
            function = piece["function"]
            parts = self._told.setdefault(int(piece.get("index", len(self._told))), ["", ""])
            arguments = function.get("arguments") or ""
            parts[0] += function.get("name") or ""
            parts[1] += arguments if isinstance(arguments, str) else json.dumps(arguments)
            self._moved = True

    def shown(self, text: str) -> str | None:
        """What is shown of a piece of text: nothing while it may be a call; `None` where nothing has come at all."""
        moved, self._moved = self._moved, False
        if not self.tools or self._plain:
            return text or ("" if moved else None)
        if not text:
            return "" if moved else None
        self._held += text
        begun = self._held.lstrip()
        if self.forced or any(begun.startswith(each) or each.startswith(begun) for each in OPENINGS):
            return ""
        self._plain, whole, self._held = True, self._held, ""
        return whole

    def close(self) -> tuple[tuple[tuple[str, str], ...], str]:
        """The calls, with the JSON of their arguments, and the text of what is no whole call after all."""
        whole, rest = [], self._held
        for name, arguments in self._told.values():
            if arguments_of(arguments or "{}") is not None:
                whole.append((name, arguments or "{}"))
            else:
                rest += f"{name}({arguments}"
        written = _written(self._held, {tool.name for tool in self.tools})
        if written:
            return (*whole, *written), ""
        return tuple(whole), rest


def calls_of(prompt: Prompt) -> Calls:
    """What is to be looked for in the answer of a prompt."""
    return Calls(tools=prompt.tools, forced=bool(must_call(prompt.tools, prompt.tool_choice)))


def _written(text: str, names: set[str]) -> list[tuple[str, str]]:
    """The calls that a text consists of; none where it says anything beside, or calls what there is not."""
    found, decoder, left = [], json.JSONDecoder(), text
    while left := _stripped(left):
        try:
            told, end = decoder.raw_decode(left)
        except (ValueError, RecursionError):
            return []
        name, arguments = (told.get("name"), told.get("arguments")) if isinstance(told, dict) else (None, None)
        if name not in names or not isinstance(arguments, dict):
            return []
        found.append((str(name), json.dumps(arguments, ensure_ascii=False)))
        left = left[end:]
    return found


def _stripped(text: str) -> str:
    """Without what stands around a call."""
    around = tuple(chain(OPENINGS[1:], _CLOSINGS))
    text = text.strip()
    while sign := next((each for each in around if text.startswith(each)), None):
        text = text.removeprefix(sign).lstrip()
    return text
