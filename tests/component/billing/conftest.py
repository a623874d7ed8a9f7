"""A migrated database for each test, copied from one that is migrated once."""

from collections.abc import Iterator

import pytest
from darkbloom_mesh.config import Secret
from darkbloom_mesh.migrate import migrate

from tests.stores import Postgres, postgres


@pytest.fixture(scope="session")
def cluster() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@pytest.fixture(scope="session")
def template(cluster: Postgres) -> Iterator[str]:
    with cluster.database() as url:
        migrate(Secret(url), package="darkbloom_billing", schema="billing")
        yield url


@pytest.fixture
def url(cluster: Postgres, template: str) -> Iterator[str]:
    with cluster.database(template) as url:
        yield url
