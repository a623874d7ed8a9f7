"""The transparency log in PostgreSQL: entries, what they speak of, and perfect subtrees.

All three tables can only grow: their trigger refuses everything else. One sequencer at a time: an
advisory lock is held from the choice of an index to the end of its transaction, so indices have no
gaps and everything below a size that was read once is committed.
"""

from collections.abc import Mapping, Sequence
from typing import final

from darkbloom_edge.log import (
    MAX_ENTRY_BYTES,
    Entry,
    EntryKind,
    decode_entry,
    encode_entry,
    subjects_of,
    timeless,
)
from darkbloom_edge.merkle import Node, completed_by, leaf_hash, node_hash
from darkbloom_mesh.errors import InvalidArgumentError
from darkbloom_mesh.postgres import Connection, Database

from darkbloom_attestation.errors import LogConflictError
from darkbloom_attestation.model import LoggedEntry

_SEQUENCER = "attestation.log"
_SIZE = "SELECT coalesce(max(log_index) + 1, 0) FROM attestation.log_entries"
_NODES = """
    SELECT n.level, n.place, n.hash FROM unnest($1::int[], $2::bigint[]) AS w (level, place)
    JOIN attestation.log_nodes n ON n.level = w.level AND n.place = w.place
"""
# Sizes are summed before any body is read. Both choices take the same parameters.
_PAGE = """
    WITH chosen AS ({chosen} ORDER BY log_index LIMIT $2),
    sized AS (
      SELECT log_index, sum(octet_length(body)) OVER (ORDER BY log_index) - octet_length(body)
        AS before
      FROM chosen JOIN attestation.log_entries USING (log_index))
    SELECT log_index, body FROM sized JOIN attestation.log_entries USING (log_index)
    WHERE before < $3 ORDER BY log_index
"""
_ABOUT = """SELECT log_index FROM attestation.log_subjects
    WHERE kind = $4 AND subject = $5 AND log_index >= $1"""
_OF_KIND = """SELECT log_index FROM attestation.log_entries
    WHERE log_index >= $1 AND ($4::text IS NULL OR kind = $4) AND $5 = ''"""


@final
class LogTable:
    """The end of the log, inside one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def append(self, entry: Entry, *, key: str | None = None) -> int:
        """Append an entry and return its index; nobody else appends until the transaction ends.

        Raises:
            InvalidArgumentError: the entry is too large.
            LogConflictError: the first entry under this key says something else.
        """
        body = encode_entry(entry)
        if len(body) > MAX_ENTRY_BYTES:
            raise InvalidArgumentError(f"larger than {MAX_ENTRY_BYTES} bytes", "entry")
        connection = self._connection
        await connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", _SEQUENCER
        )
        known = await connection.fetchrow(
            "SELECT log_index, body FROM attestation.log_entries WHERE entry_key = $1", key
        )
        if known is not None:
            if timeless(decode_entry(known["body"])) != timeless(entry):
                raise LogConflictError("the log has another entry under this key")
            return int(known["log_index"])

        index = int(await connection.fetchval(_SIZE))
        await connection.execute(
            "INSERT INTO attestation.log_entries (log_index, kind, entry_key, body)"
            " VALUES ($1, $2, $3, $4)",
            index,
            entry.kind,
            key,
            body,
        )
        await connection.executemany(
            "INSERT INTO attestation.log_subjects (kind, subject, log_index) VALUES ($1, $2, $3)"
            " ON CONFLICT DO NOTHING",
            [(entry.kind, subject, index) for subject in subjects_of(entry)],
        )
        await self._grow(index, leaf_hash(body))

        return index

    async def _grow(self, index: int, leaf: bytes) -> None:
        """Write the leaf and every perfect subtree that it completes."""
        above = completed_by(index)
        lefts = [Node(node.level - 1, node.place * 2) for node in above]
        known = await _fetch_nodes(self._connection, lefts)
        hashes = {Node(0, index): leaf}
        joined = leaf
        for node, left in zip(above, lefts, strict=True):
            joined = node_hash(known[left], joined)
            hashes[node] = joined
        await self._connection.executemany(
            "INSERT INTO attestation.log_nodes (level, place, hash) VALUES ($1, $2, $3)",
            [(node.level, node.place, value) for node, value in hashes.items()],
        )


@final
class PostgresLog:
    """Reads the log.

    Raises:
        StoreUnavailableError: from every method, when PostgreSQL cannot be reached in time.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def size(self) -> int:
        """Return the number of entries."""
        async with self._database.acquire() as connection:
            return int(await connection.fetchval(_SIZE))

    async def nodes(self, wanted: Sequence[Node]) -> Mapping[Node, bytes]:
        """Return hashes of perfect subtrees; those that are not complete yet are missing."""
        async with self._database.acquire() as connection:
            return await _fetch_nodes(connection, wanted)

    async def entries(
        self, start: int, limit: int, kind: EntryKind | None, subject: str, max_bytes: int
    ) -> Sequence[LoggedEntry]:
        """Return entries from an index on, in order, until they come to some size."""
        about = _ABOUT if subject else _OF_KIND
        async with self._database.acquire() as connection:
            rows = await connection.fetch(
                _PAGE.format(chosen=about), start, limit, max_bytes, kind, subject
            )

        return [LoggedEntry(index=row["log_index"], body=row["body"]) for row in rows]


async def _fetch_nodes(connection: Connection, wanted: Sequence[Node]) -> dict[Node, bytes]:
    if not wanted:
        return {}
    rows = await connection.fetch(
        _NODES, [node.level for node in wanted], [node.place for node in wanted]
    )

    return {Node(row["level"], row["place"]): row["hash"] for row in rows}
