"""Decision records in a real PostgreSQL."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace

import asyncpg
import pytest
from darkbloom_mesh.config import Secret
from darkbloom_mesh.errors import BlankStoreError, StoreUnavailableError
from darkbloom_mesh.migrate import migrate
from darkbloom_mesh.postgres import Database
from darkbloom_router import app
from darkbloom_router.config import RouterConfig
from darkbloom_router.records.reading import find
from darkbloom_router.records.rows import AttemptRow, RefusalRow
from darkbloom_router.records.store import PostgresRecords
from darkbloom_router.records.why import lines, why

from tests.stores import Postgres, postgres

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
def cluster() -> Iterator[Postgres]:
    with postgres() as found:
        yield found


@pytest.fixture
def fresh_url(cluster: Postgres) -> Iterator[str]:
    with cluster.database() as url:
        yield url


@pytest.fixture(scope="module")
def database_url(cluster: Postgres) -> Iterator[str]:
    with cluster.database() as url:
        migrate(Secret(url), package="darkbloom_router", schema="routing")
        yield url


def test_a_blank_database_is_filled_only_where_somebody_said_that_the_mesh_is_new(
    fresh_url: str,
) -> None:
    config = RouterConfig(
        environment="production", replica="router-0", database_url=Secret(fresh_url)
    )
    with pytest.raises(BlankStoreError, match="no schema routing: for a new mesh say"):
        app.migrate(config)
    assert app.migrate(config, new=True) == 0
    assert app.migrate(config) == 0
    assert app.migrate(replace(config, database_url=None)) == 2


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

        assert await store.sweep(1500.0, 2000.0) == 2
        assert await connection.fetchval("SELECT count(*) FROM routing.attempts") == 0
        assert await connection.fetchval("SELECT count(*) FROM routing.refusals") == 1
    finally:
        await connection.close()
        await store.close()


async def test_a_store_that_is_blank_or_may_only_be_read_costs_rows_and_not_the_router(
    fresh_url: str,
) -> None:
    store = PostgresRecords(fresh_url, "router-0")
    await store.open()
    for refused in (store.write([ATTEMPT]), store.sweep(0.0, 1.0)):
        with pytest.raises(BlankStoreError, match="nothing is recorded"):
            await refused
    await asyncio.to_thread(
        migrate, Secret(fresh_url), package="darkbloom_router", schema="routing"
    )
    await store.write([ATTEMPT])
    await store.close()

    admin = await asyncpg.connect(fresh_url)
    name = await admin.fetchval("SELECT quote_ident(current_database())")
    await admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await admin.close()
    store = PostgresRecords(fresh_url, "router-0")
    await store.open()
    with pytest.raises(StoreUnavailableError, match="refused: 25006"):
        await store.write([ATTEMPT])
    await store.close()


async def test_why_tells_a_request_by_any_of_its_names_in_closed_words(database_url: str) -> None:
    store = PostgresRecords(database_url, "router-0")
    await store.open()
    lost = replace(
        ATTEMPT, attempt_id="att_7", request_id="req_7", outcome="provider_lost",
        first_content_ms=None, provider_complete_observed=False,
    )  # fmt: skip
    again = replace(lost, attempt_id="att_8", number=2, outcome="success", first_content_ms=5)
    await store.write([lost, again, replace(REFUSAL, request_id="req_9")])
    await store.close()
    database = await Database.connect(database_url)
    try:
        by_request = await find(database, "req_7")
        assert by_request == await find(database, "att_8")
        first, second = by_request.attempts
        assert (first["final_status"], first["error_class"], first["error_reason"]) == (
            "error", "provider_disconnect_before_response", "provider_error",
        )  # fmt: skip
        assert (second["final_status"], second["error_class"]) == ("success", "")
        assert first["breakdown"] == {"state": 0.0, "request": 12.5}
        told = list(lines(by_request))
        assert "attempt 1 on prov_1" in told[0]
        assert "provider_disconnect_before_response (provider_lost)" in told[0]
        [line] = lines(await find(database, "req_9"))
        assert "429 machine_busy" in line
        assert "no_headroom 3" in line
        assert not await find(database, "req_nobody")
        assert (await find(database, build="no/such")).refusals == []
        assert len((await find(database, limit=1)).attempts) == 1
    finally:
        await database.close()


def test_why_is_one_command_with_a_document(
    database_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert why(Secret(database_url), "att_8", build="", limit=20, as_json=True) == 0
    said = json.loads(capfd.readouterr().out)
    assert [row["attempt_id"] for row in said["attempts"]] == ["att_7", "att_8"]
    assert said["refusals"] == []
    assert why(Secret(database_url), "att_0", build="", limit=20, as_json=False) == 1
    assert why(None, "", build="", limit=20, as_json=False) == 2
    assert "DATABASE_URL" in capfd.readouterr().err
