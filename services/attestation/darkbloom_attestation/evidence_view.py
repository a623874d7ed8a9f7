"""Device evidence as strangers may see it: raw where anybody could check it, else only named."""

from collections.abc import Mapping, Sequence

import asyncpg
from darkbloom_mesh.postgres import Connection

from darkbloom_attestation.publishing import Backing, Shown

_PROOFS = """
SELECT v.verdict_id, p.*, k.document AS key_document, k.attestation, k.environment
FROM attestation.verdicts v
JOIN attestation.key_proofs p ON p.evidence_id = v.key_proof_id
LEFT JOIN attestation.app_attest_keys k ON k.key_id = p.key_id
WHERE v.verdict_id = ANY($1)
"""
_POSTURES = """
SELECT v.verdict_id, p.evidence_id, p.kind, p.observe_time, p.expire_time
FROM attestation.verdicts v
JOIN attestation.postures p ON p.evidence_id = v.posture_id
WHERE v.verdict_id = ANY($1)
"""


async def read_device_evidence(
    connection: Connection, verdict_ids: Sequence[str]
) -> Mapping[str, Sequence[Shown]]:
    """Return key proof and posture of each `hardware` verdict."""
    shown: dict[str, list[Shown]] = {}
    for query, read in ((_PROOFS, _proof), (_POSTURES, _posture)):
        for row in await connection.fetch(query, list(verdict_ids)):
            shown.setdefault(row["verdict_id"], []).append(read(row))

    return shown


def _proof(row: asyncpg.Record) -> Shown:
    # An App Attest object and its statement convince anybody; that a push was answered, only us.
    attested = row["kind"] == "app_attest"
    return Shown(
        evidence_id=row["evidence_id"],
        kind=row["kind"],
        backing=Backing.STRANGER if attested else Backing.OPERATOR_ASSERTED,
        observe_time=row["observe_time"],
        expire_time=row["expire_time"],
        document=row["document"] if attested else b"",
        signature=row["signature"] if attested else b"",
        attestation=row["attestation"] or b"",
        attestation_document=row["key_document"] or b"",
        key_id=row["key_id"] or b"",
        environment=row["environment"] or "",
    )


def _posture(row: asyncpg.Record) -> Shown:
    # Both kinds name the device in what is signed, so nobody else gets to see them.
    return Shown(
        evidence_id=row["evidence_id"],
        kind=row["kind"],
        backing=Backing.OPERATOR_ASSERTED,
        observe_time=row["observe_time"],
        expire_time=row["expire_time"],
    )
