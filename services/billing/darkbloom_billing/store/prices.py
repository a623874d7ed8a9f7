"""Price rows in PostgreSQL."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from darkbloom_mesh.errors import ConflictError, OverloadedError

from darkbloom_billing.model import NewPrice, PriceVersion
from darkbloom_billing.pricing import MINIMUM_CHARGE_MICROS
from darkbloom_billing.store.database import Connection, Database
from darkbloom_billing.store.rows import price_row

MAX_OWN_ROWS = 500
"""Rows are kept for ever, so an account may not write them without end."""
# Of each owner and build, the row in force at a time and everything after it.
_VERSIONS = """
    SELECT * FROM (SELECT DISTINCT ON (account_id, build) * FROM billing.price
      WHERE effective_at <= $1
      ORDER BY account_id, build, effective_at DESC, sequence DESC) AS begun
    UNION ALL SELECT * FROM billing.price WHERE effective_at > $1
"""
_WHOLESALE = "SELECT account_id FROM billing.account WHERE role = 'service'"
_INSERT = """
    INSERT INTO billing.price (price_id, request_id, body_hash, account_id, build, input_micros,
      output_micros, cache_read_micros, minimum_charge_micros, effective_at, created_at)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11
    WHERE $4 = '' OR (SELECT count(*) FROM billing.price
      WHERE account_id = $4 AND created_at > $11::timestamptz - interval '1 day') < $12
    ON CONFLICT (request_id) DO NOTHING
"""
# Repeats the rates of the row that it ends, so that the history reads by itself.
_END = """
    INSERT INTO billing.price (price_id, request_id, body_hash, account_id, build, input_micros,
      output_micros, cache_read_micros, minimum_charge_micros, effective_at, created_at, ended)
    SELECT 'price_end_' || p.sequence, $1, $2, p.account_id, p.build, p.input_micros,
      p.output_micros, p.cache_read_micros, p.minimum_charge_micros,
      greatest($5, p.effective_at), $5, true
    FROM billing.price p WHERE p.account_id = $3 AND p.build = $4 AND NOT p.ended
      AND p.sequence = (SELECT q.sequence FROM billing.price q
        WHERE q.account_id = $3 AND q.build = $4
        ORDER BY q.effective_at DESC, q.sequence DESC LIMIT 1)
    ON CONFLICT DO NOTHING
"""
_BY_REQUEST = "SELECT * FROM billing.price WHERE request_id = $1"


class PostgresPrices:
    """Versioned price rows: a change adds a row."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def versions(self, *, since: datetime) -> list[PriceVersion]:
        """Return every row that was in force at some time since, or will be."""

        async def work(connection: Connection) -> list[Any]:
            return await connection.fetch(_VERSIONS, since)

        return [_version(row) for row in await self._database.run(work)]

    async def wholesale(self) -> frozenset[str]:
        """Return the accounts of role `service`."""

        async def work(connection: Connection) -> list[Any]:
            return await connection.fetch(_WHOLESALE)

        return frozenset(row["account_id"] for row in await self._database.run(work))

    async def set_price(self, new: NewPrice, price_id: str, *, now: datetime) -> PriceVersion:
        """Add a row, once per request id.

        Raises:
            ConflictError: The request id came before with another price.
            OverloadedError: The account has set `MAX_OWN_ROWS` in a day.
        """
        digest = _digest(
            new.account_id,
            new.build,
            str(new.input_micros),
            str(new.output_micros),
            str(new.cache_read_micros),
            new.effective_at.isoformat() if new.effective_at else "",
        )

        async def work(connection: Connection) -> Any:
            await connection.execute(
                _INSERT,
                price_id,
                new.request_id,
                digest,
                new.account_id,
                new.build,
                new.input_micros,
                new.output_micros,
                new.cache_read_micros,
                MINIMUM_CHARGE_MICROS,
                new.effective_at or now,
                now,
                MAX_OWN_ROWS,
            )
            return await connection.fetchrow(_BY_REQUEST, new.request_id)

        row = await self._database.run(work)
        if row is None:
            raise OverloadedError("too many own prices were set today")
        if row["body_hash"] != digest:
            raise ConflictError("the same request id came before with another price")
        return _version(row)

    async def end_price(
        self, request_id: str, account_id: str, build: str, *, now: datetime
    ) -> bool:
        """End an account's own price, once per request id; False: there is none.

        Raises:
            ConflictError: The request id came before with another command.
        """
        digest = _digest("end", account_id, build)

        async def work(connection: Connection) -> Any:
            await connection.execute(_END, request_id, digest, account_id, build, now)
            return await connection.fetchrow(_BY_REQUEST, request_id)

        row = await self._database.run(work)
        if row is None:
            return False
        if row["body_hash"] != digest:
            raise ConflictError("the same request id came before with another command")
        return True


def _digest(*fields: str) -> bytes:
    return hashlib.sha256("\n".join(fields).encode()).digest()


def _version(row: Mapping[str, Any]) -> PriceVersion:
    return PriceVersion(
        row=price_row(row),
        effective_at=row["effective_at"],
        sequence=row["sequence"],
        ended=row["ended"],
    )
