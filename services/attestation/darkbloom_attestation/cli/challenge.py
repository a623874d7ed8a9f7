"""`verify-challenge`: judge the answer to a challenge offline (spec/security.md §5)."""

from typing import Any

from darkbloom_edge.attestation import (
    Challenge,
    ChallengeOutcome,
    Expected,
    Severity,
    verify_challenge,
)
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.signatures import from_base64, parse_p256_public, to_base64

from darkbloom_attestation.cli.documents import ChallengeFile, read_file, read_key, read_time


def verify_answer(data: bytes) -> dict[str, Any]:
    """Judge one file; `result` is `valid` when nothing but recorded posture is wrong.

    Raises:
        MalformedError: the file itself cannot be read.
    """
    file = read_file(data, ChallengeFile)
    now = read_time(file.verify_at)
    identity_key = parse_p256_public(file.identity_key)
    expected = Expected(
        challenge=Challenge(file.nonce, file.timestamp, file.provider_id),
        identity_key=identity_key,
        encryption_key=read_key(file.public_key, "public_key"),
        posture_required=file.posture_required,
        binary_hash=file.binary_hash,
        metallib_hash=file.metallib_hash,
        runtime_capabilities=file.runtime_capabilities,
        known_binaries=file.known_binaries,
        model_hashes=file.model_hashes,
    )
    try:
        signature = from_base64(file.status_signature)
    except MalformedError:
        # Not canonical: it cannot verify, and the judge says so in its own words.
        signature = b"\x00"

    outcome = verify_challenge(file.status.encode(), signature, expected, now)

    return _report(outcome, identity_key)


def _report(outcome: ChallengeOutcome, identity_key: bytes) -> dict[str, Any]:
    hard = [f for f in outcome.findings if f.severity is not Severity.RECORDED]
    report = outcome.report

    return {
        "result": "valid" if outcome.passed else "invalid",
        "reason": hard[0].code.value if hard else None,
        "consequence": hard[0].severity.value if hard else None,
        "untrust": outcome.untrust,
        "posture_clean": outcome.posture_clean,
        "identity_key": to_base64(identity_key),
        "encryption_key": None if report is None else report.public_key,
        "findings": [
            {"code": f.code.value, "severity": f.severity.value} for f in outcome.findings
        ],
    }
