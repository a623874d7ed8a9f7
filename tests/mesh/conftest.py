"""One undisturbed mesh that many stories share; who breaks things starts his own."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from darkbloom_local.mesh import Mesh

from tests.mesh.collector import Collector
from tests.mesh.harness import QUICK, Books, Consumer, Fleet

_ROOMS = ("attestation", "registry", "billing", "router", "gateway", "provider")


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """A trace collector that everybody in the shared mesh is pointed at."""
    with Collector() as found:
        yield found


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def mesh(
    tmp_path_factory: pytest.TempPathFactory, collector: Collector
) -> AsyncIterator[Mesh]:
    """The shared mesh, with one provider; nobody kills anything in it."""
    traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    environment = {room: {**QUICK.get(room, {}), **traced} for room in _ROOMS}
    async with Mesh(
        tmp_path_factory.mktemp("mesh"), environment=environment, durable=False
    ) as found:
        await Fleet(found).wait_routable()
        yield found


@pytest.fixture(scope="session")
def consumer(mesh: Mesh) -> Consumer:
    """The development account."""
    return Consumer(mesh)


@pytest.fixture(scope="session")
def books(mesh: Mesh) -> Books:
    """Billing of the shared mesh."""
    return Books(mesh)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for a mesh of one's own."""
    return tmp_path_factory.mktemp("own")
