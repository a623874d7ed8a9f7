"""What backs a gateway's word: its signed statement, and the hardware's quote over that statement.

A platform quote is an opaque report of a confidential machine. It carries 64 bytes that the guest
chose; here they are the hash of the statement, which names the keys that consumers seal to and the
nonce of whoever asks. So a quote that verifies says: this machine has stated exactly this, after
the nonce was drawn (docs/confidential-gateway.md).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from darkbloom_edge.documents import (
    HexDigest,
    Instant,
    Key32,
    Name,
    Version,
    encode_document,
    parse_rfc3339,
)
from darkbloom_edge.errors import MalformedError, SignatureRejected
from darkbloom_edge.signatures import (
    Ed25519Signer,
    domain_bytes,
    ed25519_key_id,
    from_base64,
)
from darkbloom_edge.signed import open_signed

KIND = "gateway-evidence"
"""Domain of the signature, and of the hash inside a quote."""
REPORT_DATA_BYTES = 64
"""What every platform lets a guest put into its report."""
MAX_QUOTE_BYTES = 64 * 1024
MAX_AGE = timedelta(minutes=5)
"""A statement without a nonce of one's own is not believed for longer."""
_SKEW = timedelta(minutes=2)

# Where reports of a known shape carry the 64 bytes. Others are searched for them.
_OFFSETS: Mapping[str, int] = {"sev_guest": 0x50, "tdx_guest": 48 + 520}


class StatedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that requests may be sealed to."""

    kid: Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]
    public_key: Key32


class GatewayStatement(msgspec.Struct, frozen=True, kw_only=True):
    """What one gateway process says of itself. Nothing in it is proven by being said."""

    version: Version = 1
    gateway: Name
    """Name and number of the process."""
    environment: Literal["production", "development"]
    nonce: HexDigest | None = None
    """32 bytes of whoever asks; absent where nobody gave one."""
    issued_at: Instant
    encryption_keys: Annotated[tuple[StatedKey, ...], Meta(max_length=16)]
    """The published key, then those that still open; none where sealing is off."""
    countersign_key: Key32
    """With which this process countersigns receipts; made at its start, never written."""
    software_version: Annotated[str, Meta(max_length=64)]
    build_commit: Annotated[str, Meta(max_length=64)] | None = None
    """As the operator has set it."""
    image_digest: Annotated[str, Meta(max_length=128)] | None = None
    """As the operator has set it."""


class Outcome(Enum):
    """What came of one check."""

    HOLDS = "holds"
    FAILS = "fails"
    NOT_SHOWN = "not shown"


@dataclass(frozen=True, slots=True)
class Check:
    """One claim and what came of it."""

    name: str
    outcome: Outcome
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownEvidence:
    """The signed statement and the quote, as they came."""

    document: bytes
    signature: bytes
    key_id: str
    quote_kind: str | None = None
    quote: bytes | None = None


def sign_statement(statement: GatewayStatement, signer: Ed25519Signer) -> tuple[bytes, bytes]:
    """Return a statement's canonical bytes and their signature."""
    document = encode_document(statement)
    return document, signer.sign(KIND, document)


def report_data(document: bytes) -> bytes:
    """Return the 64 bytes that a quote must carry: SHA-512 over domain and statement."""
    return hashlib.sha512(domain_bytes(KIND, document)).digest()


def carries(kind: str, quote: bytes, data: bytes) -> bool:
    """Return whether a quote carries these 64 bytes; says nothing of the quote's own signature."""
    if len(data) != REPORT_DATA_BYTES:
        return False
    offset = _OFFSETS.get(kind)
    if offset is None:
        return data in quote
    return quote[offset : offset + REPORT_DATA_BYTES] == data


def check_evidence(
    shown: ShownEvidence,
    *,
    nonce: str,
    encryption_key: bytes | None,
    keys: Mapping[str, bytes],
    now: datetime,
) -> tuple[Check, ...]:
    """Check all that can be checked without the maker of the machine.

    Args:
        shown: what the gateway answered.
        nonce: the caller's own, 64 hex digits.
        encryption_key: what `GET /v1/encryption-key` publishes; None where it publishes none.
        keys: countersign keys by id, from the receipts' key page.
        now: the caller's time.
    """
    try:
        statement = open_signed(
            shown.document,
            shown.signature,
            shown.key_id,
            keys=keys,
            kind=KIND,
            shape=GatewayStatement,
        )
    except SignatureRejected as error:
        return (Check("statement", Outcome.FAILS, str(error)),)
    return (
        Check("statement", Outcome.HOLDS, f"signed by {shown.key_id} of {statement.gateway}"),
        _check_signer(statement, shown),
        _check_nonce(statement, nonce),
        _check_age(statement, now),
        _check_key(statement, encryption_key),
        _check_quote(shown),
    )


def _check_signer(statement: GatewayStatement, shown: ShownEvidence) -> Check:
    try:
        own = ed25519_key_id(from_base64(statement.countersign_key)) == shown.key_id
    except MalformedError:
        own = False
    if own:
        return Check("countersign key", Outcome.HOLDS, "the statement names the key that signed it")
    return Check("countersign key", Outcome.FAILS, "the statement names another key")


def _check_nonce(statement: GatewayStatement, nonce: str) -> Check:
    if statement.nonce == nonce:
        return Check("nonce", Outcome.HOLDS, "made after you asked")
    return Check("nonce", Outcome.FAILS, "not the one that was sent: an old answer")


def _check_age(statement: GatewayStatement, now: datetime) -> Check:
    try:
        age = now - parse_rfc3339(statement.issued_at)
    except MalformedError:
        return Check("age", Outcome.FAILS, "no time")
    if -_SKEW <= age <= MAX_AGE:
        return Check("age", Outcome.HOLDS, statement.issued_at)
    return Check("age", Outcome.FAILS, f"issued at {statement.issued_at}")


def _check_key(statement: GatewayStatement, published: bytes | None) -> Check:
    if published is None and not statement.encryption_keys:
        return Check("encryption key", Outcome.NOT_SHOWN, "this gateway publishes none")
    stated: list[bytes] = []
    for key in statement.encryption_keys:
        try:
            stated.append(from_base64(key.public_key))
        except MalformedError:
            continue
    if published is not None and published in stated:
        return Check("encryption key", Outcome.HOLDS, "the published key is in the statement")
    return Check("encryption key", Outcome.FAILS, "the published key is not in the statement")


def _check_quote(shown: ShownEvidence) -> Check:
    """Never `HOLDS`: 64 bytes in the right place are easily forged, and the maker was not asked."""
    if shown.quote is None or shown.quote_kind is None:
        return Check("hardware quote", Outcome.NOT_SHOWN, "no hardware evidence")
    if not carries(shown.quote_kind, shown.quote, report_data(shown.document)):
        return Check("hardware quote", Outcome.FAILS, "the quote is over something else")
    return Check(
        "hardware quote",
        Outcome.NOT_SHOWN,
        f"{shown.quote_kind} names this statement; the maker's signature was not checked here",
    )
