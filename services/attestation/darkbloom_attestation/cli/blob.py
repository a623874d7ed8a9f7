"""`verify-blob`: judge a registration blob offline (spec/security.md §3.3)."""

from typing import Any

from darkbloom_edge.attestation import (
    FaultKind,
    RegistrationBlob,
    RegistrationFault,
    RegistrationFinding,
    RegistrationOutcome,
    verify_registration,
)
from darkbloom_edge.documents import decode_document
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.registration import MAX_BLOB_BYTES
from darkbloom_edge.signatures import from_base64, to_base64

from darkbloom_attestation.cli.documents import BlobFile, read_file, read_key, read_time


def verify_blob(data: bytes) -> dict[str, Any]:
    """Judge one file; `result` is `valid` when nothing hard is wrong.

    `valid` says that the key signed these claims. It never says more than `self_signed`: any
    software can make such a blob.

    Raises:
        MalformedError: the file itself cannot be read.
    """
    file = read_file(data, BlobFile)
    document = bytes(file.attestation)
    now = read_time(file.verify_at)
    encryption_key = read_key(_registered_key(file, document), "public_key")

    try:
        signature = from_base64(file.signature)
    except MalformedError:
        return _report(_bad_base64(), checked=file.public_key is not None)
    outcome = verify_registration(
        document,
        signature,
        encryption_key=encryption_key,
        now=now,
        known_binaries=file.known_binaries,
    )

    return _report(outcome, checked=file.public_key is not None)


def _registered_key(file: BlobFile, document: bytes) -> str:
    if file.public_key is not None:
        return file.public_key
    try:
        blob = decode_document(document, RegistrationBlob, max_bytes=MAX_BLOB_BYTES)
    except MalformedError:
        # Its own fault is reported by the judge.
        return ""

    return blob.encryption_public_key or ""


def _bad_base64() -> RegistrationOutcome:
    fault = RegistrationFault.INVALID_SIGNATURE_BASE64

    return RegistrationOutcome((RegistrationFinding(fault, "invalid signature base64"),))


def _report(outcome: RegistrationOutcome, *, checked: bool) -> dict[str, Any]:
    hard = [finding for finding in outcome.findings if finding.hard]
    blob = outcome.blob

    return {
        "result": "valid" if outcome.accepted else "invalid",
        "reason": hard[0].code.value if hard else None,
        "reason_kind": hard[0].code.kind.value if hard else None,
        "trust_level": outcome.trust_level,
        "identity_key": to_base64(outcome.identity_key) if outcome.identity_key else None,
        "encryption_key": None if blob is None else blob.encryption_public_key,
        "encryption_key_checked": checked,
        "posture": [f.code.value for f in outcome.findings if f.code.kind is FaultKind.BAD_POSTURE],
        "findings": [
            {"code": f.code.value, "kind": f.code.kind.value, "hard": f.hard, "detail": f.detail}
            for f in outcome.findings
        ],
    }
