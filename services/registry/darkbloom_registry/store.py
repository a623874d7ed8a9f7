"""Builds and aliases in PostgreSQL, schema `registry`."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, final

import asyncpg
from darkbloom_edge.manifest import Manifest
from darkbloom_mesh.postgres import Connection, Database

from darkbloom_registry import change_rows, rollout_rows
from darkbloom_registry.changes import Change, PublishingKey, Recorded, Scope
from darkbloom_registry.model import (
    LISTED,
    Alias,
    Build,
    BuildFacts,
    BuildStatus,
    Catalog,
    Version,
    VersionState,
)
from darkbloom_registry.model_states import ModelState
from darkbloom_registry.rollouts import Rollout

CHANNEL = "registry_catalog"
"""Notified at the commit of every write."""

_FACTS = (
    "id, display_name, family, architecture, quantization, max_context_length, max_output_length,"
    " min_ram_gb, capabilities, required_provider_capabilities, status, description, model_type,"
    " hugging_face_id, deprecation_date, runtime_parameters_json"
)
# The manifest is up to 1 MiB and only GetManifest wants it.
_VERSION = (
    "build, version, state, aggregate_sha256, identity_sha256, total_size_bytes, file_count,"
    " register_time, sources"
)


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
            builds = await _builds(
                connection, "WHERE status = ANY($1)", [status.value for status in LISTED]
            )
            aliases = await connection.fetch(
                "SELECT * FROM registry.aliases WHERE active ORDER BY alias_id"
            )

        return Catalog(
            generation=generation,
            builds=tuple(build for build in builds if build.routable),
            aliases=tuple(map(_alias, aliases)),
        )

    async def build(self, build: str) -> Build | None:
        """Return a build, if there is one."""
        async with self._snapshot() as connection:
            return await _build(connection, build)

    async def builds(self, after: str, limit: int) -> Sequence[Build]:
        """Return builds whose id follows `after`, by id."""
        async with self._snapshot() as connection:
            return await _builds(connection, "WHERE id > $1 ORDER BY id LIMIT $2", after, limit)

    async def rollout(self, rollout_id: str) -> Rollout | None:
        """Return a rollout, if there is one."""
        async with self._database.acquire() as connection:
            return await rollout_rows.one(connection, rollout_id)

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

    async def changes(self, before: int, limit: int) -> Sequence[Recorded]:
        """Return changes of generations below `before`, newest first."""
        async with self._database.acquire() as connection:
            return await change_rows.page(connection, before, limit)

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


@final
class Write:
    """One exclusive write transaction."""

    def __init__(self, connection: Connection, generation: int) -> None:
        self._connection = connection
        self._generation = generation

    @property
    def generation(self) -> int:
        """The generation before this transaction, or after `bump`."""
        return self._generation

    async def build(self, build: str) -> Build | None:
        """Return a build, if there is one."""
        return await _build(self._connection, build)

    async def alias(self, alias_id: str) -> Alias | None:
        """Return an alias, if there is one."""
        row = await self._connection.fetchrow(
            "SELECT * FROM registry.aliases WHERE alias_id = $1", alias_id
        )
        return None if row is None else _alias(row)

    async def add_build(self, facts: BuildFacts, create_time: datetime) -> None:
        """Write a new build without versions."""
        values: list[Any] = [getattr(facts, name.strip()) for name in _FACTS.split(",")]
        places = ", ".join(f"${place}" for place in range(1, len(values) + 2))
        await self._connection.execute(
            f"INSERT INTO registry.builds ({_FACTS}, create_time) VALUES ({places})",  # noqa: S608 - constants only
            *values,
            create_time,
        )

    async def add_version(
        self,
        build: str,
        manifest: Manifest,
        data: bytes,
        register_time: datetime,
        sources: Sequence[str],
    ) -> None:
        """Write a new ready version with the exact bytes of its manifest."""
        await self._connection.execute(
            "INSERT INTO registry.versions (build, version, state, aggregate_sha256,"
            " identity_sha256, total_size_bytes, file_count, manifest, register_time, sources)"
            " VALUES ($1, $2, 'ready', $3, $4, $5, $6, $7, $8, $9)",
            build,
            manifest.version,
            manifest.aggregate_sha256,
            manifest.identity_sha256,
            manifest.total_size_bytes,
            manifest.file_count,
            data,
            register_time,
            list(sources),
        )

    async def set_status(self, build: str, status: BuildStatus, deprecation_date: str) -> None:
        """Write the life of a build."""
        await self._connection.execute(
            "UPDATE registry.builds SET status = $2, deprecation_date = $3 WHERE id = $1",
            build,
            status.value,
            deprecation_date,
        )

    async def set_sources(self, build: str, version: str, sources: Sequence[str]) -> None:
        """Write where the files of a version are."""
        await self._connection.execute(
            "UPDATE registry.versions SET sources = $3 WHERE build = $1 AND version = $2",
            build,
            version,
            list(sources),
        )

    async def set_states(self, build: str, versions: Sequence[Version]) -> None:
        """Write the states of these versions, in this order."""
        await self._connection.executemany(
            "UPDATE registry.versions SET state = $3 WHERE build = $1 AND version = $2",
            [(build, version.version, version.state.value) for version in versions],
        )

    async def put_alias(self, alias: Alias) -> None:
        """Write an alias, new or not."""
        await self._connection.execute(
            "INSERT INTO registry.aliases (alias_id, display_name, desired_build, previous_build,"
            " active, traffic_percent, retired_builds) VALUES ($1, $2, $3, $4, $5, $6, $7)"
            " ON CONFLICT (alias_id) DO UPDATE SET display_name = $2, desired_build = $3,"
            " previous_build = $4, active = $5, traffic_percent = $6, retired_builds = $7",
            alias.alias_id,
            alias.display_name,
            alias.desired_build,
            alias.previous_build or None,
            alias.active,
            alias.traffic_percent,
            alias.retired_builds,
        )

    async def rollout(self, rollout_id: str) -> Rollout | None:
        """Return a rollout, if there is one."""
        return await rollout_rows.one(self._connection, rollout_id)

    async def live_rollouts(self) -> Sequence[Rollout]:
        """Return those between two builds."""
        return await rollout_rows.live(self._connection)

    async def live_rollout(self, alias_id: str) -> Rollout | None:
        """Return the one that moves this alias, if there is one."""
        found = await rollout_rows.live(self._connection)
        return next((rollout for rollout in found if rollout.alias == alias_id), None)

    async def put_rollout(self, rollout: Rollout) -> None:
        """Write a rollout, new or not."""
        await rollout_rows.put(self._connection, rollout)

    async def take_report(self, session: str, sequence: int, now: datetime) -> bool:
        """Note a report; False where it, or a later one, came before."""
        return await rollout_rows.take_report(self._connection, session, sequence, now)

    async def put_model_states(self, states: Sequence[ModelState]) -> None:
        """Write how far machines are with builds."""
        await rollout_rows.put_states(self._connection, states)

    async def label_known(self, label: str, *, active: bool) -> bool:
        """Return whether a key has this label; also one that was revoked, unless `active`."""
        return await change_rows.label_known(self._connection, label, active=active)

    async def put_key(self, digest: bytes, label: str, scopes: Sequence[Scope]) -> None:
        """Write a key; one of the same label is replaced."""
        await change_rows.put_key(self._connection, digest, label, scopes)

    async def revoke_key(self, label: str) -> None:
        """Accept the key of this label no more."""
        await change_rows.revoke_key(self._connection, label)

    async def bump(self, change: Change) -> None:
        """Count one generation up, record what made it, and tell every watcher at commit."""
        self._generation = await self._connection.fetchval(
            "UPDATE registry.generation SET generation = generation + 1 RETURNING generation"
        )
        await change_rows.record(self._connection, self._generation, change)
        await self._connection.execute("SELECT pg_notify($1, '')", CHANNEL)


async def _build(connection: Connection, build: str) -> Build | None:
    return next(iter(await _builds(connection, "WHERE id = $1", build)), None)


async def _builds(connection: Connection, condition: str, *arguments: Any) -> Sequence[Build]:
    rows = await connection.fetch(
        f"SELECT {_FACTS}, create_time FROM registry.builds {condition}",  # noqa: S608 - constants only
        *arguments,
    )
    versions: dict[str, list[Version]] = {row["id"]: [] for row in rows}
    for row in await connection.fetch(
        f"SELECT {_VERSION} FROM registry.versions WHERE build = ANY($1)"  # noqa: S608 - constants only
        " ORDER BY register_time, version",
        list(versions),
    ):
        versions[row["build"]].append(_version(row))

    builds = (
        Build(
            facts=_facts(row), create_time=row["create_time"], versions=tuple(versions[row["id"]])
        )
        for row in rows
    )
    return tuple(sorted(builds, key=lambda build: build.facts.id))


def _facts(row: asyncpg.Record) -> BuildFacts:
    values = {name.strip(): row[name.strip()] for name in _FACTS.split(",")}
    values["capabilities"] = tuple(row["capabilities"])
    values["required_provider_capabilities"] = tuple(row["required_provider_capabilities"])
    values["status"] = BuildStatus(row["status"])

    return BuildFacts(**values)


def _version(row: asyncpg.Record) -> Version:
    return Version(
        version=row["version"],
        state=VersionState(row["state"]),
        aggregate_sha256=row["aggregate_sha256"],
        identity_sha256=row["identity_sha256"],
        total_size_bytes=row["total_size_bytes"],
        file_count=row["file_count"],
        register_time=row["register_time"],
        sources=tuple(row["sources"]),
    )


def _alias(row: asyncpg.Record) -> Alias:
    return Alias(
        alias_id=row["alias_id"],
        display_name=row["display_name"],
        desired_build=row["desired_build"],
        previous_build=row["previous_build"] or "",
        active=row["active"],
        traffic_percent=row["traffic_percent"],
        retired_builds=tuple(row["retired_builds"]),
    )
