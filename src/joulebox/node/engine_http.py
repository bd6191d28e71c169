"""What engines that are spoken to over HTTP have in common: questions, one streamed answer, stamped on arrival and cut
when it is cancelled, and one sentence for everything that can go wrong in between.
"""

import contextlib
import json
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2

from joulebox.clock import Clock
from joulebox.errors import JouleboxError
from joulebox.model import Prompt, Usage
from joulebox.node.engine import Finished, LocalModel, Token
from joulebox.node.json_http import why
from joulebox.node.tool_calls import CALLS, Calls

ASK_S: Final = 10.0
"""A question about the engine itself that takes longer is given up."""
CONNECT_S: Final = 5.0
LINE_BYTES_MAX: Final = 1 << 22
"""No piece of an answer is longer."""
SAID_MAX: Final = 200

_TOO_LONG: Final = tuple(
    re.compile(pattern, re.I | re.S)
    for pattern in (
        r"\((?P<tokens>\d+) tokens\) (?:exceeds|is longer than) the .*?context (?:size|length) \((?P<context>\d+)",
        r"maximum context length is (?P<context>\d+) tokens.*?(?:requested|has|contains)\D*?(?P<tokens>\d+)",
        r"must (?:be|have) (?:<=|less than) (?P<context>\d+).*?given:? (?P<tokens>\d+)",
        r"exceeded max context length by (?P<over>\d+)",
        r"exceed_context_size|exceeds? the (?:available |maximum )?context|(?:input|prompt) (?:is )?too long",
    )
)
"""How engines say that a prompt does not fit, most of them with figures."""
_TOO_BIG: Final = re.compile(r"requires more (?:system )?memory|(?:out of|not enough|insufficient) .*memory", re.I)
_NO_MODEL: Final = re.compile(r"model.*(?:not found|does not exist|not exist|unknown)|no such model", re.I)


class Unreadable(ValueError):
    """What came is not what this engine says."""


class Refusal(Exception):
    """The engine answered a question with an error: the HTTP status (0 within a stream) and what it said."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status
        self.said = said


# --- one answer -------------------------------------------------------------------------------------------------------


class Line:
    """The connection of one answer, which may be cut from another thread."""

    def __init__(self) -> None:
        self.cancelled = False
        self.complete = False
        self._socket: socket.socket | None = None

    def watch(self, event: str, info: Mapping[str, Any]) -> None:
        """Called by the HTTP client: before the headers come there is no response to close, but there is a socket."""
        if event == "connection.connect_tcp.complete":
            self._socket = info["return_value"].get_extra_info("socket")
            if self.cancelled:
                self._cut()

    def cancel(self) -> None:
        """End the answer. Engines see the end of the connection and stop."""
        self.cancelled = True
        self._cut()

    def _cut(self) -> None:
        """Shut down, not close: only that wakes the thread that waits in it."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


@dataclass(slots=True)
class Tally:
    """What was counted of one answer so far. `None`: the engine has not said. `shown` counts the tokens in pieces of
    text, as far as the engine tells how many each holds."""

    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    prefill_s: float | None = None
    decode_s: float | None = None
    load_s: float | None = None
    queue_s: float | None = None
    finish_reason: str = ""
    shown: int = 0
    thinking: bool = False
    calls: Calls = field(default_factory=Calls)

    def fresh(self) -> int:
        """How many tokens were made since the last piece of text; at least the one that made the text."""
        made = self.shown + 1 if self.output_tokens is None else self.output_tokens
        fresh = max(1, made - self.shown)
        self.shown += fresh
        return fresh

    def told(self, thought: str, text: str) -> str:
        """What is shown of a piece from an engine that keeps thoughts apart: between the signs that most models
        themselves put around them."""
        opens, closes = bool(thought) and not self.thinking, bool(text) and self.thinking
        self.thinking = (self.thinking or opens) and not closes
        return f"{'<think>' if opens else ''}{thought}{'</think>' if closes else ''}{text}"

    def piece(self, t_ns: int, text: str) -> Iterator[Token]:
        """A piece of the answer that came at `t_ns`, with this text. A piece of a call counts, and has no text."""
        shown = self.calls.shown(text)
        if shown is not None:
            yield Token(t_ns=t_ns, text=shown, n=self.fresh())

    def ending(self, t_ns: int, reason: str) -> Iterator[Token | Finished]:
        """The end of the answer at `t_ns`; before it, as text, what looked like a call and is none."""
        calls, rest = self.calls.close()
        if rest:
            yield Token(t_ns=t_ns, text=rest, n=0)
        if reason in ("stop", CALLS):
            reason = CALLS if calls else "stop"
        yield self._finished(t_ns, reason, calls)

    def _finished(self, t_ns: int, reason: str, calls: tuple[tuple[str, str], ...]) -> Finished:
        output_tokens = self.shown if self.output_tokens is None else self.output_tokens
        return Finished(
            t_ns=t_ns,
            usage=Usage(
                input_tokens=self.input_tokens,
                cached_tokens=self.cached_tokens,
                output_tokens=output_tokens,
                reasoning_tokens=self.reasoning_tokens,
            ),
            finish_reason=reason,
            prefill_s=self.prefill_s,
            decode_s=self.decode_s,
            load_s=self.load_s,
            queue_s=self.queue_s,
            calls=calls,
        )


def lines(response: httpx2.Response, clock: Clock) -> Iterator[tuple[int, bytes]]:
    """Each line of a streamed answer, with the time its last byte came in."""
    left = b""
    for chunk in response.iter_raw():
        t_ns = clock.now_ns()
        *whole, left = (left + chunk).split(b"\n")
        if len(left) > LINE_BYTES_MAX:
            raise Unreadable("a line without an end")
        yield from ((t_ns, line) for line in whole)
    if left.strip():
        yield clock.now_ns(), left


def sampling(prompt: Prompt, schema: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What only some prompts ask for, in OpenAI's form; else the engine's own holds. `schema`: what the answer is held
    to where the prompt does not say it."""
    asked: dict[str, Any] = {} if prompt.top_p is None else {"top_p": prompt.top_p}
    schema = json.loads(prompt.json_schema) if prompt.json_schema is not None else schema
    if schema is not None:
        asked["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": schema},
        }
    return asked


def json_lines(response: httpx2.Response, clock: Clock) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON of each line. Raises `Unreadable`."""
    for t_ns, line in lines(response, clock):
        if line.strip():
            yield t_ns, _object(line)


def events(response: httpx2.Response, clock: Clock) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON of each server-sent event. Raises `Unreadable`."""
    for t_ns, line in lines(response, clock):
        kind, colon, data = line.strip().partition(b":")
        data = data.strip()
        if not kind or kind in (b"event", b"id", b"retry") or data == b"[DONE]":
            continue
        if not colon or kind not in (b"data", b"error"):
            raise _unreadable(line)
        yield t_ns, _object(data) if kind == b"data" else {"error": _object(data)}


def _object(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unreadable(text) from error
    if not isinstance(value, dict):
        raise _unreadable(text)
    return value


# --- questions --------------------------------------------------------------------------------------------------------


class EngineHttp:
    """An engine at `url`. Each request has a connection of its own, so that it can be cut. An engine that is silent for
    `silence_s`, a long prefill included, is given up. Sentences call it `name`."""

    def __init__(self, name: str, url: str, key: str | None, silence_s: float) -> None:
        self.name = name
        self.url = url
        self._silence_s = silence_s
        self._client = httpx2.Client(
            base_url=url,
            headers={"accept-encoding": "identity"} | ({"authorization": f"Bearer {key}"} if key else {}),
            timeout=httpx2.Timeout(silence_s, connect=CONNECT_S),
            limits=httpx2.Limits(max_keepalive_connections=0),
            trust_env=False,
            verify=url.startswith("https"),  # reading the certificates costs 20 ms
        )

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, wait_s: float = ASK_S) -> Any:
        """The JSON that comes back. Raises `Refusal`, or `JouleboxError("engine_died")`."""
        text = self._asked(method, path, body, wait_s)
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self.unreadable(_shortened(text)) from error

    def text(self, path: str) -> str:
        """What stands at `path`. Raises as `ask` does."""
        return self._asked("GET", path, None, ASK_S).decode("utf-8", "replace")

    def perhaps(self, path: str) -> dict[str, Any]:
        """The JSON object at `path`, empty where this engine has no such page. Raises `JouleboxError("engine_died")`
        where it does not answer at all."""
        try:
            found = self.ask("GET", path)
        except Refusal:
            return {}
        return found if isinstance(found, dict) else {}

    def _asked(self, method: str, path: str, body: Mapping[str, Any] | None, wait_s: float) -> bytes:
        wait = httpx2.Timeout(wait_s, connect=CONNECT_S)
        try:
            response = self._client.request(method, path, json=body, timeout=wait)
        except httpx2.HTTPError as error:
            raise self.broken(error, wait_s) from error
        if not response.is_success:
            raise Refusal(response.status_code, said(response.content))
        return response.content

    def do(self, method: str, path: str, wait_s: float = ASK_S) -> None:
        """A request whose answer is no JSON. Raises as `ask` does."""
        self._asked(method, path, None, wait_s)

    @contextlib.contextmanager
    def stream(self, path: str, body: Mapping[str, Any], line: Line) -> Iterator[httpx2.Response]:
        """A streamed answer, which `line` may cut. Raises `Refusal`, or what the HTTP client raises."""
        with self._client.stream("POST", path, json=body, extensions={"trace": line.watch}) as response:
            if not response.is_success:
                raise Refusal(response.status_code, said(response.read()))
            yield response

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    # --- what went wrong ----------------------------------------------------------------------------------------------

    def broken(self, error: Exception, wait_s: float | None = None) -> JouleboxError:
        """Why nothing came, or not all of it."""
        cause = why(error, type(error).__name__)
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            return self._died(f"does not answer at {self.url} ({cause}): start it")
        if isinstance(error, httpx2.TimeoutException):
            silent_s = self._silence_s if wait_s is None else wait_s
            return self._died(f"at {self.url} said nothing for {silent_s:g} s and was given up: look into its log")
        return self._died(f"at {self.url} broke off its answer ({cause}): look into its log, then ask again")

    def cut_short(self) -> JouleboxError:
        """The answer ended without its end."""
        return self._died(f"at {self.url} ended its answer without saying why: look into its log, then ask again")

    def unreadable(self, text: str) -> JouleboxError:
        """What came is no answer of such an engine."""
        return self._died(f"at {self.url} gave an answer that cannot be read ({text}): look what runs there")

    def refused(self, refusal: Refusal, model: LocalModel | None = None) -> JouleboxError:
        """What the engine's own error means."""
        if refusal.status in (httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN):
            sentence = f"{self.name} at {self.url} wants a key, or another one: set JOULEBOX_ENGINE_KEY_FILE."
            return JouleboxError("bad_setting", sentence)
        if model is not None and (long := too_long(self.name, refusal.said, model)) is not None:
            return long
        name = model.file.id if model is not None else "a question"
        if _TOO_BIG.search(refusal.said):
            sentence = f"{self.name} has not enough memory for {name} ({refusal.said}): take a smaller model."
            return JouleboxError("model_too_big", sentence)
        if _NO_MODEL.search(refusal.said):
            return JouleboxError("unknown_model", f"{self.name} has no model {name} ({refusal.said}): choose another.")
        code = "bad_request" if refusal.status in (400, 413, 422) else "engine_died"
        status = f" with status {refusal.status}" if refusal.status else ""
        return JouleboxError(code, f"{self.name} refused {name}{status}: {refusal.said or 'it said nothing'}.")

    def _died(self, what: str) -> JouleboxError:
        return JouleboxError("engine_died", f"{self.name} {what}.")


def too_long(engine: str, message: str, model: LocalModel) -> JouleboxError | None:
    """`prompt_too_long` where this is what `message` says, with the figures that it tells."""
    for pattern in _TOO_LONG:
        if (found := pattern.search(message)) is not None:
            figures = found.groupdict()
            context = int(figures.get("context") or model.file.context_tokens)
            over = figures.get("over")
            told = figures.get("tokens") or (context + int(over) if over else None)
            counted = f", and {engine} counts {told}" if told is not None else ""
            sentence = (
                f"The prompt does not fit: {model.file.id} takes at most {context} tokens here{counted}. Shorten it, "
                "ask for fewer tokens, or give the engine a longer context."
            )
            tokens = {} if told is None else {"input_tokens": int(told)}
            return JouleboxError("prompt_too_long", sentence, context_tokens=context, **tokens)
    return None


def said(body: bytes | Mapping[str, Any]) -> str:
    """What an error document says, in whichever form."""
    if isinstance(body, bytes):
        try:
            data = json.loads(body)
        except (ValueError, RecursionError):
            return _shortened(body)
    else:
        data = body
    for key in ("error", "message", "detail"):
        if isinstance(data, dict) and data.get(key):
            data = data[key]
    return _shortened(data if isinstance(data, str) else json.dumps(data))


def _unreadable(text: bytes) -> Unreadable:
    return Unreadable(_shortened(text) or "signs that cannot be shown")


def _shortened(text: bytes | str) -> str:
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    printable = "".join(sign if sign.isprintable() else " " for sign in text[: 2 * SAID_MAX]).strip()
    return printable[:SAID_MAX].rstrip(". ")
