"""Users in PostgreSQL."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from darkbloom_billing.identity.model import Claims, User
from darkbloom_billing.store.database import Connection, Database

_GENERATION = "SELECT generation FROM billing.key_generation"
_SIGN_IN = "SELECT user_id FROM billing.sign_in($1, $2, $3, $4, $5, $6, $7, $8)"
_USER = """
    SELECT u.*, a.role, a.display_name, a.closing_at
    FROM billing.app_user u JOIN billing.account a USING (account_id) WHERE u.user_id = $1
"""
_CLOSE = """
    UPDATE billing.account SET closing_at = $2 WHERE account_id = $1 AND closing_at IS NULL
"""
_EXISTS = "SELECT FROM billing.account WHERE account_id = $1"


class PostgresUsers:
    """Who has signed in."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def sign_in(
        self, claims: Claims, *, user_id: str, account_id: str, now: datetime
    ) -> tuple[User, int]:
        """See `ports.UserStore`."""

        async def work(connection: Connection) -> tuple[Any, int]:
            # Read first, so that it is never newer than the user: a change in between is noticed.
            generation = await connection.fetchval(_GENERATION)
            # A statement of its own: its snapshot has the account that sign_in may have made.
            found = await connection.fetchval(
                _SIGN_IN,
                claims.issuer,
                claims.subject,
                claims.email,
                claims.email_verified,
                claims.name or claims.email,
                user_id,
                account_id,
                now,
            )
            return await connection.fetchrow(_USER, found), int(generation)

        row, generation = await self._database.run(work)
        return _user(row), generation

    async def user(self, user_id: str) -> User | None:
        """See `ports.UserStore`."""

        async def work(connection: Connection) -> Any:
            return await connection.fetchrow(_USER, user_id)

        row = await self._database.run(work)
        return None if row is None else _user(row)

    async def close_account(self, account_id: str, *, now: datetime) -> bool:
        """See `ports.UserStore`."""

        async def work(connection: Connection) -> bool:
            async with connection.transaction():
                await connection.execute(_CLOSE, account_id, now)
                # Nobody could withdraw what its machines would go on earning.
                await connection.execute("SELECT billing.unlink($1, NULL, $2)", account_id, now)
                return await connection.fetchrow(_EXISTS, account_id) is not None

        return await self._database.run(work)


def _user(row: Mapping[str, Any]) -> User:
    return User(
        user_id=row["user_id"],
        account_id=row["account_id"],
        account_role=row["role"],
        email=row["email"],
        email_verified=row["email_verified"],
        display_name=row["display_name"],
        closing=row["closing_at"] is not None,
        created_at=row["created_at"],
    )
