"""The nouns of device evidence: what a provider shows, what it proved, and what is kept of it."""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

_SERIAL_DOMAIN = b"darkbloom:serial:v1\x00"


class TrustReason(StrEnum):
    """Why a session stands where it stands; the words of `attestation.v1.TrustReason`."""

    HARDWARE_PROVEN = "hardware_proven"
    CHALLENGE_PASSED = "challenge_passed"
    KEY_PROOF_MISSING = "key_proof_missing"
    KEY_PROOF_REJECTED = "key_proof_rejected"
    POSTURE_MISSING = "posture_missing"
    POSTURE_STALE = "posture_stale"
    POSTURE_REJECTED = "posture_rejected"
    POSTURE_MISMATCH = "posture_mismatch"
    SERIAL_IN_USE = "serial_in_use"
    SERIAL_TAKEN = "serial_taken"
    DURABLY_REVOKED = "durably_revoked"
    POSTURE_NOT_CLAIMED = "posture_not_claimed"
    CODE_UNKNOWN = "code_unknown"
    SAME_BINARY = "same_binary"
    APPROVED_RELEASE_TRANSITION = "approved_release_transition"
    CONTINUITY = "continuity"
    CONTINUITY_RELEASE_TRANSITION = "continuity_release_transition"


class KeyProofKind(StrEnum):
    """How it is known that an attested app holds K."""

    APP_ATTEST = "app_attest"
    APNS = "apns"


class PostureKind(StrEnum):
    """How it is known how a device stands; the value order is that of the strength."""

    MDA = "mda"
    """Signed by Apple, over a digest of the enclave key."""
    SECURITY_INFO = "security_info"
    """Reported by the device to our device manager."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppAttestShown:
    """What a provider showed of its App Attest key."""

    key_id: bytes
    assertion: bytes = field(repr=False)
    attestation: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceEvidence:
    """What came with the answer of a challenge, nothing of it checked."""

    statement: bytes = field(repr=False)
    serial: str = field(repr=False)
    salt: bytes = field(repr=False)
    app_attest: AppAttestShown | None = None
    mda_chain: tuple[bytes, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestedKey:
    """A key that Apple says belongs to our app."""

    key_id: bytes
    public_key: bytes
    """65 bytes."""
    environment: str
    owner_account_id: str
    """The only account that may use it; empty until its machine is linked."""
    counter: int
    document: bytes = field(repr=False)
    """The statement that was attested."""
    attestation: bytes = field(repr=False)
    create_time: datetime
    revoked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyProof:
    """An attested app said: this session, this K, this enclave key, this serial."""

    evidence_id: str
    kind: KeyProofKind
    provider_id: str
    identity_key: bytes
    encryption_key: bytes
    serial_hash: bytes
    document: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    key_id: bytes | None
    observe_time: datetime
    expire_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Posture:
    """How a device stands, for one enclave key."""

    evidence_id: str
    kind: PostureKind
    serial_hash: bytes
    identity_key: bytes
    fingerprint: bytes
    """SHA-256 of what proves it: the same proof again is the same row."""
    sip_enabled: bool
    full_security: bool
    document: bytes = field(repr=False)
    observe_time: datetime
    expire_time: datetime

    @property
    def good(self) -> bool:
        """Whether it can back `hardware`."""
        return self.sip_enabled and self.full_security


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuity:
    """What a session has to do with the one before it."""

    posture_since: datetime
    """Evidence about the device that is older does not count."""
    proof_time: datetime | None
    """When the session last proved `hardware`."""
    seen_time: datetime | None
    """When the session was last seen alive."""
    serial_hash: bytes
    runtime_hash: str
    binary_hash: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounds:
    """What a `hardware` verdict stands on."""

    proof: KeyProof
    posture: Posture


def serial_hash(serial: str) -> bytes:
    """Name a serial inside our tables; never published, for serials can be guessed."""
    return hashlib.sha256(_SERIAL_DOMAIN + serial.encode()).digest()


def key_subject(identity_key: bytes) -> str:
    """Name an enclave key as the subject of a tombstone."""
    return f"key:{hashlib.sha256(identity_key).hexdigest()}"


def serial_subject(hashed: bytes) -> str:
    """Name a serial as the subject of a tombstone."""
    return f"serial:{hashed.hex()}"
