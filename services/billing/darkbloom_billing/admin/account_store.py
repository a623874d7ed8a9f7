"""Accounts as operators see and change them, in PostgreSQL."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from darkbloom_mesh.errors import ConflictError, NotFoundError

from darkbloom_billing.admin.actions import record
from darkbloom_billing.admin.model import (
    AccountChange,
    AccountKey,
    AccountView,
    Action,
    Fact,
    Operator,
)
from darkbloom_billing.store.database import Connection, Database

_VIEW = """
    SELECT a.account_id, a.display_name, a.role, a.created_at, a.platform_fee_percent, w.*,
      (SELECT count(*) FROM billing.api_key k
        WHERE k.account_id = a.account_id AND k.revoked_at IS NULL)::int AS active_keys,
      (SELECT count(*) FROM billing.provider_link l
        WHERE l.account_id = a.account_id)::int AS machines,
      coalesce((SELECT x.state FROM billing.erasure x
        WHERE x.account_id = a.account_id AND x.state <> 'canceled'
        ORDER BY x.planned_at DESC LIMIT 1), '') AS erasure_state
    FROM billing.account a CROSS JOIN LATERAL billing.wallets(a.account_id) w
"""
_ONE = f"{_VIEW} WHERE a.account_id = $1"
_PAGE = f"""{_VIEW}
    WHERE $1::timestamptz IS NULL OR (a.created_at, a.account_id) < ($1, $2)
    ORDER BY a.created_at DESC, a.account_id DESC LIMIT $3
"""
# An address that anybody may claim without proof must not collect somebody else's credit.
_BY_EMAIL = """
    SELECT DISTINCT account_id FROM billing.app_user
    WHERE lower(email) = lower($1) AND email_verified LIMIT 2
"""
_LOCK = """
    SELECT role, platform_fee_percent, frozen_at FROM billing.account WHERE account_id = $1
    FOR NO KEY UPDATE
"""
_CHANGE = """
    UPDATE billing.account SET role = $2, platform_fee_percent = $3, frozen_at = $4
    WHERE account_id = $1
"""
_KEYS = """
    SELECT key_id, label, name, revoked_at IS NOT NULL AS revoked, created_at
    FROM billing.api_key WHERE account_id = $1 ORDER BY created_at DESC, key_id
"""


class PostgresAccountDesk:
    """Reads and changes accounts; each change leaves its row of the audit."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, account_id: str) -> AccountView:
        """Return an account.

        Raises:
            NotFoundError: No such account.
        """

        async def work(connection: Connection) -> Any:
            return await connection.fetchrow(_ONE, account_id)

        row = await self._database.run(work)
        if row is None:
            raise NotFoundError("no such account")
        return _view(row)

    async def by_email(self, email: str) -> AccountView:
        """Return the account of the one user whose issuer vouches for this e-mail.

        Raises:
            NotFoundError: Nobody has it.
            ConflictError: Users of several accounts have it, so that it names nobody.
        """

        async def work(connection: Connection) -> list[Any]:
            return await connection.fetch(_BY_EMAIL, email)

        found = await self._database.run(work)
        if not found:
            raise NotFoundError("no such user")
        if len(found) > 1:
            raise ConflictError("several accounts have this e-mail: name one by its id")
        return await self.get(found[0]["account_id"])

    async def page(self, *, limit: int, after: tuple[datetime, str] | None) -> list[AccountView]:
        """Return accounts, newest first."""

        async def work(connection: Connection) -> list[Any]:
            at, last = after or (None, "")
            return await connection.fetch(_PAGE, at, last, limit)

        return [_view(row) for row in await self._database.run(work)]

    async def change(
        self,
        operator: Operator,
        request_id: str,
        account_id: str,
        change: AccountChange,
        *,
        now: datetime,
    ) -> None:
        """Change role, fee or freeze, once per request id.

        Raises:
            NotFoundError: No such account.
            ConflictError: The request id came before with something else.
        """

        async def work(connection: Connection) -> None:
            async with connection.transaction():
                row = await connection.fetchrow(_LOCK, account_id)
                if row is None:
                    raise NotFoundError("no such account")
                role = row["role"] if change.role is None else change.role
                fee = _fee(row["platform_fee_percent"], change.fee_percent)
                frozen_at = _frozen(row["frozen_at"], change.frozen, now)
                before: dict[str, Fact] = {
                    "role": row["role"],
                    "platform_fee_percent": row["platform_fee_percent"],
                    "frozen": row["frozen_at"] is not None,
                }
                after: dict[str, Fact] = {
                    "role": role,
                    "platform_fee_percent": fee,
                    "frozen": frozen_at is not None,
                }
                action = Action(
                    operator=operator,
                    action="account.change",
                    subject=account_id,
                    request_id=request_id,
                    before=before,
                    after=after,
                )
                # A repeat that comes late must not undo what was changed since.
                if await record(connection, action, now=now):
                    await connection.execute(_CHANGE, account_id, role, fee, frozen_at)

        await self._database.run(work)

    async def keys(self, account_id: str) -> list[AccountKey]:
        """Return every key of an account, newest first."""

        async def work(connection: Connection) -> list[Any]:
            return await connection.fetch(_KEYS, account_id)

        return [AccountKey(**row) for row in await self._database.run(work)]

    async def revoke_key(
        self, operator: Operator, request_id: str, key_id: str, *, now: datetime
    ) -> str:
        """Revoke a key; return its account.

        Raises:
            NotFoundError: No such key.
            ConflictError: The request id came before with another key.
        """

        async def work(connection: Connection) -> str:
            async with connection.transaction():
                row = await connection.fetchrow(
                    "SELECT account_id, revoked_at FROM billing.api_key WHERE key_id = $1 "
                    "FOR NO KEY UPDATE",
                    key_id,
                )
                if row is None:
                    raise NotFoundError("no such key")
                if row["revoked_at"] is None:
                    await connection.execute(
                        "UPDATE billing.api_key SET revoked_at = $2 WHERE key_id = $1", key_id, now
                    )
                action = Action(
                    operator=operator,
                    action="key.revoke",
                    subject=key_id,
                    request_id=request_id,
                    before={"revoked": row["revoked_at"] is not None},
                    after={"revoked": True, "account_id": row["account_id"]},
                )
                await record(connection, action, now=now)
                return str(row["account_id"])

        return await self._database.run(work)


def _fee(present: int | None, wanted: int | None) -> int | None:
    if wanted is None:
        return present
    return None if wanted < 0 else wanted


def _frozen(present: datetime | None, wanted: bool | None, now: datetime) -> datetime | None:
    if wanted is None:
        return present
    return (present or now) if wanted else None


def _view(row: Mapping[str, Any]) -> AccountView:
    return AccountView(
        account_id=row["account_id"],
        display_name=row["display_name"],
        role=row["role"],
        created_at=row["created_at"],
        promo_micros=row["promo"],
        credit_micros=row["credit"],
        earned_micros=row["earned"],
        held_micros=row["held"],
        maturing_micros=row["maturing"],
        debt_micros=row["debt"],
        frozen=row["frozen"],
        platform_fee_percent=row["platform_fee_percent"],
        active_keys=row["active_keys"],
        machines=row["machines"],
        erasure_state=row["erasure_state"],
    )
