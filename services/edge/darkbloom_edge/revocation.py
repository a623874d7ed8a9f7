"""Revocations: a verdict or an identity that no longer counts."""

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from darkbloom_edge.documents import Instant, Name, Point65, Version, encode_document
from darkbloom_edge.errors import RejectReason, SignatureRejected
from darkbloom_edge.signatures import Ed25519Signer
from darkbloom_edge.signed import open_signed

KIND = "revocation"
"""Domain of the signature."""


class Revocation(msgspec.Struct, frozen=True, kw_only=True):
    """One revocation; names a verdict, an identity, or both."""

    version: Version = 1
    revocation_id: Annotated[str, Meta(pattern=r"^rev_[0-9a-f]{32}\Z")]
    verdict_id: Annotated[str, Meta(pattern=r"^ver_[0-9a-f]{32}\Z")] | None = None
    identity_key: Point65 | None = None
    """Every verdict of this identity, present and future."""
    reason: Name
    issued_at: Instant


def encode(revocation: Revocation) -> bytes:
    """Write the canonical bytes that are signed and carried."""
    return encode_document(revocation)


def sign_revocation(revocation: Revocation, signer: Ed25519Signer) -> tuple[bytes, bytes]:
    """Return (document, signature)."""
    document = encode(revocation)

    return document, signer.sign(KIND, document)


def verify_revocation(
    document: bytes, signature: bytes, key_id: str, keys: Mapping[str, bytes]
) -> Revocation:
    """Check a revocation and read it; it has no expiry.

    Raises:
        SignatureRejected: unknown key, bad signature, malformed, or it revokes nothing.
    """
    revocation = open_signed(document, signature, key_id, keys=keys, kind=KIND, shape=Revocation)
    if revocation.verdict_id is None and revocation.identity_key is None:
        raise SignatureRejected(RejectReason.MALFORMED, "names neither verdict nor identity")

    return revocation
