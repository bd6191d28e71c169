"""A model as Hugging Face transformers keeps one: a folder with `config.json`, a tokenizer and weights as safetensors.

Read with bounds and without torch or numpy, as GGUF files are: whatever is wrong ends in one `broken_model` sentence.
Weights in any other form are never taken: they could run code.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any, Final

from joulebox.errors import JouleboxError
from joulebox.node.gguf import LAYERS_MAX, PARAMETERS_MAX, TENSORS_MAX, Header

WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
JSON_BYTES_MAX: Final = 64 << 20
"""Longest header of a file of weights, or list of such files, that is read."""
TAKEN: Final = (".safetensors", ".json", ".jinja", ".model", ".txt")
"""Files that say what a model answers; the digest goes over them."""
PROCESS_BYTES: Final = 640 << 20
"""What a process with torch and transformers takes before it has a model."""
ROWS: Final = 16
"""Rows of the embedding's length that are alive at once for each token of a prompt."""
_DTYPES: Final = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I64": 8,
    "I32": 4,
    "I8": 1,
    "U8": 1,
}
_DTYPE_BYTES: Final = {"float32": 4, "bfloat16": 2, "float16": 2}
_NAMES: Final = {
    "layers": ("num_hidden_layers", "n_layer"),
    "width": ("hidden_size", "n_embd"),
    "heads": ("num_attention_heads", "n_head"),
    "context": ("max_position_embeddings", "n_positions"),
}
"""What architectures call the same figure."""


def memory_need_bytes(header: Header, size_bytes: int, context_tokens: int, dtype: str = "auto") -> int:
    """What loading a model into transformers takes at most: its weights twice as they are reckoned with (once while
    they are read), keys and values of `context_tokens`, rows for a prompt that fills the context, and the process.

    GGUF files are turned into 32-bit numbers. A margin, not a sum: `make engine-transformers` holds what
    SmolLM2-135M takes, from safetensors and from GGUF, between half of it and all.
    """
    stored = _DTYPES.get(header.quantization, 4) if header.form == "safetensors" else 4
    width = _DTYPE_BYTES.get(dtype, stored)
    weights = (header.parameters or 2 * size_bytes) * width
    cache = (
        header.block_count * header.head_count_kv * (header.key_length + header.value_length) * context_tokens * width
    )
    batch = context_tokens * ROWS * header.embedding_length * 4
    return 2 * weights + cache + batch + PROCESS_BYTES


def read_folder(path: Path) -> Header:
    """What the folder says of its model. Raises `JouleboxError("broken_model")` with a sentence naming it."""
    if not (path / "config.json").is_file():
        sentence = f"{path} is a folder without a model (no config.json): name a GGUF file, or a folder of safetensors."
        raise JouleboxError("broken_model", sentence)
    try:
        config = _json(path / "config.json")
        config |= config.get("text_config") or {}
        parameters, dtype = _counted([_Tensors(file) for file in weight_files(path)])
        return _header(config, parameters, dtype)
    except OSError as error:
        name = error.filename or path
        raise JouleboxError("broken_model", f"{name} cannot be read: {error.strerror or error}.") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        sentence = f"{path} cannot be used: {error}. Fetch or save the model again."
        raise JouleboxError("broken_model", sentence) from error


def weight_files(path: Path) -> list[Path]:
    """The files that hold the weights. Raises `ValueError`, `OSError`."""
    if not (path / INDEX).is_file():
        if not (path / WEIGHTS).is_file():
            raise ValueError(f"it holds no {WEIGHTS}")
        return [path / WEIGHTS]
    names = sorted(set(_json(path / INDEX)["weight_map"].values()))
    if not names or any(Path(name).name != name or not name.endswith(".safetensors") for name in names):
        raise ValueError(f"{INDEX} names other files than safetensors beside it")
    return [path / name for name in names]


def folder_state(path: Path) -> tuple[int, int]:
    """Bytes of its weights, and when any file of the model changed last, in ns. Raises `OSError`."""
    found = {file: file.stat() for file in _files(path)}
    if not found:
        raise FileNotFoundError(f"no model in {path}")
    size_bytes = sum(status.st_size for file, status in found.items() if file.suffix == ".safetensors")
    return size_bytes, max(status.st_mtime_ns for status in found.values())


def folder_digest(path: Path, digest_of: Callable[[Path], str]) -> str:
    """`sha256:` and the hex digest of a line for each file of the model: its name and its own digest."""
    lines = [f"{file.name} {digest_of(file)}\n" for file in _files(path)]
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.iterdir() if file.suffix in TAKEN and file.is_file())


class _Tensors:
    """What the head of one file of safetensors says. Raises `ValueError`, `OSError`."""

    def __init__(self, path: Path) -> None:
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(JSON_BYTES_MAX, size_bytes - 8):
                raise ValueError(f"{path.name} is no file of safetensors, or cut short")
            head = json.loads(file.read(length))
        tensors = [tensor for name, tensor in head.items() if name != "__metadata__"]
        if len(tensors) > TENSORS_MAX or any(min(tensor["shape"], default=1) < 0 for tensor in tensors):
            raise ValueError(f"{path.name} tells of tensors that make no sense")
        if 8 + length + max((tensor["data_offsets"][1] for tensor in tensors), default=0) > size_bytes:
            raise ValueError(f"{path.name} is cut short")
        self.weights: Counter[str] = Counter()
        for tensor in tensors:
            self.weights[str(tensor["dtype"])] += prod(tensor["shape"])


def _counted(files: list[_Tensors]) -> tuple[int, str]:
    """How many weights there are, and the form of most of them."""
    weights: Counter[str] = Counter()
    for file in files:
        weights.update(file.weights)
    if not 1 <= weights.total() <= PARAMETERS_MAX:
        raise ValueError("it holds no weights")
    return weights.total(), weights.most_common(1)[0][0]


def _header(config: dict[str, Any], parameters: int, dtype: str) -> Header:
    layers, width, heads = _figure(config, "layers", LAYERS_MAX), _figure(config, "width"), _figure(config, "heads")
    length = config.get("head_dim") or width // heads
    held = config.get("num_key_value_heads") or heads
    vocabulary = config.get("vocab_size") or 0
    quantized = (config.get("quantization_config") or {}).get("quant_method")
    if not all(isinstance(figure, int) and 0 <= figure <= 1 << 24 for figure in (length, held, vocabulary)):
        raise ValueError("the figures of its config.json make no sense")
    return Header(
        architecture=str(config.get("model_type", "unknown"))[:64],
        name=None,
        quantization=str(quantized).upper()[:32] if quantized else dtype,
        context_tokens=_figure(config, "context", 1 << 30),
        block_count=layers,
        embedding_length=width,
        head_count=heads,
        head_count_kv=held,
        key_length=length,
        value_length=length,
        vocabulary=vocabulary,
        parameters=parameters,
        form="safetensors",
    )


def _figure(config: dict[str, Any], name: str, most: int = 1 << 20) -> int:
    value = next((config[key] for key in _NAMES[name] if key in config), None)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ValueError(f"its config.json tells no {_NAMES[name][0]} that makes sense")
    return value


def _json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > JSON_BYTES_MAX:
        raise ValueError(f"{path.name} is too long")
    value = json.loads(path.read_bytes())
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} is no JSON object")
    return value
