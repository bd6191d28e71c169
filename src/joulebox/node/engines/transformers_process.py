"""The process in which Hugging Face transformers holds one model and answers one prompt after the other.

Run by its path with whatever Python has torch and transformers; of Joulebox it needs nothing. Lines of JSON go in and
out: first the `Task`, answered by what was loaded or `{"code": ..., "detail": ...}`; then `{"ask": {...}}`, answered by
a line for each piece of text and one at the end; `{"cancel": true}` ends the answer under way. The end of stdin means
that the parent ended: the process leaves at once. `--about` prints the versions of its packages and ends.
"""

import importlib
import importlib.metadata
import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGES = ("transformers", "torch", "safetensors", "accelerate", "gguf", "jinja2")
"""What it takes: accelerate and gguf for GGUF files, jinja2 for chat templates."""
UNFINISHED = "\ufffd"
"""What stands at the end of a text whose last sign is not whole yet."""
_PIECE_BYTES = 1 << 16
Write = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What to load; sentences call it `name`. Without `threads` torch takes one per physical core. `dtype` `auto`: as
    the weights are stored. `memory_bytes`: what a graphics card must have free for it."""

    path: str
    name: str
    context_tokens: int
    threads: int | None
    device: str
    dtype: str
    memory_bytes: int | None


class Told(Exception):
    """A problem with a sentence of its own."""

    def __init__(self, code: str, detail: str, **extra: int) -> None:
        super().__init__(detail)
        self.line = {"code": code, "detail": detail, **extra}


class Text:
    """The text of an answer as its tokens come: whole signs only, and never a stop word or what may become one.

    `write` is told each piece with the number of tokens made since the last. Decoding only looks back as far as the
    last piece, so that a long answer costs no more a token than a short one.
    """

    def __init__(self, tokenizer: Any, stops: list[str], write: Write) -> None:
        self._tokenizer = tokenizer
        self._stops = stops
        self._write = write
        self._tokens: list[int] = []
        self._from = 0
        self._known = 0
        self._held = ""
        self._fresh = 0
        self.stopped = False

    def add(self, token: int) -> None:
        """One more token; after a stop word nothing more is taken."""
        if self.stopped:
            return
        self._tokens.append(token)
        self._fresh += 1
        before, now = self._decoded(self._known), self._decoded(None)
        if len(now) > len(before) and not now.endswith(UNFINISHED):
            self._from, self._known = self._known, len(self._tokens)
            self._take(now[len(before) :])

    def end(self) -> None:
        """What was held back comes out."""
        if not self.stopped:
            self._take(self._decoded(None)[len(self._decoded(self._known)) :])
            self._say(self._held)

    def _decoded(self, until: int | None) -> str:
        text: str = self._tokenizer.decode(self._tokens[self._from : until], skip_special_tokens=True)
        return text

    def _take(self, piece: str) -> None:
        text = self._held + piece
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._say(text[: min(found)])
            return
        begun = max((_begun(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - begun :]
        self._say(text[: len(text) - begun])

    def _say(self, text: str) -> None:
        if text:
            self._write({"text": text, "n": max(1, self._fresh)})
            self._fresh = 0


def _begun(text: str, stop: str) -> int:
    """How many signs at the end of `text` may be the beginning of `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-size:])), 0)


class Watch:
    """Follows an answer while transformers generates it: as its streamer it is handed the prompt and then each token,
    as its stopping criterion it is asked after each whether that was enough."""

    def __init__(self, text: Text, torch: Any, cancelled: threading.Event, ends: list[int]) -> None:
        self._text = text
        self._torch = torch
        self._cancelled = cancelled
        self._ends = ends
        self._prompt_seen = False
        self.made = 0
        self.ended = False

    def put(self, tokens: Any) -> None:
        """First the prompt, then one token each time."""
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        for token in tokens.flatten().tolist():
            self.made += 1
            if token in self._ends:
                self.ended = True
            else:
                self._text.add(token)

    def end(self) -> None:
        """The answer is whole; what is held back comes out elsewhere."""

    def __call__(self, tokens: Any, scores: Any, **_: Any) -> Any:
        """Whether to stop, as transformers wants it: for each of its one row."""
        enough = self._text.stopped or self._cancelled.is_set()
        return self._torch.full((tokens.shape[0],), enough, dtype=self._torch.bool, device=tokens.device)

    @property
    def reason(self) -> str:
        """Why the answer ended."""
        if self._text.stopped or self.ended:
            return "stop"
        return "cancelled" if self._cancelled.is_set() else "length"


class Model:
    """The loaded model. All of torch and transformers is `Any`: they are not there where this file is checked."""

    def __init__(self, task: Task) -> None:
        self._torch: Any = importlib.import_module("torch")
        transformers: Any = importlib.import_module("transformers")
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        if task.threads is not None:
            self._torch.set_num_threads(task.threads)
        self._task = task
        self._device = _device(self._torch, task)
        path = Path(task.path)
        where = {"pretrained_model_name_or_path": str(path)}
        if path.is_file():
            where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
        # Nothing is fetched, no code that comes with a model runs, no weights are unpickled.
        safe = {"local_files_only": True, "trust_remote_code": False}
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(**where, **safe)
        if self._tokenizer.chat_template is None:
            sentence = f"{task.path} has no chat template: take a model that was trained to answer (Instruct, Chat)."
            raise Told("broken_model", sentence)
        kind = transformers.AutoModelForCausalLM
        model = kind.from_pretrained(**where, **safe, dtype=task.dtype, use_safetensors=True)
        self._model = model.to(self._device).eval()
        told = self._model.generation_config.eos_token_id
        ends = {*(told if isinstance(told, list) else [told]), self._tokenizer.eos_token_id}
        self._ends = sorted(end for end in ends if end is not None)
        self.about = {
            "transformers": transformers.__version__,
            "torch": self._torch.__version__,
            "device": self._torch.cuda.get_device_name(0) if self._device == "cuda" else "cpu",
            "dtype": str(self._model.dtype).removeprefix("torch."),
        }

    def answer(self, ask: dict[str, Any], cancelled: threading.Event, write: Write) -> None:
        """Write the pieces of an answer and its end. Raises `Told`."""
        inputs = self._read(ask["messages"])
        length = inputs["input_ids"].shape[1]
        if length >= self._task.context_tokens:
            most = self._task.context_tokens
            sentence = (
                f"The prompt has {length} tokens, but {self._task.name} takes at most {most} here: shorten it, or "
                "raise JOULEBOX_CONTEXT_TOKENS on the node."
            )
            raise Told("prompt_too_long", sentence, input_tokens=length, context_tokens=most)
        text = Text(self._tokenizer, ask["stop"], write)
        watch = Watch(text, self._torch, cancelled, self._ends)
        self._torch.manual_seed(ask["seed"] % (1 << 63))
        self._model.generate(
            **inputs,
            **_sampling(ask),
            max_new_tokens=min(ask["max_tokens"], self._task.context_tokens - length),
            eos_token_id=self._ends or None,
            pad_token_id=self._ends[0] if self._ends else None,
            num_beams=1,
            num_return_sequences=1,
            streamer=watch,
            stopping_criteria=[watch],
        )
        text.end()
        write({"end": watch.reason, "input_tokens": length, "output_tokens": watch.made})

    def _read(self, messages: list[dict[str, str]]) -> Any:
        """The conversation as tokens. Raises `Told` where the model's template does not take it."""
        try:
            found = self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
            )
        except Exception as error:
            if type(error).__module__.partition(".")[0] != "jinja2":
                raise
            sentence = f"The chat template of {self._task.name} does not take this conversation: {error}."
            raise Told("bad_request", sentence) from error
        return found.to(self._device)


def _device(torch: Any, task: Task) -> str:
    """The first graphics card that torch can use, else the processor. Raises `Told`."""
    usable = task.device != "cpu" and torch.cuda.is_available()
    if task.device == "cuda" and not usable:
        raise Told("bad_setting", "This torch sees no graphics card: leave device=cuda out, or mend its driver.")
    if usable and task.memory_bytes is not None:
        free = torch.cuda.mem_get_info()[0]
        if task.memory_bytes > free:
            sizes = f"needs {task.memory_bytes / 1e9:.1f} GB, and {free / 1e9:.1f} GB of the graphics card are free"
            raise Told("model_too_big", f"{task.name} {sizes}: take a smaller model, or device=cpu.")
    return "cuda" if usable else "cpu"


def _sampling(ask: dict[str, Any]) -> dict[str, Any]:
    """Temperature 0 takes the likeliest token each time; what a prompt does not ask for is the model's own setting."""
    if not ask["temperature"]:
        return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    top_p = {} if ask["top_p"] is None else {"top_p": ask["top_p"]}
    return {"do_sample": True, "temperature": ask["temperature"]} | top_p


def _listen(asked: "queue.Queue[dict[str, Any]]", cancelled: threading.Event) -> None:
    """Take what comes on stdin, until the parent has ended."""
    left = b""
    while piece := os.read(0, _PIECE_BYTES):
        *lines, left = (left + piece).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "cancel" in message:
                cancelled.set()
            else:
                cancelled.clear()  # here, not by who answers: a cancel may follow at once
                asked.put(message)
    os._exit(0)


def _problem(error: Exception, path: str) -> dict[str, Any]:
    """Why loading failed."""
    if isinstance(error, Told):
        return error.line
    said = " ".join(str(error).split())[:200].rstrip(". ")
    named = {"code": "engine_missing", "detail": f"torch or transformers cannot be used on this machine: {said}."}
    if isinstance(error, ImportError):
        return named
    if "trust_remote_code" in str(error) or "execute the" in str(error):
        detail = f"{path} brings code of its own, which is never run: take a model that transformers knows by itself."
    else:
        detail = f"transformers cannot load {path} ({said}): it is damaged, or of a kind that it does not know."
    return {"code": "broken_model", "detail": detail}


def about() -> dict[str, str]:
    """The versions of the packages that are here."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main() -> int:
    """Answer until the parent ends. Exit code 1 after a problem with loading was told, or when torch failed."""
    if "--about" in sys.argv:
        print(json.dumps(about()))
        return 0
    # Libraries may write to descriptor 1; only lines of ours may be read there.
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}

    def write(line: dict[str, Any]) -> None:
        out.write(json.dumps(line).encode() + b"\n")

    asked: queue.Queue[dict[str, Any]] = queue.Queue()
    cancelled = threading.Event()
    threading.Thread(target=_listen, args=(asked, cancelled), name="parent", daemon=True).start()
    task = Task(**asked.get())
    try:
        model = Model(task)
    except Exception as error:  # noqa: BLE001 - whatever a library raises becomes one sentence
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        write(_problem(error, task.path))
        os._exit(1)
    write(model.about)
    while True:
        try:
            model.answer(asked.get(), cancelled, write)
        except Told as told:
            write(told.line)


if __name__ == "__main__":
    sys.exit(main())
