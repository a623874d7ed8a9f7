"""Decision records by day (UTC): a table for each, made a day ahead, and dropped whole.

Deleting rows costs as much as writing them did, and leaves holes; dropping a table costs nothing.
A day goes as soon as its first row may be too old, so that no row is kept for longer than was
promised. What is in no day's table goes row by row: rows from before there were days, and those of
a day that nobody could make in time, which are in `other`.
"""

from datetime import UTC, date, datetime, time, timedelta

import asyncpg
import structlog
from darkbloom_mesh.postgres import Database

TABLES = ("attempts", "refusals")
_DAY = timedelta(days=1)
_LOCK = "SET LOCAL lock_timeout = '2s'"
_IN_TURN = "SELECT pg_advisory_xact_lock(hashtextextended('routing.days', 0))"
_ENDED = r"""
SELECT name FROM (
  SELECT child.relname AS name,
    substring(pg_get_expr(relpartbound, child.oid) FROM 'TO \(''(.*)''\)')::timestamptz AS ends
  FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
  WHERE inhparent IN ('routing.attempts'::regclass, 'routing.refusals'::regclass)
) AS day WHERE ends <= $1 ORDER BY ends"""
_NOT_NOW = (
    asyncpg.LockNotAvailableError,
    # Its rows have a place already: with those from before there were days, or in `other`.
    asyncpg.InvalidObjectDefinitionError,
    asyncpg.CheckViolationError,
)
_log = structlog.get_logger()


def last_end(before: datetime, now: datetime) -> datetime:
    """Return up to which end days are dropped.

    Args:
        before: Older rows must not be kept.
        now: Its day stays, however short rows are kept.
    """
    return min(before + _DAY, now)


async def make_days(database: Database, now: datetime) -> None:
    """Make the tables of today and tomorrow, where they are missing.

    Raises:
        StoreUnavailableError: PostgreSQL cannot be reached.
    """
    for day in (now.date(), now.date() + _DAY):
        for table in TABLES:
            name, begins = f"{table}_{day:%Y%m%d}", _midnight(day)
            await _change(
                database,
                name,
                f'CREATE TABLE IF NOT EXISTS routing."{name}" PARTITION OF routing.{table}'
                f" FOR VALUES FROM ('{begins.isoformat()}') TO ('{(begins + _DAY).isoformat()}')",
            )


async def drop_days(database: Database, before: datetime, now: datetime) -> None:
    """Drop each day whose first row may be older than `before`.

    Raises:
        StoreUnavailableError: PostgreSQL cannot be reached.
    """
    async with database.acquire() as connection:
        ended = await connection.fetch(_ENDED, last_end(before, now))
    for row in ended:
        await _change(database, row["name"], f'DROP TABLE IF EXISTS routing."{row["name"]}"')


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


async def _change(database: Database, name: str, statement: str) -> None:
    """Make or drop one table, replicas in turn; one that is busy waits for the next round."""
    try:
        async with database.transaction() as connection:
            await connection.execute(_LOCK)
            await connection.execute(_IN_TURN)
            await connection.execute(statement)
    except _NOT_NOW as error:
        _log.info("day_not_changed", table=name, error_type=type(error).__name__)
