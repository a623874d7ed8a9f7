"""Two partitions at once: one replica without Valkey, one provider whose packets vanish.

Neither is told: nothing is refused and nothing ends, bytes are swallowed. Requests go on, nobody
has two live epochs, the silent provider is given up, and after healing everything is as before.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from darkbloom.common.v1.page_pb2 import PageRequest
from darkbloom.router.v1 import fleet_pb2, fleet_service_pb2
from darkbloom.router.v1.fleet_service_pb2_grpc import FleetServiceStub
from darkbloom_local.mesh import Mesh
from darkbloom_local.stores import Valkey

from tests.mesh.harness import (
    CALL_S,
    QUICK,
    Books,
    Consumer,
    gateway_ready,
    metric,
    running_on,
    until,
)
from tests.mesh.valves import Valve, to_port, to_socket, valve

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="session")]

REPLICAS = ("router", "router-2")
CUT = "router-2"
"""The replica that loses Valkey."""
SILENT = "provider-4"
PROVIDERS = ("provider", "provider-2", "provider-3", SILENT)
PATIENCE_S = 60.0
ROUTER = {
    **QUICK["router"],
    "DARKBLOOM_ROUTER_CONTENT_TIMEOUT_S": "3",
    "DARKBLOOM_ROUTER_SILENCE_TIMEOUT_S": "5",
    "DARKBLOOM_ROUTER_ACCEPT_TIMEOUT_S": "2",
}


@dataclass
class Scene:
    """A mesh and the two places at which it can be cut."""

    mesh: Mesh
    store: Valve
    link: Valve


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scene(state: Path) -> AsyncIterator[Scene]:
    """Two replicas and four providers; one of each stands behind a valve."""
    environment = {**QUICK, **dict.fromkeys(REPLICAS, ROUTER)}
    socket = Path(Valkey(state / "valkey").url.removeprefix("unix://"))
    mesh = Mesh(state, environment=environment, routers=len(REPLICAS), durable=False)
    async with (
        valve(to_socket(socket)) as store,
        valve(to_port(mesh.wiring.address(f"{CUT}.public"))) as link,
    ):
        environment[CUT] = {**ROUTER, "REDIS_URL": f"redis://127.0.0.1:{store.port}"}
        environment[SILENT] = {"DARKBLOOM_PROVIDER_COORDINATOR": f"127.0.0.1:{link.port}"}
        mesh._launcher.environment.update(environment)
        async with mesh:
            for name in PROVIDERS[1:]:
                await mesh.start_provider(name, routable=False)
            scene = Scene(mesh, store, link)
            await everybody(scene)
            yield scene


async def rows(mesh: Mesh, replica: str) -> list[fleet_pb2.Provider]:
    """Return the providers that a replica would offer a request."""
    stub = FleetServiceStub(mesh.channel(f"{replica}.internal"))
    answer = await stub.ListProviders(
        fleet_service_pb2.ListProvidersRequest(page=PageRequest(page_size=100)),
        timeout=CALL_S,
        wait_for_ready=True,
    )
    return [row for row in answer.providers if row.status == "online" and row.HasField("verdict")]


async def everybody(scene: Scene, count: int = len(PROVIDERS)) -> None:
    """Return once each replica knows so many providers and the gateway takes requests."""

    async def known() -> bool:
        return all([len(await rows(scene.mesh, name)) == count for name in REPLICAS])

    await until(known, f"both replicas know {count} providers", PATIENCE_S)
    await gateway_ready(scene.mesh)


async def one_stream_each(scene: Scene) -> None:
    """At no replica does an identity have two streams that get work."""
    for replica in REPLICAS:
        identities = Counter(row.identity_key for row in await rows(scene.mesh, replica))
        assert set(identities.values()) <= {1}


async def ask(scene: Scene, count: int) -> Counter[int]:
    """Ask so many questions, a few at a time; return the answers by status."""
    found: Counter[int] = Counter()
    consumer = Consumer(scene.mesh)
    for _ in range(count // 4):
        answers = await asyncio.gather(*(consumer.ask(tokens=3) for _ in range(4)))
        found.update(answer.status_code for answer in answers)
    return found


async def test_requests_go_on_through_two_partitions_and_all_is_well_afterwards(
    scene: Scene,
) -> None:
    mesh, books = scene.mesh, Books(scene.mesh)
    assert await ask(scene, 8) == {200: 8}

    # A stream that the silent provider answers, and that will never hear its end.
    async with asyncio.TaskGroup() as tasks:
        begun = asyncio.Event()
        broken = tasks.create_task(answered_by_the_silent(scene, begun))
        await begun.wait()
        scene.store.shut = scene.link.shut = True
        # Whoever is offered a place at the silent one is moved before it has content.
        assert await ask(scene, 16) == {200: 16}
        await one_stream_each(scene)
    assert broken.result() >= 3

    # The replica without a store says so, serves what it knows, and is still asked by the other.
    async def noticed() -> bool:
        text = mesh.log(CUT).read_text()
        return '"reachable": false' in text

    await until(noticed, "the replica has noticed that Valkey is away")

    # A provider that comes to it meanwhile cannot claim its identity: it waits, or goes elsewhere.
    assert await metric(mesh, CUT, "darkbloom_provider_streams") >= 1
    await everybody(scene, len(PROVIDERS) - 1)
    assert await ask(scene, 8) == {200: 8}
    assert scene.store.swallowed > 0
    assert scene.link.swallowed > 0

    scene.store.shut = scene.link.shut = False
    scene.store.reset()
    scene.link.reset()
    await everybody(scene)
    await one_stream_each(scene)
    assert running_on(mesh, SILENT) == 0
    assert await ask(scene, 16) == {200: 16}
    await books.clean()


async def answered_by_the_silent(scene: Scene, begun: asyncio.Event) -> int:
    """Read an answer of the silent provider until it breaks; return how many tokens came."""
    consumer = Consumer(scene.mesh)
    silent = scene.mesh.ready(SILENT)["provider_id"]
    while True:
        async with consumer.streaming(tokens=400, interval_s=0.05) as reading:
            await reading.words(3)
            if reading.stream.provider_id != silent:
                continue
            begun.set()
            stream = await reading.rest()
        assert stream.error is not None
        assert (stream.done, stream.cut) == (0, False)
        row = await consumer.usage(stream.job_id)
        assert row["completion_tokens"] == stream.words
        return stream.words
