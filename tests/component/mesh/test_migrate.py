"""Migrations of a made-up room against a real PostgreSQL."""

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from darkbloom_mesh.config import Secret
from darkbloom_mesh.errors import BlankStoreError, StoreUnavailableError
from darkbloom_mesh.migrate import migrate

from tests.stores import Postgres

PYTHON = """
from darkbloom_mesh.migrate import run_sql
revision = {revision!r}
down_revision = {previous!r}
def upgrade(): run_sql(__file__)
"""


def add_migration(room: Path, revision: str, previous: str | None, sql: str) -> None:
    versions = room / "migrations" / "versions"
    versions.mkdir(parents=True, exist_ok=True)
    (versions / f"{revision}_x.py").write_text(PYTHON.format(revision=revision, previous=previous))
    (versions / f"{revision}_x.sql").write_text(sql)


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    made = tmp_path / "made_up_room"
    made.mkdir()
    (made / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield made
    sys.modules.pop("made_up_room", None)


@pytest.fixture
def database(cluster: Postgres) -> Iterator[Secret]:
    with cluster.database() as url:
        yield Secret(url)


def query(database: Secret, sql: str) -> list[tuple[object, ...]]:
    with psycopg.connect(database.reveal()) as connection:
        return connection.execute(sql).fetchall()


FIRST = """
CREATE TABLE made_up.pages (note text DEFAULT '100%: it''s :fine');
INSERT INTO made_up.pages DEFAULT VALUES;
"""


def test_migrations_run_once_in_order_inside_the_rooms_schema(room: Path, database: Secret) -> None:
    add_migration(room, "0001", None, FIRST)
    assert migrate(database, package="made_up_room", schema="made_up") == "0001"
    add_migration(room, "0002", "0001", "ALTER TABLE made_up.pages ADD COLUMN size bigint;")
    for _ in range(2):
        assert migrate(database, package="made_up_room", schema="made_up") == "0002"
    assert query(database, "SELECT note, size FROM made_up.pages") == [("100%: it's :fine", None)]
    assert query(database, "SELECT version_num FROM made_up.alembic_version") == [("0002",)]


def test_a_blank_database_is_filled_only_where_somebody_said_that_the_mesh_is_new(
    room: Path, database: Secret
) -> None:
    add_migration(room, "0001", None, FIRST)
    with pytest.raises(BlankStoreError, match="no schema made_up: for a new mesh say"):
        migrate(database, package="made_up_room", schema="made_up", new=False)
    assert query(database, "SELECT to_regnamespace('made_up')::text") == [(None,)]

    migrate(database, package="made_up_room", schema="made_up", new=True)
    assert migrate(database, package="made_up_room", schema="made_up", new=False) == "0001"


def test_a_failing_migration_leaves_nothing_behind(room: Path, database: Secret) -> None:
    add_migration(room, "0001", None, FIRST)
    add_migration(room, "0002", "0001", "CREATE TABLE made_up.half (); SELECT 1/0;")
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(database, package="made_up_room", schema="made_up")
    assert query(database, "SELECT version_num FROM made_up.alembic_version") == [("0001",)]
    assert query(database, "SELECT to_regclass('made_up.half')") == [(None,)]


def test_replicas_that_start_together_migrate_once(room: Path, database: Secret) -> None:
    add_migration(room, "0001", None, FIRST)
    together = threading.Barrier(3)

    def start() -> str:
        together.wait(10)
        return migrate(database, package="made_up_room", schema="made_up")

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(start) for _ in range(3)]
        assert [future.result(30) for future in futures] == ["0001"] * 3
    assert query(database, "SELECT count(*) FROM made_up.pages") == [(1,)]


def test_a_locked_table_fails_the_migration_instead_of_queueing(
    room: Path, database: Secret
) -> None:
    add_migration(room, "0001", None, FIRST)
    migrate(database, package="made_up_room", schema="made_up")
    add_migration(room, "0002", "0001", "ALTER TABLE made_up.pages ADD COLUMN size bigint;")
    with psycopg.connect(database.reveal()) as holder:
        holder.execute("LOCK TABLE made_up.pages")
        with pytest.raises(StoreUnavailableError):
            migrate(database, package="made_up_room", schema="made_up", lock_timeout_s=1)


def test_a_database_that_is_away_is_a_typed_error_without_its_url(room: Path) -> None:
    add_migration(room, "0001", None, FIRST)
    with pytest.raises(StoreUnavailableError) as caught:
        migrate(Secret("postgresql://u:hunter2@127.0.0.1:1/x"), package="made_up_room", schema="a")
    assert "hunter2" not in str(caught.value)
