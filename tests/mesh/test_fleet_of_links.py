"""Two replicas, two hundred providers, a steady load; each replica leaves in order and dies.

Every provider is a whole agent on a stream of its own, judged by the real attestation room. A
longer form, which goes round as often as there is time: `make soak-replicas`.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from darkbloom.common.v1.page_pb2 import PageRequest
from darkbloom.router.v1 import fleet_service_pb2
from darkbloom.router.v1.fleet_service_pb2_grpc import FleetServiceStub
from darkbloom_local.mesh import Mesh
from darkbloom_mesh.clock import SystemClock
from darkbloom_router.replicas.balance import TOO_MANY

from tests.crowd.joining import crowd_names, crowd_programs, join
from tests.mesh.fleet_load import Asked, steady
from tests.mesh.harness import CALL_S, QUICK, Books, Consumer, gateway_ready, metric, until

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="session")]

REPLICAS = ("router", "router-2")
CROWDS = crowd_names(4)
EACH = 50
PROVIDERS = len(CROWDS) * EACH
CLIENTS = 12
ROUNDS = int(os.environ.get("DARKBLOOM_SOAK_ROUNDS", "0"))  # noqa: TID251 - how long, not what
DRAINED = REPLICAS * ROUNDS or REPLICAS[:1]
KILLED = REPLICAS * ROUNDS or REPLICAS[1:]
"""In the short form one leaves in order, then the other one dies."""
ROUTER = {
    **QUICK["router"],
    # Half of it is for moving; two cores need seconds for what takes a fleet no time.
    "DARKBLOOM_ROUTER_DRAIN_GRACE_S": "36",
    "DARKBLOOM_ROUTER_REBALANCE_PER_S": "50",
}
ENVIRONMENT = {
    **QUICK,
    "router": ROUTER,
    "router-2": ROUTER,
    "gateway": {
        "DARKBLOOM_GATEWAY_REQUEST_RATE": "10000",
        "DARKBLOOM_GATEWAY_REQUEST_BURST": "10000",
    },
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def fleet(state: Path) -> AsyncIterator[Mesh]:
    """Two replicas and two hundred linked, attested agents."""
    async with Mesh(
        state,
        engine=None,
        environment=ENVIRONMENT,
        programs=crowd_programs(CROWDS, EACH),
        routers=len(REPLICAS),
        durable=False,
    ) as found:
        async with asyncio.TaskGroup() as crowds:
            for name in CROWDS:
                crowds.create_task(join(found, name, EACH))
        await everybody(found)
        yield found


async def seen(mesh: Mesh, replica: str) -> set[bytes]:
    """Return the identities that a replica would offer a request."""
    stub = FleetServiceStub(mesh.channel(f"{replica}.internal"))
    answer = await stub.ListProviders(
        fleet_service_pb2.ListProvidersRequest(page=PageRequest(page_size=1000)),
        timeout=CALL_S,
        wait_for_ready=True,
    )
    return {
        row.identity_key
        for row in answer.providers
        if row.status == "online" and row.HasField("verdict") and row.linked
    }


async def everybody(mesh: Mesh, replicas: tuple[str, ...] = REPLICAS) -> None:
    """Return once so many replicas know the whole fleet and the gateway takes requests."""

    async def known() -> bool:
        return all([len(await seen(mesh, replica)) == PROVIDERS for replica in replicas])

    await until(known, f"{' and '.join(replicas)} know {PROVIDERS} providers")
    await gateway_ready(mesh)


async def streams_of(mesh: Mesh, replica: str) -> int:
    """Return how many provider streams a replica holds."""
    return int(await metric(mesh, replica, "darkbloom_provider_streams"))


async def balanced(mesh: Mesh) -> None:
    """Return once no replica holds more than its share, so that each is worth killing."""

    async def level() -> bool:
        counts = [await streams_of(mesh, name) for name in REPLICAS]
        return sum(counts) == PROVIDERS and max(counts) <= TOO_MANY * PROVIDERS / len(REPLICAS)

    await until(level, "providers spread over the replicas", patience_s=90)
    await everybody(mesh)


async def test_every_provider_is_attested_and_both_replicas_offer_all(fleet: Mesh) -> None:
    first, second = [await seen(fleet, replica) for replica in REPLICAS]
    assert first == second
    assert len(first) == PROVIDERS
    assert sum([await streams_of(fleet, name) for name in REPLICAS]) == PROVIDERS
    assert all([await streams_of(fleet, name) > 0 for name in REPLICAS])


@pytest.mark.parametrize("name", DRAINED)
async def test_a_drain_under_load_loses_nothing(fleet: Mesh, name: str) -> None:
    async with steady(fleet, clients=CLIENTS) as load:
        await fleet.restart(name)
        await balanced(fleet)
    assert load.broken == [], told(load.broken)
    assert len(load.whole) > CLIENTS
    await Books(fleet).clean()


@pytest.mark.parametrize("name", KILLED)
async def test_a_kill_under_load_loses_only_what_had_begun(fleet: Mesh, name: str) -> None:
    """Each broken answer has one in-band error and costs exactly what came of it."""
    clock, books = SystemClock(), Books(fleet)
    # Long answers: what a client still reads on a crowded machine, its router is still writing.
    async with steady(fleet, clients=CLIENTS, tokens=70) as load:

        async def under_way() -> bool:
            return load.flowing >= CLIENTS // 2

        await until(under_way, "answers are under way")
        fleet.kill(name)
        killed_at = clock.monotonic()
        await fleet.restart(name)
        await balanced(fleet)

    for one in load.broken:
        assert one.begun, told([one])
        assert one.asked_at < killed_at
        # `error` itself refuses more than one.
        assert one.stream.error is not None
        assert (one.stream.done, one.stream.cut) == (0, False)
        row = await Consumer(fleet).usage(one.stream.job_id)
        assert row["completion_tokens"] == one.stream.words
        assert row["cost_micro_usd"] > 0
    # Nobody had more than one stream through it, and a kill that hits nothing shows nothing.
    assert 0 < len(load.broken) <= CLIENTS
    assert len(load.whole) > CLIENTS
    await books.clean()


def told(broken: list[Asked]) -> str:
    """Describe answers that are not whole, without their words."""
    return "; ".join(
        f"{one.stream.status} {one.stream.words} tokens, {one.stream.done} done,"
        f" cut {one.stream.cut}, {one.stream.error or one.refusal}"
        for one in broken
    )
