"""Any process may die: kill -9 while a request runs, start again, and the books are sound."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from darkbloom_local.mesh import Mesh

from tests.mesh.harness import SHORT_LEASES, Books, Consumer, Fleet, Stream, gateway_ready, until

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def frail(state: Path) -> AsyncIterator[Mesh]:
    """A mesh whose holds lapse within seconds."""
    async with Mesh(state, environment=SHORT_LEASES, durable=False) as found:
        await Fleet(found).wait_routable()
        yield found


async def answers_again(mesh: Mesh) -> None:
    """Return once a request is answered, whatever was broken before."""
    await Fleet(mesh).wait_routable()
    consumer = Consumer(mesh)

    async def answered() -> bool:
        return (await consumer.ask(tokens=3)).status_code == 200

    await until(answered, "a request is answered again")


async def kill_mid_stream(mesh: Mesh, victim: str, *, tokens: int = 100) -> Stream:
    """Kill a process while a stream runs, start it again, and read the stream to its end."""
    async with Consumer(mesh).streaming(tokens=tokens, interval_s=0.02) as reading:
        await reading.words(10)
        mesh.kill(victim)
        async with asyncio.TaskGroup() as tasks:
            ending = tasks.create_task(reading.rest())
            await mesh.restart(victim)
    return ending.result()


async def test_the_router_is_killed_mid_stream(frail: Mesh) -> None:
    consumer, books = Consumer(frail), Books(frail)
    before, earned = await consumer.balance(), await books.earned()

    stream = await kill_mid_stream(frail, "router")

    assert stream.error is not None
    assert stream.error["type"] == "provider_error"
    assert stream.done == 0
    await answers_again(frail)
    await books.clean()
    spent = before - await consumer.balance()
    assert spent == await books.earned() - earned
    # The router alone knew what was opened; its stream is the one that its death may cost.
    assert spent <= 300


async def test_the_gateway_is_killed_mid_stream(frail: Mesh) -> None:
    consumer, books = Consumer(frail), Books(frail)
    before, earned = await consumer.balance(), await books.earned()

    stream = await kill_mid_stream(frail, "gateway")

    assert stream.cut
    assert stream.done == 0
    await gateway_ready(frail)
    await answers_again(frail)
    await books.clean()
    assert before - await consumer.balance() == await books.earned() - earned


async def test_billing_is_killed_mid_stream_and_the_stream_does_not_notice(frail: Mesh) -> None:
    consumer, books = Consumer(frail), Books(frail)

    stream = await kill_mid_stream(frail, "billing", tokens=200)

    assert stream.done == 1
    assert stream.words == 200
    row = await consumer.usage(stream.job_id)
    assert row["completion_tokens"] == 200
    assert (await consumer.verify(stream.receipt, answer=stream.text)).ok
    await answers_again(frail)
    await books.clean()


async def test_while_billing_is_away_nobody_is_told_that_he_has_no_money(frail: Mesh) -> None:
    consumer = Consumer(frail)
    frail.kill("billing")
    refused = await consumer.ask(tokens=3)
    await frail.restart("billing")
    assert refused.status_code == 503, refused.text
    assert refused.json()["error"]["type"] == "service_unavailable"
    assert "retry-after" in refused.headers
    await answers_again(frail)
    await Books(frail).clean()


@pytest.mark.parametrize("victim", ["attestation", "registry", "valkey"])
async def test_a_neighbour_is_killed_mid_stream_and_the_stream_does_not_notice(
    frail: Mesh, victim: str
) -> None:
    consumer = Consumer(frail)
    stream = await kill_mid_stream(frail, victim)
    assert stream.done == 1
    assert stream.words == 100
    assert (await consumer.usage(stream.job_id))["completion_tokens"] == 100
    await answers_again(frail)
    await Books(frail).clean()


@pytest.mark.parametrize("victim", ["attestation", "registry", "valkey"])
async def test_requests_are_answered_while_a_neighbour_is_away(frail: Mesh, victim: str) -> None:
    frail.kill(victim)
    try:
        answer = await Consumer(frail).ask(tokens=3)
    finally:
        await frail.restart(victim)
    assert answer.status_code == 200, answer.text
    await answers_again(frail)


async def test_postgresql_is_killed_mid_stream_and_nothing_that_was_settled_is_lost(
    frail: Mesh,
) -> None:
    consumer, books = Consumer(frail), Books(frail)
    first = await consumer.ask(tokens=30)
    paid = await consumer.usage(first.headers["x-inference-job-id"])

    stream = await kill_mid_stream(frail, "postgres", tokens=200)

    assert stream.done == 1
    assert (await consumer.usage(stream.job_id))["completion_tokens"] == 200
    assert await consumer.usage(first.headers["x-inference-job-id"]) == paid
    await answers_again(frail)
    await books.clean()


async def test_a_gateway_killed_between_hold_and_dispatch_leaves_a_hold_that_is_swept(
    frail: Mesh,
) -> None:
    consumer, books = Consumer(frail), Books(frail)
    before = await consumer.balance()

    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(_fails(consumer))

        async def held() -> bool:
            return await books.held() > 0

        await until(held, "the money is held")
        frail.kill("gateway")
        frail.kill("router")
        await frail.restart("router")
        await frail.restart("gateway")
    assert asking.result()
    await books.clean()
    await answers_again(frail)
    assert await consumer.balance() <= before


async def _fails(consumer: Consumer) -> bool:
    import httpx

    try:
        await consumer.ask(tokens=3, first_delay_s=600)
    except httpx.TransportError:
        return True
    return False
