"""The archive in PostgreSQL."""

from collections.abc import Callable, Sequence
from datetime import datetime

from darkbloom_edge.ids import ID_BYTES, id_text
from darkbloom_edge.log import MAX_BATCH
from darkbloom_edge.merkle import HASH_BYTES, Leaves

from darkbloom_billing.archive.model import Anchor, Archived, Batch
from darkbloom_billing.model import Receipt, Signed
from darkbloom_billing.store.database import Connection, Database

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('receipt_batch', 0))"
# The leaf is hashed as in the log itself: a zero byte before the countersign.
_UNSEALED = """
    SELECT p.request_id, sha256('\\x00'::bytea || coalesce(p.document, r.document)) AS leaf
    FROM billing.receipt_proof p LEFT JOIN billing.receipt r USING (request_id)
    WHERE p.batch_id IS NULL ORDER BY p.recorded_at, p.request_id LIMIT $1
"""
_SEAL = "INSERT INTO billing.receipt_batch VALUES ($1, $2, $3, $4, NULL)"
_PLACE = """
    UPDATE billing.receipt_proof p SET batch_id = $1, place = n.place - 1
    FROM unnest($2::text[]) WITH ORDINALITY AS n (request_id, place)
    WHERE p.request_id = n.request_id
"""
_UNANCHORED = """
    SELECT batch_id, root_hash, length(leaves) AS length FROM billing.receipt_batch
    WHERE log_index IS NULL ORDER BY sealed_at, batch_id LIMIT $1
"""
_ANCHOR = "UPDATE billing.receipt_batch SET log_index = $2 WHERE batch_id = $1"
_FIND = """
    SELECT p.request_id, p.attempt_id, p.terminal, p.terminal_signature, p.verdict,
      p.verdict_signature, p.verdict_key_id, p.identity_key, p.recorded_at, p.batch_id, p.place,
      coalesce(p.document, r.document) AS document, coalesce(p.signature, r.signature) AS signature,
      coalesce(p.key_id, r.key_id) AS key_id, b.leaves, b.log_index
    FROM billing.receipt_proof p LEFT JOIN billing.receipt r USING (request_id)
    LEFT JOIN billing.receipt_batch b ON b.batch_id = p.batch_id
    WHERE (p.request_id = $2 OR p.attempt_id = $2) AND p.account_id = $1 AND p.recorded_at > $3
"""
_FORGET = """
    WITH old AS (DELETE FROM billing.receipt_proof p WHERE p.request_id = ANY (ARRAY(
        SELECT x.request_id FROM billing.receipt_proof x WHERE x.recorded_at <= $1
        ORDER BY x.recorded_at LIMIT $2)) RETURNING 1),
    batches AS (DELETE FROM billing.receipt_batch b WHERE b.batch_id = ANY (ARRAY(
        SELECT x.batch_id FROM billing.receipt_batch x WHERE x.sealed_at <= $1
          AND NOT EXISTS (SELECT FROM billing.receipt_proof p WHERE p.batch_id = x.batch_id)
        ORDER BY x.sealed_at LIMIT $2)) RETURNING 1)
    SELECT (SELECT count(*) FROM old) + (SELECT count(*) FROM batches)
"""


class PostgresArchive:
    """Receipts and batches.

    Args:
        database: where they are.
        entropy: random bytes for ids.
    """

    def __init__(self, database: Database, entropy: Callable[[int], bytes]) -> None:
        self._database = database
        self._entropy = entropy

    async def seal(self, *, now: datetime) -> bool:
        """Close a batch over the oldest receipts that are in none; returns whether more may wait.

        Replicas may do so at once: one seals, the others find what is left.
        """
        batch_id = id_text("bat", self._entropy(ID_BYTES))

        async def work(connection: Connection) -> int:
            await connection.execute(_LOCK)
            rows = await connection.fetch(_UNSEALED, MAX_BATCH)
            if rows:
                leaves = [row["leaf"] for row in rows]
                root = Leaves(leaves).root
                await connection.execute(_SEAL, batch_id, root, b"".join(leaves), now)
                await connection.execute(_PLACE, batch_id, [row["request_id"] for row in rows])
            return len(rows)

        return await self._database.run(work) == MAX_BATCH

    async def unanchored(self, *, limit: int) -> Sequence[Batch]:
        """Return batches that are not in the log yet, oldest first."""

        async def work(connection: Connection) -> Sequence[Batch]:
            return [
                Batch(
                    batch_id=row["batch_id"],
                    root=row["root_hash"],
                    size=row["length"] // HASH_BYTES,
                )
                for row in await connection.fetch(_UNANCHORED, limit)
            ]

        return await self._database.run(work)

    async def anchored(self, batch_id: str, log_index: int) -> None:
        """Remember where a batch is."""

        async def work(connection: Connection) -> None:
            await connection.execute(_ANCHOR, batch_id, log_index)

        await self._database.run(work)

    async def find(self, account_id: str, name: str, *, since: datetime) -> Archived | None:
        """Return a receipt of an account by its request or attempt.

        Args:
            account_id: whose.
            name: id of the request or the attempt.
            since: older ones are forgotten.
        """

        async def work(connection: Connection) -> Archived | None:
            row = await connection.fetchrow(_FIND, account_id, name, since)
            if row is None:
                return None
            anchor = None
            if row["log_index"] is not None:
                anchor = Anchor(
                    batch_id=row["batch_id"],
                    place=row["place"],
                    leaves=_split(row["leaves"]),
                    log_index=row["log_index"],
                )
            receipt = Receipt(
                request_id=row["request_id"],
                signed=_signed(row["document"], row["signature"], row["key_id"]),
                terminal_sha256="",
                attempt_id=row["attempt_id"],
                terminal=_signed(row["terminal"], row["terminal_signature"], ""),
                verdict=_signed(row["verdict"], row["verdict_signature"], row["verdict_key_id"]),
                identity_key=row["identity_key"],
            )
            return Archived(receipt=receipt, recorded_at=row["recorded_at"], anchor=anchor)

        return await self._database.run(work)

    async def forget(self, *, before: datetime, limit: int) -> int:
        """Delete old receipts, and batches that no receipt is left of; return how many went."""
        (row,) = await self._database.tidy(_FORGET, before, limit)
        return int(row[0])


def _split(leaves: bytes) -> Sequence[bytes]:
    return [leaves[at : at + HASH_BYTES] for at in range(0, len(leaves), HASH_BYTES)]


def _signed(document: bytes, signature: bytes, key_id: str) -> Signed:
    return Signed(document=document, signature=signature, key_id=key_id)
