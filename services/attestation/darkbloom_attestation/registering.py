"""Judging a registration: what a blob and its signature are worth before any challenge."""

import re
from datetime import datetime

from darkbloom_edge.attestation import (
    POSTURE_FAULTS,
    RegistrationBlob,
    RegistrationFault,
    verify_registration,
)
from darkbloom_edge.boxes import KEY_BYTES

from darkbloom_attestation.evidence import serial_hash
from darkbloom_attestation.issue import Issuer
from darkbloom_attestation.model import Presented, Registration

_POSTURE = frozenset(fault.value for fault in POSTURE_FAULTS)
_SERIAL = re.compile(r"[A-Z0-9]{8,14}\Z")


def examine_registration(presented: Presented, issuer: Issuer, now: datetime) -> Registration:
    """Judge what was presented; never raises on bad evidence."""
    outcome = verify_registration(
        presented.blob, presented.signature, encryption_key=presented.encryption_key, now=now
    )
    findings = [finding.code.value for finding in outcome.findings]
    accepted = outcome.accepted
    binary_hash = None if outcome.blob is None else outcome.blob.binary_hash
    if len(presented.encryption_key) != KEY_BYTES:
        # A blob may name a K of any size; only one of 32 bytes can be sealed to.
        accepted = False
        findings.append(RegistrationFault.ENCRYPTION_KEY_MISMATCH.value)
    if binary_hash is not None and not binary_hash.isprintable():
        accepted, binary_hash = False, None
        findings.append(RegistrationFault.MALFORMED.value)

    return Registration(
        registration_id=issuer.new_id("reg"),
        presented=presented,
        accepted=accepted,
        trust_level=outcome.trust_level if accepted else "none",
        # What decided comes first: a missing enclave is no reason, a wrong clock is one.
        findings=tuple(sorted(dict.fromkeys(findings), key=_POSTURE.__contains__)),
        identity_key=outcome.identity_key,
        binary_hash=binary_hash,
        create_time=now,
        serial_hash=_serial_hash(outcome.blob),
    )


def _serial_hash(blob: RegistrationBlob | None) -> bytes:
    serial = None if blob is None else blob.serial_number
    return serial_hash(serial) if serial and _SERIAL.match(serial) else b""
