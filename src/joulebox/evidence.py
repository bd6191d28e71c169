"""A Trace as bytes, and back: what the node sends and the server keeps, untouched.

Layout: magic `JBT1`, the length of the header (4 bytes, big endian), the header (JSON: everything but the readings,
with each channel and its number of readings), then one zlib stream: per channel the times and the raw values as
differences of 64-bit integers, bytes of equal weight side by side. Equal traces give equal bytes.
"""

import json
import sys
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import accumulate, pairwise
from math import isfinite
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from joulebox.model import Channel, Series, Trace

MAGIC: Final = b"JBT1"
HEADER_MAX_BYTES: Final = 4 * 1024 * 1024
READINGS_MAX: Final = 20_000_000
"""More readings than this in one trace are refused (at 100 Hz and 8 channels: seven hours)."""

_TRACE: Final = TypeAdapter(Trace)
_CHANNELS: Final = TypeAdapter(tuple[Channel, ...])


def encode_trace(trace: Trace) -> bytes:
    """The trace as bytes."""
    header = asdict(replace(trace, series=()))
    header["origin"] = trace.origin.isoformat()
    head = json.dumps(
        {
            "trace": header,
            "channels": [asdict(series.channel) for series in trace.series],
            "counts": [len(series.t_ns) for series in trace.series],
        },
        separators=(",", ":"),
        ensure_ascii=False,
    ).encode()
    body = b"".join(_shuffle(column) for series in trace.series for column in (series.t_ns, series.raw))
    return MAGIC + len(head).to_bytes(4, "big") + head + zlib.compress(body, 6)


def decode_trace(blob: bytes, readings_max: int = READINGS_MAX) -> Trace:
    """The trace that `encode_trace` made these bytes of, of at most so many readings.

    Raises `ValueError` with one sentence for anything else: a node may be broken or hostile.
    """
    if blob[:4] != MAGIC or len(blob) < 8:
        raise ValueError("these bytes are not a Joulebox trace (wrong first bytes)")
    size = int.from_bytes(blob[4:8], "big")
    if size > HEADER_MAX_BYTES or 8 + size > len(blob):
        raise ValueError("the trace is cut off or its header is too long")
    head = _header(blob[8 : 8 + size])
    try:
        trace = _TRACE.validate_python(head["trace"] | {"series": ()})
        channels = _CHANNELS.validate_python(head["channels"])
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"the trace's header is wrong at {first['loc']}: {first['msg']}") from error
    counts = head["counts"]
    if len(counts) != len(channels) or not all(type(n) is int and 0 <= n <= READINGS_MAX for n in counts):
        raise ValueError("the trace's numbers of readings do not fit its channels")
    columns = _columns(blob[8 + size :], counts, min(readings_max, READINGS_MAX))
    series = tuple(_series(channel, t_ns, raw) for channel, (t_ns, raw) in zip(channels, columns, strict=True))
    return replace(trace, series=series)


def _header(data: bytes) -> dict[str, Any]:
    try:
        head = json.loads(data, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise ValueError("the trace's header is not JSON, or holds a number that is not finite") from error
    if not isinstance(head, dict) or not isinstance(head.get("trace"), dict):
        raise ValueError("the trace's header has the wrong form")
    if not isinstance(head.get("channels"), list) or not isinstance(head.get("counts"), list):
        raise ValueError("the trace's header names no channels")
    if b"\\u" in data and not _writable(head):
        raise ValueError("the trace's header holds text that is none")
    return head


def _writable(value: Any) -> bool:
    """Whether every text can be written down: JSON may hold half a pair of surrogates, which is no sign at all."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _finite(text: str) -> float:
    """A number that receipts can be reckoned from: Python's JSON would take `Infinity`, `NaN` and `1e999` too."""
    value = float(text)
    if not isfinite(value):
        raise ValueError(text)
    return value


def _columns(data: bytes, counts: Sequence[int], readings_max: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    wanted = 16 * sum(counts)
    if wanted > 16 * readings_max:
        raise ValueError(f"the trace holds too many readings: more than {readings_max}")
    inflater = zlib.decompressobj()
    try:
        body = inflater.decompress(data, wanted + 1)
    except zlib.error as error:
        raise ValueError("the trace's readings are damaged") from error
    if len(body) != wanted or not inflater.eof:
        raise ValueError("the trace's readings are cut off or too many")
    columns = []
    at = 0
    for count in counts:
        t_ns = _unshuffle(body[at : at + 8 * count])
        raw = _unshuffle(body[at + 8 * count : at + 16 * count])
        columns.append((t_ns, raw))
        at += 16 * count
    return columns


def _series(channel: Channel, t_ns: tuple[int, ...], raw: tuple[int, ...]) -> Series:
    if any(later <= earlier for earlier, later in pairwise(t_ns)):
        raise ValueError(f"the times of channel {channel.name} do not increase")
    return Series(channel=channel, t_ns=t_ns, raw=raw)


def _shuffle(column: Sequence[int]) -> bytes:
    deltas = array("q", (b - a for a, b in pairwise((0, *column))))
    if sys.byteorder == "big":
        deltas.byteswap()
    data = deltas.tobytes()
    return b"".join(data[weight::8] for weight in range(8))


def _unshuffle(data: bytes) -> tuple[int, ...]:
    count = len(data) // 8
    plain = bytearray(len(data))
    for weight in range(8):
        plain[weight::8] = data[weight * count : (weight + 1) * count]
    deltas = array("q", bytes(plain))
    if sys.byteorder == "big":
        deltas.byteswap()
    return tuple(accumulate(deltas))
