"""Decision records in a real PostgreSQL."""

from collections.abc import Iterator
from dataclasses import replace

import asyncpg
import pytest
from darkbloom_mesh.config import Secret
from darkbloom_mesh.migrate import migrate
from darkbloom_router.records.rows import AttemptRow, RefusalRow
from darkbloom_router.records.store import PostgresRecords

from tests.stores import postgres

ATTEMPT = AttemptRow(
    attempt_id="att_1",
    request_id="req_1",
    number=1,
    build="dev/scripted",
    provider_id="prov_1",
    hedge=False,
    remote=False,
    path="unique_min",
    candidates=2,
    price_ms=12.5,
    runner_up="prov_2",
    runner_up_ms=13.0,
    breakdown={"state": 0.0, "request": 12.5},
    outcome="success",
    write_submitted=True,
    write_completed=True,
    provider_accepted=True,
    provider_complete_observed=True,
    queue_ms=0,
    first_content_ms=80,
    duration_ms=900,
    end_unix=1000.0,
)
REFUSAL = RefusalRow(
    request_id="req_2",
    build="dev/scripted",
    http_status=429,
    reason="machine_busy",
    attempts=0,
    gates={"no_headroom": 3},
    could_have_served=True,
    waited_ms=5,
    end_unix=2000.0,
)


@pytest.fixture(scope="module")
def database_url() -> Iterator[str]:
    with postgres() as cluster, cluster.database() as url:
        migrate(Secret(url), package="darkbloom_router", schema="routing")
        yield url


async def test_rows_are_kept_once_explain_a_request_and_go_when_they_are_old(
    database_url: str,
) -> None:
    store = PostgresRecords(database_url, "router-0")
    await store.open()
    await store.write([ATTEMPT, REFUSAL])
    await store.write([ATTEMPT, replace(ATTEMPT, attempt_id="att_2", runner_up_ms=None)])

    connection = await asyncpg.connect(database_url)
    try:
        kept = await connection.fetch("SELECT * FROM routing.attempts ORDER BY attempt_id")
        assert [row["attempt_id"] for row in kept] == ["att_1", "att_2"]
        assert kept[0]["outcome"] == "success"
        assert kept[0]["replica"] == "router-0"
        why = "SELECT (gates->>'no_headroom')::int FROM routing.refusals WHERE could_have_served"
        assert await connection.fetchval(why) == 3

        assert await store.sweep(1500.0) == 2
        assert await connection.fetchval("SELECT count(*) FROM routing.attempts") == 0
        assert await connection.fetchval("SELECT count(*) FROM routing.refusals") == 1
    finally:
        await connection.close()
        await store.close()
