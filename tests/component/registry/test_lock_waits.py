"""What the exporter of PostgreSQL is told to ask, asked of a real one in which somebody waits."""

import asyncio
from pathlib import Path

import asyncpg
import yaml

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
QUERIES = DEPLOY / "kustomize" / "components" / "postgres" / "queries.yaml"
WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted AND waitstart IS NOT NULL"


async def test_the_longest_wait_for_a_lock_is_known_and_a_long_transaction_is_none(
    database_url: str,
) -> None:
    document = yaml.safe_load(QUERIES.read_text())
    query = yaml.safe_load(document["data"]["queries"])["locks"]["query"]
    holder, waiter, looker = [await asyncpg.connect(database_url) for _ in range(3)]
    async with asyncio.timeout(60):
        async with holder.transaction():
            await holder.execute("SELECT pg_advisory_xact_lock(7)")
            assert await looker.fetchval(query) == 0

            waits = asyncio.create_task(waiter.execute("SELECT pg_advisory_lock(7)"))
            while not await looker.fetchval(WAITING):
                pass
            assert await looker.fetchval(query) > 0
        await waits
        assert await looker.fetchval(query) == 0
        for connection in (holder, waiter, looker):
            await connection.close()
