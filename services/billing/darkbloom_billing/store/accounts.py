"""Accounts, keys, links, balances and histories in PostgreSQL."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from darkbloom_mesh.errors import InvalidArgumentError

from darkbloom_billing.model import (
    Account,
    ApiKey,
    Balance,
    Cursor,
    EarningRow,
    KeyChange,
    NewKey,
    ProviderLink,
    UsageRow,
)
from darkbloom_billing.store.database import Connection, Database

_KEY = """
    SELECT k.*, a.role, a.closing_at
    FROM billing.api_key k JOIN billing.account a USING (account_id)
    WHERE {}
"""
MAX_KEYS = 100
"""Of one account that are not revoked: a list of them fits into one message."""
_LOCK_ACCOUNT = "SELECT FROM billing.account WHERE account_id = $1 FOR NO KEY UPDATE"
_FULL = """
    SELECT count(*) FILTER (WHERE revoked_at IS NULL) >= $3 AND NOT bool_or(key_hash = $2)
    FROM billing.api_key WHERE account_id = $1
"""
_CREATE = (
    "SELECT billing.create_full_key($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"
)
# One statement, one snapshot: the generation is never newer than the key.
_RESOLVE = """
    SELECT g.generation AS read_at, k.*, a.role, a.closing_at FROM billing.key_generation g
    LEFT JOIN billing.api_key k ON k.key_hash = $1
    LEFT JOIN billing.account a ON a.account_id = k.account_id
"""
_CHANGES = "SELECT * FROM billing.key_change WHERE generation > $1 ORDER BY generation LIMIT 1000"
_LINK = """
    INSERT INTO billing.provider_link VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING
"""
# Only for whom it is linked to: nobody becomes related to an account by naming its machine.
_DEVICE = """
    INSERT INTO billing.fingerprint (account_id, kind, hash, seen_at)
    SELECT account_id, 'device', $3, $4 FROM billing.provider_link
    WHERE identity_key = $1 AND account_id = $2
    ON CONFLICT (account_id, kind, hash) DO UPDATE SET seen_at = excluded.seen_at
"""
_PAGE = """
    SELECT * FROM billing.{} WHERE account_id = $1
      AND ($3::timestamptz IS NULL OR (settled_at, request_id) < ($3, $4))
    ORDER BY settled_at DESC, request_id DESC LIMIT $2
"""


class PostgresAccounts:
    """Who owns money, who may spend it, and who earns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create_account(self, account_id: str, name: str, *, now: datetime) -> Account:
        """Create an account or return the one that is there."""

        async def work(connection: Connection) -> Any:
            await connection.execute(
                "SELECT billing.create_account($1, $2, $3)", account_id, name, now
            )
            return await connection.fetchrow(
                "SELECT * FROM billing.account WHERE account_id = $1", account_id
            )

        row = await self._database.run(work)
        return Account(
            account_id=row["account_id"],
            display_name=row["display_name"],
            role=row["role"],
            created_at=row["created_at"],
        )

    async def create_key(self, new: NewKey, key_id: str, *, now: datetime) -> ApiKey:
        """Create a key or return the one with that hash.

        Raises:
            InvalidArgumentError: The account has too many.
        """
        values = (
            key_id,
            new.account_id,
            new.key_hash,
            new.name,
            new.label,
            list(new.allowed_models),
            new.limit_micros,
            new.limit_reset,
            new.rpm_limit,
            new.input_tpm_limit,
            new.output_tpm_limit,
            new.self_route_only,
            new.expires_at,
            now,
        )

        async def work(connection: Connection) -> Any:
            async with connection.transaction():
                await connection.execute(_LOCK_ACCOUNT, new.account_id)
                if await connection.fetchval(_FULL, new.account_id, new.key_hash, MAX_KEYS):
                    raise InvalidArgumentError(
                        f"an account has at most {MAX_KEYS} keys", "account_id"
                    )
                await connection.execute(_CREATE, *values)
                return await connection.fetchrow(_KEY.format("k.key_hash = $1"), new.key_hash)

        return key_of(await self._database.run(work))

    async def revoke_key(self, key_id: str, *, now: datetime) -> ApiKey | None:
        """Revoke a key; None: no such key."""

        async def work(connection: Connection) -> Any:
            await connection.execute(
                "UPDATE billing.api_key SET revoked_at = $2 "
                "WHERE key_id = $1 AND revoked_at IS NULL",
                key_id,
                now,
            )
            return await connection.fetchrow(_KEY.format("k.key_id = $1"), key_id)

        row = await self._database.run(work)
        return None if row is None else key_of(row)

    async def resolve_key(self, key_hash: bytes) -> tuple[ApiKey | None, int]:
        """Return the key with that hash and the generation at which it was read."""
        row = await self._row(_RESOLVE, key_hash)
        return (None if row["key_id"] is None else key_of(row)), row["read_at"]

    async def key_changes(self, after: int) -> list[KeyChange]:
        """Return changes after a generation, oldest first, at most 1,000."""

        async def work(connection: Connection) -> list[Any]:
            return await connection.fetch(_CHANGES, after)

        return [
            KeyChange(
                generation=row["generation"],
                key_id=row["key_id"],
                key_hash=row["key_hash"],
                account_id=row["account_id"],
            )
            for row in await self._database.run(work)
        ]

    async def key_generation(self) -> int:
        """Return the present generation."""
        row = await self._row("SELECT generation FROM billing.key_generation")
        return int(row["generation"])

    async def account_exists(self, account_id: str) -> bool:
        """Say whether there is such an account."""
        row = await self._row("SELECT FROM billing.account WHERE account_id = $1", account_id)
        return row is not None

    async def balance(self, account_id: str) -> Balance | None:
        """Return the money of an account; None: no such account."""
        row = await self._row("SELECT * FROM billing.wallets($1)", account_id)
        if row is None:
            return None
        return Balance(
            promo_micros=row["promo"],
            credit_micros=row["credit"],
            earned_micros=row["earned"],
            held_micros=row["held"],
            maturing_micros=row["maturing"],
            debt_micros=row["debt"],
            frozen=row["frozen"],
        )

    async def usage(self, account_id: str, *, limit: int, after: Cursor | None) -> list[UsageRow]:
        """Return settled requests of a consumer, newest first."""
        return [
            UsageRow(
                request_id=row["request_id"],
                attempt_id=row["attempt_id"],
                key_id=row["key_id"],
                model=row["model"],
                build=row["build"],
                prompt_tokens=row["prompt_tokens"],
                cached_tokens=row["cached_tokens"],
                completion_tokens=row["completion_tokens"],
                charge_micros=row["charge_micros"],
                outcome=row["outcome"],
                settled_at=row["settled_at"],
            )
            for row in await self._page("usage", account_id, limit, after)
        ]

    async def earnings(
        self, account_id: str, *, limit: int, after: Cursor | None
    ) -> list[EarningRow]:
        """Return settled requests of a provider, newest first."""
        return [
            EarningRow(
                request_id=row["request_id"],
                build=row["build"],
                amount_micros=row["amount_micros"],
                prompt_tokens=row["prompt_tokens"],
                completion_tokens=row["completion_tokens"],
                identity_key=row["identity_key"],
                settled_at=row["settled_at"],
            )
            for row in await self._page("earning", account_id, limit, after)
        ]

    async def link_provider(
        self, identity_key: bytes, account_id: str, name: str, *, now: datetime
    ) -> ProviderLink:
        """Link a machine, or return the link that is there, whoever it belongs to."""
        device = hashlib.sha256(identity_key).digest()

        async def work(connection: Connection) -> Any:
            await connection.execute(_LINK, identity_key, account_id, name, now)
            await connection.execute(_DEVICE, identity_key, account_id, device, now)
            return await connection.fetchrow(
                "SELECT * FROM billing.provider_link WHERE identity_key = $1", identity_key
            )

        return _link(await self._database.run(work))

    async def provider_links(
        self, account_id: str, *, limit: int, after: bytes
    ) -> Sequence[ProviderLink]:
        """Return machines of an account after a key, in order of their keys."""

        async def work(connection: Connection) -> list[Any]:
            return await connection.fetch(
                "SELECT * FROM billing.provider_link WHERE account_id = $1 AND identity_key > $2"
                " ORDER BY identity_key LIMIT $3",
                account_id,
                after,
                limit,
            )

        rows = await self._database.run(work)
        return [_link(row) for row in rows]

    async def provider_link(self, identity_key: bytes) -> ProviderLink | None:
        """Return the link of a machine."""
        row = await self._row(
            "SELECT * FROM billing.provider_link WHERE identity_key = $1", identity_key
        )
        return None if row is None else _link(row)

    async def _page(
        self, table: str, account_id: str, limit: int, after: Cursor | None
    ) -> list[Any]:
        async def work(connection: Connection) -> list[Any]:
            return await connection.fetch(
                _PAGE.format(table),
                account_id,
                limit,
                after.settled_at if after else None,
                after.request_id if after else None,
            )

        return await self._database.run(work)

    async def _row(self, statement: str, *arguments: object) -> Any:
        async def work(connection: Connection) -> Any:
            return await connection.fetchrow(statement, *arguments)

        return await self._database.run(work)


def key_of(row: Mapping[str, Any]) -> ApiKey:
    """Return the key of a row that its account's columns were joined to."""
    return ApiKey(
        key_id=row["key_id"],
        new=NewKey(
            account_id=row["account_id"],
            key_hash=row["key_hash"],
            label=row["label"],
            name=row["name"],
            allowed_models=tuple(row["allowed_models"]),
            limit_micros=row["limit_micros"],
            rpm_limit=row["rpm_limit"],
            expires_at=row["expires_at"],
            limit_reset=row["limit_reset"],
            input_tpm_limit=row["itpm_limit"],
            output_tpm_limit=row["otpm_limit"],
            self_route_only=row["self_route_only"],
        ),
        revoked=row["revoked_at"] is not None,
        disabled=row["disabled"],
        closing=row.get("closing_at") is not None,
        account_role=row["role"],
        created_at=row["created_at"],
    )


def _link(row: Mapping[str, Any]) -> ProviderLink:
    return ProviderLink(
        identity_key=row["identity_key"],
        account_id=row["account_id"],
        name=row["name"],
        linked_at=row["linked_at"],
    )
