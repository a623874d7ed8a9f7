"""Connections to PostgreSQL: restricted role, safe repetition, and word of what changed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, TypeVar

import asyncpg
import structlog
from asyncpg.pool import PoolConnectionProxy
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.config import Secret
from darkbloom_mesh.errors import MeshError, StoreUnavailableError

Connection: TypeAlias = "asyncpg.Connection[Any] | PoolConnectionProxy[Any]"
T = TypeVar("T")

_ATTEMPTS = 4
_FIRST_WAIT_S = 0.02
_LONGEST_WAIT_S = 0.5
_LISTEN_CHECK_S = 5.0
_TRANSACTION_MS = 30_000
# What a repetition with the same key may cure: lost connections, restarts, deadlocks, time-outs.
_REPEATABLE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.exceptions.TransactionRollbackError,
    asyncpg.exceptions.InsufficientResourcesError,
)
_FORBIDDEN = """
    SELECT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
      OR has_any_column_privilege(c.oid, 'UPDATE')
      OR has_table_privilege(c.oid, 'DELETE') OR has_table_privilege(c.oid, 'TRUNCATE')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'ledger' AND c.relkind = 'r'
"""
_log = structlog.get_logger()


class RoleError(MeshError):
    """The service's role could change the ledger's history, or its schema is missing."""


class OldServerError(MeshError):
    """The database server lacks a setting that the ledger's seals stand on."""


class Database:
    """A pool whose every unit of work may be repeated.

    Args:
        pool: The connections.
        connect: Opens one more, for listening.
        clock: Time between attempts.
        uniform: Randomness of those waits, in [0, 1).
    """

    def __init__(
        self,
        pool: "asyncpg.Pool[Any]",
        connect: Callable[[], Awaitable["asyncpg.Connection[Any]"]],
        clock: Clock,
        uniform: Callable[[], float],
    ) -> None:
        self._pool = pool
        self._connect = connect
        self._clock = clock
        self._uniform = uniform

    @classmethod
    async def open(
        cls,
        url: Secret,
        *,
        role: str,
        connections: int,
        timeout_s: float,
        clock: Clock,
        uniform: Callable[[], float],
    ) -> "Database":
        """Connect, take on the restricted role, and make sure that it is restricted.

        Raises:
            StoreUnavailableError: No connection.
            RoleError: The role has a privilege that it must not have.
        """
        settings = {
            # At connection start, so that even RESET ROLE leads back to it.
            "role": role,
            "synchronous_commit": "on",
            "statement_timeout": str(int(timeout_s * 1000)),
            # Every statement is prepared and called with arrays; planning anew would cost more
            # than running it.
            "plan_cache_mode": "force_generic_plan",
            # Plans are kept: one made while the tables were empty would read them whole for ever.
            "enable_seqscan": "off",
            "jit": "off",
            "application_name": "darkbloom-billing",
            # A seal covers what is older than a minute: nothing may be committed behind it.
            "transaction_timeout": str(_TRANSACTION_MS),
        }
        try:
            pool = await asyncpg.create_pool(
                url.reveal(),
                min_size=1,
                max_size=connections,
                command_timeout=timeout_s,
                server_settings=settings,
                reset=_keep,
            )
        except _REPEATABLE as error:
            raise StoreUnavailableError("database does not answer") from error
        except asyncpg.UndefinedObjectError as error:
            # The server refuses a setting that it does not know: transaction_timeout came with 17.
            raise OldServerError("postgresql 17 or newer is needed") from error

        async def connect() -> "asyncpg.Connection[Any]":
            return await asyncpg.connect(url.reveal(), server_settings=settings, timeout=timeout_s)

        database = cls(pool, connect, clock, uniform)
        try:
            await database.run(_check_role)
        except BaseException:
            pool.terminate()
            raise
        return database

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do one idempotent unit of work on a connection; repeat it where that may help.

        Raises:
            StoreUnavailableError: It failed each time. Whether it was committed is unknown.
        """
        backoff = Backoff(self._uniform, first_s=_FIRST_WAIT_S, cap_s=_LONGEST_WAIT_S)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                async with self._pool.acquire() as connection:
                    return await _clean(connection, work)
            except _REPEATABLE as error:
                _log.warning("database_retry", attempt=attempt, error=type(error).__name__)
                if attempt == _ATTEMPTS:
                    raise StoreUnavailableError("database does not answer") from error
            await self._clock.sleep(backoff.next_s())
        raise StoreUnavailableError("database does not answer")

    async def tidy(self, statement: str, *arguments: object) -> list[Any]:
        """Run one bounded deletion in its own transaction; returns its rows.

        It waits two seconds at most for a lock, so that nobody queues behind it.

        Raises:
            StoreUnavailableError: The store does not answer, or the lock was not free; the next
                round tries again.
        """

        async def work(connection: Connection) -> list[Any]:
            async with connection.transaction():
                await connection.execute("SET LOCAL lock_timeout = '2s'")
                return await connection.fetch(statement, *arguments)

        try:
            return await self.run(work)
        except asyncpg.LockNotAvailableError:
            raise StoreUnavailableError("a table is busy") from None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection for reading at length; nothing is repeated where it breaks."""
        async with self._pool.acquire() as connection:
            yield connection

    async def run_listener(self, hooks: Mapping[str, Callable[[], object]]) -> None:
        """Call a hook for each notification on its channel, for ever.

        After a lost connection every hook is called, since words may have been missed.
        """
        backoff = Backoff(self._uniform, first_s=_LONGEST_WAIT_S)
        while True:
            try:
                connection = await self._connect()
            except (*_REPEATABLE, asyncpg.PostgresError) as error:
                _log.warning("database_listener_lost", error=type(error).__name__)
                await self._clock.sleep(backoff.next_s())
                continue
            backoff.reset()
            try:
                await self._listen(connection, hooks)
            finally:
                connection.terminate()

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()

    async def _listen(
        self, connection: "asyncpg.Connection[Any]", hooks: Mapping[str, Callable[[], object]]
    ) -> None:
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _connection: lost.set())

        def hear(_connection: object, _pid: int, channel: str, _payload: object) -> None:
            hooks[channel]()

        try:
            for channel in hooks:
                await connection.add_listener(channel, hear)
        except _REPEATABLE:
            return
        for hook in hooks.values():
            hook()
        while not (lost.is_set() or connection.is_closed()):
            try:
                async with asyncio.timeout(_LISTEN_CHECK_S):
                    await lost.wait()
            except TimeoutError:
                continue


async def _clean(connection: Connection, work: Callable[[Connection], Awaitable[T]]) -> T:
    """Do the work; a connection that lost track of its protocol is never used again.

    The driver gets there when a server ends a connection between two statements.
    """
    try:
        return await work(connection)
    except asyncpg.InternalClientError:
        connection.terminate()
        raise


async def _keep(_connection: object) -> None:
    """Leave a returned connection as it is: nothing here changes the state of a session."""


async def _check_role(connection: Connection) -> None:
    try:
        tables = await connection.fetch(_FORBIDDEN)
    except asyncpg.InsufficientPrivilegeError:
        tables = []
    if not tables:
        raise RoleError("ledger is not migrated, or the role may not read it")
    if any(forbidden for (forbidden,) in tables):
        raise RoleError("database role may change the ledger's history")
