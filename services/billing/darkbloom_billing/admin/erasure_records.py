"""Erasures and the records of them outside: written at each step, repeated after a restore."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from typing import Any

import structlog
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError

from darkbloom_billing.admin.actions import record
from darkbloom_billing.admin.erasure import GRACE_KEEPER, Erasures, count
from darkbloom_billing.admin.erasure_log import ErasureLog, ErasureRecord, Step, file_name
from darkbloom_billing.admin.model import Action, ErasureState
from darkbloom_billing.store.database import Connection, Database

_STATES = """
    SELECT erasure_id, state FROM billing.erasure WHERE scrub_after IS NOT NULL
    ORDER BY planned_at, erasure_id
"""
_WHOLE = """
    SELECT erasure_id, account_id, state, forfeit, planned_at, scrub_after, proof
    FROM billing.erasure WHERE erasure_id = ANY ($1)
"""
_AGAIN = """
    INSERT INTO billing.erasure (erasure_id, request_id, account_id, state, token_hash, plan,
      planned_at)
    VALUES ($1, $1, $2, 'planned', $3, $4::jsonb, $5)
"""
_OTHERS = """
    UPDATE billing.erasure SET state = 'canceled'
    WHERE account_id = $1 AND erasure_id <> $2 AND state IN ('planned', 'pending')
"""
_CANCELED = """
    UPDATE billing.erasure e SET state = 'canceled'
    FROM billing.erasure old
    WHERE e.erasure_id = $1 AND e.state IN ('planned', 'pending')
      AND old.erasure_id = e.erasure_id
    RETURNING old.state
"""
_WRITE_S = 20.0
_HASH_BYTES = 32
_AT_ONCE = 500
_log = structlog.get_logger()


class Keeper:
    """Writes the steps of erasures down outside the database.

    Args:
        database: Where erasures are.
        log: Where records go.
    """

    def __init__(self, database: Database, log: ErasureLog) -> None:
        self._database = database
        self._log = log

    async def keep(self) -> None:
        """Write down outside what is not there yet; what fails is tried again in the next round."""
        try:
            async with asyncio.timeout(_WRITE_S):
                known = await asyncio.to_thread(self._log.names)
            async for row in self._missing(known):
                for each in _records(row):
                    if each.name not in known:
                        async with asyncio.timeout(_WRITE_S):
                            await asyncio.to_thread(self._log.write, each)
        except (OSError, ValueError, MeshError) as error:
            # The step is taken whether or not it is written down outside by now.
            _log.error("erasures_not_exported", error=type(error).__name__)

    async def _missing(self, known: frozenset[str]) -> AsyncIterator[Any]:
        """Yield the rows of which a record is missing, at most a page of them."""

        async def states(connection: Connection) -> list[Any]:
            return await connection.fetch(_STATES)

        missing = [
            row["erasure_id"]
            for row in await self._database.run(states)
            if not {file_name(row["erasure_id"], step) for step in _steps(row["state"])} <= known
        ]

        async def whole(connection: Connection) -> list[Any]:
            return await connection.fetch(_WHOLE, missing[:_AT_ONCE])

        for row in await self._database.run(whole) if missing else []:
            yield row


async def replay(erasures: Erasures, database: Database, clock: Clock, kept: ErasureRecord) -> str:
    """Let a restored database know of an erasure that was confirmed outside its memory.

    Returns:
        `known`: it is here, as far as it got. `absent`: the account is not here. `canceled`.
        `pending`: confirmed again, within its grace. `erased`: erased again, now.

    Raises:
        OperatorRefusedError: Money moves; repeat once it has come to rest.
    """
    now = clock.now()

    async def work(connection: Connection) -> str:
        async with connection.transaction():
            if not await connection.fetchval(
                "SELECT true FROM billing.account WHERE account_id = $1 FOR NO KEY UPDATE",
                kept.account_id,
            ):
                return "absent"
            state = await connection.fetchval(
                "SELECT state FROM billing.erasure WHERE erasure_id = $1", kept.erasure_id
            )
            if state in {ErasureState.PENDING, ErasureState.ERASED, ErasureState.CANCELED}:
                return str(state)
            # One that the restore left open was over before this one could be confirmed.
            await connection.execute(_OTHERS, kept.account_id, kept.erasure_id)
            if state is None:
                plan = await count(connection, kept.account_id)
                await connection.execute(
                    _AGAIN,
                    kept.erasure_id,
                    kept.account_id,
                    # Nobody has the token of this plan: it is confirmed by its record.
                    secrets.token_bytes(_HASH_BYTES),
                    json.dumps(plan),
                    kept.planned_at,
                )
            # What came back with the restore belongs to nobody: they had spent or left it.
            await connection.execute(
                "UPDATE billing.erasure SET state = 'pending', forfeit = $2, scrub_after = $3 "
                "WHERE erasure_id = $1",
                kept.erasure_id,
                kept.forfeit or kept.step is Step.ERASED,
                kept.scrub_after,
            )
            await connection.execute("SELECT billing.close_account($1, $2)", kept.account_id, now)
            action = Action(
                operator=GRACE_KEEPER,
                action="erasure.replay",
                subject=kept.account_id,
                request_id=kept.erasure_id,
                before={},
                after={"step": kept.step.value, "scrub_after": kept.scrub_after.isoformat()},
            )
            await record(connection, action, now=now)
            return "again"

    if kept.step is Step.CANCELED:
        await _cancel_again(database, clock, kept)
        return "canceled"
    found = await database.run(work)
    if found in {"absent", "canceled", ErasureState.ERASED.value}:
        return "known" if found == ErasureState.ERASED.value else found
    if kept.step is Step.ERASED or kept.scrub_after <= now:
        await erasures.scrub(kept.erasure_id)
        return "erased"
    return "known" if found == ErasureState.PENDING.value else "pending"


async def _cancel_again(database: Database, clock: Clock, kept: ErasureRecord) -> None:
    """Take back what the restore has brought back; what was never there stays away."""
    now = clock.now()

    async def work(connection: Connection) -> None:
        async with connection.transaction():
            state = await connection.fetchval(_CANCELED, kept.erasure_id)
            if state is None:
                return
            if state == ErasureState.PENDING:
                await connection.execute("SELECT billing.reopen_account($1)", kept.account_id)
            action = Action(
                operator=GRACE_KEEPER,
                action="erasure.replay",
                subject=kept.account_id,
                request_id=kept.erasure_id,
                before={"state": state},
                after={"step": kept.step.value},
            )
            await record(connection, action, now=now)

    await database.run(work)


def _steps(state: str) -> tuple[Step, ...]:
    """Return every step that an erasure has behind it."""
    return {
        ErasureState.PENDING.value: (Step.CONFIRMED,),
        ErasureState.CANCELED.value: (Step.CONFIRMED, Step.CANCELED),
        ErasureState.ERASED.value: (Step.CONFIRMED, Step.ERASED),
    }.get(state, ())


def _records(row: Mapping[str, Any]) -> list[ErasureRecord]:
    proof = json.loads(row["proof"]) if row["proof"] else None
    return [
        ErasureRecord(
            erasure_id=row["erasure_id"],
            account_id=row["account_id"],
            step=step,
            forfeit=row["forfeit"],
            planned_at=row["planned_at"],
            scrub_after=row["scrub_after"],
            proof=proof if step is Step.ERASED else None,
        )
        for step in _steps(row["state"])
    ]
