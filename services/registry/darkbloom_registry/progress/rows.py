"""Readers of the catalog and what their machines hold, as rows of one transaction."""

from collections.abc import Sequence
from datetime import datetime

from darkbloom_mesh.postgres import Connection

from darkbloom_registry.progress.readers import LIFETIME, LIVE, Holding, Reader


async def put(connection: Connection, reader: Reader) -> None:
    """Write where a replica stands and what its machines hold now."""
    await connection.execute(
        "DELETE FROM registry.readers WHERE confirm_time < $1", reader.confirm_time - LIFETIME
    )
    await connection.execute(
        "INSERT INTO registry.readers (session, room, replica, generation, confirm_time)"
        " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (session) DO UPDATE"
        " SET room = $2, replica = $3, generation = $4, confirm_time = $5",
        reader.session,
        reader.room,
        reader.replica,
        reader.generation,
        reader.confirm_time,
    )
    await connection.execute("DELETE FROM registry.holdings WHERE session = $1", reader.session)
    await connection.executemany(
        "INSERT INTO registry.holdings (session, build, wished, holding, current, warm)"
        " VALUES ($1, $2, $3, $4, $5, $6)",
        [
            (reader.session, one.build, one.wished, one.holding, one.current, one.warm)
            for one in reader.holdings
        ],
    )


async def remove(connection: Connection, session: str) -> None:
    """Forget a replica that leaves."""
    await connection.execute("DELETE FROM registry.readers WHERE session = $1", session)


async def known(connection: Connection, now: datetime) -> Sequence[Reader]:
    """Return who still counts, the silent ones without what their machines held."""
    rows = await connection.fetch(
        "SELECT *, confirm_time < $1 AS silent FROM registry.readers WHERE confirm_time >= $2",
        now - LIVE,
        now - LIFETIME,
    )
    held: dict[str, list[Holding]] = {row["session"]: [] for row in rows if not row["silent"]}
    for row in await connection.fetch(
        "SELECT * FROM registry.holdings WHERE session = ANY($1) ORDER BY build", list(held)
    ):
        found = dict(row)
        held[found.pop("session")].append(Holding(**found))
    return tuple(Reader(**dict(row), holdings=tuple(held.get(row["session"], ()))) for row in rows)
