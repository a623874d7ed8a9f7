"""Rows in PostgreSQL, schema `routing`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import final

import asyncpg
import orjson
from darkbloom_mesh.errors import BlankStoreError, StoreUnavailableError
from darkbloom_mesh.postgres import Database

from darkbloom_router.records.days import drop_days, make_days
from darkbloom_router.records.rows import AttemptRow, RefusalRow, Row
from darkbloom_router.records.writing import SWEEP_ROWS

CONNECTIONS = 2
"""One writes rows, one makes and drops days; there are more routers than of any other room."""
_ATTEMPT = """
INSERT INTO routing.attempts VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,
  $15, $16, $17, $18, $19, $20, $21, $22, $23) ON CONFLICT DO NOTHING"""
_REFUSAL = """
INSERT INTO routing.refusals (request_id, replica, build, http_status, reason, attempts, gates,
  could_have_served, waited_ms, end_time) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"""
_SWEEPS = (
    """DELETE FROM routing.attempts WHERE attempt_id IN (
         SELECT attempt_id FROM routing.attempts WHERE end_time < $1 LIMIT $2)""",
    """DELETE FROM routing.refusals WHERE refusal_id IN (
         SELECT refusal_id FROM routing.refusals WHERE end_time < $1 LIMIT $2)""",
)


@final
class PostgresRecords:
    """Keeps rows; connects when first needed, so that the router starts without it.

    Args:
        url: libpq URL.
        replica: Whose rows these are.
    """

    def __init__(self, url: str, replica: str) -> None:
        self._url = url
        self._replica = replica
        self._database: Database | None = None

    async def open(self) -> None:
        """Connect; does nothing when connected."""
        if self._database is None:
            self._database = await Database.connect(self._url, connections=CONNECTIONS)

    async def close(self) -> None:
        """Close every connection."""
        if self._database is not None:
            await self._database.close()

    async def write(self, rows: Sequence[Row]) -> None:
        """Keep rows, all or none."""
        attempts = [self._attempt(row) for row in rows if isinstance(row, AttemptRow)]
        refusals = [self._refusal(row) for row in rows if isinstance(row, RefusalRow)]
        with _refused():
            async with self._connected.transaction() as connection:
                if attempts:
                    await connection.executemany(_ATTEMPT, attempts)
                if refusals:
                    await connection.executemany(_REFUSAL, refusals)

    async def sweep(self, before_unix: float, now_unix: float) -> int:
        """Make the days to come, drop those that are over, and delete a batch of older rows."""
        before, now = (datetime.fromtimestamp(unix, UTC) for unix in (before_unix, now_unix))
        deleted = 0
        with _refused():
            await make_days(self._connected, now)
            await drop_days(self._connected, before, now)
            for statement in _SWEEPS:
                deleted += await self._connected.sweep(statement, before, SWEEP_ROWS)
        return deleted

    @property
    def _connected(self) -> Database:
        if self._database is None:
            raise RuntimeError("the store is not open")
        return self._database

    def _attempt(self, row: AttemptRow) -> tuple[object, ...]:
        return (
            row.attempt_id,
            row.request_id,
            self._replica,
            row.number,
            row.build,
            row.provider_id,
            row.hedge,
            row.remote,
            row.path,
            row.candidates,
            row.price_ms,
            row.runner_up,
            row.runner_up_ms,
            orjson.dumps(row.breakdown).decode(),
            row.outcome,
            row.write_submitted,
            row.write_completed,
            row.provider_accepted,
            row.provider_complete_observed,
            row.queue_ms,
            row.first_content_ms,
            row.duration_ms,
            datetime.fromtimestamp(row.end_unix, UTC),
        )

    def _refusal(self, row: RefusalRow) -> tuple[object, ...]:
        return (
            row.request_id,
            self._replica,
            row.build,
            row.http_status,
            row.reason,
            row.attempts,
            orjson.dumps(row.gates).decode(),
            row.could_have_served,
            row.waited_ms,
            datetime.fromtimestamp(row.end_unix, UTC),
        )


@contextmanager
def _refused() -> Iterator[None]:
    """Turn whatever PostgreSQL refuses into an error that costs rows, and never the router.

    A schema that is gone, a disk that is full, a replica that may only be read: none of them is a
    reason to answer nobody. The driver's text may name rows, so only its code goes on.
    """
    try:
        yield
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        raise BlankStoreError("the database has no schema routing: nothing is recorded") from None
    except asyncpg.PostgresError as error:
        raise StoreUnavailableError(f"postgresql refused: {error.sqlstate}") from None
