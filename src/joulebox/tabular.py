"""Tables as CSV and Parquet, row by row: what is held in memory does not grow with what is written.

Nothing is left half written: a file has its name only when it is whole.
"""

import csv
import io
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final

from joulebox.columns import Column, Row, moment, safe
from joulebox.errors import JouleboxError

ROWS_AT_ONCE: Final = 5_000
CHUNK: Final = 250_000
"""About so many characters of CSV are handed on together."""
PARQUET_EXTRA: Final = "Parquet needs the extra: pip install 'joulebox[parquet]', or take CSV."


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that is there when the block has ended well, in place of what was there, and else is not.

    Raises `OSError`.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def csv_chunks(names: Sequence[str], rows: Iterable[Row], line_end: str = "\r\n") -> Iterator[bytes]:
    """A table as CSV (RFC 4180, UTF-8), a piece at a time. Absent cells are empty; no cell is a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=line_end)
    writer.writerow(names)
    for row in rows:
        writer.writerow([safe(cell) for cell in row])
        if text.tell() > CHUNK:
            yield _taken(text)
    yield _taken(text)


def csv_text(names: Sequence[str], rows: Iterable[Row]) -> str:
    """The same as one text for people to read: lines end as in any text."""
    return b"".join(csv_chunks(names, rows, "\n")).decode()


def _taken(text: io.StringIO) -> bytes:
    data = text.getvalue().encode()
    text.seek(0)
    text.truncate()
    return data


def write_parquet(
    file: IO[bytes], columns: Sequence[Column], rows: Iterable[Row], told: Callable[[], Mapping[str, str]]
) -> None:
    """A table as Parquet. Each column says what it is in its metadata; the file says what `told` gives at the end.

    Raises `JouleboxError("missing_extra")`.
    """
    pa, pq = _pyarrow()
    kinds = {
        "text": pa.string(),
        "int": pa.int64(),
        "float": pa.float64(),
        "bool": pa.bool_(),
        "time": pa.timestamp("us"),  # UTC, as the column says: with a zone DuckDB would show local time
    }
    fields = [pa.field(one.name, kinds[one.kind], metadata={"meaning": one.meaning}) for one in columns]
    schema, left = pa.schema(fields), iter(rows)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while some := list(islice(left, ROWS_AT_ONCE)):
            cells = list(zip(*some, strict=True))
            arrays = [pa.array(_typed(one, cells[place]), kinds[one.kind]) for place, one in enumerate(columns)]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
        writer.add_key_value_metadata(dict(told()))


def _typed(column: Column, cells: Sequence[Any]) -> Sequence[Any]:
    return [moment(cell) for cell in cells] if column.kind == "time" else cells


def _pyarrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise JouleboxError("missing_extra", PARQUET_EXTRA) from error
