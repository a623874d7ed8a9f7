"""Names of both kinds as rows, each in its caller's transaction."""

from collections.abc import Sequence

import asyncpg
from darkbloom_mesh.postgres import Connection

from darkbloom_registry.model import Alias, MarketplaceAlias


async def alias(connection: Connection, alias_id: str) -> Alias | None:
    """Return an alias, if there is one."""
    row = await connection.fetchrow("SELECT * FROM registry.aliases WHERE alias_id = $1", alias_id)
    return None if row is None else _alias(row)


async def active_aliases(connection: Connection) -> Sequence[Alias]:
    """Return those that are in the catalog, by id."""
    rows = await connection.fetch("SELECT * FROM registry.aliases WHERE active ORDER BY alias_id")
    return tuple(map(_alias, rows))


async def aliases(connection: Connection, after: str, limit: int) -> Sequence[Alias]:
    """Return aliases whose id follows `after`, by id; inactive ones too."""
    rows = await connection.fetch(
        "SELECT * FROM registry.aliases WHERE alias_id > $1 ORDER BY alias_id LIMIT $2",
        after,
        limit,
    )
    return tuple(map(_alias, rows))


async def put_alias(connection: Connection, alias: Alias) -> None:
    """Write an alias, new or not."""
    await connection.execute(
        "INSERT INTO registry.aliases (alias_id, display_name, desired_build, previous_build,"
        " active, traffic_percent, retired_builds, takeover)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
        " ON CONFLICT (alias_id) DO UPDATE SET display_name = $2, desired_build = $3,"
        " previous_build = $4, active = $5, traffic_percent = $6, retired_builds = $7,"
        " takeover = $8",
        alias.alias_id,
        alias.display_name,
        alias.desired_build,
        alias.previous_build or None,
        alias.active,
        alias.traffic_percent,
        alias.retired_builds,
        alias.takeover,
    )


async def marketplace_alias(connection: Connection, alias_id: str) -> MarketplaceAlias | None:
    """Return a name for marketplaces, if there is one."""
    row = await connection.fetchrow(
        "SELECT * FROM registry.marketplace_aliases WHERE alias_id = $1", alias_id
    )
    return None if row is None else MarketplaceAlias(**dict(row))


async def active_marketplace_aliases(connection: Connection) -> Sequence[MarketplaceAlias]:
    """Return those that are in the catalog, by id."""
    rows = await connection.fetch(
        "SELECT * FROM registry.marketplace_aliases WHERE active ORDER BY alias_id"
    )
    return tuple(MarketplaceAlias(**dict(row)) for row in rows)


async def marketplace_aliases(
    connection: Connection, after: str, limit: int
) -> Sequence[MarketplaceAlias]:
    """Return names for marketplaces whose id follows `after`, by id; inactive ones too."""
    rows = await connection.fetch(
        "SELECT * FROM registry.marketplace_aliases WHERE alias_id > $1 ORDER BY alias_id LIMIT $2",
        after,
        limit,
    )
    return tuple(MarketplaceAlias(**dict(row)) for row in rows)


async def followers(connection: Connection, source_model: str) -> Sequence[str]:
    """Return the names for marketplaces that follow a model."""
    rows = await connection.fetch(
        "SELECT alias_id FROM registry.marketplace_aliases WHERE source_model = $1"
        " ORDER BY alias_id",
        source_model,
    )
    return tuple(row["alias_id"] for row in rows)


async def put_marketplace_alias(connection: Connection, alias: MarketplaceAlias) -> None:
    """Write a name for marketplaces, new or not."""
    await connection.execute(
        "INSERT INTO registry.marketplace_aliases (alias_id, display_name, source_model,"
        " marketplace_slug, hugging_face_id, active) VALUES ($1, $2, $3, $4, $5, $6)"
        " ON CONFLICT (alias_id) DO UPDATE SET display_name = $2, source_model = $3,"
        " marketplace_slug = $4, hugging_face_id = $5, active = $6",
        alias.alias_id,
        alias.display_name,
        alias.source_model,
        alias.marketplace_slug,
        alias.hugging_face_id,
        alias.active,
    )


async def delete(connection: Connection, alias_id: str) -> None:
    """Forget a name of either kind."""
    await connection.execute("DELETE FROM registry.aliases WHERE alias_id = $1", alias_id)
    await connection.execute(
        "DELETE FROM registry.marketplace_aliases WHERE alias_id = $1", alias_id
    )


def _alias(row: asyncpg.Record) -> Alias:
    found = dict(row)
    found["previous_build"] = found["previous_build"] or ""
    found["retired_builds"] = tuple(found["retired_builds"])
    return Alias(**found)
