"""A migrated database for each test, copied from one that is migrated once."""

from collections.abc import Iterator

import pytest

from tests.component.rooms import migrated
from tests.stores import Postgres


@pytest.fixture(scope="session")
def template(cluster: Postgres) -> Iterator[str]:
    with migrated(cluster, "billing") as url:
        yield url


@pytest.fixture
def url(cluster: Postgres, template: str) -> Iterator[str]:
    with cluster.database(template) as url:
        yield url
