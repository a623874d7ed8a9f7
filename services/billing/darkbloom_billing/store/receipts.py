"""Countersigned records in PostgreSQL."""

from collections.abc import Sequence
from datetime import datetime

from darkbloom_billing.model import Receipt
from darkbloom_billing.store.database import Connection, Database

# Only requests that were held here: nobody can fill the tables with receipts of nothing. A whole
# receipt is archived for the account whose money was held; one that a gateway says nobody paid for
# is archived alone, for as long as the archive keeps anything.
_RECORD = """
    WITH given AS (
      SELECT r.*, e.body ->> 'account_id' AS account_id
      FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::text[], $5::text[], $7::text[],
          $8::bytea[], $9::bytea[], $10::bytea[], $11::bytea[], $12::text[], $13::bytea[])
        AS r (request_id, document, signature, key_id, terminal_sha256, attempt_id,
          terminal, terminal_signature, verdict, verdict_signature, verdict_key_id, identity_key)
      JOIN ledger.event e ON e.idem_key = 'hold:' || r.request_id),
    free AS (
      INSERT INTO billing.receipt_proof (request_id, account_id, attempt_id, terminal,
        terminal_signature, verdict, verdict_signature, verdict_key_id, identity_key, recorded_at,
        document, signature, key_id)
      SELECT r.request_id, a.account_id, r.attempt_id, r.terminal, r.terminal_signature,
        r.verdict, r.verdict_signature, r.verdict_key_id, r.identity_key, $6,
        r.document, r.signature, r.key_id
      FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::text[], $7::text[], $8::bytea[],
          $9::bytea[], $10::bytea[], $11::bytea[], $12::text[], $13::bytea[], $14::text[])
        AS r (request_id, document, signature, key_id, attempt_id, terminal, terminal_signature,
          verdict, verdict_signature, verdict_key_id, identity_key, account_id)
      JOIN billing.account a USING (account_id)
      WHERE length(r.terminal) > 0
        AND NOT EXISTS (SELECT FROM ledger.event e WHERE e.idem_key = 'hold:' || r.request_id)
      ORDER BY r.request_id
      ON CONFLICT (request_id) DO NOTHING RETURNING request_id),
    kept AS (
      INSERT INTO billing.receipt
      SELECT g.request_id, g.document, g.signature, g.key_id, g.terminal_sha256, $6 FROM given g
      ORDER BY g.request_id
      ON CONFLICT (request_id) DO NOTHING RETURNING request_id, document),
    archived AS (
      INSERT INTO billing.receipt_proof
      SELECT g.request_id, g.account_id, g.attempt_id, g.terminal, g.terminal_signature,
        g.verdict, g.verdict_signature, g.verdict_key_id, g.identity_key, $6
      FROM given g JOIN kept k USING (request_id, document)
      WHERE length(g.terminal) > 0 AND g.account_id IS NOT NULL
      ON CONFLICT (request_id) DO NOTHING)
    SELECT request_id FROM kept UNION ALL SELECT request_id FROM free
"""


class PostgresReceipts:
    """One record for each request: the first."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, receipts: Sequence[Receipt], *, now: datetime) -> int:
        """Keep records of requests that were held here or are free; return how many were new."""
        columns: list[list[object]] = [
            [receipt.request_id for receipt in receipts],
            [receipt.signed.document for receipt in receipts],
            [receipt.signed.signature for receipt in receipts],
            [receipt.signed.key_id for receipt in receipts],
            [receipt.terminal_sha256 for receipt in receipts],
        ]
        proofs: list[list[object]] = [
            [receipt.attempt_id for receipt in receipts],
            [receipt.terminal.document if receipt.terminal else b"" for receipt in receipts],
            [receipt.terminal.signature if receipt.terminal else b"" for receipt in receipts],
            [receipt.verdict.document if receipt.verdict else b"" for receipt in receipts],
            [receipt.verdict.signature if receipt.verdict else b"" for receipt in receipts],
            [receipt.verdict.key_id if receipt.verdict else "" for receipt in receipts],
            [receipt.identity_key for receipt in receipts],
            [receipt.free_account_id for receipt in receipts],
        ]

        async def work(connection: Connection) -> int:
            return len(await connection.fetch(_RECORD, *columns, now, *proofs))

        return await self._database.run(work)
