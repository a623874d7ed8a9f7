"""Builds and aliases in PostgreSQL, schema `registry`."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import final

from darkbloom_mesh.postgres import Connection, Database

from darkbloom_registry import build_rows, change_rows, rollout_rows
from darkbloom_registry.changes import PublishingKey, Recorded
from darkbloom_registry.model import (
    LISTED,
    Alias,
    Build,
    Catalog,
    MarketplaceAlias,
)
from darkbloom_registry.model_states import ModelStage, ModelState
from darkbloom_registry.names import rows as name_rows
from darkbloom_registry.progress import rows as reader_rows
from darkbloom_registry.progress.readers import Reader
from darkbloom_registry.rollouts import Rollout
from darkbloom_registry.writing import CHANNEL, Write


@final
class PostgresStore:
    """The store behind the port; owns its pool.

    Raises:
        StoreUnavailableError: from every method, when PostgreSQL cannot be reached in time.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    async def connect(cls, url: str) -> "PostgresStore":
        """Open a pool; the caller closes it.

        Raises:
            BlankStoreError: Nothing was ever kept there.
        """
        database = await Database.connect(url)
        try:
            await database.require("registry")
        except BaseException:
            await database.close()
            raise
        return cls(database)

    async def close(self) -> None:
        """Close every connection, waiting a moment for those in use."""
        await self._database.close()

    async def listen(self, notify: Callable[[], None]) -> None:
        """Call `notify` once listening and after every write, until the connection is lost."""
        await self._database.listen(CHANNEL, notify)

    @asynccontextmanager
    async def write(self) -> AsyncIterator["Write"]:
        """Begin a write; others wait until it ends."""
        async with self._database.transaction() as connection:
            generation = await connection.fetchval(
                "SELECT generation FROM registry.generation FOR UPDATE"
            )
            yield Write(connection, generation)

    async def generation(self) -> int:
        """Return the newest generation."""
        async with self._database.acquire() as connection:
            return int(await connection.fetchval("SELECT generation FROM registry.generation"))

    async def catalog(self) -> Catalog:
        """Return the catalog and its generation, from one moment."""
        async with self._snapshot() as connection:
            generation = await connection.fetchval("SELECT generation FROM registry.generation")
            builds = await build_rows.builds(
                connection, "WHERE status = ANY($1)", [status.value for status in LISTED]
            )
            aliases = await name_rows.active_aliases(connection)
            marketplaces = await name_rows.active_marketplace_aliases(connection)

        return Catalog(
            generation=generation,
            builds=tuple(build for build in builds if build.routable),
            aliases=aliases,
            marketplace_aliases=marketplaces,
        )

    async def build(self, build: str) -> Build | None:
        """Return a build, if there is one."""
        async with self._snapshot() as connection:
            return await build_rows.build(connection, build)

    async def builds(self, after: str, limit: int) -> Sequence[Build]:
        """Return builds whose id follows `after`, by id."""
        async with self._snapshot() as connection:
            return await build_rows.builds(
                connection, "WHERE id > $1 ORDER BY id LIMIT $2", after, limit
            )

    async def rollout(self, rollout_id: str) -> Rollout | None:
        """Return a rollout, if there is one."""
        async with self._database.acquire() as connection:
            return await rollout_rows.one(connection, rollout_id)

    async def aliases(self, after: str, limit: int) -> Sequence[Alias]:
        """Return aliases whose id follows `after`, by id; inactive ones too."""
        async with self._database.acquire() as connection:
            return await name_rows.aliases(connection, after, limit)

    async def marketplace_aliases(self, after: str, limit: int) -> Sequence[MarketplaceAlias]:
        """Return names for marketplaces whose id follows `after`, by id; inactive ones too."""
        async with self._database.acquire() as connection:
            return await name_rows.marketplace_aliases(connection, after, limit)

    async def rollouts(self, alias: str, before: str, limit: int) -> Sequence[Rollout]:
        """Return rollouts older than `before` (an id; empty: all), newest first."""
        async with self._database.acquire() as connection:
            return await rollout_rows.page(connection, alias, before, limit)

    async def model_states(
        self, build: str, after: tuple[str, str], limit: int
    ) -> Sequence[ModelState]:
        """Return states by build and machine, after a pair of those."""
        async with self._database.acquire() as connection:
            return await rollout_rows.states(connection, build, after, limit)

    async def live_rollouts(self) -> Sequence[Rollout]:
        """Return those between two builds."""
        async with self._database.acquire() as connection:
            return await rollout_rows.live(connection)

    async def all_model_states(self, build: str) -> Sequence[ModelState]:
        """Return what every machine said last of a build."""
        async with self._database.acquire() as connection:
            return await rollout_rows.all_states(connection, build)

    async def stage_counts(self) -> dict[tuple[str, ModelStage], int]:
        """Return how many machines are at each stage of each build."""
        async with self._database.acquire() as connection:
            return await rollout_rows.stage_counts(connection)

    async def put_reader(self, reader: Reader) -> None:
        """Write where a replica stands; it moves no generation."""
        async with self._database.transaction() as connection:
            await reader_rows.put(connection, reader)

    async def remove_reader(self, session: str) -> None:
        """Forget a replica that leaves."""
        async with self._database.transaction() as connection:
            await reader_rows.remove(connection, session)

    async def readers(self, now: datetime) -> Sequence[Reader]:
        """Return replicas that spoke lately."""
        async with self._snapshot() as connection:
            return await reader_rows.known(connection, now)

    async def changes(self, before: int, limit: int) -> Sequence[Recorded]:
        """Return changes of generations below `before`, newest first."""
        async with self._database.acquire() as connection:
            return await change_rows.page(connection, before, limit)

    async def ask(self, digest: bytes, label: str, now: datetime, since: datetime) -> str:
        """Note who asks; return who else asked for the same since then, and forget both."""
        async with self._database.transaction() as connection:
            return await change_rows.ask(connection, digest, label, now, since)

    async def publishing_key(self, digest: bytes) -> PublishingKey | None:
        """Return an active key by its hash, if there is one."""
        async with self._database.acquire() as connection:
            return await change_rows.key(connection, digest)

    async def manifest(self, build: str, version: str) -> bytes | None:
        """Return the manifest of a version as registered; an empty version means the active one."""
        async with self._database.acquire() as connection:
            data: bytes | None = await connection.fetchval(
                "SELECT manifest FROM registry.versions WHERE build = $1"
                " AND CASE WHEN $2 = '' THEN state = 'active' ELSE version = $2 END",
                build,
                version,
            )
        return data

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[Connection]:
        """Several reads of one moment."""
        async with (
            self._database.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield connection
