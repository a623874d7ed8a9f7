"""Old evidence is deleted in bounded batches, young evidence stays, references hold."""

from datetime import timedelta

import pytest
from darkbloom_attestation.retention import Retention
from darkbloom_mesh.postgres import Database
from darkbloom_mesh.testing import FakeClock

TABLES = ("registrations", "sessions", "challenges", "verdicts", "revocations", "violations")


async def insert_life(database: Database, name: str, when) -> None:
    """One session with a challenge, a verdict, its revocation and the report behind it."""
    async with database.transaction() as db:
        await db.execute(
            """INSERT INTO attestation.registrations VALUES
               ($1, $1, '', '', '', '1', 'x', '', '', '{}', '', false, 'none', '{}', '',
                NULL, $2)""",
            name,
            when,
        )
        await db.execute("INSERT INTO attestation.sessions (provider_id) VALUES ($1)", name)
        await db.execute(
            """INSERT INTO attestation.challenges
               (challenge_id, provider_id, nonce, asked_at, create_time, expire_time, state)
               VALUES ($1, $1, $1, '', $2, $2, 'passed')""",
            name,
            when,
        )
        await db.execute(
            """INSERT INTO attestation.verdicts VALUES
               ($1, $1, 'sha256:x', 'none', 'development', '', '', 'k', $2, $2)""",
            name,
            when,
        )
        await db.execute(
            """INSERT INTO attestation.revocations
               SELECT coalesce(max(generation), 0) + 1, $1, $1, 'x', '', '', 'k', $2
               FROM attestation.revocations""",
            name,
            when,
        )
        await db.execute(
            "INSERT INTO attestation.violations VALUES ($1, $1, 'att', 'counts', $1, $2)",
            name,
            when,
        )


async def counts(database: Database) -> list[int]:
    async with database.acquire() as db:
        return [len(await db.fetch(f"TABLE attestation.{table}")) for table in TABLES]


@pytest.mark.parametrize(("age_days", "left"), [(91, 1), (89, 2)])
async def test_only_evidence_past_its_time_goes(database, clock: FakeClock, age_days, left):
    await insert_life(database, "old", clock.now() - timedelta(days=age_days))
    await insert_life(database, "young", clock.now())
    retention = Retention(database, clock, keep_s=90 * 86_400)

    for _ in range(2):
        assert await retention.sweep() is False

    assert await counts(database) == [left] * len(TABLES)
