"""Receipts: what a consumer keeps to prove who answered, and what (docs/wire.md §5)."""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from darkbloom_edge.documents import (
    Count,
    Date,
    HexDigest,
    Instant,
    Name,
    Version,
    decode_document,
    encode_document,
)
from darkbloom_edge.signatures import Ed25519Signer
from darkbloom_edge.signed import open_signed
from darkbloom_edge.terminal import Outcome
from darkbloom_edge.transcript import RECEIPT_KEY_BYTES

KIND = "receipt"
"""Domain of the countersignature."""
MAX_RECEIPT_BYTES = 262_144
"""Largest receipt that is read."""


class OpenedCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What the edge itself has opened."""

    frames: Count
    prompt_tokens: Count
    completion_tokens: Count
    cached_tokens: Count = 0


class Countersign(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway adds to the provider's terminal, or says alone where none was verified."""

    version: Version = 1
    request_id: Annotated[str, Meta(pattern=r"^req_[0-9a-f]{32}\Z")]
    attempt_id: Annotated[str, Meta(pattern=r"^att_[0-9a-f]{32}\Z")]
    verdict_id: Annotated[str, Meta(pattern=r"^ver_[0-9a-f]{32}\Z")] | None = None
    """The verdict that the request was sealed under."""
    terminal_sha256: HexDigest | None = None
    """SHA-256 of the terminal's exact bytes; absent where the answer broke before it came."""
    body_digest: HexDigest | None = None
    """Digest of the HTTP body exactly as received, see `transcript.body_digest`; absent in
    end-to-end mode, and only there.
    """
    mode: Literal["end_to_end"] | None = None
    """The gateway relayed ciphertext, and `opened` is what it passed on."""
    sealed_sha256: HexDigest | None = None
    """End-to-end mode: SHA-256 of the sealed request exactly as passed on."""
    relayed_sha256: HexDigest | None = None
    """End-to-end mode: SHA-256 of all sealed chunks, one after the other, as passed on."""
    requested_model: Name
    """What the consumer asked for, alias included."""
    opened: OpenedCounts
    outcome: Outcome | Literal["broken"]
    """The terminal's word, or `broken` without one."""
    issued_at: Instant
    output_bound: Count | None = None
    """The bound inside the canonical request, so that the consumer can rebuild it."""
    prompt_date: Date | None = None
    """The date inside the canonical request, for the same end."""
    sealed_to: Annotated[int, Meta(ge=1, le=1024)] | None = None
    """Providers sealed to in the end; absent where no more than the terminal says."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """A receipt; byte fields are base64 in its JSON; repr is redacted."""

    version: Version = 1
    receipt_key: (
        Annotated[bytes, Meta(min_length=RECEIPT_KEY_BYTES, max_length=RECEIPT_KEY_BYTES)] | None
    ) = None
    """Key of all digests. It comes with the answer and is kept nowhere: a copy that was looked up
    later has none, and says nothing about content.
    """
    terminal: bytes
    """The terminal's exact bytes."""
    terminal_signature: bytes
    identity_key: bytes
    """The provider's key, 65 bytes."""
    verdict: bytes
    """The verdict's exact bytes."""
    verdict_signature: bytes
    verdict_key_id: Name
    countersign: bytes
    """The countersign's exact bytes."""
    countersign_signature: bytes
    gateway_key_id: Name

    def __repr__(self) -> str:
        return "Receipt(<redacted>)"


def encode_countersign(countersign: Countersign) -> bytes:
    """Write the canonical bytes that are signed and carried."""
    return encode_document(countersign)


def sign_countersign(countersign: Countersign, signer: Ed25519Signer) -> tuple[bytes, bytes]:
    """Return (document, signature)."""
    document = encode_countersign(countersign)

    return document, signer.sign(KIND, document)


def verify_countersign(
    document: bytes, signature: bytes, key_id: str, keys: Mapping[str, bytes]
) -> Countersign:
    """Check a gateway's countersignature and read it.

    Raises:
        SignatureRejected: unknown key, bad signature, or malformed.
    """
    return open_signed(document, signature, key_id, keys=keys, kind=KIND, shape=Countersign)


def terminal_sha256(terminal: bytes) -> str:
    """Return the hash by which a countersign names a terminal."""
    return hashlib.sha256(terminal).hexdigest()


def build_receipt(
    *,
    receipt_key: bytes | None,
    terminal: bytes,
    terminal_signature: bytes,
    identity_key: bytes,
    verdict: bytes,
    verdict_signature: bytes,
    verdict_key_id: str,
    countersign: bytes,
    countersign_signature: bytes,
    gateway_key_id: str,
) -> bytes:
    """Return the receipt as JSON, ready to be spliced into an answer."""
    return encode_document(
        Receipt(
            receipt_key=receipt_key,
            terminal=terminal,
            terminal_signature=terminal_signature,
            identity_key=identity_key,
            verdict=verdict,
            verdict_signature=verdict_signature,
            verdict_key_id=verdict_key_id,
            countersign=countersign,
            countersign_signature=countersign_signature,
            gateway_key_id=gateway_key_id,
        )
    )


def parse_receipt(data: bytes) -> Receipt:
    """Read a receipt; nothing in it is checked yet, see `verify.verify_receipt`.

    Raises:
        MalformedError: not a receipt of this version.
    """
    return decode_document(data, Receipt, max_bytes=MAX_RECEIPT_BYTES)
