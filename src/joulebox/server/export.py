"""What people take away: receipts by the page, byte for byte, and the evidence behind one as JSON, CSV or Parquet."""

import asyncio
import io
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse

from joulebox.columns import READING, reading_rows
from joulebox.evidence import decode_trace
from joulebox.model import Trace
from joulebox.server.problems import NewRouter
from joulebox.server.service import Mine
from joulebox.tabular import csv_chunks, write_parquet

JSON_LINES: Final = "application/x-ndjson"
PARQUET: Final = "application/vnd.apache.parquet"
RECEIPTS: Final = "/api/v1/receipts.jsonl"
PAGE_MAX: Final = 500
Json = dict[str, Any]


def trace_json(blob: bytes) -> bytes:
    """The whole trace; times as in the trace, `origin` in ISO 8601."""
    return json.dumps(_plain(decode_trace(blob)), separators=(",", ":"), ensure_ascii=False).encode()


def trace_csv(trace: Trace) -> Iterator[bytes]:
    """One reading a row, in the columns of `columns.READING`; `t_ns` from the trace's origin."""
    return csv_chunks([one.name for one in READING], reading_rows(trace))


def trace_parquet(blob: bytes) -> bytes:
    """The same as Parquet; what the trace tells beside its readings is in the file's metadata, `joulebox.trace`, as
    JSON. Raises `JouleboxError("missing_extra")`."""
    trace = decode_trace(blob)
    told = _plain(trace) | {"series": [asdict(one.channel) for one in trace.series]}
    file = io.BytesIO()
    write_parquet(file, READING, reading_rows(trace), lambda: {"joulebox.trace": json.dumps(told, ensure_ascii=False)})
    return file.getvalue()


def _plain(trace: Trace) -> Json:
    return asdict(trace) | {"origin": trace.origin.isoformat()}


def _types(*media_types: str) -> dict[int | str, Json]:
    return {200: {"content": {one: {} for one in media_types}, "description": "As it is."}}


def router(new: NewRouter) -> APIRouter:
    """The routes."""
    routes = new()
    trace = "/api/v1/receipts/{receipt_id}/trace"

    @routes.get(RECEIPTS, responses=_types(JSON_LINES), response_class=Response)
    async def receipts(
        mine: Mine,
        since: str | None = None,
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 200,
        cursor: str | None = None,
        revisions: Annotated[bool, Query(description="All revisions of each, oldest first; else the newest.")] = False,
    ) -> Response:
        """Receipts byte for byte as they were made, one a line, in the order of `GET /api/v1/receipts`. Where there are
        more, the header `Link` names the next page (`rel="next"`)."""
        bodies, following = await mine.receipt_bodies(since, limit, cursor, revisions=revisions)
        headers = {}
        if following is not None:
            asked = {"since": since, "limit": limit, "revisions": "true" if revisions else None, "cursor": following}
            query = urlencode({name: value for name, value in asked.items() if value is not None})
            headers["Link"] = f'<{RECEIPTS}?{query}>; rel="next"'
        return Response(b"".join(body + b"\n" for body in bodies), media_type=JSON_LINES, headers=headers)

    @routes.get(f"{trace}.json")
    async def as_json(mine: Mine, receipt_id: str) -> Response:
        """The evidence behind a receipt."""
        body = await asyncio.to_thread(trace_json, await mine.trace(receipt_id))
        return Response(body, media_type="application/json")

    @routes.get(f"{trace}.csv", responses=_types("text/csv"), response_class=Response)
    async def as_csv(mine: Mine, receipt_id: str) -> Response:
        """The readings behind a receipt, one a row."""
        found = await asyncio.to_thread(decode_trace, await mine.trace(receipt_id))
        return StreamingResponse(trace_csv(found), media_type="text/csv; charset=utf-8")

    @routes.get(f"{trace}.parquet", responses=_types(PARQUET), response_class=Response)
    async def as_parquet(mine: Mine, receipt_id: str) -> Response:
        """The same as Parquet, where the server has the extra `parquet`."""
        body = await asyncio.to_thread(trace_parquet, await mine.trace(receipt_id))
        return Response(body, media_type=PARQUET)

    return routes
