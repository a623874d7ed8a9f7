"""A consumer who hangs up: the engine stops, and what was delivered is paid, no more."""

import asyncio

import pytest
from darkbloom_local.mesh import Mesh

from tests.mesh.harness import (
    Books,
    Consumer,
    metric,
    provider_state,
    request_id_of,
    running_on,
    until,
)

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="session")]

PACE_S = 0.05


async def idle(mesh: Mesh) -> None:
    async def nothing_runs() -> bool:
        return running_on(mesh) == 0

    await until(nothing_runs, "the engine is idle")


async def test_a_hang_up_stops_the_engine_within_a_step_and_charges_what_was_delivered(
    mesh: Mesh, consumer: Consumer, books: Books
) -> None:
    before, earned = await consumer.balance(), await books.earned()
    made = provider_state(mesh)["tokens_generated"]

    async with consumer.streaming(tokens=10_000, interval_s=PACE_S) as reading:
        await reading.words(20)

        async def seen() -> bool:
            return running_on(mesh) == 1

        await until(seen, "the engine runs one request")
        delivered = reading.stream.words

    await idle(mesh)
    row = await consumer.usage(reading.stream.job_id)
    assert delivered <= row["completion_tokens"] < 10_000
    # What the engine made beyond what was paid for is what was on its way, not a second more.
    wasted = provider_state(mesh)["tokens_generated"] - made - row["completion_tokens"]
    assert 0 <= wasted <= 10, wasted

    assert await consumer.balance() == before - row["cost_micro_usd"]
    assert await books.earned() == earned + row["cost_micro_usd"]
    await books.clean()


async def test_a_hang_up_before_the_first_content_costs_nothing(
    mesh: Mesh, consumer: Consumer, books: Books
) -> None:
    before, earned = await consumer.balance(), await books.earned()
    cancelled = 'darkbloom_client_gone_total{model="dev/scripted",phase="before_first_token"}'
    counted = await metric(mesh, "gateway", cancelled)

    async with consumer.client() as http:
        request = http.build_request(
            "POST",
            "/v1/chat/completions",
            json={
                "model": "scripted",
                "stream": True,
                "messages": [{"role": "user", "content": '/script {"first_delay_s": 600}'}],
            },
        )
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(http.send(request, stream=True))

            async def seen() -> bool:
                return running_on(mesh) == 1

            await until(seen, "the engine runs one request")
            asking.cancel()

    await idle(mesh)
    await books.clean()
    assert await consumer.balance() == before
    assert await books.earned() == earned
    assert await metric(mesh, "gateway", cancelled) == counted + 1


async def test_neighbours_of_a_hang_up_are_not_disturbed(mesh: Mesh, consumer: Consumer) -> None:
    async with consumer.streaming(tokens=60, interval_s=0.01) as stays:
        async with consumer.streaming(tokens=10_000, interval_s=0.01) as leaves:
            await leaves.words(5)
        stream = await stays.rest()
    assert stream.done == 1
    assert stream.words == 60
    assert (await consumer.usage(stream.job_id))["completion_tokens"] == 60
    assert request_id_of(stream.receipt)
