"""API keys, as their owners manage them, in PostgreSQL."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import asyncpg
from darkbloom_mesh.errors import ConflictError

from darkbloom_billing.identity.model import KeyPatch, KeyView
from darkbloom_billing.store.accounts import key_of
from darkbloom_billing.store.database import Connection, Database

_KEYS = """
    SELECT k.*, a.role, u.used_at FROM billing.api_key k
    JOIN billing.account a USING (account_id)
    LEFT JOIN billing.api_key_use u USING (key_id)
    WHERE k.account_id = $1 AND k.revoked_at IS NULL AND ($2::text IS NULL OR k.key_id = $2)
    ORDER BY k.created_at, k.key_id
"""
_SPEND = "SELECT * FROM billing.key_spend($1, $2)"
_LOCK = """
    SELECT limit_micros, limit_reset FROM billing.api_key
    WHERE account_id = $1 AND key_id = $2 AND revoked_at IS NULL FOR NO KEY UPDATE
"""
_COLUMNS = (
    "name",
    "disabled",
    "allowed_models",
    "rpm_limit",
    "input_tpm_limit",
    "output_tpm_limit",
    "self_route_only",
    "expires_at",
)
# One flag a column: whether it is named by the patch.
_UPDATE = """
    UPDATE billing.api_key SET
      name = CASE WHEN $3 THEN $4 ELSE name END,
      disabled = CASE WHEN $5 THEN $6 ELSE disabled END,
      allowed_models = CASE WHEN $7 THEN $8 ELSE allowed_models END,
      rpm_limit = CASE WHEN $9 THEN $10::integer ELSE rpm_limit END,
      itpm_limit = CASE WHEN $11 THEN $12::bigint ELSE itpm_limit END,
      otpm_limit = CASE WHEN $13 THEN $14::bigint ELSE otpm_limit END,
      self_route_only = CASE WHEN $15 THEN $16 ELSE self_route_only END,
      expires_at = CASE WHEN $17 THEN $18::timestamptz ELSE expires_at END
    WHERE account_id = $1 AND key_id = $2
"""
_EMPTY: Mapping[str, object] = {
    "name": "",
    "disabled": False,
    "allowed_models": [],
    "self_route_only": False,
}
"""What clearing a field without an absent value means."""
_DELETE = """
    UPDATE billing.api_key SET revoked_at = $4
    WHERE account_id = $1 AND revoked_at IS NULL
      AND CASE WHEN $2 = '' THEN key_hash = $3 ELSE key_id = $2 END
    RETURNING key_id
"""
_ROTATE = """
    UPDATE billing.api_key SET key_hash = $3, label = $4
    WHERE account_id = $1 AND key_id = $2 AND revoked_at IS NULL AND key_hash <> $3
"""
_USES = """
    INSERT INTO billing.api_key_use AS u
    SELECT k.key_id, x.at FROM unnest($1::text[], $2::timestamptz[]) AS x (key_id, at)
    JOIN billing.api_key k USING (key_id)
    ON CONFLICT (key_id) DO UPDATE SET used_at = greatest(u.used_at, excluded.used_at)
"""


class PostgresOwnerKeys:
    """Keys of accounts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keys(
        self, account_id: str, *, now: datetime, key_id: str | None = None
    ) -> list[KeyView]:
        """See `ports.OwnerKeyStore`."""

        async def work(connection: Connection) -> tuple[list[Any], dict[str, Any]]:
            rows = await connection.fetch(_KEYS, account_id, key_id)
            spends = await connection.fetch(_SPEND, [row["key_id"] for row in rows], now)
            return rows, {spend["key_id"]: spend for spend in spends}

        rows, spends = await self._database.run(work)
        return [_view(row, spends[row["key_id"]]) for row in rows]

    async def update(self, account_id: str, key_id: str, patch: KeyPatch, *, now: datetime) -> bool:
        """See `ports.OwnerKeyStore`."""

        async def work(connection: Connection) -> bool:
            async with connection.transaction():
                row = await connection.fetchrow(_LOCK, account_id, key_id)
                if row is None:
                    return False
                if patch.keys() & {"limit_micros", "limit_reset"}:
                    limit = patch.get("limit_micros", row["limit_micros"])
                    reset = patch.get("limit_reset", row["limit_reset"]) or "none"
                    await connection.execute(
                        "SELECT billing.set_cap($1, $2, $3, $4)", key_id, limit, reset, now
                    )
                if patch.keys() & set(_COLUMNS):
                    await connection.execute(_UPDATE, account_id, key_id, *_flags(patch))
                return True

        return await self._database.run(work)

    async def delete(self, account_id: str, key_id: str, key_hash: bytes, *, now: datetime) -> bool:
        """See `ports.OwnerKeyStore`."""

        async def work(connection: Connection) -> bool:
            row = await connection.fetchrow(_DELETE, account_id, key_id, key_hash, now)
            return row is not None

        return await self._database.run(work)

    async def rotate(self, account_id: str, key_id: str, key_hash: bytes, label: str) -> bool:
        """See `ports.OwnerKeyStore`."""

        async def work(connection: Connection) -> bool:
            try:
                await connection.execute(_ROTATE, account_id, key_id, key_hash, label)
            except asyncpg.UniqueViolationError:
                raise ConflictError("the same secret came before with another key") from None
            return bool(await connection.fetch(_KEYS, account_id, key_id))

        return await self._database.run(work)

    async def record_uses(self, uses: Mapping[str, datetime]) -> None:
        """See `ports.OwnerKeyStore`."""
        # In one order, so that two batches cannot wait for each other.
        ordered = sorted(uses.items())

        async def work(connection: Connection) -> None:
            await connection.execute(_USES, [key for key, _ in ordered], [at for _, at in ordered])

        await self._database.run(work)


def _flags(patch: KeyPatch) -> list[object]:
    values: list[object] = []
    for name in _COLUMNS:
        value = patch.get(name)
        named = list(value) if isinstance(value, tuple) else value
        values += [name in patch, _EMPTY.get(name) if named is None else named]
    return values


def _view(row: Mapping[str, Any], spend: Mapping[str, Any]) -> KeyView:
    return KeyView(
        key=key_of(row),
        usage_micros=spend["usage_micros"],
        remaining_micros=None if row["limit_micros"] is None else spend["remaining_micros"],
        used_at=row["used_at"],
    )
