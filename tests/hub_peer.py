"""A hub and an Ollama on this machine that answer as their documentation says, and break where a test wants them to.

The hub: `GET /api/models/OWNER/NAME` (siblings with sizes and LFS digests), `resolve` with its redirect,
`X-Repo-Commit`, `X-Linked-Size` and `X-Linked-Etag`, byte ranges behind it, and errors with `X-Error-Code`. The Ollama:
`POST /api/pull`, one JSON object a line.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "5ab33fa94d1d04e903623ae72c95d1696f09f9e8"
TOKEN = "hf_tokenThatIsKnownToThisHub"
PIECE_BYTES = 1 << 16


@cache
def digest_of(body: bytes) -> str:
    """The hex sha256 of a file."""
    return hashlib.sha256(body).hexdigest()


@dataclass
class Repository:
    """A repository of the hub. `sizes` and `digests` are told instead of the true ones."""

    files: dict[str, bytes]
    licence: str | None = "apache-2.0"
    gated: bool = False
    sizes: dict[str, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    def size_bytes(self, name: str) -> int:
        return self.sizes.get(name, len(self.files[name]))

    def sha256(self, name: str) -> str:
        return self.digests.get(name, digest_of(self.files[name]))


@dataclass
class Peer:
    """What the hub holds, and what it was asked. `cuts`: after so many bytes the next bodies break off; `stall` set, a
    body stops half way until `leave` is set. `info` set, that is what it says of any repository."""

    url: str
    repositories: dict[str, Repository]
    asked: list[tuple[str, str]] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    beside: set[str | None] = field(default_factory=set)
    """Tokens that came where the files themselves lie, which is another host."""
    cuts: list[int] = field(default_factory=list)
    stall: bool = False
    info: bytes | None = None
    half_way: threading.Event = field(default_factory=threading.Event)
    leave: threading.Event = field(default_factory=threading.Event)

    def bodies(self) -> int:
        """How often a file's content was asked for."""
        return len(self.ranges)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    peer: Peer

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.peer.asked.append((self.command, path))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        if path.startswith("/cdn/"):
            self.peer.beside.add(token)
            self._content(path.removeprefix("/cdn/"))
            return
        self.peer.tokens.add(token)
        if token not in (None, TOKEN):
            self._refuse(401, None, "Invalid credentials in Authorization header")
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/[^/]+)?", path):
            self._info(found[1])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(found[1], found[3], token)
        else:
            self._refuse(404, "EntryNotFound", "Not Found")

    def _info(self, name: str) -> None:
        repository = self.peer.repositories.get(name)
        if repository is None:
            self._refuse(401, "RepoNotFound", "Repository not found")
            return
        if self.peer.info is not None:
            self._send(200, self.peer.info, {"Content-Type": "application/json"})
            return
        siblings: list[dict[str, Any]] = [{"rfilename": "README.md", "size": 7, "blobId": "0" * 40}]
        for file in repository.files:
            size = repository.size_bytes(file)
            lfs = {"sha256": repository.sha256(file), "size": size, "pointerSize": 135}
            siblings.append({"rfilename": file, "size": size, "blobId": "1" * 40, "lfs": lfs})
        told = {
            "_id": "x",
            "id": name,
            "modelId": name,
            "sha": COMMIT,
            "private": False,
            "disabled": False,
            "gated": "manual" if repository.gated else False,
            "downloads": 1,
            "likes": 0,
            "tags": ["gguf"],
            "cardData": {"license": repository.licence} if repository.licence else {},
            "siblings": siblings,
        }
        self._send(200, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def _resolve(self, name: str, file: str, token: str | None) -> None:
        repository = self.peer.repositories.get(name)
        if repository is None:
            self._refuse(401, "RepoNotFound", "Repository not found")
        elif file not in repository.files:
            self._refuse(404, "EntryNotFound", "Entry not found")
        elif repository.gated and token != TOKEN:
            said = f"Access to model {name} is restricted. You must have access to it and be authenticated."
            self._refuse(401 if token is None else 403, "GatedRepo", said)
        else:
            sha256 = digest_of(repository.files[file])
            headers = {
                "X-Repo-Commit": COMMIT,
                "X-Linked-Size": str(repository.size_bytes(file)),
                "X-Linked-Etag": f'"{repository.sha256(file)}"',
                "ETag": '"pointer"',
                "Location": f"{self.peer.url.replace('127.0.0.1', 'localhost')}/cdn/{sha256}",
            }
            self._send(302, b"", headers)

    def _content(self, sha256: str) -> None:
        bodies = [body for one in self.peer.repositories.values() for body in one.files.values()]
        body = next(body for body in bodies if digest_of(body) == sha256)
        headers = {"ETag": f'"{sha256}"', "Accept-Ranges": "bytes"}
        status, start = 200, 0
        if self.command == "GET":
            asked = self.headers.get("Range")
            self.peer.ranges.append(asked)
            if asked and (found := re.fullmatch(r"bytes=(\d+)-(\d*)", asked)):
                status, start = 206, int(found[1])
                headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self._send(status, body[start:], headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD" or not body:
            return
        cut = self.peer.cuts.pop(0) if self.path.startswith("/cdn/") and self.peer.cuts else None
        try:
            for begin in range(0, len(body) if cut is None else cut, PIECE_BYTES):
                if self.path.startswith("/cdn/") and self.peer.stall and begin >= len(body) // 2:
                    self.wfile.flush()
                    self.peer.half_way.set()
                    self.peer.leave.wait(30)
                self.wfile.write(body[begin : begin + PIECE_BYTES])
        except OSError:
            self.close_connection = True
        if cut is not None:
            self.close_connection = True

    def _refuse(self, status: int, code: str | None, said: str) -> None:
        headers = {"X-Error-Message": said, "Content-Type": "application/json"}
        if code is not None:
            headers["X-Error-Code"] = code
        self._send(status, json.dumps({"error": said}).encode(), headers)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's own name
        return


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def hub(**repositories: Repository) -> Iterator[Peer]:
    """A hub with these repositories; `__` in a name is `/`."""
    peer = Peer(url="", repositories={name.replace("__", "/"): one for name, one in repositories.items()})
    with _serving(type("Handler", (_Handler,), {"peer": peer})) as url:
        peer.url = url
        try:
            yield peer
        finally:
            peer.leave.set()


@contextmanager
def ollama(lines: list[dict[str, Any]], status: int = 200) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An Ollama that answers a pull with these lines; its address, and the bodies of what it was asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append({"path": self.path} | body)
            self.send_response(status)
            self.send_header("Content-Type", "application/x-ndjson")
            self.end_headers()
            for line in lines:
                self.wfile.write(json.dumps(line).encode() + b"\n")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's own name
            return

    with _serving(Handler) as url:
        yield url, asked
