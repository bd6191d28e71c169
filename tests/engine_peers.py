"""Servers that answer as the APIs of real inference engines document, for tests of the drivers.

Behind each is the scripted engine, so that answers repeat, obey their limits and can be cut. What each page is called
and what stands there is taken from the engines' own documentation: Ollama (docs/api.md), llama-server (tools/server),
vLLM, SGLang, TGI (docs/openapi.json) and LM Studio (REST API v1).
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from joulebox.clock import SystemClock
from joulebox.errors import JouleboxError
from joulebox.model import Message, ModelFile, Prompt
from joulebox.node.driven import Driven, open_engine
from joulebox.node.engine import Finished, LocalModel, Token
from joulebox.node.engines.scripted import Script, Scripted
from joulebox.settings import Settings
from joulebox.units import nanoseconds

CLOCK = SystemClock()
CONTEXT_TOKENS = 512
KEY = "a-key"
SCRIPT = Script(load_s=0.0, prefill_s=0.01, token_s=0.001)
TINY = ModelFile(id="m", digest="", quantization="", size_bytes=1, memory_bytes=1, context_tokens=CONTEXT_TOKENS)
DIGEST = "5e1f" * 16
Json = dict[str, Any]


class Refused(Exception):
    """An error document, with its status."""

    def __init__(self, status: int, body: Json) -> None:
        super().__init__(str(body))
        self.status = status
        self.body = body


@dataclass
class Peer:
    """One server. `faults` are done to the next answer and then forgotten: a function of the handler that streams."""

    names: tuple[str, ...] = ("small", "large")
    script: Script = SCRIPT
    held: set[str] = field(default_factory=set)
    asked: list[tuple[str, Json]] = field(default_factory=list)
    fault: str = ""
    url: str = ""
    key: str | None = None

    api: ClassVar[str] = ""

    def get(self, path: str) -> object:
        """The JSON (or text) of a page. Raises `Refused`."""
        raise Refused(404, {"error": "not found"})

    def post(self, path: str, body: Json) -> object:
        """The JSON of an answer, or an iterator of the lines of a streamed one. Raises `Refused`."""
        raise Refused(404, {"error": "not found"})

    def tokens(self, body: Mapping[str, Any], options: Mapping[str, Any], most: str) -> Iterator[Token | Finished]:
        """The scripted answer. Raises `JouleboxError("prompt_too_long")` before anything comes."""
        engine = Scripted(CLOCK, self.script, context_tokens=CONTEXT_TOKENS)
        messages = tuple(Message(role=one["role"], content=one["content"]) for one in body["messages"])
        prompt = Prompt(
            model=body.get("model", ""),
            messages=messages,
            max_tokens=options[most],
            seed=options["seed"],
            stop=tuple(options.get("stop", ())),
        )
        engine.load(LocalModel(file=TINY, path=Path(__file__)))
        events = engine.generate(prompt)
        next(events)
        return (event for event in events if isinstance(event, Token | Finished))


def sse(piece: Json) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(piece).encode() + b"\n\n"


# --- Ollama -----------------------------------------------------------------------------------------------------------


@dataclass
class OllamaPeer(Peer):
    """Ollama; `tells_cache` as newer versions do. It remembers the last prompt, as the real one does."""

    api: ClassVar[str] = "ollama"
    tells_cache: bool = True
    thinks: str = ""
    load_ns: int = 2_000_000
    told_tokens: int = CONTEXT_TOKENS
    before: str | None = None

    def get(self, path: str) -> object:
        if path == "/api/version":
            return {"version": "0.13.1"}
        if path == "/api/tags":
            rows = [self._row(name) for name in self.names]
            return {"models": [*rows, self._row("huge-cloud") | {"remote_host": "https://elsewhere.example"}]}
        if path == "/api/ps":
            return {"models": [self._row(name) | {"context_length": self.told_tokens} for name in sorted(self.held)]}
        return super().get(path)

    def post(self, path: str, body: Json) -> object:
        if path == "/api/show":
            facts = {"context_length": 2048, "block_count": 4, "embedding_length": 256, "attention.head_count": 8}
            told = {f"llama.{key}": value for key, value in facts.items()} | {"general.architecture": "llama"}
            return {"model_info": told, "capabilities": ["completion"], "details": self._row(body["model"])["details"]}
        if path != "/api/chat":
            return super().post(path, body)
        if body["model"] not in self.names:
            raise Refused(404, {"error": f"model '{body['model']}' not found"})
        if not body["messages"]:
            leaves = body["keep_alive"] == 0
            (self.held.discard if leaves else self.held.add)(body["model"])
            return {"model": body["model"], "done": True, "done_reason": "unload" if leaves else "load"}
        try:
            return self._stream(body, self.tokens(body, body["options"], "num_predict"))
        except JouleboxError as error:
            over = int(str(error.extra["input_tokens"])) - CONTEXT_TOKENS
            raise Refused(400, {"error": f"prompt too long; exceeded max context length by {over} tokens"}) from error

    def _stream(self, body: Json, answer: Iterator[Token | Finished]) -> Iterator[bytes]:
        head = {"model": body["model"], "created_at": "2026-11-23T16:00:00Z"}
        text = json.dumps(body["messages"])
        for word in self.thinks.split():
            yield self._line(head | {"message": {"role": "assistant", "content": "", "thinking": word}, "done": False})
        for event in answer:
            if isinstance(event, Token):
                yield self._line(head | {"message": {"role": "assistant", "content": event.text}, "done": False})
                continue
            usage = event.usage
            counts: Json = {"eval_count": usage.output_tokens, "eval_duration": nanoseconds(event.decode_s or 0.0)}
            counts |= {"load_duration": self.load_ns, "total_duration": 1}
            counts["prompt_eval_count"] = usage.input_tokens
            counts["prompt_eval_duration"] = nanoseconds(event.prefill_s or 0.0)
            if self.tells_cache:
                counts["prompt_eval_cached_count"] = usage.input_tokens if text == self.before else 0
            elif text == self.before:
                del counts["prompt_eval_count"]
            self.before = text
            last = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": event.finish_reason}
            yield self._line(head | last | counts)

    @staticmethod
    def _line(piece: Json) -> bytes:
        return json.dumps(piece).encode() + b"\n"

    @staticmethod
    def _row(name: str) -> Json:
        details = {"format": "gguf", "family": "llama", "parameter_size": "1B", "quantization_level": "Q4_K_M"}
        return {"name": name, "model": name, "size": 1_000_000, "digest": DIGEST, "details": details}


# --- OpenAI's form ----------------------------------------------------------------------------------------------------


@dataclass
class OpenAIPeer(Peer):
    """A server in OpenAI's form, of which nothing else is known."""

    api: ClassVar[str] = "openai"
    thinks: str = ""
    thought_field: ClassVar[str] = "reasoning_content"

    def get(self, path: str) -> object:
        if path == "/v1/models":
            return {"object": "list", "data": [self.row(name) for name in self.names]}
        return super().get(path)

    def post(self, path: str, body: Json) -> object:
        if path != "/v1/chat/completions":
            return super().post(path, body)
        self.admit(body)
        if not body.get("stream"):
            return {"choices": [{"message": {"content": "a"}, "finish_reason": "length"}]}
        try:
            return self._stream(body, self.tokens(body, body, "max_tokens"))
        except JouleboxError as error:
            raise self.too_long(int(str(error.extra["input_tokens"]))) from error

    def row(self, name: str) -> Json:
        return {"id": name, "object": "model", "owned_by": "somebody"}

    def admit(self, body: Json) -> None:
        if body["model"] not in self.names:
            message = f"The model `{body['model']}` does not exist."
            raise Refused(404, {"error": {"message": message, "type": "NotFoundError", "code": 404}})

    def too_long(self, tokens: int) -> Refused:
        message = (
            f"This model's maximum context length is {CONTEXT_TOKENS} tokens. However, your request has {tokens} input "
            "tokens. Please reduce the length of the input messages."
        )
        return Refused(400, {"error": {"message": message, "type": "BadRequestError", "code": 400}})

    def usage(self, input_tokens: int | None, made: int, *, last: bool) -> Json | None:
        """What stands under `usage` in a piece."""
        return {"prompt_tokens": input_tokens, "completion_tokens": made} if last else None

    def extra(self, event: Finished) -> Json:
        """What the last piece holds beside the usage."""
        return {}

    def _stream(self, body: Json, answer: Iterator[Token | Finished]) -> Iterator[bytes]:
        head = {"id": "c1", "object": "chat.completion.chunk", "model": body["model"]}
        made = 0
        for word in self.thinks.split():
            made += 1
            yield sse(head | self._choice({self.thought_field: word}, None) | self._counted(made))
        for event in answer:
            if isinstance(event, Token):
                made += 1
                yield sse(head | self._choice({"content": event.text}, None) | self._counted(made))
                continue
            yield sse(head | self._choice({}, event.finish_reason))
            if body["stream_options"]["include_usage"]:
                usage = self.usage(event.usage.input_tokens, made, last=True)
                yield sse(head | {"choices": [], "usage": usage} | self.extra(event))
        yield b"data: [DONE]\n\n"

    def _counted(self, made: int) -> Json:
        usage = self.usage(None, made, last=False)
        return {} if usage is None else {"usage": usage}

    @staticmethod
    def _choice(delta: Json, reason: str | None) -> Json:
        return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


@dataclass
class VllmPeer(OpenAIPeer):
    """vLLM with `--enable-per-request-metrics`; `sleeps` with `--enable-sleep-mode` in dev mode."""

    api: ClassVar[str] = "vllm"
    thought_field: ClassVar[str] = "reasoning"
    caching: bool = False
    sleeps: bool = False
    asleep: bool = False
    queue_ms: float = 0.1

    def get(self, path: str) -> object:
        if path == "/version":
            return {"version": "0.25.0"}
        if path == "/metrics":
            return f'vllm:cache_config_info{{block_size="16",enable_prefix_caching="{self.caching}",engine="0"}} 1.0\n'
        if path == "/is_sleeping" and self.sleeps:
            return {"is_sleeping": self.asleep}
        return super().get(path)

    def post(self, path: str, body: Json) -> object:
        if self.sleeps and path in ("/wake_up", "/sleep?level=1"):
            self.asleep = path != "/wake_up"
            return ""
        return super().post(path, body)

    def row(self, name: str) -> Json:
        return super().row(name) | {"owned_by": "vllm", "root": name, "max_model_len": CONTEXT_TOKENS}

    def usage(self, input_tokens: int | None, made: int, *, last: bool) -> Json | None:
        return {"prompt_tokens": input_tokens or 7, "completion_tokens": made, "total_tokens": made}

    def extra(self, event: Finished) -> Json:
        first_ms, decode_ms = (event.prefill_s or 0.0) * 1e3, (event.decode_s or 0.0) * 1e3
        times = {"time_to_first_token_ms": first_ms, "generation_time_ms": decode_ms, "queue_time_ms": self.queue_ms}
        return {"metrics": times}


@dataclass
class SglangPeer(OpenAIPeer):
    """SGLang with `--disable-radix-cache`."""

    api: ClassVar[str] = "sglang"
    caching: bool = False

    def get(self, path: str) -> object:
        if path == "/get_server_info":
            return {"version": "0.5.6", "disable_radix_cache": not self.caching, "quantization": "fp8", "tp_size": 1}
        return super().get(path)

    def row(self, name: str) -> Json:
        return super().row(name) | {"owned_by": "sglang", "max_model_len": CONTEXT_TOKENS}

    def usage(self, input_tokens: int | None, made: int, *, last: bool) -> Json | None:
        told = {"prompt_tokens": input_tokens or 7, "completion_tokens": made, "prompt_tokens_details": None}
        return told | {"reasoning_tokens": len(self.thinks.split())}

    def too_long(self, tokens: int) -> Refused:
        message = f"The input ({tokens} tokens) is longer than the model's context length ({CONTEXT_TOKENS} tokens)."
        return Refused(400, {"object": "error", "message": message, "type": "BadRequestError", "code": 400})


@dataclass
class TgiPeer(OpenAIPeer):
    """Text Generation Inference: one model, whatever the request calls it."""

    api: ClassVar[str] = "tgi"
    names: tuple[str, ...] = ("org/small",)

    def get(self, path: str) -> object:
        if path == "/info":
            about = {"model_id": self.names[0], "model_sha": "0123abcd", "version": "3.3.4"}
            return about | {"max_total_tokens": CONTEXT_TOKENS, "max_input_tokens": CONTEXT_TOKENS - 1}
        return super().get(path)

    def too_long(self, tokens: int) -> Refused:
        message = f"Input validation error: `inputs` must have less than {CONTEXT_TOKENS} tokens. Given: {tokens}"
        return Refused(422, {"error": message, "error_type": "validation"})


@dataclass
class LmStudioPeer(OpenAIPeer):
    """LM Studio: models are loaded and unloaded as instances."""

    api: ClassVar[str] = "lmstudio"
    told_tokens: int = CONTEXT_TOKENS

    def get(self, path: str) -> object:
        if path == "/api/v1/models":
            return {"models": [self._model(name) for name in self.names] + [{"type": "embedding", "key": "vectors"}]}
        return super().get(path)

    def post(self, path: str, body: Json) -> object:
        if path == "/api/v1/models/load":
            self.admit(body)
            self.held.add(body["model"])
            return {"type": "llm", "instance_id": body["model"], "load_time_seconds": 0.1, "status": "loaded"}
        if path == "/api/v1/models/unload":
            self.held.discard(body["instance_id"])
            return {"instance_id": body["instance_id"]}
        return super().post(path, body)

    def _model(self, name: str) -> Json:
        instance = {"id": name, "config": {"context_length": self.told_tokens}}
        return {
            "type": "llm",
            "key": name,
            "quantization": {"name": "Q4_0", "bits_per_weight": 4},
            "size_bytes": 241_410_208,
            "loaded_instances": [instance] if name in self.held else [],
            "max_context_length": 32_768,
            "format": "gguf",
        }


@dataclass
class RouterPeer(OpenAIPeer):
    """`llama-server` without a model: a router, whose models come and go by name."""

    api: ClassVar[str] = "llama-server"
    fails: str = ""

    def get(self, path: str) -> object:
        if path == "/props":
            return {"role": "router", "build_info": "b10434-0123abcd"}
        if path == "/models":
            return {"data": [self._model(name) for name in self.names]}
        if path.startswith("/slots?model="):
            return [{"id": 0, "is_processing": False}]
        return super().get(path)

    def post(self, path: str, body: Json) -> object:
        if path in ("/models/load", "/models/unload"):
            self.admit(body)
            (self.held.add if path == "/models/load" else self.held.discard)(body["model"])
            return {"success": True}
        assert body.get("cache_prompt") is False
        return super().post(path, body)

    def too_long(self, tokens: int) -> Refused:
        message = f"request ({tokens} tokens) exceeds the available context size ({CONTEXT_TOKENS} tokens)"
        error = {"code": 400, "message": message, "type": "exceed_context_size_error"}
        return Refused(400, {"error": error | {"n_prompt_tokens": tokens, "n_ctx": CONTEXT_TOKENS}})

    def usage(self, input_tokens: int | None, made: int, *, last: bool) -> Json | None:
        details = {"prompt_tokens_details": {"cached_tokens": 0}}
        return {"prompt_tokens": input_tokens, "completion_tokens": made} | details if last else None

    def extra(self, event: Finished) -> Json:
        first_ms, decode_ms = (event.prefill_s or 0.0) * 1e3, (event.decode_s or 0.0) * 1e3
        read = {"cache_n": 0, "prompt_n": event.usage.input_tokens, "prompt_ms": first_ms}
        return {"timings": read | {"predicted_n": event.usage.output_tokens, "predicted_ms": decode_ms}}

    def _model(self, name: str) -> Json:
        if name == self.fails:
            return {"id": name, "status": {"value": "unloaded", "failed": True, "exit_code": 1}}
        return {"id": name, "status": {"value": "loaded" if name in self.held else "unloaded"}}


PEERS: Mapping[str, Callable[[], Peer]] = {
    "ollama": OllamaPeer,
    "openai": OpenAIPeer,
    "vllm": VllmPeer,
    "sglang": SglangPeer,
    "tgi": TgiPeer,
    "lmstudio": LmStudioPeer,
    "router": RouterPeer,
}


# --- the server -------------------------------------------------------------------------------------------------------


class _Handler(BaseHTTPRequestHandler):
    """One connection. Chunked, as the real ones, so that an answer that is cut off is seen to be."""

    protocol_version = "HTTP/1.1"
    peer: ClassVar[Peer]

    def do_GET(self) -> None:
        self._answer(lambda: self.peer.get(self.path))

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        self.peer.asked.append((self.path, body))
        self._answer(lambda: self.peer.post(self.path, body))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
        """Silent."""

    def _answer(self, found: Callable[[], object]) -> None:
        try:
            if self.peer.key is not None and self.headers.get("Authorization") != f"Bearer {self.peer.key}":
                raise Refused(401, {"error": {"message": "Invalid API Key"}})
            answer = found()
        except Refused as error:
            return self._whole(error.status, json.dumps(error.body).encode())
        if isinstance(answer, Iterator):
            with suppress(OSError):
                self._streamed(answer)
            return None
        return self._whole(200, answer.encode() if isinstance(answer, str) else json.dumps(answer).encode())

    def _whole(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(body)

    def _streamed(self, pieces: Iterator[bytes]) -> None:
        fault, self.peer.fault = self.peer.fault, ""
        if fault == "silent before":
            CLOCK.sleep_until(CLOCK.now_ns() + nanoseconds(1.0))
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number, piece in enumerate(pieces):
            if number == 3 and fault and self._breaks(fault):
                return
            self._chunk(piece)
        self._chunk(b"")

    def _chunk(self, piece: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.flush()

    def _breaks(self, fault: str) -> bool:
        """Do what goes wrong after three pieces; whether the answer is over with that."""
        if fault == "garbage":
            self._chunk(b"<html>who is there?</html>\n")
        elif fault == "half":
            self._chunk(b'data: {"choices": [{"del\n')
        elif fault == "other":
            self._chunk(b'data: {"choices": 7, "message": 7, "done": true}\n' if self.peer.api != "ollama" else b"7\n")
        elif fault == "error":
            error = {"error": "model runner has unexpectedly stopped"}
            self._chunk(json.dumps(error).encode() + b"\n" if self.peer.api == "ollama" else sse(error))
        elif fault == "end":
            self._chunk(b"")
            return True
        elif fault == "silent":
            CLOCK.sleep_until(CLOCK.now_ns() + nanoseconds(1.0))
        self.close_connection = True
        return fault == "cut"


class Served:
    """A peer that listens on a free port as long as the block lasts."""

    def __init__(self, served: Peer) -> None:
        self.peer = served

        class Handler(_Handler):
            peer = served

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        served.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Peer:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self.peer

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def engine_setting(peer: Peer, options: str = "") -> str:
    """How a node is told of it."""
    kind = {"ollama": "ollama", "llama-server": "llama-server"}.get(peer.api, "openai")
    flavour = f",flavour={peer.api}" if kind == "openai" and peer.api != "openai" else ""
    return f"{kind}:{peer.url}{flavour}{options}"


def driven(peer: Peer, options: str = "", **settings: Any) -> Driven:
    """What a node has of it."""
    return open_engine(Settings(engine=engine_setting(peer, options), context_tokens=CONTEXT_TOKENS, **settings), CLOCK)
