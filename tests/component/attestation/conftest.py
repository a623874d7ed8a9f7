from collections.abc import AsyncIterator, Iterator

import pytest
from darkbloom_mesh.postgres import Database
from darkbloom_mesh.testing import FakeClock

from tests.component.attestation.harness import Attestation, served
from tests.component.rooms import migrated
from tests.stores import Postgres


@pytest.fixture(scope="session")
def template(cluster: Postgres) -> Iterator[str]:
    with migrated(cluster, "attestation") as url:
        yield url


@pytest.fixture
def database_url(cluster: Postgres, template: str) -> Iterator[str]:
    with cluster.database(template) as url:
        yield url


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = await Database.connect(database_url)
    yield database
    await database.close()


@pytest.fixture
async def served_log(database: Database, clock: FakeClock) -> AsyncIterator[Attestation]:
    """Attestation whose log has one entry."""
    async with served(database, clock) as attestation:
        await attestation.bless()
        yield attestation
