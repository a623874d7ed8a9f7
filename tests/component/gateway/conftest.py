from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from redis import Redis

from tests.component.billing.world import owner
from tests.component.gateway.harness import Harness, gateway
from tests.component.gateway.people import People, people
from tests.component.rooms import migrated
from tests.stores import Postgres, valkey


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    with valkey() as url:
        yield url


@pytest.fixture(autouse=True)
def empty_buckets(valkey_url: str) -> None:
    """All tests come from one address, and some have accounts in common: none counts for another.

    How fast the tests follow each other must not decide what is refused.
    """
    with Redis.from_url(valkey_url) as store:
        store.flushall()


@pytest.fixture
async def mesh(valkey_url: str) -> AsyncIterator[Harness]:
    async with gateway(valkey_url, request_rate=10_000, request_burst=10_000) as harness:
        yield harness


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def street(valkey_url: str) -> AsyncIterator[Harness]:
    """One gateway for all tests that only ask it things."""
    async with gateway(valkey_url, request_rate=10_000, request_burst=10_000) as harness:
        yield harness


@pytest_asyncio.fixture(loop_scope="session")
async def house(street: Harness) -> Harness:
    """The gateway of the street, whose neighbours have seen nothing yet."""
    return street.afresh()


@pytest.fixture(scope="session")
def template(cluster: Postgres) -> Iterator[str]:
    with migrated(cluster, "billing") as url:
        yield url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def city(
    cluster: Postgres,
    template: str,
    valkey_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[People]:
    """A gateway and a real billing behind it, for all tests that only need people of their own."""
    with cluster.database(template) as url:
        async with people(tmp_path_factory.mktemp("city"), url, valkey_url) as found:
            yield found


@pytest_asyncio.fixture(loop_scope="session")
async def town(city: People) -> People:
    """People who have nothing yet, on a network from which nobody has begun a device login."""
    async with owner(city.world.url) as database:
        await database.execute("DELETE FROM billing.device_code")
    return city.strangers()
