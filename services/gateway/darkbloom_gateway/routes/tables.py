"""Tables of reports: as JSON page by page, or as CSV, streamed and bounded."""

import csv
import io
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from darkbloom.common.v1.page_pb2 import PageRequest
from darkbloom_mesh.errors import InvalidArgumentError
from fastapi import Request
from fastapi.responses import StreamingResponse
from google.protobuf.timestamp_pb2 import Timestamp

from darkbloom_gateway.errors import ApiError, bad_request
from darkbloom_gateway.routes.plane import Reply

DEFAULT_PAGE, MAX_PAGE = 100, 1000
MAX_CSV_ROWS = 100_000
_CSV = "text/csv"
# A spreadsheet would run a cell that begins with one of these.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

Cell = str | int


def wants_csv(request: Request, format_: str) -> bool:
    """Say whether a caller asked for CSV, by `?format=csv` or by `Accept`.

    Raises:
        ApiError: 400 for another format.
    """
    if format_ not in ("", "json", "csv"):
        raise bad_request("format must be json or csv", param="format")
    if format_:
        return format_ == "csv"
    accepted = request.headers.get("accept", "").split(",")
    return any(part.partition(";")[0].strip().lower() == _CSV for part in accepted)


def page(limit: int, page_token: str) -> PageRequest:
    """Return what is asked of billing."""
    return PageRequest(page_size=limit, page_token=page_token)


def moment(value: str, name: str) -> Timestamp | None:
    """Read a time, or a day as its first moment in UTC; None where nothing is given.

    Raises:
        ApiError: 400.
    """
    if not value:
        return None
    at: datetime | None
    try:
        at = datetime.fromisoformat(value)
        at = at.replace(tzinfo=UTC) if len(value) == len("YYYY-MM-DD") else at
        stamp = Timestamp()
        stamp.FromDatetime(at.astimezone(UTC))
    except (ValueError, OverflowError):
        at = None
    if at is None or at.tzinfo is None:
        raise bad_request(
            f"{name} must be a day such as 2026-01-31 or a time such as 2026-01-31T12:00:00Z",
            param=name,
        )
    return stamp


def instant(stamp: Timestamp) -> str:
    """Write a time with microseconds, so that rows of one second keep their order."""
    return stamp.ToDatetime(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def check_size(matches: int) -> None:
    """Refuse a table that would have to be cut off.

    Raises:
        ApiError: 400.
    """
    if matches > MAX_CSV_ROWS:
        raise bad_request(
            f"more than {MAX_CSV_ROWS} rows: narrow the time with from and to", param="from"
        )


def paged(name: str, rows: list[dict[str, Any]], following: str) -> dict[str, Any]:
    """Return one page as JSON has it."""
    return {name: rows, **({"next_page_token": following} if following else {})}


def not_valid(error: InvalidArgumentError) -> ApiError:
    """Return billing's complaint about a field as the caller's 400."""
    field = (error.field or "page_token").rpartition(".")[2]
    field = {"identity_key": "machine", "build": "model"}.get(field, field)
    what = "is not one of ours" if field == "page_token" else "is not valid"
    return bad_request(f"{field} {what}", param=field)


def csv_lines(rows: Iterable[Sequence[Cell]]) -> bytes:
    """Write rows as RFC 4180 says; a text never becomes a formula."""
    out = io.StringIO()
    writer = csv.writer(out)
    for row in rows:
        writer.writerow([_safe(cell) for cell in row])
    return out.getvalue().encode()


def csv_reply(name: str, chunks: AsyncIterator[bytes]) -> Reply:
    """Return a streamed CSV file; a failure on the way cuts the stream."""
    disposition = f'attachment; filename="{name}.csv"'
    headers = {"content-disposition": disposition, "cache-control": "private, no-store"}
    return StreamingResponse(chunks, media_type="text/csv; charset=utf-8", headers=headers)


def _safe(cell: Cell) -> Cell:
    if isinstance(cell, str) and cell.startswith(_FORMULA):
        return "'" + cell
    return cell
