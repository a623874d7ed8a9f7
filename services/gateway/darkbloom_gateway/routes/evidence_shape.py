"""One machine as strangers see it (docs/public-evidence.md): what it says, and what backs that."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from darkbloom.attestation.v1.attestation_pb2 import (
    EVIDENCE_BACKING_STRANGER,
    Evidence,
)
from darkbloom.attestation.v1.attestation_service_pb2 import ProviderEvidence
from darkbloom.router.v1.fleet_pb2 import Provider
from darkbloom_edge.documents import decode_document
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.public_form import PublicRegistration
from google.protobuf.timestamp_pb2 import Timestamp

_HARDWARE = "hardware"
_PROVIDER, _OPERATOR, _CHECKABLE = "provider_asserted", "operator_asserted", "checkable"
_BINDING = frozenset({"app_attest", "apns"})
"""Evidence in which an app that Apple vouches for names the identity key."""
_BACKING = {
    "chip_name": _PROVIDER,
    "hardware_model": _PROVIDER,
    "memory_gb": _PROVIDER,
    "gpu_cores": _PROVIDER,
    "models": _PROVIDER,
    "version": _PROVIDER,
    "backend": _PROVIDER,
    "trust_level": _OPERATOR,
    "admission": _OPERATOR,
    "status": _OPERATOR,
    "last_challenge_at": _OPERATOR,
    "secure_enclave": _OPERATOR,
    "sip_enabled": _OPERATOR,
    "secure_boot_enabled": _PROVIDER,
    "authenticated_root_enabled": _PROVIDER,
    "system_volume_hash": _PROVIDER,
    "mdm_verified": _OPERATOR,
    "mda_verified": _OPERATOR,
}
"""Who vouches for the plain fields; nothing here is signed by itself."""


def shape_of(row: Provider, evidence: Mapping[str, ProviderEvidence | None]) -> dict[str, Any]:
    """Return the public entry of one machine.

    Args:
        row: from the router.
        evidence: as `Exhibits.of`.
    """
    name, attested = row.provider_id, row.trust_level == _HARDWARE
    public = evidence.get(name)
    pieces = public.evidence if public is not None else ()
    kinds = {piece.kind for piece in pieces}
    claims = _claims(pieces)
    content = {
        "provider_id": name,
        "chip_name": row.hardware.chip_name,
        "hardware_model": row.hardware.machine_model,
        "memory_gb": row.hardware.memory_gb,
        "gpu_cores": row.hardware.gpu_cores,
        "models": [model.id for model in row.models],
        "trust_level": row.trust_level,
        "admission": row.admission,
        "status": row.status,
        "secure_enclave": attested,
        "sip_enabled": attested and row.privacy.sip_enabled,
        "secure_boot_enabled": attested and claims is not None and claims.secure_boot_enabled,
        "authenticated_root_enabled": (
            attested and claims is not None and claims.authenticated_root_enabled
        ),
        "system_volume_hash": claims.system_volume_hash if claims is not None else None,
        "se_public_key": base64_text(row.identity_key) if attested else None,
        "se_key_bound": bool(kinds & _BINDING),
        "mdm_verified": attested,
        "mda_verified": attested and "mda" in kinds,
        "acme_verified": False,
        "version": row.version,
        "backend": row.backend,
        "identity_key": base64_text(row.identity_key),
        "encryption_key": base64_text(row.encryption_key),
        "last_challenge_at": (
            instant_text(row.last_challenge_time) if row.HasField("last_challenge_time") else None
        ),
        "verdict": (
            {
                "document": base64_text(row.verdict.document),
                "signature": base64_text(row.verdict.signature),
                "key_id": row.verdict.key_id,
            }
            if row.HasField("verdict")
            else None
        ),
        "evidence": [_piece(piece) for piece in pieces],
        "evidence_unavailable": True if name in evidence and public is None else None,
        "backing": _BACKING,
    }
    return {name: value for name, value in content.items() if value is not None}


def base64_text(data: bytes) -> str:
    """Write standard, padded base64."""
    return base64.b64encode(data).decode("ascii")


def instant_text(time: Timestamp) -> str:
    """Write a time in RFC 3339, UTC."""
    return time.ToJsonString()


def _claims(pieces: Sequence[Evidence]) -> PublicRegistration | None:
    """Read the machine's own claims, as far as they are shown."""
    for piece in pieces:
        if piece.kind == "registration" and piece.document:
            try:
                return decode_document(piece.document, PublicRegistration)
            except MalformedError:
                return None
    return None


def _piece(piece: Evidence) -> dict[str, Any]:
    checkable = piece.backing == EVIDENCE_BACKING_STRANGER
    raw = {
        "document": piece.document,
        "signature": piece.signature,
        "attestation": piece.attestation,
        "attestation_document": piece.attestation_document,
        "key_id": piece.key_id,
    }
    return {
        "id": piece.evidence_id,
        "kind": piece.kind,
        "backing": _CHECKABLE if checkable else _OPERATOR,
        "observed_at": instant_text(piece.observe_time),
        **(
            {"expires_at": instant_text(piece.expire_time)} if piece.HasField("expire_time") else {}
        ),
        **{name: base64_text(data) for name, data in raw.items() if data},
        **({"environment": piece.environment} if piece.environment else {}),
    }
