"""The registration blob: what a provider claims about itself, signed by its identity key.

A self-signature proves possession of a P-256 key, not that the key sits in a Secure Enclave: any
software can produce this blob. Hence it never reaches more than `self_signed`.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from darkbloom_edge.documents import Key32, decode_document, encode_document, parse_rfc3339
from darkbloom_edge.errors import MalformedError, NotOnCurveError, SignatureRejected
from darkbloom_edge.signatures import (
    IdentitySigner,
    from_base64,
    is_canonical_der,
    parse_p256_public,
    verify_p256_raw,
)
from darkbloom_edge.verdict import TrustLevel

MAX_BLOB_BYTES = 16_384
"""Largest blob that is read."""
MAX_AGE = timedelta(minutes=2)
"""How far the blob's time may lie from ours, in both directions."""

Text = Annotated[str, Meta(max_length=1024)]


class RegistrationFault(StrEnum):
    """What is wrong with a registration; posture items cap the level, the others are hard."""

    ABSENT = "absent"
    MALFORMED = "malformed"
    INVALID_TIMESTAMP = "invalid_timestamp"
    INVALID_PUBLIC_KEY = "invalid_public_key"
    POINT_NOT_ON_CURVE = "point_not_on_curve"
    INVALID_SIGNATURE_BASE64 = "invalid_signature_base64"
    INVALID_DER_SIGNATURE = "invalid_der_signature"
    SIGNATURE_FAILED = "signature_failed"
    NO_SECURE_ENCLAVE = "no_secure_enclave"
    SIP_DISABLED = "sip_disabled"
    SECURE_BOOT_DISABLED = "secure_boot_disabled"
    STALE = "stale"
    ENCRYPTION_KEY_MISSING = "encryption_key_missing"
    ENCRYPTION_KEY_MISMATCH = "encryption_key_mismatch"
    BINARY_UNKNOWN = "binary_unknown"

    @property
    def kind(self) -> "FaultKind":
        """Which sort of fault it is: broken bytes, a bad signature, or a bad posture."""
        return _KINDS.get(self, FaultKind.MALFORMED)


class FaultKind(StrEnum):
    """The sorts of faults, for whoever must tell a broken client from a lying one."""

    MALFORMED = "malformed"
    """The bytes do not have their shape: nothing can be said about who sent them."""
    BAD_SIGNATURE = "bad_signature"
    """Well formed, and not signed by the key that it names."""
    BAD_POSTURE = "bad_posture"
    """Truthfully signed, and the machine is not protected."""
    STALE = "stale"
    """Correct once; a replay, or a wrong clock."""
    BAD_BINDING = "bad_binding"
    """Signed for another K than the one that was registered."""
    UNKNOWN_CODE = "unknown_code"
    """Signed, and the code is not blessed."""


_KINDS = {
    RegistrationFault.SIGNATURE_FAILED: FaultKind.BAD_SIGNATURE,
    RegistrationFault.NO_SECURE_ENCLAVE: FaultKind.BAD_POSTURE,
    RegistrationFault.SIP_DISABLED: FaultKind.BAD_POSTURE,
    RegistrationFault.SECURE_BOOT_DISABLED: FaultKind.BAD_POSTURE,
    RegistrationFault.STALE: FaultKind.STALE,
    RegistrationFault.ENCRYPTION_KEY_MISSING: FaultKind.BAD_BINDING,
    RegistrationFault.ENCRYPTION_KEY_MISMATCH: FaultKind.BAD_BINDING,
    RegistrationFault.BINARY_UNKNOWN: FaultKind.UNKNOWN_CODE,
}

POSTURE_FAULTS = frozenset(fault for fault, kind in _KINDS.items() if kind is FaultKind.BAD_POSTURE)
"""Faults that are recorded and cap the level at `none`; they never untrust."""


class RegistrationBlob(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A provider's claims; absent optional fields are left out of what is signed."""

    authenticated_root_enabled: bool
    binary_hash: Text | None = None
    chip_family: Text | None = None
    chip_name: Text
    encryption_public_key: Text | None = None
    """K in base64."""
    hardware_model: Text
    metallib_hash: Text | None = None
    os_version: Text
    public_key: Text
    """Identity key in base64."""
    rdma_disabled: bool
    runtime_capabilities: Annotated[list[Text], Meta(max_length=64)] | None = None
    secure_boot_enabled: bool
    secure_enclave_available: bool
    serial_number: Text | None = None
    serial_salt: Key32 | None = None
    """Drawn per process; without it nobody can try serials against the public form."""
    sip_enabled: bool
    system_volume_hash: Text | None = None
    timestamp: Text

    def __repr__(self) -> str:
        return f"RegistrationBlob(chip_name={self.chip_name!r}, <serial redacted>)"


class RegistrationFinding(NamedTuple):
    """One thing that is wrong."""

    code: RegistrationFault
    detail: str

    @property
    def hard(self) -> bool:
        """Whether it makes the provider untrusted."""
        return self.code not in POSTURE_FAULTS


@dataclass(frozen=True, slots=True)
class RegistrationOutcome:
    """What a registration is worth."""

    findings: tuple[RegistrationFinding, ...]
    """Everything that is wrong, in the order of the checks."""
    blob: RegistrationBlob | None = None
    """The claims, where they could be read."""
    identity_key: bytes = b""
    """The 65-byte key, where it could be read; normalised, so that one key is one identity."""

    @property
    def accepted(self) -> bool:
        """Whether nothing hard is wrong."""
        return self.blob is not None and not any(finding.hard for finding in self.findings)

    @property
    def trust_level(self) -> TrustLevel:
        """The level that a challenge can confirm: `self_signed` only without any finding."""
        return "self_signed" if self.accepted and not self.findings else "none"


def build_registration(blob: RegistrationBlob, signer: IdentitySigner) -> tuple[bytes, bytes]:
    """Return (document, DER signature) of a provider's own claims."""
    document = encode_document(blob)

    return document, signer.sign_raw(document)


def verify_registration(
    document: bytes,
    signature: bytes,
    *,
    encryption_key: bytes,
    now: datetime,
    known_binaries: Collection[str] | None = None,
) -> RegistrationOutcome:
    """Check a registration over the exact bytes received; never raises on bad input.

    Args:
        document: the blob.
        signature: DER.
        encryption_key: K as registered, 32 bytes.
        now: the present, time zone aware.
        known_binaries: hashes of known code; None where that is not enforced.
    """
    if not document:
        return _rejected(RegistrationFault.ABSENT, "no attestation was presented")
    try:
        blob = decode_document(document, RegistrationBlob, max_bytes=MAX_BLOB_BYTES)
    except MalformedError as error:
        return _rejected(RegistrationFault.MALFORMED, str(error))

    identity_key, key_findings = _read_key(blob)
    findings = [
        # A signature can only be judged with a key; everything else is reported all the same.
        *(key_findings or _check_signature(identity_key, document, signature)),
        *_check_posture(blob),
        *_check_time(blob, now),
        *_check_encryption_key(blob, encryption_key),
    ]
    if known_binaries is not None and blob.binary_hash not in known_binaries:
        findings.append(
            RegistrationFinding(RegistrationFault.BINARY_UNKNOWN, "binary hash not recognized")
        )

    return RegistrationOutcome(tuple(findings), blob, identity_key)


def _rejected(code: RegistrationFault, detail: str) -> RegistrationOutcome:
    return RegistrationOutcome((RegistrationFinding(code, detail),))


def _read_key(blob: RegistrationBlob) -> tuple[bytes, list[RegistrationFinding]]:
    try:
        return parse_p256_public(blob.public_key), []
    except NotOnCurveError as error:
        fault = RegistrationFault.POINT_NOT_ON_CURVE
        return b"", [RegistrationFinding(fault, error.what)]
    except MalformedError as error:
        fault = RegistrationFault.INVALID_PUBLIC_KEY
        return b"", [RegistrationFinding(fault, error.what)]


def _check_signature(key: bytes, document: bytes, signature: bytes) -> list[RegistrationFinding]:
    if not is_canonical_der(signature):
        fault = RegistrationFault.INVALID_DER_SIGNATURE
        return [RegistrationFinding(fault, "signature is not canonical der")]

    try:
        verify_p256_raw(key, document, signature)
    except SignatureRejected:
        fault = RegistrationFault.SIGNATURE_FAILED
        return [RegistrationFinding(fault, "signature verification failed")]

    return []


def _check_posture(blob: RegistrationBlob) -> list[RegistrationFinding]:
    rows = (
        (
            blob.secure_enclave_available,
            RegistrationFault.NO_SECURE_ENCLAVE,
            "secure enclave not available",
        ),
        (blob.sip_enabled, RegistrationFault.SIP_DISABLED, "sip not enabled"),
        (
            blob.secure_boot_enabled,
            RegistrationFault.SECURE_BOOT_DISABLED,
            "secure boot not enabled",
        ),
    )

    return [RegistrationFinding(fault, detail) for holds, fault, detail in rows if not holds]


def _check_time(blob: RegistrationBlob, now: datetime) -> list[RegistrationFinding]:
    try:
        made = parse_rfc3339(blob.timestamp, fraction=True)
    except MalformedError as error:
        return [RegistrationFinding(RegistrationFault.INVALID_TIMESTAMP, error.what)]

    if abs(now - made) > MAX_AGE:
        return [RegistrationFinding(RegistrationFault.STALE, "attestation replay rejected")]

    return []


def _check_encryption_key(
    blob: RegistrationBlob, encryption_key: bytes
) -> list[RegistrationFinding]:
    if not blob.encryption_public_key:
        fault = RegistrationFault.ENCRYPTION_KEY_MISSING
        return [RegistrationFinding(fault, "attestation missing encryption public key")]

    try:
        same = from_base64(blob.encryption_public_key) == encryption_key
    except MalformedError:
        same = False
    if not same:
        fault = RegistrationFault.ENCRYPTION_KEY_MISMATCH
        return [RegistrationFinding(fault, "encryption key mismatch")]

    return []
