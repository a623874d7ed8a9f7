"""Evidence in PostgreSQL: the store behind the port, and the source of the revocation feed."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Literal, final

import asyncpg
from darkbloom_edge.documents import rfc3339
from darkbloom_edge.log import KeyEntry
from darkbloom_edge.signatures import to_base64
from darkbloom_mesh.postgres import Connection, Database

from darkbloom_attestation.apns.tables import CodeTable
from darkbloom_attestation.errors import KeyConflictError
from darkbloom_attestation.evidence_tables import EvidenceTable
from darkbloom_attestation.evidence_view import read_device_evidence
from darkbloom_attestation.figures import Compared, Figures
from darkbloom_attestation.life_tables import CommandTable, LifeTable
from darkbloom_attestation.model import (
    CodeRelease,
    Exhibit,
    IssuedRevocation,
    OfferChange,
    PublicKey,
    ReceiptKey,
)
from darkbloom_attestation.offer_tables import OfferTable, read_figures
from darkbloom_attestation.publishing import Shown
from darkbloom_attestation.tables import (
    CHANNEL,
    ReleaseTable,
    SessionTable,
    VerdictTable,
    exhibit_of,
    release_of,
    revocation_of,
)
from darkbloom_attestation.transparency.tables import LogTable


@final
class Change:
    """One all-or-nothing change."""

    def __init__(self, connection: Connection) -> None:
        self.sessions = SessionTable(connection)
        """Registrations and challenges."""
        self.verdicts = VerdictTable(connection)
        """Verdicts and revocations."""
        self.releases = ReleaseTable(connection)
        """Blessed code."""
        self.offers = OfferTable(connection)
        """What became of offers."""
        self.log = LogTable(connection)
        """The transparency log."""
        self.evidence = EvidenceTable(connection)
        """Device evidence."""
        self.lives = LifeTable(connection)
        """How sessions of one machine follow each other."""
        self.commands = CommandTable(connection)
        """What the device manager was asked."""
        self.codes = CodeTable(connection)
        """Code identity."""


@final
class PostgresStore:
    """Keeps evidence.

    Raises:
        StoreUnavailableError: from every method, when PostgreSQL cannot be reached in time.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Change]:
        """Begin a change; rolled back by an exception."""
        async with self._database.transaction() as connection:
            yield Change(connection)

    async def list_releases(self, *, include_inactive: bool) -> Sequence[CodeRelease]:
        """Return releases, oldest first."""
        async with self._database.acquire() as connection:
            rows = await connection.fetch(
                "SELECT * FROM attestation.code_releases WHERE active OR $1"
                " ORDER BY create_time, code_release",
                include_inactive,
            )
        return [release_of(row) for row in rows]

    async def release(self, code_release: str) -> CodeRelease | None:
        """Return a release, active or not."""
        async with self._database.acquire() as connection:
            row = await connection.fetchrow(
                "SELECT * FROM attestation.code_releases WHERE code_release = $1", code_release
            )
        return None if row is None else release_of(row)

    async def offer_changes(self, code_release: str) -> Sequence[OfferChange]:
        """Return the newest changes of an offer, oldest first."""
        async with self._database.acquire() as connection:
            return await OfferTable(connection).newest(code_release)

    async def offer_figures(self, wanted: Compared) -> tuple[Figures, Figures]:
        """Return how machines of a release do, and those of the others."""
        async with self._database.acquire() as connection:
            return await read_figures(connection, wanted)

    async def exhibits(self, provider_ids: Sequence[str], now: datetime) -> Sequence[Exhibit]:
        """Return what may be shown of accepted sessions; unknown and refused ones are left out."""
        async with self._database.acquire() as connection:
            rows = await connection.fetch(
                "SELECT r.*, c.challenge_id, c.status, c.signature AS status_signature,"
                " c.judge_time, v.verdict_id, v.code_release, v.document,"
                " v.signature AS verdict_signature, v.key_id AS verdict_key_id,"
                " v.trust_level AS verdict_trust_level, v.admission, v.issue_time, v.expire_time"
                " FROM attestation.registrations r"
                " LEFT JOIN LATERAL (SELECT * FROM attestation.challenges"
                " WHERE challenges.provider_id = r.provider_id AND state = 'passed'"
                " ORDER BY judge_time DESC LIMIT 1) c ON true"
                " LEFT JOIN LATERAL (SELECT * FROM attestation.verdicts"
                " WHERE verdicts.provider_id = r.provider_id AND expire_time > $2"
                " AND NOT EXISTS (SELECT FROM attestation.revocations"
                " WHERE revocations.verdict_id = verdicts.verdict_id)"
                " ORDER BY issue_time DESC LIMIT 1) v ON true"
                " WHERE r.provider_id = ANY($1) AND r.accepted",
                list(provider_ids),
                now,
            )
        return [exhibit_of(row) for row in rows]

    async def device_evidence(self, verdict_ids: Sequence[str]) -> Mapping[str, Sequence[Shown]]:
        """Return the device evidence behind `hardware` verdicts, as everybody may see it."""
        if not verdict_ids:
            return {}
        async with self._database.acquire() as connection:
            return await read_device_evidence(connection, verdict_ids)

    async def seen(self, provider_ids: Sequence[str], now: datetime) -> None:
        """Note that sessions are alive; unknown ones are skipped."""
        async with self._database.acquire() as connection:
            await connection.execute(
                "UPDATE attestation.sessions SET seen_time = $2 WHERE provider_id IN"
                " (SELECT provider_id FROM attestation.sessions WHERE provider_id = ANY($1)"
                " ORDER BY provider_id FOR UPDATE)",
                list(provider_ids),
                now,
            )

    async def put_receipt_key(self, key: ReceiptKey) -> ReceiptKey:
        """Write a gateway's key, or its retirement, and log it; return it as it is now.

        Raises:
            KeyConflictError: the key belongs to another gateway.
        """
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                "INSERT INTO attestation.receipt_keys AS known (key_id, public_key, gateway,"
                " create_time, retire_time) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (key_id)"
                " DO UPDATE SET retire_time = coalesce(known.retire_time, $5)"
                " WHERE known.gateway = $3 RETURNING *",
                key.key.key_id,
                key.key.public_key,
                key.gateway,
                key.key.create_time,
                key.key.retire_time,
            )
            if row is None:
                raise KeyConflictError("this receipt key belongs to another gateway")
            known = _receipt_key(row)
            await _log_key(LogTable(connection), "receipt_key", known.key)

        return known

    async def put_verdict_keys(self, keys: Sequence[PublicKey]) -> None:
        """Have the keys that sign verdicts in the log."""
        async with self._database.transaction() as connection:
            for key in keys:
                await _log_key(LogTable(connection), "verdict_key", key)

    async def list_receipt_keys(self) -> Sequence[ReceiptKey]:
        """Return all gateways' keys, oldest first."""
        async with self._database.acquire() as connection:
            rows = await connection.fetch(
                "SELECT * FROM attestation.receipt_keys ORDER BY create_time, key_id"
            )
        return [_receipt_key(row) for row in rows]

    async def revocations(
        self, after: int, since: datetime
    ) -> tuple[int, Sequence[tuple[int, IssuedRevocation]]]:
        """Return the newest generation, and revocations after one that are not older than `since`.

        Generations appear in commit order, so whatever is read later has a higher one.
        """
        async with self._database.acquire() as connection:
            newest = await connection.fetchval("SELECT generation FROM attestation.generation")
            rows = await connection.fetch(
                "SELECT * FROM attestation.revocations WHERE generation > $1 AND generation <= $2"
                " AND issue_time >= $3 ORDER BY generation",
                after,
                newest,
                since,
            )
        return newest, [(row["generation"], revocation_of(row)) for row in rows]

    async def listen(self, notify: Callable[[], None]) -> None:
        """Call `notify` once listening and after every revocation, until the connection is lost."""
        await self._database.listen(CHANNEL, notify)


def _receipt_key(row: asyncpg.Record) -> ReceiptKey:
    key = PublicKey(
        key_id=row["key_id"],
        public_key=row["public_key"],
        create_time=row["create_time"],
        retire_time=row["retire_time"],
    )
    return ReceiptKey(key=key, gateway=row["gateway"])


async def _log_key(
    log: LogTable, kind: Literal["receipt_key", "verdict_key"], key: PublicKey
) -> None:
    """Say once that a key came into use, and once that it signs no more."""
    steps: list[tuple[Literal["published", "retired"], datetime]] = [("published", key.create_time)]
    if key.retire_time is not None:
        steps.append(("retired", key.retire_time))
    for action, time in steps:
        entry = KeyEntry(
            kind=kind,
            action=action,
            key_id=key.key_id,
            public_key=to_base64(key.public_key),
            time=rfc3339(time),
        )
        await log.append(entry, key=f"{kind}:{key.key_id}:{action}")
