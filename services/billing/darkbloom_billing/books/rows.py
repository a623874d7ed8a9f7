"""What commands read and write beside the ledger: earnings, bonuses, dispute holds, states."""

from collections.abc import Sequence
from datetime import datetime

from darkbloom_billing.books.model import PAYABLE, Funded, Lost, Share
from darkbloom_billing.store.database import Connection

_FUNDED = "SELECT * FROM billing.funded_by($1)"
_HOLD = """
    INSERT INTO billing.dispute_hold (dispute_id, request_id, account_id, amount_micros)
    SELECT $1, h.* FROM unnest($2::text[], $3::text[], $4::bigint[]) AS h
"""
_HELD = """
    SELECT request_id, account_id, amount_micros AS amount FROM billing.dispute_hold
    WHERE dispute_id = $1 AND ended_at IS NULL ORDER BY request_id
"""
_END_HOLDS = """
    UPDATE billing.dispute_hold h SET lost_micros = l.lost, ended_at = $4
    FROM unnest($2::text[], $3::bigint[]) AS l (request_id, lost)
    WHERE h.dispute_id = $1 AND h.request_id = l.request_id
"""
_LOSE = """
    UPDATE billing.earning n SET lost_micros = n.lost_micros + l.lost,
      matured_at = CASE WHEN n.lost_micros + l.lost = n.amount_micros THEN $3::timestamptz END
    FROM unnest($1::text[], $2::bigint[]) AS l (request_id, lost)
    WHERE n.request_id = l.request_id AND l.lost > 0
"""
_LOST = """
    SELECT h.request_id, h.account_id, h.lost_micros AS amount, n.matured_at IS NOT NULL AS matured
    FROM billing.dispute_hold h JOIN billing.earning n USING (request_id)
    WHERE h.dispute_id = $1 AND h.lost_micros > 0 ORDER BY h.request_id
"""
_GIVE_BACK = (
    """UPDATE billing.dispute_hold h SET lost_micros = h.lost_micros - b.back
       FROM unnest($2::text[], $3::bigint[]) AS b (request_id, back)
       WHERE h.dispute_id = $1 AND h.request_id = b.request_id""",
    """UPDATE billing.earning n SET lost_micros = n.lost_micros - b.back
       FROM unnest($2::text[], $3::bigint[]) AS b (request_id, back)
       WHERE n.request_id = b.request_id AND $1 <> ''""",
)
_REINSTATED = """
    SELECT coalesce(sum((body ->> 'amount')::bigint), 0)::bigint FROM ledger.event
    WHERE idem_key >= $1 || ':' AND idem_key < $1 || ';' AND kind = 'dispute_reinstated'
"""
# An earning is due when it is old enough, its countersigned record is here, and no dispute holds a
# part of it.
_DUE_EARNING = """
    n.matured_at IS NULL AND n.settled_at <= $1
    AND EXISTS (SELECT FROM billing.receipt r WHERE r.request_id = n.request_id)
    AND NOT EXISTS (SELECT FROM billing.dispute_hold h
      WHERE h.request_id = n.request_id AND h.ended_at IS NULL)
"""
_UNMATURED = f"""
    SELECT n.request_id AS source, n.amount_micros - n.lost_micros AS amount
    FROM billing.earning n WHERE {_DUE_EARNING}
      AND n.account_id = $3 AND n.request_id = ANY ($4)
    UNION ALL
    SELECT b.bonus_id, b.amount_micros - b.lost_micros FROM billing.bonus b
    WHERE b.matured_at IS NULL AND b.matures_at <= $2
      AND b.account_id = $3 AND b.bonus_id = ANY ($4)
"""  # noqa: S608 - our own words
_DUE = f"""
    (SELECT n.account_id, n.request_id AS source FROM billing.earning n WHERE {_DUE_EARNING}
       AND n.account_id <> ALL ($4) ORDER BY n.settled_at LIMIT $3)
    UNION ALL
    (SELECT b.account_id, b.bonus_id FROM billing.bonus b
     WHERE b.matured_at IS NULL AND b.matures_at <= $2
       AND b.account_id <> ALL ($4) ORDER BY b.matures_at LIMIT $3)
"""  # noqa: S608 - our own words
_MARK = (
    "UPDATE billing.earning SET matured_at = $2 WHERE request_id = ANY ($1)",
    "UPDATE billing.bonus SET matured_at = $2 WHERE bonus_id = ANY ($1)",
)
_FORFEIT = (
    """UPDATE billing.earning SET lost_micros = amount_micros, matured_at = $2
       WHERE account_id = $1 AND matured_at IS NULL""",
    """UPDATE billing.bonus SET lost_micros = amount_micros, matured_at = $2
       WHERE account_id = $1 AND matured_at IS NULL""",
    "UPDATE billing.account SET frozen_at = coalesce(frozen_at, $2) WHERE account_id = $1",
)
_DEBTORS = """
    SELECT a.account_id FROM billing.account a
    JOIN ledger.account o ON o.id = a.debt_id AND o.dr > o.cr
    JOIN ledger.account c ON c.id = a.credit_id
    JOIN ledger.account e ON e.id = a.earned_id
    WHERE c.cr > c.dr + c.dr_pend OR e.cr > e.dr + e.dr_pend
    ORDER BY a.account_id
"""
_BUSY = """
    SELECT coalesce(bool_or(l.dr_pend + l.cr_pend > 0), false) FROM billing.account a
    JOIN ledger.account l
      ON l.id IN (a.promo_id, a.credit_id, a.earned_id, a.charge_id, a.maturing_id)
    WHERE a.account_id = $1
"""


async def traced(connection: Connection, event_key: str) -> list[Funded]:
    """Return the unmatured earnings that a deposit funded, in one order for everybody."""
    return [Funded(**dict(row)) for row in await connection.fetch(_FUNDED, event_key)]


async def hold_earnings(connection: Connection, dispute_id: str, shares: Sequence[Share]) -> None:
    """Remember what a dispute holds."""
    await connection.execute(
        _HOLD,
        dispute_id,
        [share.request_id for share in shares],
        [share.account_id for share in shares],
        [share.amount for share in shares],
    )


async def held_shares(connection: Connection, dispute_id: str) -> list[Share]:
    """Return what an open dispute holds."""
    return [Share(**dict(row)) for row in await connection.fetch(_HELD, dispute_id)]


async def known_requests(connection: Connection, dispute_id: str) -> set[str]:
    """Return the requests that a dispute holds or held."""
    rows = await connection.fetch(
        "SELECT request_id FROM billing.dispute_hold WHERE dispute_id = $1", dispute_id
    )
    return {row["request_id"] for row in rows}


async def decision(connection: Connection, dispute_id: str) -> str | None:
    """Return how a dispute ended: `dispute_won`, `dispute_lost`, or None while it is open."""
    key = f"resolve:dispute-{dispute_id}"
    found = await connection.fetchval("SELECT kind FROM ledger.event WHERE idem_key = $1", key)
    return None if found is None else str(found)


async def end_holds(
    connection: Connection, dispute_id: str, shares: Sequence[Share], now: datetime
) -> None:
    """Remember what a decided dispute took of each earning; the rest may mature."""
    requests = [share.request_id for share in shares]
    lost = [share.lost for share in shares]
    await connection.execute(_END_HOLDS, dispute_id, requests, lost, now)
    await connection.execute(_LOSE, requests, lost, now)


async def lost_by(connection: Connection, dispute_id: str) -> list[Lost]:
    """Return what payees lost by a dispute and did not get back."""
    return [Lost(**dict(row)) for row in await connection.fetch(_LOST, dispute_id)]


async def reinstated(connection: Connection, dispute_id: str) -> int:
    """Return what came back of a lost dispute so far, in micro-USD."""
    key = f"dispute-reinstated:{dispute_id}"
    return int(await connection.fetchval(_REINSTATED, key))


async def give_back(connection: Connection, dispute_id: str, shares: Sequence[Share]) -> None:
    """Remember what payees got back."""
    requests = [share.request_id for share in shares]
    for statement in _GIVE_BACK:
        back = [share.lost for share in shares]
        await connection.execute(statement, dispute_id, requests, back)


async def due_earnings(
    connection: Connection, *, due: datetime, now: datetime, limit: int, without: Sequence[str]
) -> dict[str, list[str]]:
    """Return the oldest earnings and bonuses that may mature, by account, but for some accounts."""
    found: dict[str, list[str]] = {}
    for row in await connection.fetch(_DUE, due, now, limit, list(without)):
        found.setdefault(row["account_id"], []).append(row["source"])
    return found


async def unmatured(
    connection: Connection, account_id: str, sources: Sequence[str], *, due: datetime, now: datetime
) -> dict[str, int]:
    """Return what each of the named earnings and bonuses that are due is worth."""
    rows = await connection.fetch(_UNMATURED, due, now, account_id, list(sources))
    return {row["source"]: row["amount"] for row in rows}


async def mark_matured(connection: Connection, sources: Sequence[str], now: datetime) -> None:
    """Remember that these have matured."""
    for statement in _MARK:
        await connection.execute(statement, sources, now)


async def forfeit_earnings(connection: Connection, account_id: str, now: datetime) -> None:
    """Remember that nothing of an erased account will mature, and freeze it."""
    for statement in _FORFEIT:
        await connection.execute(statement, account_id, now)


async def able_debtors(connection: Connection) -> list[str]:
    """Return accounts that owe and have money to pay with."""
    return [row["account_id"] for row in await connection.fetch(_DEBTORS)]


async def is_frozen(connection: Connection, account_id: str) -> bool:
    """Say whether an account owes or was frozen; an unknown one is not."""
    return bool(await connection.fetchval("SELECT billing.frozen($1)", account_id))


async def is_sound(connection: Connection) -> bool:
    """Say whether the auditor knows of no open violation."""
    state = await connection.fetchval("SELECT violations = '[]' FROM billing.audit_state")
    return bool(state)


async def leaving(connection: Connection) -> int:
    """Return what is on its way out and will be owed to Stripe once it arrived, in micro-USD."""
    return int(
        await connection.fetchval("SELECT cr_pend FROM ledger.account WHERE path = $1", PAYABLE)
    )


async def is_busy(connection: Connection, account_id: str) -> bool:
    """Say whether a hold, withdrawal or dispute of an account waits for its end."""
    return bool(await connection.fetchval(_BUSY, account_id))
