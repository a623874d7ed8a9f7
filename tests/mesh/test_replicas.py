"""Two router replicas: either reaches the whole fleet, and losing one loses next to nothing."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from darkbloom.router.v1 import fleet_service_pb2
from darkbloom.router.v1.fleet_service_pb2_grpc import FleetServiceStub
from darkbloom_local.mesh import Mesh
from darkbloom_mesh.errors import MeshError

from tests.mesh.harness import (
    CALL_S,
    QUICK,
    Books,
    Consumer,
    gateway_ready,
    until,
)

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="session")]

REPLICAS = ("router", "router-2")
PROVIDERS = ("provider", "provider-2", "provider-3", "provider-4")
_OK = 200
ENVIRONMENT = {**QUICK, "router-2": QUICK["router"]}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pair(state: Path) -> AsyncIterator[Mesh]:
    """Two replicas and four providers, which spread over them as they like."""
    async with Mesh(state, environment=ENVIRONMENT, routers=2, durable=False) as found:
        for name in PROVIDERS[1:]:
            await found.start_provider(name, routable=False)
        await everybody(found)
        yield found


async def seen(mesh: Mesh, replica: str) -> dict[str, bytes]:
    """Return the routable providers that a replica knows, with their identity keys."""
    stub = FleetServiceStub(mesh.channel(f"{replica}.internal"))
    answer = await stub.ListProviders(
        fleet_service_pb2.ListProvidersRequest(), timeout=CALL_S, wait_for_ready=True
    )
    return {
        row.provider_id: row.identity_key
        for row in answer.providers
        if row.status == "online" and row.HasField("verdict")
    }


async def everybody(mesh: Mesh, count: int = len(PROVIDERS)) -> None:
    """Return once every replica knows so many providers and the gateway can reach them."""

    async def known() -> bool:
        return all([len(await seen(mesh, replica)) == count for replica in REPLICAS])

    await until(known, f"both replicas know {count} providers")
    await gateway_ready(mesh)


async def load(
    mesh: Mesh, stop: Callable[[], bool], outcomes: Counter[str], **fields: object
) -> None:
    """Ask one question after the other until told to stop."""
    consumer = Consumer(mesh)
    while not stop():
        answer = await consumer.ask(**fields)
        # Who fails says why: the status alone explains nothing afterwards.
        why = "" if answer.status_code == _OK else f" {answer.text} {dict(answer.headers)}"
        outcomes[f"{answer.status_code}{why}"] += 1


async def under_load(
    mesh: Mesh, work: Callable[[], Awaitable[None]], clients: int = 6
) -> Counter[str]:
    """Keep a steady load up while something is done; return the answers by status."""
    outcomes: Counter[str] = Counter()
    done = False
    async with asyncio.TaskGroup() as tasks:
        for _ in range(clients):
            tasks.create_task(load(mesh, lambda: done, outcomes, tokens=12, interval_s=0.01))
        await work()
        done = True
    return outcomes


async def test_each_replica_knows_every_provider(pair: Mesh) -> None:
    first, second = [await seen(pair, replica) for replica in REPLICAS]
    assert first == second
    assert len(first) == len(PROVIDERS)


async def test_every_provider_is_reached_whichever_replica_is_asked(pair: Mesh) -> None:
    consumer = Consumer(pair)
    known: dict[str, bytes] = {}
    served = Counter[str]()
    for _ in range(60):
        # One that is moved to the emptier replica gets a new id, and is the same machine.
        for replica in REPLICAS:
            known |= await seen(pair, replica)
        answer = await consumer.ask(tokens=2)
        assert answer.status_code == 200, answer.text
        served[answer.headers["x-provider-id"]] += 1
    for replica in REPLICAS:
        known |= await seen(pair, replica)
    assert len({known[provider_id] for provider_id in served}) == len(PROVIDERS)
    await Books(pair).clean()


@pytest.mark.parametrize("name", REPLICAS)
async def test_a_rolling_restart_under_load_loses_nothing(pair: Mesh, name: str) -> None:
    async def roll() -> None:
        await pair.restart(name)
        await everybody(pair)

    outcomes = await under_load(pair, roll)
    assert set(outcomes) == {"200"}, outcomes
    assert outcomes.total() > 5
    await Books(pair).clean()


async def test_a_stream_goes_on_while_its_replica_leaves(pair: Mesh) -> None:
    """Either the asker or the holder of its provider is drained under it: nobody notices."""
    consumer = Consumer(pair)
    async with consumer.streaming(tokens=150, interval_s=0.02) as reading:
        await reading.words(5)
        await pair.restart(REPLICAS[0])
        stream = await reading.rest()
    assert stream.error is None
    assert (stream.words, stream.done) == (150, 1)
    await everybody(pair)
    await Books(pair).clean()


@pytest.mark.parametrize("name", REPLICAS)
async def test_a_killed_replica_breaks_only_what_had_begun(pair: Mesh, name: str) -> None:
    """Each broken stream has one in-band error, and is paid for what came; the rest is served."""
    books = Books(pair)
    consumer = Consumer(pair)
    before = await books.earned()
    async with consumer.streaming(tokens=400, interval_s=0.02) as reading:
        await reading.words(5)

        async def kill() -> None:
            pair.kill(name)
            await pair.restart(name)
            await everybody(pair)

        outcomes = await under_load(pair, kill)
        stream = await reading.rest()

    # Not streamed: an answer that had begun inside the gateway when its router died is a 502.
    assert set(outcomes) <= {"200", "502"}, outcomes
    assert outcomes["200"] > 5
    if stream.error is None:
        assert (stream.words, stream.done) == (400, 1)
    else:
        assert (stream.done, stream.cut) == (0, False)
        assert stream.words < 400
    await books.clean()
    assert await books.earned() > before


async def test_providers_of_a_killed_replica_come_back_through_the_other(pair: Mesh) -> None:
    pair.kill(REPLICAS[1])

    async def all_here() -> bool:
        try:
            return len(await seen(pair, REPLICAS[0])) == len(PROVIDERS)
        except MeshError:
            return False

    await until(all_here, "the remaining replica has every provider")
    answer = await Consumer(pair).ask(tokens=3)
    assert answer.status_code == 200
    await pair.restart(REPLICAS[1])
    await everybody(pair)


async def test_without_valkey_everything_known_goes_on(pair: Mesh) -> None:
    consumer = Consumer(pair)
    pair.kill("valkey")
    try:
        for _ in range(20):
            answer = await consumer.ask(tokens=2)
            assert answer.status_code == 200, answer.text
    finally:
        await pair.restart("valkey")
    await everybody(pair)
    await Books(pair).clean()


async def test_an_answer_that_broke_with_its_replica_is_still_paid(pair: Mesh) -> None:
    """The gateway hands in what it had opened through the replica that is left."""
    books, consumer = Books(pair), Consumer(pair)
    async with consumer.streaming(tokens=400, interval_s=0.02) as reading:
        await reading.words(8)
        for name in REPLICAS:
            pair.kill(name)
        for name in REPLICAS:
            await pair.restart(name)
        stream = await reading.rest()
    assert stream.error is not None
    await everybody(pair)
    row = await consumer.usage(stream.job_id)
    assert row["completion_tokens"] >= 8
    assert row["cost_micro_usd"] > 0
    await books.clean()
