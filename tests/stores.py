"""Throw-away real stores for tests: one PostgreSQL and one Valkey per process, fresh data per test.

    @pytest.fixture(scope="session")
    def cluster() -> Iterator[Postgres]:
        with postgres() as cluster:
            yield cluster

    @pytest.fixture
    def database_url(cluster: Postgres) -> Iterator[str]:
        with cluster.database() as url:
            yield url

Nested `postgres()` and `valkey()` share the running server, which the outermost one stops. The
servers themselves are those of `make run`.
"""

import itertools
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from darkbloom_local import stores
from psycopg import sql

_MAINTENANCE = "postgres"


class Postgres:
    """A running PostgreSQL that hands out databases; the user of its URLs is a superuser."""

    def __init__(self, server: stores.Postgres) -> None:
        self._server = server
        self._names = (f"test_{secrets.token_hex(4)}_{n}" for n in itertools.count())

    def url(self, database: str = _MAINTENANCE) -> str:
        """Return the URL of a database, over the unix socket."""
        return self._server.url_of(database)

    @contextmanager
    def database(self, template: str | None = None) -> Iterator[str]:
        """Create a database, yield its URL, drop it whoever is still connected.

        Args:
            template: URL or name of a database to copy, for example one that is migrated once.
                Nobody may be connected to it. None copies the empty template.
        """
        name = next(self._names)
        source = sql.Identifier("template0" if template is None else _database_name(template))
        self._run(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), source))
        try:
            yield self.url(name)
        finally:
            self._run(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _run(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement)


class _Shared:
    """Servers that this process runs now."""

    postgres: Postgres | None = None
    valkey: str | None = None


@contextmanager
def postgres(*, durable: bool = False) -> Iterator[Postgres]:
    """Run a PostgreSQL 18 in a temporary directory.

    Args:
        durable: Keep `fsync` on, for measurements; always a server of its own.
    """
    if _Shared.postgres is not None and not durable:
        yield _Shared.postgres
        return

    with (
        tempfile.TemporaryDirectory(prefix="darkbloom-pg-", ignore_cleanup_errors=True) as home,
        stores.running(stores.Postgres(Path(home), durable=durable)) as server,
    ):
        own = Postgres(server)
        if durable:
            yield own
            return
        _Shared.postgres = own
        try:
            yield own
        finally:
            _Shared.postgres = None


@contextmanager
def valkey() -> Iterator[str]:
    """Run a Valkey 9 without persistence; yield its `unix://` URL. Shared: flush what you use."""
    if _Shared.valkey is not None:
        yield _Shared.valkey
        return

    with (
        tempfile.TemporaryDirectory(prefix="darkbloom-vk-") as home,
        stores.valkey(Path(home)) as url,
    ):
        _Shared.valkey = url
        try:
            yield url
        finally:
            _Shared.valkey = None


def _database_name(url_or_name: str) -> str:
    return url_or_name.split("?", 1)[0].rsplit("/", 1)[-1]
