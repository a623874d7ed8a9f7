"""Price rows in PostgreSQL."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from darkbloom_mesh.errors import ConflictError

from darkbloom_billing.model import NewPrice, PriceVersion
from darkbloom_billing.pricing import MINIMUM_CHARGE_MICROS
from darkbloom_billing.store.database import Connection, Database
from darkbloom_billing.store.rows import price_row

_INSERT = """
    INSERT INTO billing.price (price_id, request_id, body_hash, build, input_micros, output_micros,
      cache_read_micros, minimum_charge_micros, effective_at, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (request_id) DO NOTHING
"""


class PostgresPrices:
    """Versioned price rows: a change adds a row."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def versions(self) -> list[PriceVersion]:
        """Return every row."""

        async def work(connection: Connection) -> list[Any]:
            return await connection.fetch("SELECT * FROM billing.price")

        return [_version(row) for row in await self._database.run(work)]

    async def set_price(self, new: NewPrice, price_id: str, *, now: datetime) -> PriceVersion:
        """Add a row, once per request id.

        Raises:
            ConflictError: The request id came before with another price.
        """
        fields = (
            new.build,
            str(new.input_micros),
            str(new.output_micros),
            str(new.cache_read_micros),
            new.effective_at.isoformat() if new.effective_at else "",
        )
        digest = hashlib.sha256("\n".join(fields).encode()).digest()

        async def work(connection: Connection) -> Any:
            await connection.execute(
                _INSERT,
                price_id,
                new.request_id,
                digest,
                new.build,
                new.input_micros,
                new.output_micros,
                new.cache_read_micros,
                MINIMUM_CHARGE_MICROS,
                new.effective_at or now,
                now,
            )
            return await connection.fetchrow(
                "SELECT * FROM billing.price WHERE request_id = $1", new.request_id
            )

        row = await self._database.run(work)
        if row["body_hash"] != digest:
            raise ConflictError("the same request id came before with another price")
        return _version(row)


def _version(row: Mapping[str, Any]) -> PriceVersion:
    return PriceVersion(
        row=price_row(row), effective_at=row["effective_at"], sequence=row["sequence"]
    )
