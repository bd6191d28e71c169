"""The models of this machine: which files, what they are, what loading them takes, and what fits.

A model added from a file stays where it is; one that was fetched lies in `models` of the data folder. `models.json`
holds what is known of each and is replaced as a whole, never edited.
"""

import builtins
import contextlib
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from joulebox.errors import JouleboxError
from joulebox.host import fresh_file, kept_file, own_folder
from joulebox.model import ModelFile, Problem
from joulebox.node.engine import LocalModel
from joulebox.node.gguf import Header, read_header
from joulebox.node.model_folder import folder_digest, folder_state, read_folder
from joulebox.wording import size

Progress = Callable[[int, int], None]
"""Told while something takes long: bytes so far, bytes in all."""
Need = Callable[[Header, int, int], int | None]
"""What loading a model takes: by its header, size in bytes and context in tokens; `None` where nobody can say."""

GIB: Final = 1 << 30
MIB: Final = 1 << 20
RESERVE_BYTES: Final = GIB
"""Of a machine's memory, what stays for the system and for Joulebox itself."""
CONTAINER_RESERVE_BYTES: Final = 256 * MIB
"""The same inside a container or slice with a memory limit, which holds no system."""
PROCESS_BYTES: Final = 32 * MIB
"""What an engine process takes before it has a model: interpreter and libraries."""
VOCABULARY_BYTES: Final = 768
"""What each token of the vocabulary takes in llama.cpp's tables."""
BATCH_TOKENS: Final = 512
"""How many tokens llama.cpp works on at once."""
BATCH_ROWS: Final = 16
"""Rows of the embedding's length that are alive at once for each token of a batch."""
_BLOCK_BYTES: Final = MIB


def memory_need_bytes(header: Header, size_bytes: int, context_tokens: int) -> int:
    """What loading a model takes at most: weights, KV cache in 16 bit for `context_tokens`, and the engine's buffers.

    Buffers are a margin fitted to what was seen, not a sum: `PROCESS_BYTES`, `VOCABULARY_BYTES` a token, working rows
    for one batch, and the mask of batch times context. SmolLM2-135M and Qwen2.5-Coder-0.5B at 512 to 8192 tokens of
    context took 0.89 to 0.97 of what this foretells.
    """
    kv_row = header.head_count_kv * (header.key_length + header.value_length)
    cache = header.block_count * kv_row * context_tokens * 2
    batch = BATCH_TOKENS * (BATCH_ROWS * header.embedding_length + context_tokens) * 4
    return size_bytes + cache + batch + header.vocabulary * VOCABULARY_BYTES + PROCESS_BYTES


def available_memory_bytes(root: Path = Path("/")) -> int:
    """What models may take on this node: the machine's memory without `RESERVE_BYTES`, or the memory limit of this
    process's control group without `CONTAINER_RESERVE_BYTES`, whichever is less. It does not vary with what runs now: a
    node is a dedicated machine. `root` is where `proc` and `sys` are."""
    total = _total_bytes(root) - RESERVE_BYTES
    limit = _limit_bytes(root)
    return max(0, total if limit is None else min(total, limit - CONTAINER_RESERVE_BYTES))


def _total_bytes(root: Path) -> int:
    try:
        text = (root / "proc/meminfo").read_text()
    except OSError:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    match = re.search(r"^MemTotal:\s*(\d+) kB", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def _limit_bytes(root: Path) -> int | None:
    """The tightest memory limit on the way from this process's control group up; `None` where there is none."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    limits = []
    for line in groups:
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base, name = (
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes") if controllers else ("sys/fs/cgroup", "memory.max")
        )
        folder = root / base / group.strip("/")
        for place in (folder, *folder.parents):
            with contextlib.suppress(OSError, ValueError):
                limits.append(int((place / name).read_text()))
    return min(limits, default=None)


def check_memory(file: ModelFile, available_bytes: int | None = None) -> None:
    """Raises `JouleboxError("model_too_big")` with both numbers where `file` does not fit this node."""
    available = available_memory_bytes() if available_bytes is None else available_bytes
    if file.memory_bytes is not None and file.memory_bytes > available:
        sentence = (
            f"{file.id} needs {size(file.memory_bytes)} of memory with a context of {file.context_tokens} tokens, "
            f"but this node has {size(available)} for models: take a smaller model, or set "
            "JOULEBOX_CONTEXT_TOKENS lower."
        )
        raise JouleboxError("model_too_big", sentence, memory_bytes=file.memory_bytes, available_bytes=available)


def model_id(file_name: str) -> str:
    """The id made of a file's name: lower case; what is not a letter, digit, `.`, `_` or `-` becomes `-`."""
    stem = re.sub(r"\.gguf$", "", file_name.lower())
    return re.sub(r"[^a-z0-9._-]+", "-", stem).strip("-.") or "model"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` against other processes, after whoever has it. The kernel frees it with its holder.

    Raises `JouleboxError("bad_setting")` where a link lies there, and `OSError`.
    """
    own_folder(path.parent)
    with kept_file(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def file_digest(path: Path, progress: Progress | None = None) -> str:
    """`sha256:` and the hex digest of the file at `path`."""
    digest, done = hashlib.sha256(), 0
    total = path.stat().st_size
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            done += len(block)
            if progress is not None:
                progress(done, total)
    return f"sha256:{digest.hexdigest()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One model of `models.json`. Size and time of change tell whether the digest is still that of the file."""

    id: str
    path: str
    digest: str
    size_bytes: int
    mtime_ns: int
    header: Header
    default_system: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Index:
    models: tuple[_Entry, ...]


_INDEX: Final = TypeAdapter(_Index)


class Registry:
    """The models this machine knows, kept in `data_dir`. `context_tokens` is the context the engine sets aside; a model
    trained for less gets less. `available_bytes` of `None`: what `available_memory_bytes()` says. `need` and `forms`:
    what a model takes in the engine, and which forms of model that takes."""

    def __init__(
        self,
        data_dir: Path,
        context_tokens: int = 4096,
        available_bytes: int | None = None,
        need: Need = memory_need_bytes,
        forms: Collection[str] = ("gguf",),
    ) -> None:
        self._need = need
        self._forms = forms
        self.folder = data_dir / "models"
        self._index = data_dir / "models.json"
        self.context_tokens = context_tokens
        self._available_bytes = available_bytes

    def room_bytes(self) -> int:
        """The memory that this machine has for a model."""
        return available_memory_bytes() if self._available_bytes is None else self._available_bytes

    def list(self) -> builtins.list[LocalModel]:
        """Every model for this engine whose file is there and unchanged, by id."""
        return [self._local(entry) for entry in self._taken() if _trouble(entry) is None]

    def troubles(self) -> builtins.list[Problem]:
        """One sentence for each known model that cannot be used any more."""
        return [trouble for entry in self._read() if (trouble := _trouble(entry)) is not None]

    def get(self, name: str) -> LocalModel:
        """The model with the id `name`. Raises `unknown_model`, or `broken_model` where its file is gone or changed."""
        entries = {entry.id: entry for entry in self._taken()}
        if name not in entries:
            known = ", ".join(entries) or "none yet"
            raise JouleboxError("unknown_model", f"There is no model {name} here. Known: {known}.", known=[*entries])
        if (trouble := _trouble(entries[name])) is not None:
            raise JouleboxError(trouble.code, trouble.detail)
        return self._local(entries[name])

    def add(
        self,
        path: Path,
        name: str | None = None,
        progress: Progress | None = None,
        default_system: str | None = None,
        sha256: str | None = None,
    ) -> LocalModel:
        """Take up the GGUF file or folder of safetensors at `path`, where it is. The same one again changes nothing.

        Raises `broken_model`, also where its digest is not the `sha256` (hex) that it should be, `model_too_big`, or
        `bad_request` where `name` belongs to another file already.
        """
        path = path.expanduser().resolve()
        header = read_folder(path) if path.is_dir() else read_header(path)
        size_bytes, mtime_ns = _state(path)
        entry = _Entry(
            id=model_id(name or path.name),
            path=str(path),
            digest="",
            size_bytes=size_bytes,
            mtime_ns=mtime_ns,
            header=header,
            default_system=default_system,
        )
        if header.form in self._forms:
            check_memory(self._local(entry).file, self._available_bytes)
        digest = folder_digest(path, file_digest) if path.is_dir() else file_digest(path, progress)
        entry = replace(entry, digest=digest)
        if sha256 is not None and entry.digest != f"sha256:{sha256}":
            sentence = f"{path} is not the file it should be: its digest is {entry.digest}, not sha256:{sha256}."
            raise JouleboxError("broken_model", sentence, sha256=sha256)
        with self._changing() as entries:
            _check_name(entries.get(entry.id), entry.digest)
            entries[entry.id] = entry
        return self._local(entry)

    def check_name(self, name: str, digest: str) -> None:
        """Raises `bad_request` where another model than the one of that digest is called `name` already."""
        _check_name(next((entry for entry in self._read() if entry.id == name), None), digest)

    def remove(self, name: str) -> None:
        """Forget a model. Its file stays, unless it was fetched into this registry's folder. Raises `unknown_model`."""
        with self._changing() as entries:
            entry = entries.pop(name, None)
            if entry is None:
                known = ", ".join(entries) or "none"
                raise JouleboxError("unknown_model", f"There is no model {name} here. Known: {known}.")
        path = Path(entry.path)
        if path.is_relative_to(self.folder.resolve()):
            path.unlink(missing_ok=True)

    def _local(self, entry: _Entry) -> LocalModel:
        header = entry.header
        context = min(self.context_tokens, header.context_tokens)
        file = ModelFile(
            id=entry.id,
            digest=entry.digest,
            quantization=header.quantization,
            size_bytes=entry.size_bytes,
            memory_bytes=self._need(header, entry.size_bytes, context),
            context_tokens=context,
        )
        return LocalModel(file=file, path=Path(entry.path), default_system=entry.default_system)

    def _taken(self) -> builtins.list[_Entry]:
        """Those that this engine takes."""
        return [entry for entry in self._read() if entry.header.form in self._forms]

    def _read(self) -> builtins.list[_Entry]:
        try:
            entries = _INDEX.validate_json(self._index.read_bytes()).models
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            if isinstance(error, ValidationError):
                first = error.errors()[0]
                error = ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": "))
            sentence = f"{self._index} cannot be read ({error}): mend it, or delete it and add the models again."
            raise JouleboxError("bad_setting", sentence) from error
        return sorted(entries, key=lambda entry: entry.id)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, _Entry]]:
        """The entries by id, written back whole; nothing is written where the block raises."""
        with locked(self._index.with_suffix(".lock")):
            entries = {entry.id: entry for entry in self._read()}
            yield entries
            document = {"version": 1, "models": [asdict(entry) for entry in entries.values()]}
            fresh = self._index.with_suffix(".new")
            with fresh_file(fresh) as file:
                file.write(json.dumps(document, indent=1).encode())
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._index)


def _state(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns. Raises `OSError`."""
    if path.is_dir():
        return folder_state(path)
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _check_name(old: _Entry | None, digest: str) -> None:
    if old is not None and old.digest != digest:
        sentence = (
            f"Another model is called {old.id} already ({old.path}, {old.digest[:19]}...): give this one "
            f"another name, or remove the other with joulebox models remove {old.id}."
        )
        raise JouleboxError("bad_request", sentence)


def _trouble(entry: _Entry) -> Problem | None:
    """Why the file is not what was added; `None` where it is."""
    try:
        state = _state(Path(entry.path))
    except OSError:
        detail = f"The file of {entry.id} is gone from {entry.path}: put it back, or joulebox models remove {entry.id}."
        return Problem(code="broken_model", detail=detail)
    if state == (entry.size_bytes, entry.mtime_ns):
        return None
    detail = (
        f"{entry.path} has changed since it was added as {entry.id}: joulebox models remove {entry.id}, then add it."
    )
    return Problem(code="broken_model", detail=detail)
