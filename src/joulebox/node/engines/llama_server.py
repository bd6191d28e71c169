"""`llama-server:http://HOST:PORT`: llama.cpp's own server, with one model or as a router of several.

With one model it has that in memory from its start to its end; as a router (started without a model) it loads and
unloads by name. The prompt cache is off on every request. Where the model's file can be read on this machine, its
header tells quantization and memory need, and its bytes the digest (not those of all a router's models: that may take
minutes at every start); else the file's name tells what it can.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import quote

from joulebox.errors import JouleboxError
from joulebox.model import Prompt
from joulebox.node import llamacpp_wire
from joulebox.node.engine import LocalModel
from joulebox.node.engine_http import Refusal, Tally, too_long
from joulebox.node.gguf import Header, read_header
from joulebox.node.models import file_digest, memory_need_bytes, model_id
from joulebox.node.served import LOAD_WAIT_S, UNKNOWN, UNLOAD_WAIT_S, ServedEngine, Setup, model_of, refuse_error, whole

WHERE: Final = "http://127.0.0.1:8080"
LOOKS_FOR: Final = "llama.cpp's own server"
OPTIONS: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """What a model's file tells of itself. `key` is its size and time of change, by which it is known again."""

    key: tuple[int, int]
    digest: str | None
    size_bytes: int
    header: Header


class LlamaServer(ServedEngine):
    """One `llama-server`."""

    name: ClassVar[str] = "llama-server"
    takes_tools: ClassVar[bool] = True
    processes: ClassVar[tuple[str, ...]] = ("llama-server",)

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._routes = False
        self._files: dict[Path, _File] = {}
        self._tells: dict[str, bool] = {}

    @property
    def unloads(self) -> bool:
        """Only a router can."""
        return self._routes

    @property
    def resident(self) -> bool:
        """Unless it is a router."""
        return not self._routes

    def version(self) -> str:
        """The build, such as `b10434-abcdef`."""
        return str(self.http.perhaps("/props").get("build_info") or UNKNOWN)

    def listed(self) -> list[LocalModel]:
        """All models of a router, or the one."""
        rows = self._rows()
        self._routes = any("status" in row for row in rows)
        props = {} if self._routes else self.http.ask("GET", "/props")
        if not self._routes:
            self._tells = {str(row["id"]): llamacpp_wire.tells_tools(props) for row in rows}
        return [self._model_of(row, props) for row in rows]

    def held(self) -> Collection[str]:
        """Of one model: it, unless the server has put itself to sleep."""
        rows = self._rows()
        if any("status" in row for row in rows):
            return [row["id"] for row in rows if row["status"]["value"] == "loaded"]
        return [] if self.http.ask("GET", "/props").get("is_sleeping") else [row["id"] for row in rows]

    def bring(self, name: str) -> None:
        """A router is asked to load; a server that sleeps wakes up with a prompt of one token."""
        if name in self.held():
            return
        if not self._routes:
            self.http.ask("POST", "/completion", {"prompt": "a", "n_predict": 1, "cache_prompt": False}, LOAD_WAIT_S)
            return
        self.http.ask("POST", "/models/load", {"model": name}, LOAD_WAIT_S)
        self.wait_until(lambda: self._status(name) != "loading", LOAD_WAIT_S)
        if self._status(name) == "failed":
            sentence = f"{self.name} could not load {name}: look into its log, or take another model."
            raise JouleboxError("broken_model", sentence)
        self._tells[name] = llamacpp_wire.tells_tools(self.http.perhaps(f"/props?model={quote(name, safe='')}"))

    def drop(self, name: str) -> None:
        """Only of a router."""
        if self._routes and name in self.held():
            self.http.ask("POST", "/models/unload", {"model": name}, UNLOAD_WAIT_S)
            self.wait_until(lambda: name not in self.held(), UNLOAD_WAIT_S)

    def request(self, prompt: Prompt, model: LocalModel) -> tuple[str, dict[str, Any]]:
        """As to the llama.cpp in the node's own process."""
        name = str(model.path)
        return llamacpp_wire.CHAT, llamacpp_wire.request(prompt, model, tells_tools=self._tells.get(name, False)) | {
            "model": name
        }

    def read(self, piece: Mapping[str, Any], tally: Tally) -> str:
        """As from the llama.cpp in the node's own process."""
        refuse_error(piece)
        return llamacpp_wire.read(piece, tally)

    def refusal(self, refusal: Refusal, model: LocalModel | None) -> JouleboxError:
        """The one error that has a form of its own is a prompt beyond the context."""
        long = too_long(self.name, refusal.said, model) if model is not None else None
        return long or super().refusal(refusal, model)

    def working(self) -> bool:
        """By the list of slots, which an operator may have switched off."""
        where = f"?model={quote(str(self._model.path), safe='')}" if self._routes and self._model else ""
        try:
            return llamacpp_wire.busy(self.http.ask("GET", f"/slots{where}"))
        except Refusal:
            return False

    def _rows(self) -> list[dict[str, Any]]:
        """By the router's page; older servers only have OpenAI's."""
        try:
            rows: list[dict[str, Any]] = self.http.ask("GET", "/models")["data"]
        except Refusal:
            rows = self.http.ask("GET", "/v1/models")["data"]
        return rows

    def _status(self, name: str) -> str:
        """`loaded`, `loading`, `failed` or `unloaded`."""
        status = next((row["status"] for row in self._rows() if row["id"] == name), {"value": "unloaded"})
        return "failed" if status.get("failed") else str(status["value"])

    def _model_of(self, row: Mapping[str, Any], props: Mapping[str, Any]) -> LocalModel:
        name, meta = str(row["id"]), row.get("meta") or {}
        path = Path(str(row.get("path") or props.get("model_path") or name))
        file = self._file(path)
        context = whole((props.get("default_generation_settings") or {}).get("n_ctx"))
        if context is None:
            context = min(self.setup.context_tokens, file.header.context_tokens if file else self.setup.context_tokens)
        return model_of(
            name,
            context_tokens=context,
            model_id=model_id(path.name) if name.endswith(".gguf") else name,
            digest=file.digest if file else None,
            quantization=file.header.quantization if file else llamacpp_wire.quantization_in(path.name),
            size_bytes=file.size_bytes if file else whole(meta.get("size")),
            memory_bytes=memory_need_bytes(file.header, file.size_bytes, context) if file else None,
        )

    def _file(self, path: Path) -> _File | None:
        """What the file tells where it lies on this machine and may be read; its bytes are read once."""
        if not path.is_absolute():
            return None
        try:
            status = path.stat()
            key = (status.st_size, status.st_mtime_ns)
            known = self._files.get(path)
            if known is not None and known.key == key:
                return known
            header = read_header(path)
            digest = None if self._routes else file_digest(path)
        except (OSError, JouleboxError):
            return None
        self._files[path] = _File(key=key, digest=digest, size_bytes=status.st_size, header=header)
        return self._files[path]


def open(setup: Setup) -> LlamaServer:  # noqa: A001 - the name every driver offers
    """The server at `setup.url`. Nothing is asked yet."""
    return LlamaServer(setup)
