"""Evidence for people: a trace as JSON or CSV."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Final

from joulebox.evidence import decode_trace

ROWS_AT_ONCE: Final = 5_000
COLUMNS: Final = ("channel", "scope", "kind", "t_ns", "raw", "value")


def trace_json(blob: bytes) -> bytes:
    """The whole trace; times as in the trace, `origin` in ISO 8601."""
    trace = decode_trace(blob)
    data = asdict(trace) | {"origin": trace.origin.isoformat()}
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()


def trace_csv(blob: bytes) -> Iterator[bytes]:
    """One reading a row; `value` is `raw` times the channel's step, in the unit of `kind`; `t_ns` from the origin."""
    trace = decode_trace(blob)
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(COLUMNS)
    for series in trace.series:
        channel = series.channel
        for t_ns, raw in zip(series.t_ns, series.raw, strict=True):
            rows.writerow((channel.name, channel.scope, channel.kind.value, t_ns, raw, raw * channel.step))
            if text.tell() > ROWS_AT_ONCE * 50:
                yield _taken(text)
    yield _taken(text)


def _taken(text: io.StringIO) -> bytes:
    data = text.getvalue().encode()
    text.seek(0)
    text.truncate()
    return data
