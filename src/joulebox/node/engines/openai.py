"""`openai:http://HOST:PORT[,flavour=vllm|sglang|tgi|lmstudio]`: engines that answer in OpenAI's form.

That form tells text, and tokens at the end. What a server tells beyond it (version, context, whether its prompt cache
is on, its own times, how to free the memory) stands on pages of its own, which `flavour` names. Without a flavour
nothing of it is known, times are those of the node's clock, and the model is made ready by a prompt of one token.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Final

from joulebox.model import Prompt
from joulebox.node import tool_calls
from joulebox.node.engine import LocalModel
from joulebox.node.engine_http import Refusal, Tally, sampling
from joulebox.node.options import choice
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

WHERE: Final = "http://127.0.0.1:8000"
LOOKS_FOR: Final = "a server that answers in OpenAI's form"
OPTIONS: Final[Mapping[str, str]] = {"flavour": "which server it is: `vllm`, `sglang`, `tgi` or `lmstudio`"}
CHAT: Final = "/v1/chat/completions"
_MILLI: Final = 1e-3


class OpenAI(ServedEngine):
    """A server of which only OpenAI's form is known."""

    name: ClassVar[str] = "openai"
    takes_tools: ClassVar[bool] = True
    apart: ClassVar[bool] = False
    stream_options: ClassVar[Mapping[str, bool]] = {"include_usage": True}

    def version(self) -> str:
        """Not told."""
        return UNKNOWN

    def listed(self) -> list[LocalModel]:
        """By `/v1/models`; some servers tell the context there."""
        return [
            model_of(str(row["id"]), context_tokens=whole(row.get("max_model_len")) or self.setup.context_tokens)
            for row in self.http.ask("GET", "/v1/models")["data"]
        ]

    def held(self) -> Collection[str]:
        """What is listed counts as ready."""
        return [row["id"] for row in self.http.ask("GET", "/v1/models")["data"]]

    def bring(self, name: str) -> None:
        """A prompt of one token: a server that loads by itself does it now, and not within an answer."""
        body = {"model": name, "messages": [{"role": "user", "content": "a"}], "max_tokens": 1}
        refuse_error(self.http.ask("POST", CHAT, body, LOAD_WAIT_S))

    def drop(self, name: str) -> None:
        """It cannot be asked to."""

    def request(self, prompt: Prompt, model: LocalModel) -> tuple[str, dict[str, Any]]:
        """Words at which to stop are only sent where there are any: not every server takes an empty list."""
        return CHAT, {
            "model": str(model.path),
            "messages": [tool_calls.turn(message) for message in prompt.messages],
            "max_tokens": prompt.max_tokens,
            "temperature": prompt.temperature,
            "seed": prompt.seed,
            "stream": True,
            "stream_options": dict(self.stream_options),
        } | ({"stop": list(prompt.stop)} if prompt.stop else {}) | sampling(prompt) | _tools(prompt)

    def read(self, piece: Mapping[str, Any], tally: Tally) -> str:
        """Thoughts come in a field of their own, of two names."""
        refuse_error(piece)
        thought = text = ""
        for choice_ in piece.get("choices") or ():
            delta = choice_.get("delta") or {}
            thought += delta.get("reasoning_content") or delta.get("reasoning") or ""
            text += delta.get("content") or ""
            tally.calls.take(delta.get("tool_calls"))
            tally.finish_reason = _reason(choice_.get("finish_reason")) or tally.finish_reason
        if usage := piece.get("usage"):
            self.count(usage, tally)
        return tally.told(thought, text)

    def count(self, usage: Mapping[str, Any], tally: Tally) -> None:
        """Tokens so far, or at the end."""
        tally.input_tokens = whole(usage.get("prompt_tokens"))
        tally.output_tokens = whole(usage.get("completion_tokens"))
        tally.cached_tokens = whole((usage.get("prompt_tokens_details") or {}).get("cached_tokens"))
        made = usage.get("completion_tokens_details") or {}
        tally.reasoning_tokens = whole(made.get("reasoning_tokens", usage.get("reasoning_tokens")))


class Vllm(OpenAI):
    """vLLM: version, whether the prefix cache is on, its own times with `--enable-per-request-metrics`, and sleep with
    `--enable-sleep-mode` and `VLLM_SERVER_DEV_MODE=1`."""

    name: ClassVar[str] = "vllm"
    processes: ClassVar[tuple[str, ...]] = ("vllm", "VLLM::EngineCore", "VLLM::APIServer")
    stream_options: ClassVar[Mapping[str, bool]] = {"include_usage": True, "continuous_usage_stats": True}

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._cache: bool | None = None
        self._sleeps = False

    @property
    def unloads(self) -> bool:
        """Where it may be put to sleep."""
        return self._sleeps

    @property
    def resident(self) -> bool:
        """Unless it sleeps."""
        return True

    def version(self) -> str:
        """Also looks whether the prefix cache is on (a label among its metrics) and whether it can sleep."""
        try:
            found = re.search(r'vllm:cache_config_info\{[^}]*enable_prefix_caching="(\w+)"', self.http.text("/metrics"))
        except Refusal:
            found = None
        self._cache = found[1].lower() == "true" if found else None
        self._sleeps = "is_sleeping" in self.http.perhaps("/is_sleeping")
        return str(self.http.perhaps("/version").get("version") or UNKNOWN)

    def held(self) -> Collection[str]:
        """Nothing while it sleeps."""
        return [] if self._sleeps and self.http.ask("GET", "/is_sleeping")["is_sleeping"] else super().held()

    def bring(self, name: str) -> None:
        """Its model is there from its start; only a sleeping one is woken."""
        if self._sleeps and name not in self.held():
            self.http.do("POST", "/wake_up", LOAD_WAIT_S)
            self.wait_until(lambda: name in self.held(), LOAD_WAIT_S)

    def drop(self, name: str) -> None:
        """Weights go to the machine's memory, the cache is forgotten (level 1)."""
        if self._sleeps:
            self.http.do("POST", "/sleep?level=1", UNLOAD_WAIT_S)
            self.wait_until(lambda: not self.held(), UNLOAD_WAIT_S)

    def request(self, prompt: Prompt, model: LocalModel) -> tuple[str, dict[str, Any]]:
        """Its own times are asked for."""
        path, body = super().request(prompt, model)
        return path, body | {"include_metrics": True}

    def read(self, piece: Mapping[str, Any], tally: Tally) -> str:
        """Its own times stand in the last piece."""
        if metrics := piece.get("metrics"):
            tally.prefill_s = seconds_of(metrics.get("time_to_first_token_ms"), _MILLI)
            tally.decode_s = seconds_of(metrics.get("generation_time_ms"), _MILLI)
            tally.queue_s = seconds_of(metrics.get("queue_time_ms"), _MILLI)
        return super().read(piece, tally)

    def count(self, usage: Mapping[str, Any], tally: Tally) -> None:
        """Without a cache nothing comes from it, whether or not it says so."""
        super().count(usage, tally)
        if tally.cached_tokens is None and self._cache is False:
            tally.cached_tokens = 0

    def advice(self) -> str | None:
        """On the prefix cache."""
        told = "Its prefix cache is on" if self._cache else "It does not tell whether its prefix cache is on"
        return None if self._cache is False else f"{told}: start it with `--no-enable-prefix-caching`."


class Sglang(OpenAI):
    """SGLang: version, quantization and whether the radix cache is on."""

    name: ClassVar[str] = "sglang"
    processes: ClassVar[tuple[str, ...]] = ("sglang", "sglang::scheduler", "sglang::detokenizer")
    stream_options: ClassVar[Mapping[str, bool]] = {"include_usage": True, "continuous_usage_stats": True}

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._about: dict[str, Any] = {}

    @property
    def resident(self) -> bool:
        """It has."""
        return True

    def version(self) -> str:
        """The page has had two names."""
        self._about = self.http.perhaps("/server_info") or self.http.perhaps("/get_server_info")
        return str(self._about.get("version") or UNKNOWN)

    def listed(self) -> list[LocalModel]:
        """One model, as it was started."""
        told = self._about.get("quantization")
        return [
            model_of(
                str(row["id"]),
                context_tokens=whole(row.get("max_model_len")) or self.setup.context_tokens,
                quantization=str(told) if told else None,
            )
            for row in self.http.ask("GET", "/v1/models")["data"]
        ]

    def bring(self, name: str) -> None:
        """Its model is there from its start."""

    def count(self, usage: Mapping[str, Any], tally: Tally) -> None:
        """Without a cache nothing comes from it."""
        super().count(usage, tally)
        if tally.cached_tokens is None and self._about.get("disable_radix_cache") is True:
            tally.cached_tokens = 0

    def advice(self) -> str | None:
        """On the radix cache."""
        if self._about.get("disable_radix_cache") is True:
            return None
        return "Its radix cache is on: start it with `--disable-radix-cache`."


class Tgi(OpenAI):
    """Hugging Face's Text Generation Inference: one model, with the revision of its files."""

    name: ClassVar[str] = "tgi"
    processes: ClassVar[tuple[str, ...]] = ("text-generation",)

    @property
    def resident(self) -> bool:
        """It has."""
        return True

    def version(self) -> str:
        """By `/info`."""
        return str(self.http.perhaps("/info").get("version") or UNKNOWN)

    def listed(self) -> list[LocalModel]:
        """The revision (a git commit) stands for the digest."""
        about = self.http.ask("GET", "/info")
        revision = about.get("model_sha")
        return [
            model_of(
                str(about["model_id"]),
                context_tokens=whole(about.get("max_total_tokens")) or self.setup.context_tokens,
                digest=f"git:{revision}" if revision else None,
            )
        ]

    def held(self) -> Collection[str]:
        """Its one model."""
        return [self.http.ask("GET", "/info")["model_id"]]

    def bring(self, name: str) -> None:
        """Its model is there from its start."""


class LmStudio(OpenAI):
    """LM Studio: lists, loads and unloads by its own API (version 0.4 and later)."""

    name: ClassVar[str] = "lmstudio"
    processes: ClassVar[tuple[str, ...]] = ("lm-studio", "LM Studio", "llmster")
    apart: ClassVar[bool] = True

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._told_tokens: dict[str, int | None] = {}

    @property
    def unloads(self) -> bool:
        """It does."""
        return True

    def listed(self) -> list[LocalModel]:
        """Models that make text."""
        return [
            model_of(
                str(row["key"]),
                context_tokens=self._context(row),
                quantization=(row.get("quantization") or {}).get("name"),
                size_bytes=whole(row.get("size_bytes")),
            )
            for row in self._rows()
        ]

    def held(self) -> Collection[str]:
        """Those loaded once, with the context that this node's loading gave."""
        return [
            row["key"]
            for row in self._rows()
            if _contexts(row) == [self._told_tokens.get(row["key"], self._context(row))]
        ]

    def bring(self, name: str) -> None:
        """With this node's context; instances with another one go first."""
        if name not in self.held():
            self.drop(name)
            context = next((self._context(row) for row in self._rows() if row["key"] == name), None)
            body = {"model": name} | ({} if context is None else {"context_length": context})
            self.http.ask("POST", "/api/v1/models/load", body, LOAD_WAIT_S)
            self._told_tokens |= {row["key"]: _contexts(row)[0] for row in self._rows() if len(_contexts(row)) == 1}

    def drop(self, name: str) -> None:
        """Each instance of a model by itself."""
        for row in self._rows():
            for one in row["loaded_instances"] if row["key"] == name else ():
                self.http.ask("POST", "/api/v1/models/unload", {"instance_id": one["id"]}, UNLOAD_WAIT_S)

    def _rows(self) -> list[dict[str, Any]]:
        return [row for row in self.http.ask("GET", "/api/v1/models")["models"] if row.get("type") == "llm"]

    def _context(self, row: Mapping[str, Any]) -> int:
        most = whole(row.get("max_context_length"))
        return self.setup.context_tokens if most is None else min(self.setup.context_tokens, most)


FLAVOURS: Final[Mapping[str, type[OpenAI]]] = {
    "": OpenAI,
    "vllm": Vllm,
    "sglang": Sglang,
    "tgi": Tgi,
    "lmstudio": LmStudio,
}


def _contexts(row: Mapping[str, Any]) -> list[int | None]:
    """The context of each loaded instance of a model of LM Studio."""
    return [whole((one.get("config") or {}).get("context_length")) for one in row["loaded_instances"]]


def _tools(prompt: Prompt) -> dict[str, Any]:
    """The functions, and which of them are to be called: such a server keeps to that itself, or refuses it."""
    return {"tools": tool_calls.functions(prompt.tools), **tool_calls.choice(prompt)} if prompt.tools else {}


def _reason(told: object) -> str:
    """Why an answer ended, in one pair of words: some servers have their own."""
    return {"eos_token": "stop", "stop_sequence": "stop"}.get(str(told), str(told)) if told else ""


def open(setup: Setup) -> OpenAI:  # noqa: A001 - the name every driver offers
    """The server at `setup.url`. Nothing is asked yet. Raises `JouleboxError("bad_setting")` for no such flavour."""
    return FLAVOURS[choice(setup.options, "flavour", "", FLAVOURS)](setup)
