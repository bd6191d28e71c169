"""Strangers who mean harm: text that steers terminals, pages, spreadsheets and logs, and a server that lies.

A `Liar` stands before a real server and changes what it says, or answers in its place.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import httpx2

STEERS: Final = (
    "\x1b[2J\x1b]8;;https://elsewhere.test\x1b\\link\x1b]8;;\x1b\\"  # clears the screen; a link
    "\x1b]52;c;aGFybQ==\x07\x9b31m\x9d0;title\x9c\x90q\x9c"  # the clipboard; colours, title and DCS by C1
    "\rover\x08\x00\x7f\u202egnp\u2066\u200f\u2028\udc9b\ufff9"  # overwrites, turns about, breaks lines
)
MARKUP: Final = "[link=https://elsewhere.test][bold]x[/bold][/link] :skull: <script>alert(1)</script>"
HOSTILE: Final = f"{MARKUP}{STEERS.encode(errors='ignore').decode()}"
"""As it can be written in UTF-8."""
FORBIDDEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufff9-\ufffb]"
)
"""No terminal and no log gets any of these."""
KEPT: Final = frozenset(
    {"id", "prompt_id", "receipt_id", "campaign_id", "state", "phase", "verdict", "grade", "next_cursor", "token"}
    | {"created", "at", "since", "expected_start", "start", "until"}
)
"""What a program goes by is left alone, so that it goes on to show the rest."""


def poisoned(value: Any, name: str = "") -> Any:
    """The same JSON with hostile text at the end of every text that is shown."""
    if isinstance(value, str) and name not in KEPT:
        return value + HOSTILE
    if isinstance(value, dict):
        return {key: poisoned(one, key) for key, one in value.items()}
    return [poisoned(one, name) for one in value] if isinstance(value, list) else value


Answer = tuple[int, Mapping[str, str], bytes]
"""Status, headers, body."""


@dataclass
class Liar:
    """What stands before a real server. `change` makes another answer of each (path, body of the request, answer)."""

    url: str
    change: Callable[[str, bytes, Answer], Answer]
    asked: list[str] = field(default_factory=list)


def poison(path: str, _: bytes, answer: Answer) -> Answer:
    """Every text of every document and event hostile."""
    status, headers, body = answer
    text = body.decode()
    if "event-stream" in headers.get("content-type", ""):
        text = re.sub(r"^data: (.*)$", lambda found: f"data: {_document(found[1])}", text, flags=re.MULTILINE)
    elif path.startswith("/api/v1/receipts.jsonl"):
        text = "".join(f"{_document(line)}\n" for line in text.splitlines())
    elif "json" in headers.get("content-type", ""):
        text = _document(text)
    else:
        text += HOSTILE
    return status, headers, text.encode()


def _document(text: str) -> str:
    return json.dumps(poisoned(json.loads(text)), ensure_ascii=False)


@contextmanager
def liar(truth: str, change: Callable[[str, bytes, Answer], Answer] = poison) -> Iterator[Liar]:
    """A server that says something else than the one at `truth`."""
    told = Liar(url="", change=change)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            sent = self.rfile.read(int(self.headers.get("content-length") or 0))
            told.asked.append(self.path)
            headers = {
                name: value for name, value in self.headers.items() if name.lower() not in {"host", "content-length"}
            }
            status, back, body = told.change(self.path, sent, _true(truth, self.command, self.path, headers, sent))
            self.send_response(status)
            for name, value in back.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield told
        finally:
            server.shutdown()


def _true(truth: str, method: str, path: str, headers: Mapping[str, str], sent: bytes) -> Answer:
    """What the real server says; where there is none, nothing."""
    if not truth:
        return 200, {}, b""
    reply = httpx2.request(method, truth + path, headers=dict(headers), content=sent, timeout=60, trust_env=False)
    kept = {name: value for name, value in reply.headers.items() if name in {"content-type", "link"}}
    return reply.status_code, kept, reply.content
