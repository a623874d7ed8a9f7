"""What the component tests of every room share: one PostgreSQL, started for the first that asks."""

from collections.abc import Iterator

import pytest

from tests.stores import Postgres, postgres


@pytest.fixture(scope="session")
def cluster() -> Iterator[Postgres]:
    with postgres() as running:
        yield running
