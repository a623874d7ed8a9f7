"""The schema after all migrations is the one that was reviewed."""

import pytest

from tests import schemas
from tests.stores import Postgres


@pytest.mark.parametrize("room", schemas.ROOMS)
def test_all_migrations_lead_to_the_schema_that_was_reviewed(cluster: Postgres, room: str) -> None:
    found = schemas.dump(cluster, room, schemas.pg_dump())
    reviewed = (schemas.FOLDER / f"{room}.sql").read_text()
    assert found == reviewed, "look at the difference, then `python -m tests.schemas`"
