"""Two machines for one request, and a build that no machine holds: races and loads, for real."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from darkbloom.router.v1 import fleet_service_pb2 as fleet_pb
from darkbloom.router.v1.fleet_service_pb2_grpc import FleetServiceStub
from darkbloom_local import seeds
from darkbloom_local.mesh import Mesh
from darkbloom_local.models import SCRIPTED, place_scripted, scripted_build
from darkbloom_local.why import why
from psycopg.rows import dict_row

from tests.mesh.harness import (
    CALL_S,
    QUICK,
    Books,
    Consumer,
    Fleet,
    metric,
    request_id_of,
    script,
    until,
)

pytestmark = [
    pytest.mark.mesh,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(300),
]

SECOND = "dev/second"
SLOW, QUICK_ONE = "provider", "provider-2"
MACHINE = {
    "DARKBLOOM_PROVIDER_MODELS": f"{SCRIPTED},{SECOND}",
    "DARKBLOOM_PROVIDER_MAX_MODEL_SLOTS": "1",
    "DARKBLOOM_PROVIDER_HEARTBEAT_INTERVAL_S": "1",
}
ENVIRONMENT = {
    **QUICK,
    "router": {
        **QUICK["router"],
        "DARKBLOOM_ROUTER_HEDGE_AFTER_S": "0.3",
    },
    # What a machine does with a prompt that brings no script of its own.
    SLOW: {**MACHINE, "DARKBLOOM_PROVIDER_SCRIPT": json.dumps({"first_delay_s": 60})},
    QUICK_ONE: {**MACHINE, "DARKBLOOM_PROVIDER_SCRIPT": json.dumps({"tokens": 8})},
}
TRIES = 40
"""A choice between equals is random: this often in a row it is never the same one."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def track(state: Path) -> AsyncIterator[Mesh]:
    """A slow and a quick machine with two builds each, one of them in memory."""
    async with Mesh(
        state, engine=None, environment=ENVIRONMENT, records=True, durable=False
    ) as found:
        models = found.state.directory("models")
        first = scripted_build(place_scripted(models))
        second = scripted_build(place_scripted(models, SECOND))
        second.build.id, second.build.display_name = SECOND, "Second"
        builds = (first, replace(second, alias="second"))
        await seeds.prices(found.channel("billing.grpc"), builds)
        await seeds.catalog(found.channel("registry.grpc"), builds)
        for name in (SLOW, QUICK_ONE):
            await found.start_provider(name, engine="scripted")
        await Fleet(found).wait_routable(2)
        yield found


async def attempts(mesh: Mesh, request_id: str, count: int) -> list[dict[str, Any]]:
    """Return the decision records of a request, once all are written."""

    async def rows() -> list[dict[str, Any]] | None:
        connection = await psycopg.AsyncConnection.connect(mesh.database_url, row_factory=dict_row)
        async with connection:
            found = await connection.execute(
                "SELECT * FROM routing.attempts WHERE request_id = %s ORDER BY number",
                [request_id],
            )
            kept = await found.fetchall()
        return kept if len(kept) == count else None

    return list(await until(rows, f"{count} records of {request_id}"))


async def warm(mesh: Mesh, build: str) -> int:
    """Return how many machines hold a build in memory."""
    stub = FleetServiceStub(mesh.channel("router.internal"))
    answer = await stub.ListBuildCapacity(
        fleet_pb.ListBuildCapacityRequest(builds=[build]), timeout=CALL_S, wait_for_ready=True
    )
    return sum(row.warm_providers for row in answer.builds)


async def test_a_second_machine_answers_where_the_first_is_silent_and_is_paid_alone(
    track: Mesh,
) -> None:
    consumer, books = Consumer(track), Books(track)
    slow, quick = [track.ready(name)["provider_id"] for name in (SLOW, QUICK_ONE)]
    for number in range(TRIES):
        before, earned = await consumer.balance(), await books.earned()
        # No two prompts begin alike: who has read one before is not preferred.
        words = [{"role": "user", "content": f"{number} is a number"}]
        answer = await consumer.post({"model": SCRIPTED, "messages": words})
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-provider-id"] == quick
        body = answer.json()
        content = body["choices"][0]["message"]["content"]
        report = await consumer.verify(body["receipt"], answer=content)
        assert report.ok
        if "2 provider" in report.claim("encryption_key_bound").detail:
            break
    else:
        pytest.fail("the silent machine was never asked first")

    # Both are in the records, the receipt counts both, and one was paid, once.
    first, second = await attempts(track, request_id_of(body["receipt"]), 2)
    assert [first["provider_id"], second["provider_id"]] == [slow, quick]
    assert [first["outcome"], second["outcome"]] == ["lost_race", "success"]
    assert [first["hedge"], second["hedge"]] == [False, True]
    assert second["path"] == "hedge"
    assert second["first_content_ms"] is not None
    told = why(track.state, answer.headers["x-inference-job-id"])
    assert f"attempt 2: {quick} (hedge of" in told
    row = await consumer.usage(answer.headers["x-inference-job-id"])
    assert row["cost_micro_usd"] > 0
    assert await consumer.balance() == before - row["cost_micro_usd"]
    assert await books.earned() == earned + row["cost_micro_usd"]
    await books.clean()
    assert await metric(track, "router", f'darkbloom_speculative_win_total{{model="{SCRIPTED}"}}')


async def test_a_build_that_no_machine_holds_is_loaded_by_command_and_answers(
    track: Mesh,
) -> None:
    consumer = Consumer(track)

    async def nowhere() -> bool:
        return (await warm(track, SCRIPTED), await warm(track, SECOND)) == (2, 0)

    async def commands(outcome: str) -> float:
        sample = f'darkbloom_load_commands_total{{model="{SECOND}",outcome="{outcome}"}}'
        return await metric(track, "router", sample)

    await until(nowhere, "nobody holds the second build")
    answer = await consumer.post({"model": "second", "messages": script(tokens=5)})
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] == 5

    # The request waited while a machine was told to load the build, and was served by it.
    assert await commands("sent") == 1
    assert (
        await until(lambda: commands("loaded"), "the machine has said that the build is there") == 1
    )

    async def held() -> bool:
        return await warm(track, SECOND) == 1

    await until(held, "the machine's next heartbeat shows the build in memory")
    await Books(track).clean()
