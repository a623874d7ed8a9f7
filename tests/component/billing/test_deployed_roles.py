"""The logins that deploy/ makes are enough for every room, and not more than enough for billing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from darkbloom_billing.app import open_database
from darkbloom_billing.config import BillingConfig
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.config import Secret
from darkbloom_mesh.migrate import migrate
from psycopg import sql

from tests.stores import Postgres

CLUSTER = (
    Path(__file__).resolve().parents[3]
    / "deploy"
    / "kustomize"
    / "components"
    / "postgres"
    / "cluster.yaml"
)
SCHEMAS = {"attestation": "attestation", "registry": "registry", "router": "routing"}


@pytest.fixture
def made(cluster: Postgres) -> Iterator[str]:
    """A database on which everything was done that CloudNativePG is told to do."""
    spec: dict[str, Any] = yaml.safe_load(CLUSTER.read_text())["spec"]
    statements = spec["bootstrap"]["initdb"]["postInitApplicationSQL"]
    with cluster.database() as url, psycopg.connect(url, autocommit=True) as owner:
        name = owner.info.dbname
        existing = {row[0] for row in owner.execute("SELECT rolname FROM pg_roles")}
        logins = []
        try:
            for statement in statements:
                words = statement.replace(",", " ").split()
                if words[:2] == ["CREATE", "ROLE"]:
                    if words[2] in existing:
                        continue
                    logins.append(words[2])
                owner.execute(statement.replace("DATABASE darkbloom", f'DATABASE "{name}"'))
            yield url
        finally:
            for login in reversed(logins):
                owner.execute(f'DROP OWNED BY "{login}" CASCADE')
                owner.execute(f'DROP ROLE "{login}"')


def as_login(url: str, login: str) -> Secret:
    return Secret(psycopg.conninfo.make_conninfo(url, user=login))


@pytest.mark.parametrize("room", SCHEMAS)
def test_a_room_migrates_under_a_login_that_is_nobody_else(made: str, room: str) -> None:
    migrate(as_login(made, room), package=f"darkbloom_{room}", schema=SCHEMAS[room])
    other = "registry" if room != "registry" else "attestation"
    foreign = sql.SQL("SELECT * FROM {}").format(sql.Identifier(SCHEMAS[room], "alembic_version"))
    with (
        psycopg.connect(as_login(made, other).reveal(), autocommit=True) as stranger,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        stranger.execute(foreign)


async def test_billing_is_migrated_by_its_owner_and_served_by_whom_history_is_closed_to(
    made: str,
) -> None:
    migrate(as_login(made, "billing_owner"), package="darkbloom_billing", schema="billing")
    config = BillingConfig(environment="development", database_url=Secret(_url(made, "billing")))
    database = await open_database(config, SystemClock())
    await database.close()
    with (
        psycopg.connect(as_login(made, "billing").reveal(), autocommit=True) as service,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        service.execute("DELETE FROM ledger.transfer")


def _url(url: str, login: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}user={login}"
