"""Provider tokens and link challenges in PostgreSQL."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from darkbloom_billing.identity.model import ProviderToken
from darkbloom_billing.store.database import Connection, Database

MAX_CHALLENGES = 20
"""Nonces that one account may have open."""
_TOKENS = """
    SELECT t.*, a.closing_at FROM billing.provider_token t
    JOIN billing.account a USING (account_id) WHERE t.revoked_at IS NULL AND {}
    ORDER BY t.created_at, t.token_id
"""
_REVOKE = """
    UPDATE billing.provider_token SET revoked_at = $3
    WHERE account_id = $1 AND token_id = $2 AND revoked_at IS NULL RETURNING token_id
"""
_CHALLENGE = """
    INSERT INTO billing.link_challenge SELECT $1, $2, $3, $4
    WHERE (SELECT count(*) FROM billing.link_challenge c
      WHERE c.account_id = $2 AND c.expires_at > $5) < $6
    ON CONFLICT DO NOTHING
"""


class PostgresTokens:
    """Credentials of machines."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def token(self, token_hash: bytes) -> ProviderToken | None:
        """See `ports.TokenStore`."""
        rows = await self._rows(_TOKENS.format("t.token_hash = $1"), token_hash)
        return _token(rows[0]) if rows else None

    async def tokens(self, account_id: str) -> Sequence[ProviderToken]:
        """See `ports.TokenStore`."""
        rows = await self._rows(_TOKENS.format("t.account_id = $1"), account_id)
        return [_token(row) for row in rows]

    async def revoke(self, account_id: str, token_id: str, *, now: datetime) -> bool:
        """See `ports.TokenStore`."""
        return bool(await self._rows(_REVOKE, account_id, token_id, now))

    async def add_challenge(
        self,
        nonce_hash: bytes,
        account_id: str,
        identity_key: bytes,
        *,
        now: datetime,
        until: datetime,
    ) -> bool:
        """See `ports.TokenStore`."""

        async def work(connection: Connection) -> bool:
            await connection.execute(
                _CHALLENGE, nonce_hash, account_id, identity_key, until, now, MAX_CHALLENGES
            )
            kept = await connection.fetchrow(
                "SELECT FROM billing.link_challenge WHERE nonce_hash = $1", nonce_hash
            )
            return kept is not None

        return await self._database.run(work)

    async def use_challenge(
        self, nonce_hash: bytes, account_id: str, identity_key: bytes, *, now: datetime
    ) -> bool:
        """See `ports.TokenStore`."""
        statement = "SELECT billing.use_link_challenge($1, $2, $3, $4) AS used"
        rows = await self._rows(statement, nonce_hash, account_id, identity_key, now)
        return bool(rows[0]["used"])

    async def unlink(self, account_id: str, identity_key: bytes, *, now: datetime) -> bool:
        """See `ports.TokenStore`."""
        statement = "SELECT billing.unlink($1, $2, $3) AS gone"
        rows = await self._rows(statement, account_id, identity_key, now)
        return bool(rows[0]["gone"])

    async def _rows(self, statement: str, *arguments: object) -> list[Any]:
        async def work(connection: Connection) -> list[Any]:
            return await connection.fetch(statement, *arguments)

        return await self._database.run(work)


def _token(row: Mapping[str, Any]) -> ProviderToken:
    return ProviderToken(
        token_id=row["token_id"],
        account_id=row["account_id"],
        label=row["label"],
        machine_name=row["machine_name"],
        created_at=row["created_at"],
        closing=row["closing_at"] is not None,
    )
