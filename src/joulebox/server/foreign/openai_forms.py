"""What OpenAI's clients send and read: the forms of `/v1/chat/completions`, `/v1/completions` and `/v1/models`.

Fields of a request that ask for nothing here are not listed: they do no harm.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from joulebox.errors import JouleboxError
from joulebox.server.foreign.asking import Form, TermsBody, turn
from joulebox.server.receipt_fields import EnergyObject, JouleboxObject
from joulebox.server.tool_bodies import CALLS_MAX, TOOLS_MAX, CallId, Choice, ChoiceBody, ToolCallBody, functions_of

Json = dict[str, Any]
Unsupported = Annotated[Any, Field(description="Not supported: leave it out.")]
Tokens = Annotated[int, Field(ge=1)]
ANY_OBJECT: Final[Json] = {"type": "object"}
COMPLETION_TOKENS: Final = 16
"""As long is a completion of which nobody says how long it may be."""
HARMLESS: Final[Mapping[str, Sequence[object]]] = {
    "n": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
}
"""Values that ask for nothing."""
CHAT_HARMLESS: Final[Mapping[str, Sequence[object]]] = {
    **HARMLESS,
    "logprobs": (False,),
    "functions": ([],),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
}
COMPLETION_HARMLESS: Final[Mapping[str, Sequence[object]]] = {
    **HARMLESS,
    "best_of": (1,),
    "echo": (False,),
    "logprobs": (),
    "suffix": ("",),
}


class StreamOptions(Form):
    """What a stream tells beside."""

    include_usage: bool | None = None


class _Sampling(Form):
    """What both kinds of completion take."""

    model: Annotated[str, Field(max_length=200, description="Id of a model, as `GET /v1/models` lists it.")]
    max_tokens: Annotated[Tokens | None, Field(description="The answer ends here at the latest.")] = None
    temperature: Annotated[float | None, Field(ge=0, le=2, description="0 where nothing is said.")] = None
    top_p: Annotated[float | None, Field(ge=0, le=1, description="Where temperature is 0 it has no effect.")] = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[Any, Field(description="1.")] = None
    presence_penalty: Unsupported = None
    frequency_penalty: Unsupported = None
    logit_bias: Unsupported = None
    logprobs: Unsupported = None
    joulebox: TermsBody | None = None

    @property
    def with_usage(self) -> bool:
        """Whether the end of a stream is to tell tokens."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def sampling(self) -> Json:
        """Its part of a prompt of ours."""
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
            "stop": [self.stop] if isinstance(self.stop, str) else self.stop,
        }


class ChatMessage(Form):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Annotated[str | list[Json] | None, Field(description="Text, or parts of the type text.")] = None
    tool_calls: Annotated[
        list[ToolCallBody] | None, Field(max_length=CALLS_MAX, description="What the assistant called.")
    ] = None
    tool_call_id: Annotated[CallId | None, Field(description="Of role `tool`: which call this came of.")] = None


Kind = Literal["text", "json_object", "json_schema"]


def schema_of(kind: Kind, given: Json | None, where: str) -> Json | None:
    """The JSON schema that a kind of answer is held to; `None` for plain text. Raises `JouleboxError("bad_request")`
    where one should stand at `where` and does not."""
    if kind == "json_schema" and given is None:
        raise JouleboxError("bad_request", f"{where} is missing: give the schema.", field=where.partition(".")[0])
    return {"text": None, "json_object": ANY_OBJECT, "json_schema": given}[kind]


class SchemaBody(Form):
    """A JSON schema with its name."""

    name: str | None = None
    schema_: Annotated[Json | None, Field(alias="schema")] = None


class ResponseFormat(Form):
    """What an answer is to be like."""

    type: Kind
    json_schema: SchemaBody | None = None

    def schema_asked(self) -> Json | None:
        """The JSON schema of the answer; `None` for plain text. Raises `JouleboxError("bad_request")`."""
        given = self.json_schema.schema_ if self.json_schema is not None else None
        return schema_of(self.type, given, "response_format.json_schema.schema")


class ChatBody(_Sampling):
    """A request for a chat completion."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "small", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}]
        }
    )

    messages: Annotated[list[ChatMessage], Field(max_length=1_000)]
    max_completion_tokens: Annotated[Tokens | None, Field(description="The newer name of max_tokens.")] = None
    tools: Annotated[
        list[Json] | None, Field(max_length=TOOLS_MAX, description="Functions that the model may call.")
    ] = None
    tool_choice: Annotated[
        Choice | None,
        Field(description="`auto` (the model decides), `none`, `required`, or the function that must be called."),
    ] = None
    functions: Unsupported = None
    response_format: Annotated[
        ResponseFormat | None, Field(description="Types `text`, `json_object`, and `json_schema` with its schema.")
    ] = None
    modalities: Unsupported = None
    audio: Unsupported = None
    prediction: Unsupported = None
    web_search_options: Unsupported = None

    def to_fields(self) -> Json:
        """The fields of our own prompt. Raises `JouleboxError`: `not_supported`, `bad_request`."""
        self.refuse(CHAT_HARMLESS)
        return self.sampling() | {
            "messages": [
                turn(one.role, one.content, f"messages.{at}", one.tool_calls, one.tool_call_id)
                for at, one in enumerate(self.messages)
            ],
            "max_tokens": self.max_completion_tokens or self.max_tokens,
            "json_schema": self.response_format.schema_asked() if self.response_format is not None else None,
            "tools": functions_of(self.tools),
            "tool_choice": self.tool_choice.model_dump()
            if isinstance(self.tool_choice, ChoiceBody)
            else self.tool_choice,
        }


class CompletionBody(_Sampling):
    """A request for a completion. Nodes take conversations: the prompt is put to the model as a question."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "small", "prompt": "Say hello.", "max_tokens": 16}]}
    )

    prompt: Annotated[str | list[Any], Field(description="One text.")]
    best_of: Unsupported = None
    echo: Unsupported = None
    suffix: Unsupported = None

    def to_fields(self) -> Json:
        """The fields of our own prompt. Raises `JouleboxError`: `not_supported`, `bad_request`."""
        self.refuse(COMPLETION_HARMLESS)
        prompt = self.prompt[0] if isinstance(self.prompt, list) and len(self.prompt) == 1 else self.prompt
        if not isinstance(prompt, str):
            sentence = "prompt must be one text here: send several one after the other, and text instead of tokens."
            raise JouleboxError("not_supported", sentence, field="prompt")
        return self.sampling() | {"prompt": prompt, "max_tokens": self.max_tokens or COMPLETION_TOKENS}


# --- answers ----------------------------------------------------------------------------------------------------------


class UsageObject(BaseModel):
    """Tokens as the engine counted them. `energy_joules` is what the answer took, left out where nobody knows."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int] | None
    completion_tokens_details: dict[str, int] | None
    energy_j: float | None = Field(default=None, alias="energy_joules")


class _Measured(BaseModel):
    """What every answer has. `energy` is null where it is not known, or not yet."""

    id: str
    created: int
    model: str
    usage: UsageObject | None
    energy: EnergyObject | None
    joulebox: JouleboxObject


class AnswerMessage(BaseModel):
    """What the model said."""

    role: Literal["assistant"]
    content: str | None
    tool_calls: list[ToolCallBody] | None = None


class ChatChoice(BaseModel):
    """The one answer."""

    index: int
    message: AnswerMessage
    logprobs: None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatCompletion(_Measured):
    """The answer to a chat."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class CompletionChoice(BaseModel):
    """The one answer."""

    index: int
    text: str
    logprobs: None
    finish_reason: Literal["stop", "length"]


class Completion(_Measured):
    """The answer to a prompt."""

    object: Literal["text_completion"]
    choices: list[CompletionChoice]


class ModelFileObject(BaseModel):
    """A file of a model, and the nodes that have it."""

    digest: str
    quantization: str
    size_bytes: int | None
    memory_bytes: int | None
    context_tokens: int
    nodes: list[str]
    available: bool


class ModelFiles(BaseModel):
    """What stands behind the name of a model."""

    files: list[ModelFileObject]


class ModelObject(BaseModel):
    """A model that can be asked. `created` is not known, which OpenAI's form cannot say: 0."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    joulebox: ModelFiles


class ModelList(BaseModel):
    """All of them."""

    object: Literal["list"]
    data: list[ModelObject]


def reason_of(reason: str) -> str:
    """OpenAI knows three ends: whatever cut the answer short is `length`; the receipt has the very word."""
    return reason if reason in ("stop", "tool_calls") else "length"
