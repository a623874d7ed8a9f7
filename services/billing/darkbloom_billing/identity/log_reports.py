"""Logs that an owner sends in on purpose: bounded, for two weeks, read by administrators only."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from darkbloom_edge.ids import id_text
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import InvalidArgumentError, NotFoundError, OverloadedError

from darkbloom_billing.store.database import Connection, Database

MAX_BYTES = 10 * 1024 * 1024
MAX_PART_BYTES = 1024 * 1024
MAX_PARTS = 10
KEPT = 3
"""Newest reports of one account."""
LIFE = timedelta(days=14)
MAX_ALL_BYTES = 2 * 1024**3
_OPEN = "SELECT billing.open_log_report($1, $2, $3, $4, $5, $6, $7, $8)"
_ADD = """
    INSERT INTO billing.log_report_part
    SELECT r.report_id, $3::integer, $4::bytea FROM billing.log_report r
    WHERE r.report_id = $1 AND r.account_id = $2 AND r.expires_at > $5
      AND r.size >= length($4::bytea) + coalesce((SELECT sum(length(p.content))
        FROM billing.log_report_part p WHERE p.report_id = $1 AND p.number <> $3::integer), 0)
    ON CONFLICT DO NOTHING
"""
_THERE = "SELECT FROM billing.log_report_part WHERE report_id = $1 AND number = $2"
_READ = """
    SELECT coalesce((SELECT p.content FROM billing.log_report_part p
        WHERE p.report_id = r.report_id AND p.number = $2), '') AS content
    FROM billing.log_report r WHERE r.report_id = $1 AND r.expires_at > $3
      AND r.size = (SELECT sum(length(p.content)) FROM billing.log_report_part p
        WHERE p.report_id = r.report_id)
"""


class LogReports:
    """Keeps reports.

    Args:
        database: where they are.
        clock: time.
        entropy: random bytes for ids.
    """

    def __init__(self, database: Database, clock: Clock, entropy: Callable[[int], bytes]) -> None:
        self._database = database
        self._clock = clock
        self._entropy = entropy

    async def open(self, account_id: str, token_id: str, size: int) -> tuple[str, datetime]:
        """Begin a report; return its id and until when it is kept.

        Raises:
            InvalidArgumentError: It is empty or too large.
            OverloadedError: All together are too large.
        """
        if not 0 < size <= MAX_BYTES:
            raise InvalidArgumentError(f"must be from 1 to {MAX_BYTES} bytes", "size")
        report_id = id_text("log", self._entropy(16))
        now = self._clock.now()
        until = now + LIFE
        values = (report_id, account_id, token_id, size, now, until, KEPT, MAX_ALL_BYTES)

        async def work(connection: Connection) -> Any:
            return await connection.fetchval(_OPEN, *values)

        if not await self._database.run(work):
            raise OverloadedError("too many log reports are kept")
        return report_id, until

    async def add(self, account_id: str, report_id: str, number: int, content: bytes) -> None:
        """Keep a part.

        Raises:
            InvalidArgumentError: Its number or size is not possible.
            NotFoundError: The account has no such report, or the part does not fit into it.
        """
        _check(number, MAX_PARTS - 1)
        if not 0 < len(content) <= MAX_PART_BYTES:
            raise InvalidArgumentError(f"must be from 1 to {MAX_PART_BYTES} bytes", "content")
        now = self._clock.now()

        async def work(connection: Connection) -> Any:
            await connection.execute(_ADD, report_id, account_id, number, content, now)
            return await connection.fetchrow(_THERE, report_id, number)

        if await self._database.run(work) is None:
            raise NotFoundError("no such log report")

    async def read(self, report_id: str, number: int) -> bytes:
        """Return a part of a whole report; empty after the last one.

        Raises:
            NotFoundError: There is none, or not all of it.
        """
        _check(number, MAX_PARTS)
        now = self._clock.now()

        async def work(connection: Connection) -> Any:
            return await connection.fetchrow(_READ, report_id, number, now)

        row = await self._database.run(work)
        if row is None:
            raise NotFoundError("no such log report")
        return bytes(row["content"])


def _check(number: int, most: int) -> None:
    if not 0 <= number <= most:
        raise InvalidArgumentError(f"must be from 0 to {most}", "number")
