"""Webhooks that were taken, and which of them have yet to act."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from darkbloom_billing.payments.model import EventSource, StripeEvent, WaitingEvent
from darkbloom_billing.store.database import Connection, Database

_ADD = """
    INSERT INTO billing.stripe_event (event_id, source, kind, object_id, stripe_account,
      payload_hash, facts, happened_at, received_at, next_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb, $8, $9, $9)
    ON CONFLICT (event_id) DO NOTHING RETURNING true
"""
_HASH = "SELECT payload_hash FROM billing.stripe_event WHERE event_id = $1"
# Claimed before it acts: a replica that dies leaves the event to whoever comes after the claim.
_CLAIM = """
    UPDATE billing.stripe_event SET tries = tries + 1, next_at = $2
    WHERE event_id IN (
      SELECT event_id FROM billing.stripe_event WHERE state = 'waiting' AND next_at <= $1
      ORDER BY next_at, happened_at LIMIT $3 FOR UPDATE SKIP LOCKED)
    RETURNING *
"""
_END = "UPDATE billing.stripe_event SET state = $2, problem = $3 WHERE event_id = $1"
_AGAIN = "UPDATE billing.stripe_event SET next_at = $2, problem = $3 WHERE event_id = $1"
_WAITING = """
    SELECT event_id, kind, problem, state, object_id, facts, received_at FROM billing.stripe_event
    WHERE state <> 'done' ORDER BY received_at LIMIT $1
"""


class PostgresEvents:
    """One row for each event, written before anything acts on it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, event: StripeEvent, source: EventSource, *, now: datetime) -> bool | None:
        """Write an event down; False: it is known. None: its id came before with other contents."""

        async def work(connection: Connection) -> bool | None:
            added = await connection.fetchval(
                _ADD,
                event.event_id,
                source.value,
                event.kind,
                event.object_id,
                event.stripe_account,
                event.payload_hash,
                json.dumps(event.facts),
                event.happened_at,
                now,
            )
            if added:
                return True
            known = await connection.fetchval(_HASH, event.event_id)
            return False if known == event.payload_hash else None

        return await self._database.run(work)

    async def claim(self, *, now: datetime, until: datetime, limit: int) -> list[WaitingEvent]:
        """Return events that are due, oldest first, and keep others away from them until a time."""
        rows = await self._fetch(_CLAIM, now, until, limit)
        waiting = [
            WaitingEvent(
                event=StripeEvent(
                    event_id=row["event_id"],
                    kind=row["kind"],
                    object_id=row["object_id"],
                    stripe_account=row["stripe_account"],
                    facts=json.loads(row["facts"]),
                    payload_hash=row["payload_hash"],
                    happened_at=row["happened_at"],
                ),
                source=EventSource(row["source"]),
                tries=row["tries"],
                received_at=row["received_at"],
            )
            for row in rows
        ]
        return sorted(waiting, key=lambda each: (each.event.happened_at, each.event.event_id))

    async def done(self, event_id: str) -> None:
        """Note that an event has acted."""
        await self._fetch(_END, event_id, "done", "")

    async def stuck(self, event_id: str, problem: str) -> None:
        """Note that an event cannot act: a person looks."""
        await self._fetch(_END, event_id, "stuck", problem)

    async def again(self, event_id: str, problem: str, *, at: datetime) -> None:
        """Note that an event acts later."""
        await self._fetch(_AGAIN, event_id, at, problem)

    async def unfinished(self, limit: int) -> list[dict[str, Any]]:
        """Return events that have not acted, oldest first."""
        rows = await self._fetch(_WAITING, limit)
        return [{**row, "facts": json.loads(row["facts"])} for row in rows]

    async def _fetch(self, statement: str, *arguments: object) -> Sequence[Any]:
        async def work(connection: Connection) -> Sequence[Any]:
            return await connection.fetch(statement, *arguments)

        return await self._database.run(work)


CLAIM = timedelta(seconds=60)
"""How long an event is one replica's alone."""
