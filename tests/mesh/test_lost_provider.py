"""A provider is killed while it answers: before content nobody notices, after it nobody lies."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from darkbloom_local.mesh import Mesh
from darkbloom_local.models import SCRIPTED

from tests.mesh.harness import (
    QUICK,
    Books,
    Consumer,
    Fleet,
    running_on,
    script,
    until,
)

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="session")]

PROVIDERS = ("provider", "provider-2")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pair(state: Path) -> AsyncIterator[Mesh]:
    """A mesh with two providers."""
    async with Mesh(state, environment=QUICK, durable=False) as found:
        await found.start_provider("provider-2")
        await Fleet(found).wait_routable(2)
        yield found


async def busy_one(mesh: Mesh) -> str:
    """Return the provider whose engine runs something."""

    async def found() -> str | None:
        return next((name for name in PROVIDERS if running_on(mesh, name)), None)

    return str(await until(found, "a provider is busy"))


async def test_a_provider_killed_before_content_is_replaced_in_silence(pair: Mesh) -> None:
    consumer, books = Consumer(pair), Books(pair)
    before, earned = await consumer.balance(), await books.earned()

    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(
            consumer.post({"model": SCRIPTED, "messages": script(tokens=20, first_delay_s=2)})
        )
        victim = await busy_one(pair)
        lost_id = pair.ready(victim)["provider_id"]
        pair.kill(victim)

    answer = asking.result()
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-provider-id"] != lost_id
    body = answer.json()
    assert body["usage"]["completion_tokens"] == 20
    report = await consumer.verify(body["receipt"], answer=body["choices"][0]["message"]["content"])
    assert report.ok
    # The receipt does not hide that two machines could read the prompt.
    assert "2 provider" in report.claim("encryption_key_bound").detail

    row = await consumer.usage(answer.headers["x-inference-job-id"])
    assert await consumer.balance() == before - row["cost_micro_usd"]
    assert await books.earned() == earned + row["cost_micro_usd"]
    await books.clean()
    await pair.restart(victim)
    await Fleet(pair).wait_routable(2)


async def test_a_provider_killed_after_content_ends_the_stream_with_one_error_and_is_paid(
    pair: Mesh,
) -> None:
    consumer, books = Consumer(pair), Books(pair)
    before, earned = await consumer.balance(), await books.earned()

    async with consumer.streaming(tokens=10_000, interval_s=0.02) as reading:
        await reading.words(25)
        victim = await busy_one(pair)
        pair.kill(victim)
        stream = await reading.rest()

    assert stream.error is not None
    assert stream.error["type"] == "provider_error"
    assert stream.events[-1] == {"error": stream.error}
    assert stream.done == 0
    assert not stream.cut
    assert not any("receipt" in event for event in stream.events)

    row = await consumer.usage(stream.job_id)
    assert row["completion_tokens"] == stream.words
    assert await consumer.balance() == before - row["cost_micro_usd"]
    assert await books.earned() == earned + row["cost_micro_usd"]
    await books.clean()
    await pair.restart(victim)
    await Fleet(pair).wait_routable(2)


async def test_with_its_only_provider_killed_before_content_a_request_gets_one_clean_error(
    pair: Mesh,
) -> None:
    consumer, books = Consumer(pair), Books(pair)
    before = await consumer.balance()

    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(consumer.ask(tokens=20, first_delay_s=30))
        for _ in PROVIDERS:
            pair.kill(await busy_one(pair))

    answer = asking.result()
    assert answer.status_code == 502, answer.text
    assert answer.json()["error"]["type"] == "provider_error"
    await books.clean()
    assert await consumer.balance() == before

    refused = await consumer.ask(tokens=1)
    assert refused.status_code in (429, 503)
    assert int(refused.headers["retry-after"]) >= 1
    async with asyncio.TaskGroup() as tasks:
        for name in PROVIDERS:
            tasks.create_task(pair.restart(name))
    await Fleet(pair).wait_routable(2)
    assert (await consumer.ask(tokens=1)).status_code == 200


async def test_an_engine_that_fails_before_content_moves_the_request_and_after_it_breaks_it(
    pair: Mesh,
) -> None:
    consumer, books = Consumer(pair), Books(pair)
    failed = await consumer.ask(fail_before_content=True)
    assert (failed.status_code, failed.json()["error"]["type"]) == (502, "provider_error")

    async with consumer.streaming(tokens=50, fail_after_deltas=10, interval_s=0.05) as reading:
        stream = await reading.rest()
    assert stream.words == 10
    assert stream.done == 0
    assert stream.error is not None
    assert (await consumer.usage(stream.job_id))["completion_tokens"] == 10
    await books.clean()
