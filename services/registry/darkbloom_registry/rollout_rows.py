"""Rollouts, reporters and model states as rows, each in its caller's transaction."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import asyncpg
from darkbloom_mesh.postgres import Connection

from darkbloom_registry.model_states import ModelStage, ModelState
from darkbloom_registry.rollouts import LIVE, Counts, Gates, Rollout, RolloutState

KEEP = timedelta(days=1)
"""How long a silent router's sequence, and a machine's state, are kept."""
_GATES = (
    "min_requests",
    "soak",
    "min_success_percent",
    "max_load_failures",
    "max_ttft_p95",
    "max_untrusted",
)
_COUNTS = ("successes", "failures", "load_failures", "untrusted", "ttft_buckets")
_PLAIN = (
    "rollout_id",
    "alias",
    "from_build",
    "to_build",
    "steps",
    "step",
    "state",
    "reason",
    "actor",
    "create_time",
    "step_time",
    "update_time",
    "previous_build",
    "step_generation",
)
_COLUMNS = (*_PLAIN, *_GATES, *_COUNTS)
_LIVE = [state.value for state in LIVE]


async def one(connection: Connection, rollout_id: str) -> Rollout | None:
    """Return a rollout, if there is one."""
    row = await connection.fetchrow(
        "SELECT * FROM registry.rollouts WHERE rollout_id = $1", rollout_id
    )
    return None if row is None else _rollout(row)


async def live(connection: Connection) -> Sequence[Rollout]:
    """Return those between two builds."""
    rows = await connection.fetch("SELECT * FROM registry.rollouts WHERE state = ANY($1)", _LIVE)
    return tuple(map(_rollout, rows))


async def page(connection: Connection, alias: str, before: str, limit: int) -> Sequence[Rollout]:
    """Return rollouts older than `before` (an id; empty: all), newest first."""
    rows = await connection.fetch(
        "SELECT * FROM registry.rollouts WHERE ($1 = '' OR alias = $1) AND ($2 = '' OR"
        " (create_time, rollout_id) < (SELECT create_time, rollout_id FROM registry.rollouts"
        " WHERE rollout_id = $2)) ORDER BY create_time DESC, rollout_id DESC LIMIT $3",
        alias,
        before,
        limit,
    )
    return tuple(map(_rollout, rows))


async def put(connection: Connection, rollout: Rollout) -> None:
    """Write a rollout, new or not."""
    values: list[Any] = [getattr(rollout, name) for name in _PLAIN]
    values[_PLAIN.index("state")] = rollout.state.value
    values += [getattr(rollout.gates, name) for name in _GATES]
    values += [getattr(rollout.counts, name) for name in _COUNTS]
    places = ", ".join(f"${place}" for place in range(1, len(values) + 1))
    changes = ", ".join(f"{name} = EXCLUDED.{name}" for name in _COLUMNS[1:])
    await connection.execute(
        f"INSERT INTO registry.rollouts ({', '.join(_COLUMNS)}) VALUES ({places})"  # noqa: S608 - constants only
        f" ON CONFLICT (rollout_id) DO UPDATE SET {changes}",
        *values,
    )


async def take_report(connection: Connection, session: str, sequence: int, now: datetime) -> bool:
    """Note a report; False where it, or a later one, came before."""
    await connection.execute("DELETE FROM registry.reporters WHERE report_time < $1", now - KEEP)
    taken = await connection.fetchval(
        "INSERT INTO registry.reporters AS r (session, sequence, report_time) VALUES ($1, $2, $3)"
        " ON CONFLICT (session) DO UPDATE SET sequence = $2, report_time = $3"
        " WHERE r.sequence < $2 RETURNING true",
        session,
        sequence,
        now,
    )
    return bool(taken)


async def put_states(connection: Connection, states: Sequence[ModelState]) -> None:
    """Write how far machines are."""
    if not states:
        return
    newest_word = {(state.build, state.provider_id): state for state in states}
    rows = [
        (
            state.build,
            state.provider_id,
            state.stage.value,
            state.bytes_done,
            state.bytes_total,
            state.error,
            state.report_time,
            state.machine,
        )
        for state in newest_word.values()
    ]
    # Two statements, whatever the number of machines: everybody who writes waits for this one.
    await connection.execute(
        "DELETE FROM registry.model_states AS before"
        " USING unnest($1::text[], $2::text[], $3::text[]) AS said (build, provider_id, machine)"
        " WHERE before.build = said.build AND before.machine = said.machine"
        " AND said.machine <> '' AND before.provider_id <> said.provider_id",
        [row[0] for row in rows],
        [row[1] for row in rows],
        [row[7] for row in rows],
    )
    await connection.execute(
        "INSERT INTO registry.model_states (build, provider_id, stage, bytes_done, bytes_total,"
        " error, report_time, machine) SELECT * FROM unnest($1::text[], $2::text[], $3::text[],"
        " $4::bigint[], $5::bigint[], $6::text[], $7::timestamptz[], $8::text[])"
        " ON CONFLICT (build, provider_id) DO UPDATE SET stage = EXCLUDED.stage,"
        " bytes_done = EXCLUDED.bytes_done, bytes_total = EXCLUDED.bytes_total,"
        " error = EXCLUDED.error, report_time = EXCLUDED.report_time, machine = EXCLUDED.machine",
        *zip(*rows, strict=True),
    )
    newest = max(state.report_time for state in states)
    await connection.execute(
        "DELETE FROM registry.model_states WHERE report_time < $1", newest - KEEP
    )


async def states(
    connection: Connection, build: str, after: tuple[str, str], limit: int
) -> Sequence[ModelState]:
    """Return states by build and machine, after a pair of those."""
    rows = await connection.fetch(
        "SELECT * FROM registry.model_states WHERE ($1 = '' OR build = $1)"
        " AND (build, provider_id) > ($2, $3) ORDER BY build, provider_id LIMIT $4",
        build,
        *after,
        limit,
    )
    return tuple(map(_state, rows))


async def running_downloads(connection: Connection, since: datetime) -> int:
    """Return how many machines said since then that they fetch."""
    return int(
        await connection.fetchval(
            "SELECT count(DISTINCT provider_id) FROM registry.model_states"
            " WHERE stage IN ('started', 'downloading') AND report_time >= $1",
            since,
        )
    )


async def granted_downloads(connection: Connection, since: datetime) -> int:
    """Return how many were given leave since then; what is older is forgotten."""
    await connection.execute("DELETE FROM registry.download_grants WHERE grant_time < $1", since)
    return int(
        await connection.fetchval("SELECT coalesce(sum(machines), 0) FROM registry.download_grants")
    )


async def put_grant(
    connection: Connection, session: str, sequence: int, machines: int, now: datetime
) -> None:
    """Write leave that is given."""
    await connection.execute(
        "INSERT INTO registry.download_grants (session, sequence, machines, grant_time)"
        " VALUES ($1, $2, $3, $4)",
        session,
        sequence,
        machines,
        now,
    )


async def all_states(connection: Connection, build: str) -> Sequence[ModelState]:
    """Return what every machine said last of a build."""
    rows = await connection.fetch("SELECT * FROM registry.model_states WHERE build = $1", build)
    return tuple(map(_state, rows))


async def stage_counts(connection: Connection) -> dict[tuple[str, ModelStage], int]:
    """Return how many machines are at each stage of each build."""
    rows = await connection.fetch(
        "SELECT build, stage, count(*) AS machines FROM registry.model_states GROUP BY build, stage"
    )
    return {(row["build"], ModelStage(row["stage"])): row["machines"] for row in rows}


def _state(row: asyncpg.Record) -> ModelState:
    return ModelState(**{**dict(row), "stage": ModelStage(row["stage"])})


def _rollout(row: asyncpg.Record) -> Rollout:
    counts = {name: row[name] for name in _COUNTS}
    plain = {name: row[name] for name in _PLAIN}
    return Rollout(
        **{
            **plain,
            "steps": tuple(row["steps"]),
            "state": RolloutState(row["state"]),
            "gates": Gates(**{name: row[name] for name in _GATES}),
            "counts": Counts(**{**counts, "ttft_buckets": tuple(row["ttft_buckets"])}),
        }
    )
