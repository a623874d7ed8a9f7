from collections.abc import AsyncIterator, Iterator

import pytest
from darkbloom_mesh.testing import FakeClock
from darkbloom_registry.store import PostgresStore

from tests.component.rooms import migrated
from tests.stores import Postgres


@pytest.fixture(scope="session")
def template(cluster: Postgres) -> Iterator[str]:
    with migrated(cluster, "registry") as url:
        yield url


@pytest.fixture
def database_url(cluster: Postgres, template: str) -> Iterator[str]:
    with cluster.database(template) as url:
        yield url


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PostgresStore]:
    store = await PostgresStore.connect(database_url)
    yield store
    await store.close()
