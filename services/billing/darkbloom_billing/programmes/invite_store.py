"""Invites in PostgreSQL."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from darkbloom_mesh.errors import ConflictError, NotFoundError

from darkbloom_billing.programmes.errors import ProgrammeRefusedError, Refusal
from darkbloom_billing.programmes.model import Invite, NewInvite
from darkbloom_billing.store.database import Connection, Database

_INSERT = """
    INSERT INTO billing.invite (code, request_id, amount_micros, max_uses, expires_at, created_at)
    VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING
"""
_PAGE = """
    SELECT * FROM billing.invite
    WHERE $1::timestamptz IS NULL OR (created_at, code) < ($1, $2)
    ORDER BY created_at DESC, code DESC LIMIT $3
"""
_REDEEM = "INSERT INTO billing.invite_redemption VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"


class PostgresInvites:
    """Reads invites; writes happen inside the transaction of whoever pays for them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, code: str) -> Invite | None:
        """Return an invite."""

        async def work(connection: Connection) -> Any:
            return await connection.fetchrow("SELECT * FROM billing.invite WHERE code = $1", code)

        row = await self._database.run(work)
        return None if row is None else invite(row)

    async def redeemed(self, code: str, account_id: str) -> bool:
        """Say whether the account has used the invite."""

        async def work(connection: Connection) -> Any:
            return await connection.fetchval(
                "SELECT true FROM billing.invite_redemption WHERE code = $1 AND account_id = $2",
                code,
                account_id,
            )

        return bool(await self._database.run(work))

    async def page(self, *, limit: int, after: tuple[datetime, str] | None) -> list[Invite]:
        """Return invites, newest first."""

        async def work(connection: Connection) -> list[Any]:
            at, code = after or (None, "")
            return await connection.fetch(_PAGE, at, code, limit)

        return [invite(row) for row in await self._database.run(work)]


async def create(connection: Connection, new: NewInvite, *, now: datetime) -> Invite:
    """Make an invite, once per request id, inside the caller's transaction.

    Raises:
        ConflictError: The code is taken, or the request id came before with another invite.
    """
    await connection.execute(
        _INSERT, new.code, new.request_id, new.amount_micros, new.max_uses, new.expires_at, now
    )
    row = await connection.fetchrow(
        "SELECT * FROM billing.invite WHERE request_id = $1", new.request_id
    )
    if row is None:
        raise ConflictError("the code is taken")
    kept = invite(row)
    if (kept.new.amount_micros, kept.new.max_uses) != (new.amount_micros, new.max_uses):
        raise ConflictError("the same request id came before with another invite")
    return kept


async def deactivate(connection: Connection, code: str) -> tuple[bool, Invite]:
    """Stop an invite inside the caller's transaction; return whether it was active before.

    Raises:
        NotFoundError: No such invite.
    """
    row = await connection.fetchrow("SELECT * FROM billing.invite WHERE code = $1 FOR UPDATE", code)
    if row is None:
        raise NotFoundError("no such invite")
    await connection.execute("UPDATE billing.invite SET active = false WHERE code = $1", code)
    return row["active"], invite({**row, "active": False})


async def take(connection: Connection, code: str, account_id: str, *, now: datetime) -> None:
    """Count one use of an invite inside the transaction that pays for it.

    The row's lock makes parallel redemptions queue, so the last use is given once.

    Raises:
        ProgrammeRefusedError: It cannot be used, or not by this account.
    """
    row = await connection.fetchrow("SELECT * FROM billing.invite WHERE code = $1 FOR UPDATE", code)
    if row is None:
        raise NotFoundError("no such invite")
    written = await connection.execute(_REDEEM, code, account_id, now)
    if written.endswith(" 0"):
        raise ProgrammeRefusedError(Refusal.INVITE_REDEEMED)
    refusal = unusable(invite(row), now=now)
    if refusal is not None:
        raise ProgrammeRefusedError(refusal)
    await connection.execute(
        "UPDATE billing.invite SET used_count = used_count + 1 WHERE code = $1", code
    )


def unusable(found: Invite, *, now: datetime) -> Refusal | None:
    """Say why nobody can use an invite now."""
    if not found.active:
        return Refusal.INVITE_INACTIVE
    if found.new.expires_at is not None and found.new.expires_at <= now:
        return Refusal.INVITE_EXPIRED
    if found.used_count >= found.new.max_uses:
        return Refusal.INVITE_EXHAUSTED
    return None


def invite(row: Mapping[str, Any]) -> Invite:
    """Read a row."""
    return Invite(
        new=NewInvite(
            request_id=row["request_id"],
            code=row["code"],
            amount_micros=row["amount_micros"],
            max_uses=row["max_uses"],
            expires_at=row["expires_at"],
        ),
        used_count=row["used_count"],
        active=row["active"],
        created_at=row["created_at"],
    )
