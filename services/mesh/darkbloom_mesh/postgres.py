"""PostgreSQL for a room: a bounded pool, transactions, and word of what others committed.

    database = await Database.connect(config.database_url.reveal())
    async with database.transaction() as connection:
        await connection.execute(...)
    await database.listen("registry_catalog", notify)       # until the connection is lost

The driver's errors end here: a room sees `StoreUnavailableError`, without the driver's text, which
may name hosts and statements.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeAlias, final

import asyncpg

from darkbloom_mesh.errors import BlankStoreError, StoreUnavailableError

Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

POOL_SIZE = 8
"""Connections of a replica at most; the sum over all replicas is PostgreSQL's `max_connections`."""
_COMMAND_TIMEOUT_S = 10.0
_CONNECT_TIMEOUT_S = 10.0
_SWEEP_LOCK = "SET LOCAL lock_timeout = '2s'"
_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.exceptions.InsufficientResourcesError,
    OSError,
    TimeoutError,
)


@final
class Database:
    """Owns the pool.

    Raises:
        StoreUnavailableError: from every method, when PostgreSQL cannot be reached in time.
    """

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool

    @classmethod
    async def connect(cls, url: str, *, connections: int = POOL_SIZE) -> "Database":
        """Open a pool of so many connections at most; the caller closes it."""
        with _guarded():
            pool = await asyncpg.create_pool(
                url,
                min_size=1,
                max_size=connections,
                command_timeout=_COMMAND_TIMEOUT_S,
                timeout=_CONNECT_TIMEOUT_S,
            )
        return cls(pool)

    async def require(self, schema: str) -> None:
        """Return if the room's schema was ever made here.

        Raises:
            BlankStoreError: A room that served from here would know nobody.
        """
        async with self.acquire() as connection:
            table = await connection.fetchval(
                "SELECT to_regclass($1)", f'"{schema}".alembic_version'
            )
        if table is None:
            raise BlankStoreError(
                f"the database has no schema {schema}: not migrated yet, or its volume came back"
                " empty; nothing is served from it"
            )

    async def close(self) -> None:
        """Close every connection, waiting a moment for those in use."""
        try:
            async with asyncio.timeout(_COMMAND_TIMEOUT_S):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """Lend a connection."""
        with _guarded():
            async with self._pool.acquire(timeout=_CONNECT_TIMEOUT_S) as connection:
                yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lend a connection inside a transaction, rolled back by an exception."""
        async with self.acquire() as connection, connection.transaction():
            yield connection

    async def sweep(self, statement: str, *arguments: object) -> int:
        """Run one bounded DELETE in its own transaction; returns how many rows went.

        It waits two seconds at most for a lock, so that nobody queues behind it.

        Raises:
            StoreUnavailableError: also where the lock was not free; the next round tries again.
        """
        try:
            async with self.transaction() as connection:
                await connection.execute(_SWEEP_LOCK)
                done = await connection.execute(statement, *arguments)
        except asyncpg.LockNotAvailableError:
            raise StoreUnavailableError("a table is busy") from None
        return int(done.rpartition(" ")[2])

    async def listen(self, channel: str, notify: Callable[[], None]) -> None:
        """Call `notify` once listening and at each notification, until the connection is lost."""
        async with self.acquire() as connection:
            lost = asyncio.Event()

            def on_lost(_: object) -> None:
                lost.set()

            def on_notification(*_: object) -> None:
                notify()

            connection.add_termination_listener(on_lost)
            await connection.add_listener(channel, on_notification)
            try:
                notify()
                await lost.wait()
            finally:
                await connection.remove_listener(channel, on_notification)
                connection.remove_termination_listener(on_lost)


@contextmanager
def _guarded() -> Iterator[None]:
    # The driver's text may name hosts and statements, so it is cut off.
    try:
        yield
    except _LOST:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # Cleaning up on a dead connection fails too; that must not undo a cancellation.
            raise asyncio.CancelledError from None
        raise StoreUnavailableError("postgresql did not answer") from None
