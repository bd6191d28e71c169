"""What a model file says of itself: the header of a GGUF file (versions 2 and 3), read with bounds and without numpy.

A file comes from anywhere. Every count is checked against a bound and against what is left of the file before anything
is read; only the few wanted values are kept; whatever is wrong ends in one `broken_model` sentence.
"""

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO, Final

from joulebox.errors import JouleboxError

KEYS_MAX: Final = 4_096
KEY_BYTES_MAX: Final = 65_535
TEXT_BYTES_MAX: Final = 1_024
ITEMS_MAX: Final = 2_000_000
"""Longest list that is walked; the largest vocabularies have a few hundred thousand entries."""
LAYERS_MAX: Final = 4_096
TENSORS_MAX: Final = 100_000
PARAMETERS_MAX: Final = 1 << 50

_NUMBERS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING: Final = 8
_LIST: Final = 9
_VOCABULARY: Final = "tokenizer.ggml.tokens"
_WHOLE: Final = frozenset({0, 1, 2, 3, 4, 5, 10, 11})

# llama.cpp's `llama_ftype`: how most of the weights are stored.
_FILE_TYPES: Final = (
    "0 F32,1 F16,2 Q4_0,3 Q4_1,7 Q8_0,8 Q5_0,9 Q5_1,10 Q2_K,11 Q3_K_S,12 Q3_K_M,13 Q3_K_L,14 Q4_K_S,15 Q4_K_M,"
    "16 Q5_K_S,17 Q5_K_M,18 Q6_K,19 IQ2_XXS,20 IQ2_XS,21 Q2_K_S,22 IQ3_XS,23 IQ3_XXS,24 IQ1_S,25 IQ4_NL,26 IQ3_S,"
    "27 IQ3_M,28 IQ2_S,29 IQ2_M,30 IQ4_XS,31 IQ1_M,32 BF16,36 TQ1_0,37 TQ2_0,38 MXFP4"
)
_QUANTIZATIONS: Final = {int(number): name for number, name in (entry.split() for entry in _FILE_TYPES.split(","))}

Value = int | float | str | list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The facts that name a model and tell its memory need.

    Head counts are means over the layers, rounded up; 0 for a model without attention. `key_length` and `value_length`
    are those of one head. `context_tokens` is what the model was trained for. `vocabulary` is how many tokens it knows,
    `parameters` how many weights it has, 0 where that was not counted. `form`: `gguf`, or `safetensors` for a folder.
    """

    architecture: str
    name: str | None
    quantization: str
    context_tokens: int
    block_count: int
    embedding_length: int
    head_count: int
    head_count_kv: int
    key_length: int
    value_length: int
    vocabulary: int
    parameters: int = 0
    form: str = "gguf"


def read_header(path: Path) -> Header:
    """The header of the GGUF file at `path`.

    Raises `JouleboxError("broken_model")` with a sentence naming the file where it cannot be read, is no GGUF file, is
    cut short or makes no sense.
    """
    try:
        if path.exists() and not path.is_file():
            raise _Broken("it is not a file")
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            return _Reader(file, size_bytes).header()
    except OSError as error:
        raise JouleboxError("broken_model", f"{path} cannot be read: {error.strerror or error}.") from error
    except _Broken as broken:
        raise JouleboxError(
            "broken_model", f"{path} cannot be used: {broken}. Fetch or convert the model again."
        ) from broken


class _Broken(Exception):
    """What is wrong with the file, as the middle of a sentence."""


class _Reader:
    """Walks through one file, in its order."""

    def __init__(self, file: BinaryIO, size_bytes: int) -> None:
        self._file = file
        self._size = size_bytes

    def header(self) -> Header:
        if self._take(4) != b"GGUF":
            raise _Broken("it is not a GGUF file")
        version = self._number("I")
        if version not in (2, 3):
            turned = version in (2 << 24, 3 << 24)
            raise _Broken("it is in big-endian order" if turned else f"its GGUF version is {version}, not 2 or 3")
        tensors = self._count(TENSORS_MAX, "tensors")
        keys = self._count(KEYS_MAX, "entries")
        values: dict[str, Value] = {}
        for _ in range(keys):
            key = self._text(KEY_BYTES_MAX)
            self._value(key, values)
        parameters = self._check_tensors(tensors, values)
        return _header(values, parameters)

    def _value(self, key: str, values: dict[str, Value]) -> None:
        """Read or pass over one value; only what `_wanted` names is kept."""
        kind = self._number("I")
        wanted = _wanted(key)
        if kind in _NUMBERS:
            number = self._number(_NUMBERS[kind])
            if wanted:
                values[key] = number
        elif kind == _STRING:
            if wanted:
                values[key] = self._text(TEXT_BYTES_MAX)
            else:
                self._skip(self._number("Q"))
        elif kind == _LIST:
            inner, count = self._number("I"), self._count(ITEMS_MAX, f"entries of {key[:40]!r}")
            if wanted and inner in _WHOLE and count <= LAYERS_MAX:
                values[key] = [self._number(_NUMBERS[inner]) for _ in range(count)]
            else:
                self._skip_list(inner, count)
                if key == _VOCABULARY:
                    values[key] = count
        else:
            raise _Broken(f"it holds a value of unknown type {kind}")

    def _skip_list(self, kind: int, count: int) -> None:
        if kind in _NUMBERS:
            self._skip(count * struct.calcsize(f"<{_NUMBERS[kind]}"))
        elif kind == _STRING:
            for _ in range(count):
                self._skip(self._number("Q"))
        else:
            raise _Broken(f"it holds a list of unknown type {kind}")

    def _check_tensors(self, count: int, values: dict[str, Value]) -> int:
        """How many weights there are. The last tensor must begin inside the file: a cut download is seen before
        anything is loaded."""
        last, parameters = 0, 0
        for _ in range(count):
            self._skip(self._number("Q"))
            dimensions = self._number("I")
            if dimensions > 8:
                raise _Broken(f"it holds a tensor of {dimensions} dimensions")
            parameters += prod(self._number("Q") for _ in range(dimensions))
            self._skip(4)
            last = max(last, self._number("Q"))
        alignment = values.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20:
            raise _Broken("its alignment makes no sense")
        start = -(-self._file.tell() // alignment) * alignment
        if count == 0:
            raise _Broken("it holds no weights")
        if start + last >= self._size:
            raise _Broken("it is cut short")
        return min(parameters, PARAMETERS_MAX)

    def _take(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) != count:
            raise _Broken("it is cut short")
        return data

    def _skip(self, count: int) -> None:
        if count > self._size - self._file.tell():
            raise _Broken("it is cut short")
        self._file.seek(count, 1)

    def _number(self, form: str) -> int:
        number: int = struct.unpack(f"<{form}", self._take(struct.calcsize(f"<{form}")))[0]
        return number

    def _count(self, most: int, what: str) -> int:
        count = self._number("Q")
        if count > most:
            raise _Broken(f"it claims {count} {what}, more than {most}")
        return count

    def _text(self, most: int) -> str:
        length = self._count(most, "bytes of text")
        return self._take(length).decode("utf-8", errors="replace")


_GENERAL: Final = frozenset(
    {"general.architecture", "general.name", "general.file_type", "general.alignment", "split.count"}
)
_SHAPE: Final = (
    "context_length",
    "block_count",
    "embedding_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
)


def _wanted(key: str) -> bool:
    return key in _GENERAL or key.partition(".")[2] in _SHAPE


def _header(values: dict[str, Value], parameters: int) -> Header:
    architecture = values.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise _Broken("it does not name its architecture")
    if values.get("split.count", 1) not in (0, 1):
        raise _Broken("it is one part of a split model; join the parts first (llama.cpp's gguf-split --merge)")
    name = values.get("general.name")
    file_type = values.get("general.file_type")
    vocabulary = values.get(_VOCABULARY)
    shape = _Shape(values, architecture)
    layers = shape.number("block_count", LAYERS_MAX)
    embedding = shape.number("embedding_length", 1 << 20)
    heads = shape.heads("attention.head_count", layers, absent=0)
    head_length = embedding // heads if heads else 0
    return Header(
        architecture=architecture,
        name=name if isinstance(name, str) else None,
        quantization=_QUANTIZATIONS.get(file_type, str(file_type)) if isinstance(file_type, int) else "unknown",
        context_tokens=shape.number("context_length", 1 << 30),
        block_count=layers,
        embedding_length=embedding,
        head_count=heads,
        head_count_kv=shape.heads("attention.head_count_kv", layers, absent=heads),
        key_length=shape.number("attention.key_length", 1 << 16, absent=head_length),
        value_length=shape.number("attention.value_length", 1 << 16, absent=head_length),
        vocabulary=vocabulary if isinstance(vocabulary, int) else 0,
        parameters=parameters,
    )


class _Shape:
    """The figures of one architecture, each within its bound."""

    def __init__(self, values: dict[str, Value], architecture: str) -> None:
        self._values = values
        self._architecture = architecture

    def number(self, name: str, most: int, absent: int | None = None) -> int:
        value = self._values.get(f"{self._architecture}.{name}")
        if value is None and absent is not None:
            return absent
        if value is None:
            raise _Broken(f"it does not tell its {name}")
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise _Broken(f"its {name} makes no sense")
        return value

    def heads(self, name: str, layers: int, absent: int) -> int:
        """A number of heads. Some models tell one for each layer: then the mean, rounded up."""
        value = self._values.get(f"{self._architecture}.{name}")
        if value == 0:
            return 0
        if not isinstance(value, list):
            return self.number(name, 1 << 16, absent)
        if len(value) != layers or not all(0 <= heads <= 1 << 16 for heads in value):
            raise _Broken(f"its {name} makes no sense")
        return -(-sum(value) // layers)
