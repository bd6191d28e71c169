"""Writes small GGUF files, right and wrong ones, for tests."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

Value = int | float | bool | str | Sequence[int] | Sequence[str]

SHAPE: Mapping[str, Value] = {
    "general.architecture": "llama",
    "general.name": "Tiny",
    "general.file_type": 15,
    "tokenizer.ggml.tokens": ["a", "b", "c"],
    "llama.context_length": 2048,
    "llama.block_count": 4,
    "llama.embedding_length": 256,
    "llama.attention.head_count": 8,
    "llama.attention.head_count_kv": 2,
}


def text(value: str) -> bytes:
    """A string as GGUF writes it."""
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def entry(key: str, value: Value) -> bytes:
    """One key with its value."""
    match value:
        case bool():
            return text(key) + struct.pack("<I?", 7, value)
        case int():
            return text(key) + struct.pack("<II", 4, value)
        case float():
            return text(key) + struct.pack("<If", 6, value)
        case str():
            return text(key) + struct.pack("<I", 8) + text(value)
    items = list(value)
    kind = 8 if items and isinstance(items[0], str) else 4
    body = b"".join(text(item) if isinstance(item, str) else struct.pack("<I", item) for item in items)
    return text(key) + struct.pack("<IIQ", 9, kind, len(items)) + body


def gguf_bytes(values: Mapping[str, Value] = SHAPE, version: int = 3, weights: bytes = bytes(64)) -> bytes:
    """A whole file with one tensor."""
    head = b"GGUF" + struct.pack("<IQQ", version, 1, len(values))
    head += b"".join(entry(key, value) for key, value in values.items())
    head += text("token_embd.weight") + struct.pack("<IQIQ", 1, len(weights), 0, 0)
    return head + bytes(-len(head) % 32) + weights


def write_gguf(path: Path, **changes: Value | None) -> Path:
    """A file of the shape above with changes; `None` leaves an entry out. Dots are written `__`."""
    named = {key.replace("__", "."): value for key, value in changes.items()}
    values = {key: value for key, value in {**SHAPE, **named}.items() if value is not None}
    path.write_bytes(gguf_bytes(values))
    return path
