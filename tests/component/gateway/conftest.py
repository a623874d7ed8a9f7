from collections.abc import AsyncIterator, Iterator

import pytest

from tests.component.gateway.harness import Harness, gateway
from tests.stores import valkey


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    with valkey() as url:
        yield url


@pytest.fixture
async def mesh(valkey_url: str) -> AsyncIterator[Harness]:
    async with gateway(valkey_url, request_rate=10_000, request_burst=10_000) as harness:
        yield harness
