"""`ollama:http://HOST:PORT`: Ollama by its native API.

A model is loaded by a chat without messages and kept until it is unloaded the same way. Ollama has no switch for its
prompt cache: newer versions tell how many tokens came from it, older ones do not. A prompt that does not fit is
refused, where Ollama's own default is to shorten it silently.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

import httpx2

from joulebox.model import Message, Prompt
from joulebox.node import tool_calls
from joulebox.node.engine import LocalModel
from joulebox.node.engine_http import Tally, json_lines
from joulebox.node.gguf import Header
from joulebox.node.models import memory_need_bytes
from joulebox.node.served import (
    LOAD_WAIT_S,
    UNKNOWN,
    UNLOAD_WAIT_S,
    ServedEngine,
    Setup,
    model_of,
    refuse_error,
    seconds_of,
    whole,
)
from joulebox.units import NS_PER_S

WHERE: Final = "http://127.0.0.1:11434"
LOOKS_FOR: Final = "Ollama"
OPTIONS: Final[Mapping[str, str]] = {}
_CHAT: Final = "/api/chat"
_FOR_EVER: Final = -1
"""Ollama's `keep_alive`: a model must not leave between two prompts, or its loading would be part of an answer."""


class Ollama(ServedEngine):
    """One Ollama."""

    name: ClassVar[str] = "ollama"
    takes_tools: ClassVar[bool] = True
    processes: ClassVar[tuple[str, ...]] = ("ollama",)

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._shown: dict[tuple[str, str], dict[str, Any]] = {}
        self._context_tokens: dict[str, int] = {}
        self._told_tokens: dict[str, int | None] = {}
        self._tells: dict[str, bool] = {}

    @property
    def unloads(self) -> bool:
        """It does."""
        return True

    def version(self) -> str:
        """Such as `0.13.1`."""
        return str(self.http.perhaps("/api/version").get("version") or UNKNOWN)

    def listed(self) -> list[LocalModel]:
        """All models that lie here and answer; not those that Ollama has answered elsewhere (its cloud)."""
        rows = [row for row in self.http.ask("GET", "/api/tags")["models"] if not row.get("remote_host")]
        found = [self._model_of(row, self._show(str(row["name"]), str(row["digest"]))) for row in rows]
        models = [model for model in found if model is not None]
        self._context_tokens = {str(model.path): model.file.context_tokens for model in models}
        return models

    def held(self) -> Collection[str]:
        """Those in memory with this node's context: with another, Ollama would load them again for a prompt. Which
        context it tells of one that this node had it load is remembered: it need not be the one that was asked for."""
        ours = self._context_tokens | self._told_tokens
        return [name for name, told in self._in_memory().items() if not told or told == ours.get(name, told)]

    def bring(self, name: str) -> None:
        """A chat without messages loads, and answers when that is done."""
        body = {"model": name, "messages": [], "stream": False, "keep_alive": _FOR_EVER, "options": self._place(name)}
        refuse_error(self.http.ask("POST", _CHAT, body, LOAD_WAIT_S))
        self._told_tokens[name] = self._in_memory().get(name)

    def drop(self, name: str) -> None:
        """The same with no time to keep it."""
        body = {"model": name, "messages": [], "stream": False, "keep_alive": 0}
        self.http.ask("POST", _CHAT, body, UNLOAD_WAIT_S)
        self.wait_until(lambda: name not in self._in_memory(), UNLOAD_WAIT_S)

    def request(self, prompt: Prompt, model: LocalModel) -> tuple[str, dict[str, Any]]:
        """Words at which to stop are only sent where there are any: they replace those of the model itself. Ollama
        cannot be told which function must be called: there the functions are told in words, and the answer is held to
        a schema."""
        schema = tool_calls.schema(prompt) or (json.loads(prompt.json_schema) if prompt.json_schema else None)
        if tool_calls.schema(prompt) is not None or not self._tells.get(str(model.path)):
            prompt = tool_calls.in_words(prompt)
        name = str(model.path)
        options: dict[str, Any] = self._place(name) | {
            "num_predict": prompt.max_tokens,
            "temperature": prompt.temperature,
            "seed": prompt.seed,
        }
        if prompt.top_p is not None:
            options["top_p"] = prompt.top_p
        return _CHAT, {
            "model": name,
            "messages": _turns(prompt.messages),
            "stream": True,
            "keep_alive": _FOR_EVER,
            "truncate": False,
            "shift": False,
            "options": options | ({"stop": list(prompt.stop)} if prompt.stop else {}),
        } | ({"format": schema} if schema else {}) | (
            {"tools": tool_calls.functions(prompt.tools)} if prompt.tools else {}
        )

    def pieces(self, response: httpx2.Response) -> Iterator[tuple[int, dict[str, Any]]]:
        """One JSON object a line."""
        return json_lines(response, self._clock)

    def read(self, piece: Mapping[str, Any], tally: Tally) -> str:
        """Counts and times stand in the last piece; what is not there is unknown, not zero."""
        refuse_error(piece)
        message = piece.get("message") or {}
        tally.calls.take([{"function": one["function"]} for one in message.get("tool_calls") or ()])
        if piece.get("done"):
            tally.finish_reason = str(piece.get("done_reason") or "stop")
            tally.output_tokens = whole(piece.get("eval_count"))
            tally.cached_tokens = whole(piece.get("prompt_eval_cached_count"))
            tally.input_tokens = whole(piece.get("prompt_eval_count"))
            tally.load_s = seconds_of(piece.get("load_duration"), 1 / NS_PER_S)
            tally.prefill_s = seconds_of(piece.get("prompt_eval_duration"), 1 / NS_PER_S)
            tally.decode_s = seconds_of(piece.get("eval_duration"), 1 / NS_PER_S)
        return tally.told(message.get("thinking") or "", message.get("content") or "")

    def _in_memory(self) -> dict[str, int | None]:
        """What is in memory, and with which context, as far as it tells."""
        return {row["name"]: whole(row.get("context_length")) for row in self.http.ask("GET", "/api/ps")["models"]}

    def _place(self, name: str) -> dict[str, int]:
        """What decides how a model is loaded: the same in every request, or Ollama would load it again."""
        place = {"num_ctx": self._context_tokens.get(name, self.setup.context_tokens)}
        return place if self.setup.threads is None else place | {"num_thread": self.setup.threads}

    def _show(self, name: str, digest: str) -> dict[str, Any]:
        """What Ollama tells of one model; asked once for each digest."""
        if (name, digest) not in self._shown:
            self._shown[name, digest] = self.http.ask("POST", "/api/show", {"model": name})
        return self._shown[name, digest]

    def _model_of(self, row: Mapping[str, Any], shown: Mapping[str, Any]) -> LocalModel | None:
        """`None` for a model that makes vectors, not answers."""
        if "completion" not in shown.get("capabilities", ("completion",)):
            return None
        self._tells[str(row["name"])] = "tools" in shown.get("capabilities", ())
        facts = shown.get("model_info") or {}
        trained = whole(facts.get(f"{facts.get('general.architecture')}.context_length"))
        context = min(self.setup.context_tokens, trained or self.setup.context_tokens)
        size_bytes = whole(row.get("size"))
        header = _header(facts)
        return model_of(
            str(row["name"]),
            context_tokens=context,
            digest=f"sha256:{str(row['digest']).removeprefix('sha256:')}",
            quantization=(row.get("details") or {}).get("quantization_level"),
            size_bytes=size_bytes,
            memory_bytes=memory_need_bytes(header, size_bytes, context) if header and size_bytes else None,
        )


def _turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """A conversation as Ollama has it: arguments are objects, and what came of a call names its function."""
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    told: list[dict[str, Any]] = []
    for message in messages:
        turn: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.tool_calls:
            turn["tool_calls"] = [
                {"function": {"name": one.name, "arguments": json.loads(one.arguments)}} for one in message.tool_calls
            ]
        if message.tool_call_id is not None:
            turn["tool_name"] = names.get(message.tool_call_id, "")
        told.append(turn)
    return told


def _header(facts: Mapping[str, Any]) -> Header | None:
    """What the memory need follows from, as a model's file would tell it; `None` where Ollama does not tell enough."""
    architecture = str(facts.get("general.architecture"))

    def fact(key: str) -> int:
        value = facts.get(f"{architecture}.{key}")
        if isinstance(value, list):
            value = max((each for each in value if isinstance(each, int)), default=0)
        return whole(value) or 0

    blocks, width, heads = fact("block_count"), fact("embedding_length"), fact("attention.head_count")
    if not (blocks and width and heads):
        return None
    length = width // heads
    return Header(
        architecture=architecture,
        name=None,
        quantization=UNKNOWN,
        context_tokens=fact("context_length"),
        block_count=blocks,
        embedding_length=width,
        head_count=heads,
        head_count_kv=fact("attention.head_count_kv") or heads,
        key_length=fact("attention.key_length") or length,
        value_length=fact("attention.value_length") or length,
        vocabulary=fact("vocab_size"),
    )


def open(setup: Setup) -> Ollama:  # noqa: A001 - the name every driver offers
    """The Ollama at `setup.url`. Nothing is asked yet."""
    return Ollama(setup)
