"""The tables of device evidence: attested keys, key proofs, postures, tombstones."""

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import final

import asyncpg
from darkbloom_mesh.postgres import Connection

from darkbloom_attestation.evidence import (
    AttestedKey,
    Grounds,
    KeyProof,
    KeyProofKind,
    Posture,
    PostureKind,
    key_subject,
    serial_subject,
)
from darkbloom_attestation.model import IssuedVerdict


@final
class EvidenceTable:
    """Device evidence of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def key(self, key_id: bytes) -> AttestedKey | None:
        """Return an attested key."""
        row = await self._connection.fetchrow(
            "SELECT * FROM attestation.app_attest_keys WHERE key_id = $1", key_id
        )
        if row is None:
            return None

        return AttestedKey(
            key_id=row["key_id"],
            public_key=row["public_key"],
            environment=row["environment"],
            owner_account_id=row["owner_account_id"],
            counter=row["counter"],
            document=row["document"],
            attestation=row["attestation"],
            create_time=row["create_time"],
            revoked=row["revoke_time"] is not None,
        )

    async def add_key(self, key: AttestedKey) -> bool:
        """Write a new attested key; False when it is known already."""
        added = await self._connection.fetchval(
            "INSERT INTO attestation.app_attest_keys (key_id, public_key, environment,"
            " owner_account_id, counter, document, attestation, create_time)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (key_id) DO NOTHING"
            " RETURNING true",
            key.key_id,
            key.public_key,
            key.environment,
            key.owner_account_id,
            key.counter,
            key.document,
            key.attestation,
            key.create_time,
        )
        return bool(added)

    async def count_up(self, key_id: bytes, counter: int, owner_account_id: str) -> bool:
        """Raise a key's counter in one statement, and give a key of nobody to an account.

        False unless the counter was lower, the key is not revoked and of no other account.
        """
        raised = await self._connection.fetchval(
            "UPDATE attestation.app_attest_keys SET counter = $2,"
            " owner_account_id = CASE owner_account_id WHEN '' THEN $3 ELSE owner_account_id END"
            " WHERE key_id = $1 AND counter < $2 AND revoke_time IS NULL"
            " AND ($3 = '' OR owner_account_id IN ('', $3)) RETURNING true",
            key_id,
            counter,
            owner_account_id,
        )
        return bool(raised)

    async def add_proof(self, proof: KeyProof) -> None:
        """Write a key proof."""
        await self._connection.execute(
            "INSERT INTO attestation.key_proofs (evidence_id, kind, provider_id, identity_key,"
            " encryption_key, serial_hash, document, signature, key_id, observe_time, expire_time)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            proof.evidence_id,
            proof.kind.value,
            proof.provider_id,
            proof.identity_key,
            proof.encryption_key,
            proof.serial_hash,
            proof.document,
            proof.signature,
            proof.key_id,
            proof.observe_time,
            proof.expire_time,
        )

    async def proof_of(self, provider_id: str, now: datetime) -> KeyProof | None:
        """Return the newest key proof of a session that has not expired."""
        row = await self._connection.fetchrow(
            "SELECT * FROM attestation.key_proofs WHERE provider_id = $1 AND expire_time > $2"
            " ORDER BY seq DESC LIMIT 1",
            provider_id,
            now,
        )
        return None if row is None else _proof(row)

    async def add_posture(self, posture: Posture) -> None:
        """Write a posture; the same proof again changes nothing."""
        await self._connection.execute(
            "INSERT INTO attestation.postures (evidence_id, kind, serial_hash, identity_key,"
            " fingerprint, sip_enabled, full_security, document, observe_time, expire_time)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
            " ON CONFLICT (fingerprint) DO NOTHING",
            posture.evidence_id,
            posture.kind.value,
            posture.serial_hash,
            posture.identity_key,
            posture.fingerprint,
            posture.sip_enabled,
            posture.full_security,
            posture.document,
            posture.observe_time,
            posture.expire_time,
        )

    async def postures_of(self, identity_key: bytes, serial_hash: bytes) -> Sequence[Posture]:
        """Return the postures of a device that no tombstone has overtaken, newest first."""
        rows = await self._connection.fetch(
            "SELECT * FROM attestation.postures p WHERE identity_key = $1 AND serial_hash = $2"
            " AND seq > (SELECT coalesce(max(tombstone_seq), 0) FROM attestation.subjects"
            " WHERE subject = ANY($3)) ORDER BY seq DESC LIMIT 64",
            identity_key,
            serial_hash,
            [key_subject(identity_key), serial_subject(serial_hash)],
        )
        return [_posture(row) for row in rows]

    async def subjects(self, identity_key: bytes, serial_hash: bytes) -> None:
        """Lock an enclave key and a serial until the end of the transaction."""
        names = sorted([key_subject(identity_key), serial_subject(serial_hash)])
        await self._connection.execute(
            "INSERT INTO attestation.subjects (subject) SELECT unnest($1::text[])"
            " ON CONFLICT (subject) DO NOTHING",
            names,
        )
        await self._connection.execute(
            "SELECT FROM attestation.subjects WHERE subject = ANY($1) ORDER BY subject FOR UPDATE",
            names,
        )

    async def rivals(
        self, identity_key: bytes, serial_hash: bytes, now: datetime, seen_after: datetime
    ) -> Sequence[tuple[str, PostureKind]]:
        """Return verdict id and posture kind of other keys' live claims on a serial."""
        rows = await self._connection.fetch(
            "SELECT v.verdict_id, p.kind FROM attestation.verdicts v"
            " JOIN attestation.postures p ON p.evidence_id = v.posture_id"
            " JOIN attestation.sessions s ON s.provider_id = v.provider_id"
            " WHERE v.serial_hash = $2 AND v.trust_level = 'hardware' AND v.identity_key <> $1"
            " AND v.expire_time > $3 AND coalesce(s.seen_time, v.issue_time) > $4"
            " AND s.untrusted = '' AND NOT EXISTS (SELECT FROM attestation.revocations r"
            " WHERE r.verdict_id = v.verdict_id) ORDER BY v.verdict_id",
            identity_key,
            serial_hash,
            now,
            seen_after,
        )
        return [(row["verdict_id"], PostureKind(row["kind"])) for row in rows]

    async def grant(self, verdict: IssuedVerdict, grounds: Grounds) -> bool:
        """Write a `hardware` verdict in one statement, unless a tombstone is newer.

        The tombstones' rows are locked by the statement itself: one that is being written is
        waited for and then seen, and one that comes later finds the verdict and revokes it.
        """
        proof, posture = grounds.proof, grounds.posture
        granted = await self._connection.fetchval(
            "WITH held AS MATERIALIZED (SELECT tombstone_seq FROM attestation.subjects"
            " WHERE subject = ANY($1) ORDER BY subject FOR UPDATE),"
            " newest AS (SELECT count(*) AS known, max(tombstone_seq) AS seq FROM held)"
            " INSERT INTO attestation.verdicts (verdict_id, provider_id, code_release,"
            " trust_level, admission, document, signature, key_id, issue_time, expire_time,"
            " key_proof_id, posture_id, identity_key, encryption_key, serial_hash, posture_good)"
            " SELECT $2, k.provider_id, $4, 'hardware', $5, $6, $7, $8, $9, $10,"
            " k.evidence_id, p.evidence_id, k.identity_key, k.encryption_key, k.serial_hash, p.good"
            " FROM newest n, attestation.key_proofs k, attestation.postures p,"
            " attestation.sessions s"
            " WHERE k.evidence_id = $11 AND p.evidence_id = $12 AND s.provider_id = $3"
            " AND k.provider_id = $3 AND p.good AND s.untrusted = ''"
            " AND k.expire_time >= $10 AND p.expire_time >= $10"
            " AND n.known = 2 AND k.seq > n.seq AND p.seq > n.seq AND s.seq > n.seq"
            " RETURNING true",
            [key_subject(proof.identity_key), serial_subject(proof.serial_hash)],
            verdict.verdict_id,
            verdict.provider_id,
            verdict.code_release,
            verdict.admission,
            verdict.signed.document,
            verdict.signed.signature,
            verdict.signed.key_id,
            verdict.issue_time,
            verdict.expire_time,
            proof.evidence_id,
            posture.evidence_id,
        )
        return bool(granted)

    async def bury(
        self, identity_key: bytes, serial_hash: bytes, reason: str, now: datetime
    ) -> Sequence[str]:
        """Set tombstones on a key and, unless empty, a serial; return live `hardware` verdicts."""
        names = [key_subject(identity_key)]
        if serial_hash:
            names.append(serial_subject(serial_hash))
        # Sorted, so that two that bury the same subjects never wait for each other in a ring.
        await self._connection.execute(
            "INSERT INTO attestation.subjects AS s (subject, tombstone_seq, tombstone_reason,"
            " tombstone_time) SELECT name, nextval('attestation.evidence_seq'), $2, $3"
            " FROM (SELECT unnest($1::text[]) AS name ORDER BY name) names"
            " ON CONFLICT (subject) DO UPDATE SET"
            " tombstone_seq = nextval('attestation.evidence_seq'),"
            " tombstone_reason = $2, tombstone_time = $3",
            sorted(names),
            reason,
            now,
        )
        rows = await self._connection.fetch(
            "SELECT verdict_id FROM attestation.verdicts v WHERE trust_level = 'hardware'"
            " AND expire_time > $3 AND (identity_key = $1 OR serial_hash = $2)"
            " AND NOT EXISTS (SELECT FROM attestation.revocations r"
            " WHERE r.verdict_id = v.verdict_id) ORDER BY issue_time, verdict_id",
            identity_key,
            serial_hash,
            now,
        )
        return [row["verdict_id"] for row in rows]


def _proof(row: asyncpg.Record) -> KeyProof:
    fields = {field.name: row[field.name] for field in dataclasses.fields(KeyProof)}
    return KeyProof(**{**fields, "kind": KeyProofKind(row["kind"])})


def _posture(row: asyncpg.Record) -> Posture:
    fields = {field.name: row[field.name] for field in dataclasses.fields(Posture)}
    return Posture(**{**fields, "kind": PostureKind(row["kind"])})
