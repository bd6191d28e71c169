"""The engine's own process: one model, one llama.cpp HTTP server on 127.0.0.1, gone as soon as its parent is gone.

Started as `python -m joulebox.node.engines.llamacpp_process`. The first line of stdin is a `Task` as JSON; the first
line of stdout is the reply: `{"address": ...}` or `{"code": ..., "detail": ...}`. Stdin then stays open: its end means
that the parent ended, however it did, and the process leaves at once. Waiting for that costs no wake-up.
"""

import importlib
import json
import os
import sys
import threading
from dataclasses import dataclass
from typing import Any, BinaryIO


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What to serve. Without `threads` llama.cpp takes one per physical core. `key` keeps other programs out."""

    path: str
    context_tokens: int
    threads: int | None
    key: str


def _leave_with_parent(stdin: BinaryIO) -> None:
    while stdin.read(4096):
        pass
    os._exit(0)


def _serve(task: Task) -> Any:
    """The running server, which ends with its object. Any, because the package tells no types."""
    xllamacpp: Any = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = task.path
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [task.key]
    params.cors_origins = ""
    params.n_parallel = 1
    params.n_ctx = task.context_tokens
    # Nothing of one prompt may speed up the next: no prompt cache, no checkpoints, no context kept aside.
    params.cache_prompt = False
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    params.n_ctx_checkpoints = 0
    # A cancelled prompt is dropped between two batches: the default of 2048 tokens is many seconds on a small machine.
    params.n_batch = params.n_ubatch
    # Nothing but tokens on the wire while an answer is measured.
    params.sse_ping_interval = -1
    params.verbosity = 0
    params.ui = False
    if task.threads is not None:
        params.cpuparams.n_threads = task.threads
        params.cpuparams_batch.n_threads = task.threads
    return xllamacpp.Server(params)


def _problem(error: Exception, path: str) -> dict[str, str]:
    if isinstance(error, ModuleNotFoundError):
        detail = "The engine llama.cpp is not installed: run pip install 'joulebox[models]'."
    elif isinstance(error, ImportError | OSError) and "libgomp" in str(error):
        detail = "llama.cpp needs libgomp.so.1, which is not on this machine: install the package libgomp1."
    elif isinstance(error, ImportError | OSError):
        detail = f"The engine llama.cpp cannot be loaded on this machine: {error}."
    else:
        detail = (
            f"llama.cpp cannot load {path}: the file is damaged or of a kind it does not know. Fetch the file again."
        )
        return {"code": "broken_model", "detail": detail}
    return {"code": "engine_missing", "detail": detail}


def main() -> int:
    """Serve until the parent ends. Exit code 1 after a problem was told on stdout."""
    # llama.cpp may write to descriptor 1; only the reply may be read there.
    reply = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    # Unbuffered: a thread that holds a buffer's lock would stand in the way of the interpreter's end.
    stdin = os.fdopen(0, "rb", buffering=0, closefd=False)
    line = b""
    while not line.endswith(b"\n"):
        piece = stdin.read(1)
        if not piece:
            return 0
        line += piece
    task = Task(**json.loads(line))
    watch = threading.Thread(target=_leave_with_parent, args=(stdin,), name="parent", daemon=True)
    watch.start()
    try:
        server = _serve(task)
    except (ImportError, OSError, RuntimeError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        reply.write(json.dumps(_problem(error, task.path)).encode() + b"\n")
        reply.close()
        os._exit(1)
    address = server.listening_address
    reply.write(json.dumps({"address": address}).encode() + b"\n")
    reply.close()
    watch.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
