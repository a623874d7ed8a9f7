"""One exclusive write transaction."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, final

from darkbloom_edge.manifest import Manifest
from darkbloom_mesh.postgres import Connection

from darkbloom_registry import build_rows, change_rows, rollout_rows
from darkbloom_registry.changes import Change, Scope
from darkbloom_registry.model import (
    Alias,
    Build,
    BuildFacts,
    BuildStatus,
    MarketplaceAlias,
    Rendering,
    Version,
)
from darkbloom_registry.model_states import ModelState
from darkbloom_registry.names import rows as name_rows
from darkbloom_registry.rollouts import Rollout

CHANNEL = "registry_catalog"
"""Notified at the commit of every write."""


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
        return await build_rows.build(self._connection, build)

    async def alias(self, alias_id: str) -> Alias | None:
        """Return an alias, if there is one."""
        return await name_rows.alias(self._connection, alias_id)

    async def add_build(self, facts: BuildFacts, create_time: datetime) -> None:
        """Write a new build without versions."""
        values: list[Any] = [getattr(facts, name.strip()) for name in build_rows.FACTS.split(",")]
        places = ", ".join(f"${place}" for place in range(1, len(values) + 2))
        await self._connection.execute(
            f"INSERT INTO registry.builds ({build_rows.FACTS}, create_time) VALUES ({places})",  # noqa: S608 - constants only
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
        template: Rendering | None,
    ) -> None:
        """Write a new ready version with the exact bytes of its manifest."""
        await self._connection.execute(
            "INSERT INTO registry.versions (build, version, state, aggregate_sha256,"
            " identity_sha256, total_size_bytes, file_count, manifest, register_time, sources,"
            " template_sha256, template_fixtures)"
            " VALUES ($1, $2, 'ready', $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            build,
            manifest.version,
            manifest.aggregate_sha256,
            manifest.identity_sha256,
            manifest.total_size_bytes,
            manifest.file_count,
            data,
            register_time,
            list(sources),
            *build_rows.template_values(template),
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

    async def set_template(self, build: str, version: str, template: Rendering) -> None:
        """Write what the template of a version renders."""
        await self._connection.execute(
            "UPDATE registry.versions SET template_sha256 = $3, template_fixtures = $4"
            " WHERE build = $1 AND version = $2",
            build,
            version,
            *build_rows.template_values(template),
        )

    async def set_facts(self, facts: BuildFacts) -> None:
        """Write what is said about a build that is known."""
        names = [name.strip() for name in build_rows.FACTS.split(",")]
        changes = ", ".join(f"{name} = ${place}" for place, name in enumerate(names, 1))
        await self._connection.execute(
            f"UPDATE registry.builds SET {changes} WHERE id = $1",  # noqa: S608 - constants only
            *(getattr(facts, name) for name in names),
        )

    async def set_states(self, build: str, versions: Sequence[Version]) -> None:
        """Write the states of these versions, in this order."""
        await self._connection.executemany(
            "UPDATE registry.versions SET state = $3 WHERE build = $1 AND version = $2",
            [(build, version.version, version.state.value) for version in versions],
        )

    async def put_alias(self, alias: Alias) -> None:
        """Write an alias, new or not."""
        await name_rows.put_alias(self._connection, alias)

    async def delete_alias(self, alias_id: str) -> None:
        """Forget a name of either kind."""
        await name_rows.delete(self._connection, alias_id)

    async def name_taken(self, name: str) -> bool:
        """Return whether a name of either kind is called so."""
        found = await self.alias(name) or await self.marketplace_alias(name)
        return found is not None

    async def marketplace_alias(self, alias_id: str) -> MarketplaceAlias | None:
        """Return a name for marketplaces, if there is one."""
        return await name_rows.marketplace_alias(self._connection, alias_id)

    async def marketplace_aliases_of(self, source_model: str) -> Sequence[str]:
        """Return the names for marketplaces that follow a model."""
        return await name_rows.followers(self._connection, source_model)

    async def put_marketplace_alias(self, alias: MarketplaceAlias) -> None:
        """Write a name for marketplaces, new or not."""
        await name_rows.put_marketplace_alias(self._connection, alias)

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

    async def running_downloads(self, since: datetime) -> int:
        """Return how many machines said since then that they fetch."""
        return await rollout_rows.running_downloads(self._connection, since)

    async def granted_downloads(self, since: datetime) -> int:
        """Return how many were given leave since then."""
        return await rollout_rows.granted_downloads(self._connection, since)

    async def put_grant(self, session: str, sequence: int, machines: int, now: datetime) -> None:
        """Write leave that is given."""
        await rollout_rows.put_grant(self._connection, session, sequence, machines, now)

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
