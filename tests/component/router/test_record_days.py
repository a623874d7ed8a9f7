"""Decision records by day, in a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import resources

import asyncpg
import pytest
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.config import Secret
from darkbloom_mesh.migrate import migrate
from darkbloom_router.records.days import last_end
from darkbloom_router.records.store import PostgresRecords

from tests.component.router.test_records import ATTEMPT, REFUSAL
from tests.stores import Postgres, postgres

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = timedelta(days=1)
KEEP = 14 * DAY
_TABLES = """
SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
WHERE inhparent = 'routing.attempts'::regclass ORDER BY 1"""
_PLACES = "SELECT tableoid::regclass::text FROM routing.attempts ORDER BY end_time"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Postgres]:
    with postgres() as cluster:
        yield cluster


@asynccontextmanager
async def opened(
    url: str,
) -> AsyncIterator[tuple[PostgresRecords, "asyncpg.Connection[asyncpg.Record]"]]:
    store, connection = PostgresRecords(url, "router-0"), await asyncpg.connect(url)
    try:
        await store.open()
        yield store, connection
    finally:
        await connection.close()
        await store.close()


async def kept(connection: "asyncpg.Connection[asyncpg.Record]") -> list[str]:
    return [row[0] for row in await connection.fetch(_TABLES)]


async def sweep(store: PostgresRecords, now: datetime, keep: timedelta = KEEP) -> int:
    return await store.sweep((now - keep).timestamp(), now.timestamp())


async def test_a_day_has_a_table_made_ahead_and_goes_whole_before_it_is_too_old(
    cluster: Postgres,
) -> None:
    with cluster.database() as url:
        migrate(Secret(url), package="darkbloom_router", schema="routing")
        async with opened(url) as (store, connection):
            for passed in range(16):
                now = NOON + passed * DAY
                await sweep(store, now)
                await store.write(
                    [
                        replace(ATTEMPT, attempt_id=f"att_{passed}", end_unix=now.timestamp()),
                        replace(REFUSAL, end_unix=now.timestamp()),
                    ]
                )
                oldest = await connection.fetchval("SELECT min(end_time) FROM routing.attempts")
                assert oldest >= now - KEEP
            days = [NOON.date() + number * DAY for number in range(2, 17)]
            assert await kept(connection) == [
                *(f"attempts_{day:%Y%m%d}" for day in days),
                "attempts_other",
            ]
            assert await connection.fetchval("SELECT count(*) FROM routing.refusals") == 14
            assert await connection.fetchval("SELECT count(*) FROM routing.attempts_other") == 0


async def test_what_was_written_before_there_were_days_stays_readable_until_it_is_old(
    cluster: Postgres,
) -> None:
    versions = resources.files("darkbloom_router") / "migrations" / "versions"
    with cluster.database() as url:
        async with opened(url) as (store, connection):
            await connection.execute("CREATE SCHEMA routing")
            await connection.execute((versions / "0001_records.sql").read_text())
            today = SystemClock().now()
            old = [today - 10 * DAY, today - DAY]
            await store.write(
                [
                    replace(ATTEMPT, attempt_id=f"att_{number}", end_unix=at.timestamp())
                    for number, at in enumerate(old)
                ]
            )
            async with connection.transaction():
                await connection.execute((versions / "0002_days.sql").read_text())

            await sweep(store, today)
            await store.write([replace(ATTEMPT, attempt_id="att_2", end_unix=today.timestamp())])
            await store.write([replace(REFUSAL, end_unix=today.timestamp())])
            places = [row[0] for row in await connection.fetch(_PLACES)]
            assert places[:2] == ["routing.attempts_before"] * 2
            # A table that was empty is not kept: the first refusal has a day of its own.
            assert (
                await connection.fetchval("SELECT to_regclass('routing.refusals_before')") is None
            )

            assert await sweep(store, today + 5 * DAY) == 1
            assert len(await connection.fetch(_PLACES)) == 2
            assert "attempts_before" in await kept(connection)
            await sweep(store, today + 15 * DAY)
            assert "attempts_before" not in await kept(connection)
            assert await connection.fetch(_PLACES) == []


async def test_a_day_that_nobody_made_loses_no_row(cluster: Postgres) -> None:
    with cluster.database() as url:
        migrate(Secret(url), package="darkbloom_router", schema="routing")
        async with opened(url) as (store, connection):
            await store.write([replace(ATTEMPT, end_unix=NOON.timestamp())])
            await sweep(store, NOON)
            # Its day has rows in `other` and cannot be made any more; the next one can.
            tomorrow = f"attempts_{NOON + DAY:%Y%m%d}"
            assert await kept(connection) == [tomorrow, "attempts_other"]
            assert await sweep(store, NOON + KEEP + timedelta(seconds=1)) == 1
            assert await connection.fetch(_PLACES) == []


async def test_replicas_make_a_day_together_and_one_that_is_busy_stops_nobody(
    cluster: Postgres,
) -> None:
    with cluster.database() as url:
        migrate(Secret(url), package="darkbloom_router", schema="routing")
        async with opened(url) as (store, connection), opened(url) as (other, _):
            await asyncio.gather(*(sweep(one, NOON) for one in (store, other) * 3))
            assert len(await kept(connection)) == 3
            async with connection.transaction():
                # Somebody reads for long: nothing can be dropped, and nobody waits for it.
                await connection.fetch("SELECT * FROM routing.attempts")
                await sweep(other, NOON + 20 * DAY)
            assert f"attempts_{NOON:%Y%m%d}" in await kept(connection)
            await sweep(store, NOON + 20 * DAY)
            assert f"attempts_{NOON:%Y%m%d}" not in await kept(connection)


def test_the_day_that_it_is_stays_however_short_rows_are_kept() -> None:
    midnight = NOON.replace(hour=0)
    assert last_end(NOON - timedelta(hours=1), NOON) < midnight + DAY
    assert last_end(NOON - KEEP, NOON) == NOON - KEEP + DAY
