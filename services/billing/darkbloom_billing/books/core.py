"""The one shape of a rare command: a transaction under one key that may be repeated.

Lock the key, answer a replay; lock the accounts in id order; read what is free; let a pure plan
say what to write; write event, transfers and side rows; commit. A lost connection, a deadlock or a
commit of unknown fate is repeated by `Database.run` with the same key.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeAlias, TypeVar

from darkbloom_mesh.errors import ConflictError, NotFoundError, StoreUnavailableError

from darkbloom_billing.books.draft import Draft
from darkbloom_billing.books.model import Json, Leg, Outcome, Pending, Plan
from darkbloom_billing.store.database import Connection, Database

F = TypeVar("F")
Also: TypeAlias = Callable[[Connection], Awaitable[object]]
"""Writes side rows in the transaction of a command; not called again for a replay."""

_ROUNDS = 5
_KEY_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"
_STORED = "SELECT body_hash, result FROM ledger.event WHERE idem_key = $1"
_ACCOUNTS = "SELECT id, path FROM ledger.account WHERE path = ANY ($1)"
_LOCK = "SELECT ledger.lock_accounts($1)"
# Read after the locks, in a statement of its own: one snapshot earlier would show old balances.
_FREE = """
    SELECT id, path, class, unit, CASE normal WHEN 'C' THEN cr - dr - dr_pend
      ELSE dr - cr - cr_pend END AS free
    FROM ledger.account WHERE id = ANY ($1)
"""
_EVENT = """
    INSERT INTO ledger.event (idem_key, kind, body_hash, body, result, occurred_at)
    VALUES ($1, $2, $3, $4, $5, $6) RETURNING id
"""
_TRANSFERS = """
    INSERT INTO ledger.transfer (event_id, mode, code, unit, debit_id, debit_class,
      credit_id, credit_class, amount, pending_id)
    SELECT $1, l.mode, l.code, d.unit, d.id, d.class, c.id, c.class, l.amount, l.pending_id
    FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
      WITH ORDINALITY AS l (mode, code, debit_id, credit_id, amount, pending_id, n)
    JOIN ledger.account d ON d.id = l.debit_id JOIN ledger.account c ON c.id = l.credit_id
    ORDER BY l.n
"""
_PENDING = """
    SELECT t.id, t.code, d.path AS debit, c.path AS credit, t.amount
    FROM ledger.event e JOIN ledger.transfer t ON t.event_id = e.id AND t.mode = 'pending'
    JOIN ledger.account d ON d.id = t.debit_id JOIN ledger.account c ON c.id = t.credit_id
    WHERE e.idem_key = $1 AND NOT EXISTS (SELECT FROM ledger.transfer r WHERE r.pending_id = t.id)
    ORDER BY t.id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command(Generic[F]):
    """One command, of which only the plan knows what it means.

    Equal keys are the same command; equal `body` and `kind` make the repetition a replay.
    """

    key: str
    kind: str
    body: Mapping[str, Json]
    accounts: Callable[[F], Iterable[str]]
    """Paths of every account that the plan reads or writes."""
    facts: Callable[[Connection], Awaitable[F]]
    """What the plan must know besides balances; read before the locks and again under them."""
    plan: Callable[[Draft, F], Plan]
    effects: Callable[[Connection, F], Awaitable[object]] | None = None
    """Side rows of the command itself, in its transaction."""


async def nothing(_connection: Connection) -> None:
    """Return the facts of a command that needs none."""


class _AccountsGrewError(Exception):
    """Between the first look and the locks another account came into it."""


async def run(
    database: Database, command: Command[F], *, now: datetime, also: Also | None = None
) -> Outcome:
    """Run a command once, however often it is delivered.

    Raises:
        ConflictError: The key came before with other contents.
        NotFoundError: An account does not exist.
        MeshError: Whatever the plan refuses; nothing is written then.
        StoreUnavailableError: The store does not answer; whether it was written is unknown, and
            repeating is safe.
    """

    async def work(connection: Connection) -> Outcome:
        async with connection.transaction():
            return await _execute(connection, command, now, also)

    for _ in range(_ROUNDS):
        try:
            return await database.run(work)
        except _AccountsGrewError:
            continue
    raise StoreUnavailableError("accounts of the command keep changing")


async def pending_of(connection: Connection, key: str) -> list[Pending]:
    """Return the pending transfers of an event that have no end yet, oldest first."""
    return [Pending(**dict(row)) for row in await connection.fetch(_PENDING, key)]


async def body_of(connection: Connection, key: str, what: str) -> dict[str, Any]:
    """Return the body of an event.

    Raises:
        NotFoundError: There is none; `what` names it.
    """
    body = await connection.fetchval("SELECT body FROM ledger.event WHERE idem_key = $1", key)
    if body is None:
        raise NotFoundError(f"no such {what}")
    return dict(json.loads(body))


def digest(kind: str, body: Mapping[str, Json]) -> bytes:
    """Return what makes two deliveries of a key the same command."""
    return hashlib.sha256(f"{kind}\n{_text(body)}".encode()).digest()


async def _execute(
    connection: Connection, command: Command[F], now: datetime, also: Also | None
) -> Outcome:
    await connection.execute(_KEY_LOCK, command.key)
    hashed = digest(command.kind, command.body)
    stored = await connection.fetchrow(_STORED, command.key)
    if stored is not None:
        if stored["body_hash"] != hashed:
            raise ConflictError("the same key came before with other contents")
        return Outcome(result=json.loads(stored["result"]), replayed=True)

    paths = sorted(set(command.accounts(await command.facts(connection))))
    ids = [row["id"] for row in await connection.fetch(_ACCOUNTS, paths)]
    if len(ids) != len(paths):
        raise NotFoundError("no such account")
    await connection.execute(_LOCK, ids)

    facts = await command.facts(connection)
    if not set(command.accounts(facts)) <= set(paths):
        raise _AccountsGrewError
    rows = await connection.fetch(_FREE, ids)
    plan = command.plan(Draft({row["path"]: row["free"] for row in rows}), facts)
    if plan.skipped:
        return Outcome(result=plan.result)

    event = await connection.fetchval(
        _EVENT,
        command.key,
        command.kind,
        hashed,
        _text(command.body),
        _text(dict(plan.result)),
        now,
    )
    if plan.legs:
        await _transfer(connection, event, plan.legs, {row["path"]: row["id"] for row in rows})
    if command.effects is not None:
        await command.effects(connection, facts)
    if also is not None:
        await also(connection)
    return Outcome(result=plan.result)


async def _transfer(
    connection: Connection, event: int, legs: Sequence[Leg], ids: Mapping[str, int]
) -> None:
    await connection.execute(
        _TRANSFERS,
        event,
        [leg.mode for leg in legs],
        [leg.code for leg in legs],
        [ids[leg.debit] for leg in legs],
        [ids[leg.credit] for leg in legs],
        [leg.amount for leg in legs],
        [leg.pending_id for leg in legs],
    )


def _text(body: Mapping[str, Json]) -> str:
    return json.dumps(body, sort_keys=True, separators=(",", ":"))
