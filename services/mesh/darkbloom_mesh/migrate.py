"""Schema migrations of a room: plain SQL files, forward only, one owner at a time.

A room keeps `migrations/versions/NNNN_name.py` beside `NNNN_name.sql`. The Python file declares
`revision` and `down_revision` for alembic, and its `upgrade()` is `run_sql(__file__)`. The version
table lives inside the room's own schema. `python -m darkbloom_<room> migrate` calls `migrate`.
"""

import hashlib
from importlib import resources
from pathlib import Path

import psycopg
import sqlalchemy.exc
import structlog
from alembic import command, op
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from darkbloom_mesh.config import Secret
from darkbloom_mesh.errors import BlankStoreError, StoreUnavailableError

_CONNECT_S = 10
_log = structlog.get_logger()


def migrate(
    database_url: Secret,
    *,
    package: str,
    schema: str,
    lock_wait_s: int = 60,
    lock_timeout_s: int = 3,
    new: bool = True,
) -> str:
    """Bring a room's schema to its newest revision and return that revision.

    Replicas may start at once: an advisory lock lets one migrate, the others wait and find nothing
    to do. A statement that cannot get its lock within `lock_timeout_s` fails instead of queueing
    everybody else behind it.

    Args:
        database_url: libpq URL.
        package: Import name of the room, which holds `migrations/versions`.
        schema: The room's schema; created where it is missing.
        lock_wait_s: Longest wait for another migrator, in seconds.
        lock_timeout_s: Longest wait of one statement for a table, in seconds.
        new: Whether a blank database may be filled. In production only a person says so: a volume
            that came back empty must not become a mesh that knows nobody.

    Raises:
        BlankStoreError: The schema is not there, and nobody said that the mesh is new.
        StoreUnavailableError: No connection, or a lock was not free in time.
    """
    config = _alembic(package, schema)
    head = ScriptDirectory.from_config(config).get_current_head() or ""
    key = int.from_bytes(hashlib.sha256(schema.encode()).digest()[:8], signed=True)

    def connect() -> psycopg.Connection:
        return psycopg.connect(database_url.reveal(), connect_timeout=_CONNECT_S)

    engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool)
    try:
        with connect() as guard, engine.connect() as connection:
            guard.autocommit = True
            guard.execute(f"SET lock_timeout = '{int(lock_wait_s)}s'")
            guard.execute("SELECT pg_advisory_lock(%s)", (key,))
            if not new and not _founded(guard, schema):
                raise BlankStoreError(
                    f"the database has no schema {schema}: for a new mesh say `migrate --new`;"
                    " for any other the volume came back empty, restore it"
                )
            connection.exec_driver_sql(f"SET lock_timeout = '{int(lock_timeout_s)}s'")
            connection.exec_driver_sql(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
            connection.commit()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except (psycopg.OperationalError, sqlalchemy.exc.OperationalError) as error:
        raise StoreUnavailableError("database cannot be migrated now") from error
    finally:
        engine.dispose()
    _log.info("migrated", schema=schema, revision=head)
    return head


def _founded(connection: psycopg.Connection, schema: str) -> bool:
    """Return whether a migration was ever applied to the schema."""
    table = connection.execute("SELECT to_regclass(%s)", (f'"{schema}".alembic_version',))
    return table.fetchone() != (None,)


def run_sql(migration: str) -> None:
    """Execute the SQL file beside a migration; call as `run_sql(__file__)` in `upgrade()`."""
    statements = Path(migration).with_suffix(".sql").read_text()
    driver = op.get_bind().connection.driver_connection
    if driver is None:
        raise StoreUnavailableError("database connection is gone")
    # Without parameters the driver sends the text as it is: several statements, no escaping.
    driver.execute(statements)


def _alembic(package: str, schema: str) -> Config:
    config = Config()
    versions = resources.files(package) / "migrations" / "versions"
    config.set_main_option(
        "script_location", str(resources.files("darkbloom_mesh") / "alembic_env")
    )
    config.set_main_option("version_locations", str(versions))
    config.set_main_option("path_separator", "newline")
    config.attributes["schema"] = schema
    return config
