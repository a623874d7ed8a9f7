"""A provider is killed while it answers: before content nobody notices, after it nobody lies."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from darkbloom_local.mesh import Mesh
from darkbloom_local.models import SCRIPTED
from darkbloom_provider import journal

from tests.mesh.harness import (
    QUICK,
    Books,
    Consumer,
    Fleet,
    Stream,
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


def waiting_terminals(mesh: Mesh, name: str) -> int:
    """Return how many terminals a provider has on disk."""
    return journal.count(mesh.wiring.state.directory(name) / "terminals.journal")


async def unsettled_answer(mesh: Mesh) -> tuple[Stream, str]:
    """Answer a request while billing is away; its terminal then waits on the provider's disk."""
    async with Consumer(mesh).streaming(tokens=40, interval_s=0.02) as reading:
        await reading.words(5)
        victim = await busy_one(mesh)
        mesh.kill("billing")
        stream = await reading.rest()
    assert stream.done == 1
    assert stream.words == 40
    assert waiting_terminals(mesh, victim) == 1
    return stream, victim


async def paid_once(mesh: Mesh, stream: Stream, victim: str, *, before: int, earned: int) -> None:
    """Return once an answer is paid, once, and the provider has forgotten its terminal."""
    consumer, books = Consumer(mesh), Books(mesh)
    row = await consumer.usage(stream.job_id)
    assert row["completion_tokens"] == 40
    assert row["cost_micro_usd"] > 0

    async def forgotten() -> bool:
        return waiting_terminals(mesh, victim) == 0

    await until(forgotten, "the terminal is acknowledged")
    await books.clean()
    assert before - await consumer.balance() == row["cost_micro_usd"]
    assert await books.earned() - earned == row["cost_micro_usd"]


@pytest.mark.parametrize("router_too", [False, True])
async def test_a_provider_killed_between_its_terminal_and_the_word_on_it_is_paid_once(
    pair: Mesh, router_too: bool
) -> None:
    before, earned = await Consumer(pair).balance(), await Books(pair).earned()

    stream, victim = await unsettled_answer(pair)
    pair.kill(victim)
    if router_too:
        # What remains of the answer is with the gateway and on the provider's disk.
        pair.kill("router")
        await pair.restart("router")
    await pair.restart("billing")
    # The channel of this process to billing has to notice that it is back.
    await Books(pair).held()
    # It need not be trusted again to be paid for what it has done, only to be there.
    await pair.start_provider(victim, routable=False)

    await paid_once(pair, stream, victim, before=before, earned=earned)
