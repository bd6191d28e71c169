"""The one HTTP client: node, command line and users speak to a server through it, the server to services outside.

Of a server every failure is a `JouleboxError`: the server's own problem document, or `no_server` where nobody answers.
"""

import asyncio
import json
import secrets
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote, urlencode

import httpx2

from joulebox.clock import SystemClock
from joulebox.errors import REGISTRY, JouleboxError
from joulebox.settings import OWNER_COOKIE
from joulebox.units import nanoseconds

CONNECT_S: Final = 5.0
KEEP_ALIVE: Final = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 4))
"""Seconds and probes after which a connection whose other end has vanished is given up. The server probes sooner, so
that this side only begins when the server is silent; the kernel does it, and wakes nobody."""
RECONNECTS_MAX: Final = 20
"""How often a cut event stream is taken up again in a row before the client gives up."""
AWAY: Final = ("no_server", "database")
"""The server, or what it keeps its books in, is away for the moment."""
RECONNECT_WAIT_S: Final = 0.5
REPORT_S: Final = 120.0
ANSWER_MAX_BYTES: Final = 64_000_000
"""A server that says more than this in one answer is not listened to."""
EVIDENCE_MAX_BYTES: Final = 2_000_000_000
"""The same for the evidence of one answer, which may be hours of readings."""
WORD_MAX_BYTES: Final = 1_000_000
"""No line of a held connection is longer."""
WEB_S: Final = 10.0
"""So long a service outside has for a whole answer, however it comes."""
WEB_MAX_BYTES: Final = 4_000_000
UNPACKED: Final = frozenset({"content-encoding", "content-length", "transfer-encoding"})
"""Headers that tell of a body as it was on the way."""
PROBLEM: Final = frozenset({"type", "title", "status", "code", "detail"})
"""What every problem document has; the rest belongs to the failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerEvent:
    """One server-sent event of a prompt; `data` is its JSON."""

    name: str
    id: str | None
    data: dict[str, Any]


class Client:
    """A server at a URL. `token` goes into the Authorization header where the server asks for one; `ca_file` holds
    certificates (PEM) that are trusted beside the system's."""

    def __init__(
        self, server: str, token: str | None = None, timeout_s: float = 30.0, *, ca_file: Path | None = None
    ) -> None:
        self.server = server.rstrip("/")
        self._clock = SystemClock()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # Its own from the first request on: of several first ones at once the server would make several owners.
        cookies = {} if token else {OWNER_COOKIE: secrets.token_urlsafe(32)}
        timeout = httpx2.Timeout(timeout_s, connect=CONNECT_S)
        try:
            if httpx2.URL(self.server).scheme not in ("http", "https"):
                raise ValueError(self.server)
            # trust_env off: a proxy of the environment must not get between a node and its own server
            transport = httpx2.HTTPTransport(verify=_trust(ca_file), trust_env=False, socket_options=_probed())
            self._http = httpx2.Client(
                base_url=self.server,
                headers=headers,
                cookies=cookies,
                timeout=timeout,
                trust_env=False,
                transport=transport,
            )
        except (httpx2.InvalidURL, ValueError) as error:
            raise JouleboxError("bad_setting", f"{server!r} is no server address: write http://HOST:PORT.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def call(self, method: str, path: str, body: bytes | None = None, timeout_s: float | None = None) -> Any:
        """One request; its JSON, or `None` for 204. Raises `JouleboxError`."""
        reply = self._answer(method, path, body, timeout_s)
        if reply.status_code == 204:
            return None
        try:
            return reply.json()
        except (ValueError, RecursionError) as error:
            raise self._stranger() from error

    def _stranger(self) -> JouleboxError:
        return JouleboxError("no_server", f"What answers at {self.server} is not Joulebox.")

    def _answer(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        timeout_s: float | None = None,
        max_bytes: int = ANSWER_MAX_BYTES,
    ) -> httpx2.Response:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        extra: dict[str, Any] = {} if timeout_s is None else {"timeout": httpx2.Timeout(timeout_s, connect=CONNECT_S)}
        try:
            with self._http.stream(method, path, content=body, headers=headers, **extra) as stream:
                reply = _whole(stream, max_bytes)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise self._unreachable(error) from error
        if reply is None:
            raise JouleboxError("no_server", f"{self.server} answers with more than {max_bytes} bytes: what is it?")
        if not reply.is_success:
            raise _problem(reply) if reply.is_error else self._stranger()
        return reply

    def lines(self, path: str) -> Iterator[dict[str, Any]]:
        """JSON lines of a stream held open without a time limit; ends when the server ends it or is gone."""
        timeout = httpx2.Timeout(None, connect=CONNECT_S)
        try:
            with self._http.stream("GET", path, timeout=timeout) as reply:
                self._heard(reply)
                for line in _lines(reply):
                    if line.strip():
                        yield _object(line.decode())
        except (httpx2.HTTPError, ValueError) as error:
            raise self._unreachable(error) from error

    def models(self) -> list[dict[str, Any]]:
        """The models that nodes offer."""
        found: list[dict[str, Any]] = self.call("GET", "/api/v1/models")["models"]
        return found

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes that have joined."""
        found: list[dict[str, Any]] = self.call("GET", "/api/v1/nodes")["nodes"]
        return found

    def idle(self, node: str) -> dict[str, Any]:
        """What a node does while nobody asks, and what it drew meanwhile."""
        found: dict[str, Any] = self.call("GET", f"/api/v1/nodes/{_part(node)}/idle")
        return found

    def drain(self, node: str, why: str) -> dict[str, Any]:
        """Have a node take no more prompts; what it then does."""
        body = json.dumps({"why": why}).encode()
        found: dict[str, Any] = self.call("POST", f"/api/v1/nodes/{_part(node)}/drain", body)
        return found

    def resume(self, node: str) -> dict[str, Any]:
        """Have a node take prompts again; what it then does."""
        found: dict[str, Any] = self.call("DELETE", f"/api/v1/nodes/{_part(node)}/drain")
        return found

    def forget_node(self, node: str) -> None:
        """Show a node that is away no more, until it comes back."""
        self.call("DELETE", f"/api/v1/nodes/{_part(node)}")

    def rebaseline(self, node: str, why: str) -> dict[str, Any]:
        """Begin a new reference for a node's control prompt; what is then known of it."""
        body = json.dumps({"why": why}).encode()
        found: dict[str, Any] = self.call("POST", f"/api/v1/nodes/{_part(node)}/baseline", body)
        return found

    def create_token(self, fields: Mapping[str, object]) -> dict[str, Any]:
        """Make a token, in the fields of `POST /api/v1/tokens`; its text is in the answer and nowhere else."""
        made: dict[str, Any] = self.call("POST", "/api/v1/tokens", json.dumps(fields).encode())
        return made

    def tokens(self) -> list[dict[str, Any]]:
        """Every token, without its text."""
        found: list[dict[str, Any]] = self.call("GET", "/api/v1/tokens")["tokens"]
        return found

    def standing(self) -> dict[str, Any]:
        """What who asks may have, and has used."""
        found: dict[str, Any] = self.call("GET", "/api/v1/me")
        return found

    def revoke_token(self, token_id: str) -> dict[str, Any]:
        """Revoke a token."""
        gone: dict[str, Any] = self.call("DELETE", f"/api/v1/tokens/{_part(token_id)}")
        return gone

    def acts(self) -> Iterator[dict[str, Any]]:
        """The audit log, newest first."""
        cursor = ""
        while True:
            page = self.call("GET", f"/api/v1/audit?limit=100{cursor}")
            yield from page["acts"]
            if page["next_cursor"] is None:
                return
            cursor = f"&cursor={page['next_cursor']}"

    def submit(self, **fields: object) -> dict[str, Any]:
        """Queue a prompt; the fields of `POST /api/v1/prompts`, those that are `None` left out. Returns its status."""
        body = {name: value for name, value in fields.items() if value is not None}
        status: dict[str, Any] = self.call("POST", "/api/v1/prompts", json.dumps(body).encode())
        return status

    def compare(self, **fields: object) -> dict[str, Any]:
        """Queue a prompt to several models on one node: the fields of `POST /api/v1/comparisons`, those that are `None`
        left out. Returns the node, `order_seed`, and the status of each prompt in the order they run."""
        body = {name: value for name, value in fields.items() if value is not None}
        begun: dict[str, Any] = self.call("POST", "/api/v1/comparisons", json.dumps(body).encode())
        return begun

    def status(self, prompt_id: str) -> dict[str, Any]:
        """Where a prompt is."""
        status: dict[str, Any] = self.call("GET", f"/api/v1/prompts/{_part(prompt_id)}")
        return status

    def cancel(self, prompt_id: str) -> None:
        """Cancel a prompt."""
        self.call("DELETE", f"/api/v1/prompts/{_part(prompt_id)}")

    def erase(self, one_id: str) -> dict[str, Any]:
        """Remove the texts behind a receipt, or of a prompt that is over."""
        try:
            gone: dict[str, Any] = self.call("DELETE", f"/api/v1/receipts/{_part(one_id)}")
        except JouleboxError as error:
            if error.code not in {"not_found", "not_ready"}:
                raise
            gone = self.call("DELETE", f"/api/v1/prompts/{_part(one_id)}/texts")
        return gone

    def receipt(self, receipt_id: str, revision: int | None = None) -> dict[str, Any]:
        """A receipt: its newest revision, or the one named."""
        named = f"?revision={revision}" if revision is not None else ""
        receipt: dict[str, Any] = self.call("GET", f"/api/v1/receipts/{_part(receipt_id)}{named}")
        return receipt

    def whatif(self, receipt_id: str) -> dict[str, Any] | None:
        """What a receipt's answer would have emitted elsewhere and at other hours; `None`: nobody knows."""
        found: dict[str, Any] | None = self.call("GET", f"/api/v1/receipts/{_part(receipt_id)}/whatif")["whatif"]
        return found

    def receipt_bytes(self, receipt_id: str, revision: int | None = None) -> bytes:
        """A receipt byte for byte as it was made."""
        named = f"?revision={revision}" if revision is not None else ""
        return self._answer("GET", f"/api/v1/receipts/{_part(receipt_id)}{named}").content

    def receipt_ids(self, since: str | None = None) -> Iterator[str]:
        """Ids of all receipts in the order of asking, from a day or moment on."""
        named = f"&since={quote(since, safe='')}" if since else ""
        cursor = ""
        while True:
            page = self.call("GET", f"/api/v1/receipts?limit=100{named}{cursor}")
            yield from page["receipts"]
            if page["next_cursor"] is None:
                return
            cursor = f"&cursor={page['next_cursor']}"

    def receipts(self, since: str | None = None, *, revisions: bool = False) -> Iterator[bytes]:
        """All receipts byte for byte, from a day or moment on, in their newest revision or in all; a page at a time."""
        named = f"&since={quote(since, safe='')}" if since else ""
        path: str | None = f"/api/v1/receipts.jsonl?limit=500{'&revisions=true' * revisions}{named}"
        while path is not None:
            reply = self._answer("GET", path, timeout_s=REPORT_S)
            yield from filter(None, reply.content.split(b"\n"))
            path = reply.links.get("next", {}).get("url")
            if path is not None and not path.startswith("/api/v1/receipts.jsonl?"):  # the token is for this server
                raise JouleboxError("no_server", f"What answers at {self.server} is not Joulebox.")

    def recompute(self, receipt_id: str) -> dict[str, Any]:
        """Have a receipt made again of its evidence; what came of it."""
        outcome: dict[str, Any] = self.call("POST", f"/api/v1/receipts/{_part(receipt_id)}/recompute")
        return outcome

    def trace(self, receipt_id: str, form: str = "json") -> bytes:
        """The evidence behind a receipt, as `json`, `csv` or `parquet`."""
        path = f"/api/v1/receipts/{_part(receipt_id)}/trace.{form}"
        return self._answer("GET", path, timeout_s=REPORT_S, max_bytes=EVIDENCE_MAX_BYTES).content

    def evidence(self, receipt_id: str) -> dict[str, Any]:
        """Everything a receipt was made of, and the receipt."""
        found: dict[str, Any] = self.call("GET", f"/api/v1/receipts/{_part(receipt_id)}/evidence")
        return found

    def feedback(self) -> list[dict[str, Any]]:
        """What people told the operator, newest first."""
        found: list[dict[str, Any]] = self.call("GET", "/api/v1/feedback")["messages"]
        return found

    def forget_feedback(self, number: int) -> None:
        """Forget a message to the operator."""
        self.call("DELETE", f"/api/v1/feedback/{number}")

    def publish(self, campaign: Mapping[str, object]) -> dict[str, Any]:
        """Publish what a campaign found, in the fields of `POST /api/v1/campaigns`."""
        kept: dict[str, Any] = self.call("POST", "/api/v1/campaigns", json.dumps(campaign).encode())
        return kept

    def table(self, category: str | None = None) -> dict[str, Any]:
        """What published campaigns found, of one category or of all."""
        named = f"?{urlencode({'category': category})}" if category is not None else ""
        found: dict[str, Any] = self.call("GET", f"/api/v1/table{named}")
        return found

    def recommend(self, **fields: object) -> dict[str, Any]:
        """Which model to take: the parameters of `GET /api/v1/recommend`, those that are `None` left out."""
        given = {name: value for name, value in fields.items() if value is not None}
        found: dict[str, Any] = self.call("GET", f"/api/v1/recommend?{urlencode(given)}")
        return found

    def report(self, form: str = "json", **fields: str | None) -> bytes:
        """The SCI report of a period: the parameters of `GET /api/v1/report/sci`, those that are `None` left out."""
        given = {name: value for name, value in fields.items() if value is not None}
        return self._answer(
            "GET", f"/api/v1/report/sci?{urlencode({'format': form} | given)}", timeout_s=REPORT_S
        ).content

    def events(self, prompt_id: str) -> Iterator[ServerEvent]:
        """The prompt's events to the last one (`receipt`, `cancelled` or `error`); a cut stream is taken up without a
        gap."""
        last_id: str | None = None
        cuts = 0
        while True:
            try:
                for event in self._events(prompt_id, last_id):
                    cuts = 0
                    last_id = event.id or last_id
                    yield event
                    if event.name in ("receipt", "cancelled", "error"):
                        return
            except JouleboxError as error:
                if error.code not in AWAY or cuts >= RECONNECTS_MAX:
                    raise
            cuts += 1
            self._clock.sleep_until(self._clock.now_ns() + nanoseconds(RECONNECT_WAIT_S))

    def _events(self, prompt_id: str, last_id: str | None) -> Iterator[ServerEvent]:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
        timeout = httpx2.Timeout(None, connect=CONNECT_S)
        path = f"/api/v1/prompts/{_part(prompt_id)}/events"
        try:
            with self._http.stream("GET", path, headers=headers, timeout=timeout) as reply:
                self._heard(reply)
                for event in httpx2.EventSource(reply):
                    yield ServerEvent(name=event.event, id=event.id or None, data=_object(event.data or "{}"))
        except (httpx2.HTTPError, ValueError) as error:
            raise self._unreachable(error) from error

    def _heard(self, reply: httpx2.Response) -> None:
        """Raises what the server refuses a stream with."""
        if not reply.is_success:
            refusal = _whole(reply, ANSWER_MAX_BYTES)
            raise _problem(refusal) if refusal is not None and reply.is_error else self._stranger()

    def _unreachable(self, error: Exception) -> JouleboxError:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            reason = str(error).partition("certificate verify failed: ")[2].rpartition(" (")[0]
            sentence = f"The certificate of {self.server} is not trusted{': ' * bool(reason)}{reason}. "
            return JouleboxError("untrusted_server", f"{sentence}Name its authority's certificate with ca_file.")
        hint = f"No server answers at {self.server}. Start one with `joulebox up`, or name another with --server URL."
        return JouleboxError("no_server", hint, cause=str(error))


class WebFault(Exception):
    """A service outside gave no answer that could be read; `str` says why, without anything that was sent to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebAnswer:
    """What a service outside answered: its status, its JSON (`None` where it is none), and when it may be asked again
    (the header `Retry-After` as it came)."""

    status: int
    data: Any
    retry_after: str | None


class Web:
    """Services outside: bounded in time and size, no redirects (a key in a header must not be carried elsewhere)."""

    def __init__(self, timeout_s: float = WEB_S) -> None:
        self._timeout_s = timeout_s
        self._http: httpx2.AsyncClient | None = None

    async def close(self) -> None:
        """Close all connections."""
        if self._http is not None:
            await self._http.aclose()

    async def get(self, url: str, params: Mapping[str, str], headers: Mapping[str, str]) -> WebAnswer:
        """Ask once. Raises `WebFault`."""
        if self._http is None:
            # reading the system's certificates takes long enough to be felt in a server's loop
            self._http = await asyncio.to_thread(httpx2.AsyncClient, timeout=self._timeout_s)
        plain = {"Accept": "application/json", "Accept-Encoding": "identity"}
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._http.stream("GET", url, params=dict(params), headers=plain | dict(headers)) as reply,
            ):
                return WebAnswer(
                    status=reply.status_code,
                    data=await _bounded_json(reply),
                    retry_after=reply.headers.get("retry-after"),
                )
        except TimeoutError as error:
            raise WebFault(f"no whole answer within {self._timeout_s:g} s") from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise WebFault(f"no answer ({type(error).__name__})") from error


async def _bounded_json(reply: httpx2.Response) -> Any:
    if reply.headers.get("content-encoding", "identity") != "identity":
        raise WebFault("a packed answer that was not asked for")
    body = b""
    async for chunk in reply.aiter_raw():
        body += chunk
        if len(body) > WEB_MAX_BYTES:
            raise WebFault(f"an answer of more than {WEB_MAX_BYTES} bytes")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _whole(stream: httpx2.Response, max_bytes: int) -> httpx2.Response | None:
    """An answer to its end; `None` where it is longer, unpacked, than it may be."""
    body = bytearray()
    for piece in stream.iter_bytes():
        body += piece
        if len(body) > max_bytes:
            return None
    kept = [(name, value) for name, value in stream.headers.multi_items() if name not in UNPACKED]
    return httpx2.Response(stream.status_code, headers=kept, content=bytes(body), request=stream.request)


def _lines(reply: httpx2.Response) -> Iterator[bytes]:
    """Lines as they come. Raises `ValueError` where one does not end."""
    left = b""
    for piece in reply.iter_bytes():
        *whole, left = (left + piece).split(b"\n")
        if len(left) > WORD_MAX_BYTES:
            raise ValueError(f"a line of more than {WORD_MAX_BYTES} bytes")
        yield from whole
    yield left


def _trust(ca_file: Path | None) -> ssl.SSLContext | bool:
    """What certificates are checked with. Raises `JouleboxError("bad_setting")`."""
    if ca_file is None:
        return True
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(ca_file)
    except OSError as error:  # what is no certificate too
        reason = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        sentence = f"Setting ca_file = {str(ca_file)!r} cannot be used: {reason}. Give a file of certificates (PEM)."
        raise JouleboxError("bad_setting", sentence) from error
    return context


def _probed() -> list[tuple[int, int, int]]:
    """Socket options for `KEEP_ALIVE`, as far as this system has them."""
    probes = [(socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in KEEP_ALIVE if hasattr(socket, name)]
    return [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *probes]


def _part(name: str) -> str:
    """One part of an address, whatever a person typed."""
    return quote(name, safe="", errors="replace") or "-"


def _object(text: str) -> dict[str, Any]:
    """JSON that is an object, as every word of a server is. Raises `ValueError`."""
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise ValueError("JSON too deep") from error
    if not isinstance(found, dict):
        raise ValueError("JSON that is no object")
    return found


def _problem(reply: httpx2.Response) -> JouleboxError:
    """The server's problem document (RFC 9457) as an error."""
    try:
        document = reply.json()
        code, detail = document["code"], document["detail"]
        known = code if code in REGISTRY else "internal"
    except (ValueError, KeyError, TypeError, RecursionError):
        return JouleboxError("internal", f"The server answered {reply.status_code} without saying why.")
    return JouleboxError(known, str(detail), **{name: document[name] for name in document if name not in PROBLEM})
