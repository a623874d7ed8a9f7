"""Verdicts: what attestation says about one provider, for at most 16 minutes."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from darkbloom_edge.documents import (
    Instant,
    Key32,
    Name,
    Point65,
    Version,
    encode_document,
    parse_rfc3339,
)
from darkbloom_edge.errors import MalformedError, RejectReason, SignatureRejected
from darkbloom_edge.signatures import Ed25519Signer, parse_p256_public
from darkbloom_edge.signed import open_signed

KIND = "verdict"
"""Domain of the signature."""
MAX_LIFETIME = timedelta(minutes=16)
"""Longest time between issue and expiry."""
MAX_SKEW = timedelta(minutes=2)
"""How far in the future an issue time may lie, for clocks that differ."""

TrustLevel = Literal["none", "self_signed", "hardware"]
"""How well the provider's claims are backed, rising."""
Admission = Literal["public", "owner", "development"]
"""Whose requests it may get: everybody's, its owner's, or those of a development mesh."""

_LEVELS: tuple[TrustLevel, ...] = ("none", "self_signed", "hardware")


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What attestation says about one provider's session."""

    version: Version = 1
    verdict_id: Annotated[str, Meta(pattern=r"^ver_[0-9a-f]{32}\Z")]
    provider_id: Annotated[str, Meta(pattern=r"^prov_[0-9a-f]{32}\Z")]
    """The provider's session: the verdict dies with its stream."""
    identity_key: Point65
    """P-256 key that signs terminals, 65 bytes in base64."""
    encryption_key: Key32
    """K, to which requests are sealed, 32 bytes in base64."""
    trust_level: TrustLevel
    admission: Admission
    evidence: Annotated[list[Name], Meta(max_length=64)]
    """Ids of the evidence that was checked."""
    code_release: Name
    """The blessed code that the provider runs, as far as the evidence says."""
    issued_at: Instant
    expires_at: Instant


def trust_level_rank(level: TrustLevel) -> int:
    """Return the place of a level: none 0, self_signed 1, hardware 2."""
    return _LEVELS.index(level)


def encode(verdict: Verdict) -> bytes:
    """Write the canonical bytes that are signed and carried."""
    return encode_document(verdict)


def sign_verdict(verdict: Verdict, signer: Ed25519Signer) -> tuple[bytes, bytes]:
    """Return (document, signature)."""
    document = encode(verdict)

    return document, signer.sign(KIND, document)


def verify_verdict(
    document: bytes,
    signature: bytes,
    key_id: str,
    keys: Mapping[str, bytes],
    now: datetime,
) -> Verdict:
    """Check a verdict and read it.

    Args:
        document: the exact bytes that were carried.
        signature: Ed25519, 64 bytes.
        key_id: which of attestation's keys signed.
        keys: attestation's pinned public keys by id.
        now: the present, time zone aware.

    Raises:
        SignatureRejected: unknown key, bad signature, malformed, or not in force now.
    """
    verdict = read_verdict(document, signature, key_id, keys)
    issued, expires = lifetime_of(verdict)
    if issued > now + MAX_SKEW:
        raise SignatureRejected(RejectReason.NOT_YET_VALID)
    if now >= expires:
        raise SignatureRejected(RejectReason.EXPIRED)

    return verdict


def read_verdict(
    document: bytes, signature: bytes, key_id: str, keys: Mapping[str, bytes]
) -> Verdict:
    """Check a verdict's signature and shape, whatever the time is now.

    Raises:
        SignatureRejected: unknown key, bad signature, malformed, or of impossible lifetime.
    """
    verdict = open_signed(document, signature, key_id, keys=keys, kind=KIND, shape=Verdict)
    try:
        parse_p256_public(verdict.identity_key)
        issued, expires = lifetime_of(verdict)
    except MalformedError as error:
        raise SignatureRejected(RejectReason.MALFORMED, str(error)) from None
    if not timedelta(0) < expires - issued <= MAX_LIFETIME:
        raise SignatureRejected(RejectReason.LIFETIME)

    return verdict


def lifetime_of(verdict: Verdict) -> tuple[datetime, datetime]:
    """Return (issued, expires).

    Raises:
        MalformedError: a time is no calendar time.
    """
    return parse_rfc3339(verdict.issued_at), parse_rfc3339(verdict.expires_at)
