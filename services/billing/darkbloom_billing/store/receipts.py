"""Countersigned records in PostgreSQL."""

from collections.abc import Sequence
from datetime import datetime

from darkbloom_billing.model import Receipt
from darkbloom_billing.store.database import Connection, Database

# Only requests that were held here: nobody can fill the table with receipts of nothing.
_RECORD = """
    INSERT INTO billing.receipt
    SELECT r.request_id, r.document, r.signature, r.key_id, r.terminal_sha256, $6
    FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::text[], $5::text[])
      AS r (request_id, document, signature, key_id, terminal_sha256)
    WHERE EXISTS (SELECT FROM ledger.event e WHERE e.idem_key = 'hold:' || r.request_id)
    ORDER BY r.request_id
    ON CONFLICT (request_id) DO NOTHING RETURNING request_id
"""


class PostgresReceipts:
    """One record for each request: the first."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, receipts: Sequence[Receipt], *, now: datetime) -> int:
        """Keep records of requests that were held here; return how many were new."""

        async def work(connection: Connection) -> int:
            rows = await connection.fetch(
                _RECORD,
                [receipt.request_id for receipt in receipts],
                [receipt.signed.document for receipt in receipts],
                [receipt.signed.signature for receipt in receipts],
                [receipt.signed.key_id for receipt in receipts],
                [receipt.terminal_sha256 for receipt in receipts],
                now,
            )
            return len(rows)

        return await self._database.run(work)
