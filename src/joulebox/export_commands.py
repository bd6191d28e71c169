"""`joulebox receipts export`: receipts as they were made, or as tables for other programs, and the evidence beside."""

import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from joulebox.errors import JouleboxError
from joulebox.terminal import say
from joulebox.token_commands import ServerOption, client_of

if TYPE_CHECKING:
    from joulebox.client import Client

Bodies = Iterable[bytes]


class Format(StrEnum):
    """What receipts are written as."""

    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"
    CODECARBON = "codecarbon"


TRACES = {Format.JSON: "json", Format.CSV: "csv", Format.PARQUET: "parquet", Format.CODECARBON: "csv"}
"""What the evidence beside is written as."""


def receipts_export(
    receipt_id: Annotated[str | None, typer.Argument(help="One receipt.", metavar="ID")] = None,
    every: Annotated[bool, typer.Option("--all", help="All receipts.")] = False,
    since: Annotated[str | None, typer.Option("--since", help="Receipts from this day or moment on.")] = None,
    revisions: Annotated[bool, typer.Option("--revisions", help="Earlier revisions too.")] = False,
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="json: byte for byte as made, one a line; csv and parquet: one row each; codecarbon: the columns "
            "of its emissions.csv.",
        ),
    ] = Format.JSON,
    output: Annotated[
        Path | None, typer.Option("--output", help="Write to this file, whole or not at all.", metavar="FILE")
    ] = None,
    traces: Annotated[
        Path | None, typer.Option("--traces", help="A folder for the evidence, ID.trace.json, .csv or .parquet.")
    ] = None,
    server: ServerOption = None,
) -> None:
    """Write receipts to stdout or a file: JSON Lines, CSV, Parquet, or what codecarbon writes."""
    if (receipt_id is not None) + (since is not None) + every != 1:
        raise JouleboxError("bad_request", "Say which receipts: give one ID, or --all, or --since DAY.")
    if traces is not None and not traces.is_dir():
        raise JouleboxError("bad_request", f"There is no folder {traces}: make it first, or choose another --traces.")
    if form is Format.PARQUET and output is None:
        raise JouleboxError("bad_request", "Parquet is a file: name it with --output FILE.")
    with client_of(server) as client, _sink(output) as file:
        bodies = _bodies(client, receipt_id, since, revisions=revisions)
        if traces is not None:
            bodies = _beside(client, bodies, traces, TRACES[form])
        WRITERS[form](file, bodies)


@contextmanager
def _sink(output: Path | None) -> Iterator[IO[bytes]]:
    from joulebox.tabular import whole_file

    if output is not None:
        with whole_file(output) as file:
            yield file
        return
    if not sys.stdout.isatty():
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    whole = io.BytesIO()
    yield whole
    say(whole.getvalue().decode(errors="replace"), end="")


def _bodies(client: "Client", receipt_id: str | None, since: str | None, *, revisions: bool) -> Iterator[bytes]:
    """The receipts, the revisions of each from the first to the newest."""
    if receipt_id is None:
        yield from client.receipts(since, revisions=revisions)
        return
    newest = client.receipt_bytes(receipt_id)
    for revision in range(1, json.loads(newest)["revision"]) if revisions else ():
        yield client.receipt_bytes(receipt_id, revision)
    yield newest


def _beside(client: "Client", bodies: Bodies, folder: Path, form: str) -> Iterator[bytes]:
    """The same receipts; the evidence of each is written on the way, once for all its revisions."""
    from joulebox.tabular import whole_file

    last = None
    for body in bodies:
        receipt_id = json.loads(body)["id"]
        if receipt_id != last:
            with whole_file(folder / f"{receipt_id}.trace.{form}") as file:
                file.write(client.trace(receipt_id, form))
        last = receipt_id
        yield body


# --- forms ------------------------------------------------------------------------------------------------------------


def _json(file: IO[bytes], bodies: Bodies) -> None:
    for body in bodies:
        file.write(body + b"\n")
        file.flush()


def _csv(file: IO[bytes], bodies: Bodies) -> None:
    from joulebox.columns import RECEIPT, receipt_row
    from joulebox.tabular import csv_chunks

    rows = (receipt_row(json.loads(body)) for body in bodies)
    file.writelines(csv_chunks([one.name for one in RECEIPT], rows))


def _codecarbon(file: IO[bytes], bodies: Bodies) -> None:
    from joulebox.codecarbon import COLUMNS, codecarbon_row
    from joulebox.tabular import csv_chunks

    rows = (codecarbon_row(json.loads(body)) for body in bodies)
    file.writelines(csv_chunks(COLUMNS, (row for row in rows if row is not None)))


def _parquet(file: IO[bytes], bodies: Bodies) -> None:
    import joulebox
    from joulebox.columns import RECEIPT, receipt_row
    from joulebox.tabular import write_parquet

    seen: dict[str, set[str]] = {"schema": set(), "method_version": set()}

    def rows() -> Iterator[Any]:
        for body in bodies:
            receipt = json.loads(body)
            for name, values in seen.items():
                values.add(receipt[name])
            yield receipt_row(receipt)

    def told() -> Mapping[str, str]:
        known = {f"joulebox.{name}": " ".join(sorted(values)) for name, values in seen.items()}
        return known | {"joulebox.version": joulebox.__version__}

    write_parquet(file, RECEIPT, rows(), told)


WRITERS: dict[Format, Callable[[IO[bytes], Bodies], None]] = {
    Format.JSON: _json,
    Format.CSV: _csv,
    Format.PARQUET: _parquet,
    Format.CODECARBON: _codecarbon,
}
