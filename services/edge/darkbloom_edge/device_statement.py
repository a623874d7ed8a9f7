"""The device statement: what an attested app says about its own process, enclave and machine.

It is the one thing that joins key provenance to device posture. The app signs it with an App Attest
key (as client data), so Apple vouches for whoever says: this session, this K, this enclave key, and
this serial are mine. The serial is inside as a salted commitment, so that statement and signature
can be shown to strangers; serial and salt travel beside it and stay with attestation.
"""

import hashlib
import hmac
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from darkbloom_edge.challenge import Challenge
from darkbloom_edge.documents import (
    HexDigest,
    Key32,
    Name,
    Point65,
    Version,
    decode_document,
    encode_document,
)
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.signatures import domain_bytes, to_base64

KIND = "device_statement"
"""Domain of what is signed."""
MAX_STATEMENT_BYTES = 4096
"""Largest statement that is read."""
SALT_BYTES = 32
"""Size of a commitment's salt; serials can be guessed, salts cannot."""
MAX_SERIAL = 32
"""Longest serial, in characters."""

_COMMITMENT = b"darkbloom:serial-commitment:v1\x00"


class DeviceStatement(msgspec.Struct, frozen=True, kw_only=True):
    """What an attested app says when it is challenged."""

    version: Version = 1
    provider_id: Annotated[str, Meta(pattern=r"^prov_[0-9a-f]{32}\Z")]
    """The session that was challenged."""
    nonce: Name
    """The challenge's, so that a statement is fresh and counts once."""
    timestamp: Name
    """The challenge's."""
    identity_key: Point65
    """The enclave key, 65 bytes in base64."""
    encryption_key: Key32
    """K, 32 bytes in base64."""
    serial_commitment: HexDigest
    """`serial_commitment` of the machine's serial."""
    app_version: Name
    os_version: Name


class StatementFault(StrEnum):
    """What is wrong with a statement."""

    MALFORMED = "statement_malformed"
    NOT_CANONICAL = "statement_not_canonical"
    WRONG_PROVIDER = "statement_wrong_provider"
    WRONG_NONCE = "statement_wrong_nonce"
    WRONG_IDENTITY = "statement_wrong_identity"
    WRONG_ENCRYPTION_KEY = "statement_wrong_encryption_key"
    WRONG_SERIAL = "statement_wrong_serial"


@dataclass(frozen=True, slots=True)
class StatementOutcome:
    """What a statement is worth."""

    statement: DeviceStatement | None
    fault: StatementFault | None = None
    """The first thing that is wrong; None where nothing is."""


def build_statement(statement: DeviceStatement) -> bytes:
    """Write the canonical bytes that are signed and carried."""
    return encode_document(statement)


def client_data_hash(document: bytes) -> bytes:
    """Return the 32 bytes that an App Attest key attests and asserts for a statement."""
    return hashlib.sha256(domain_bytes(KIND, document)).digest()


def serial_commitment(serial: str, salt: bytes) -> str:
    """Commit to a serial without showing it.

    Raises:
        MalformedError: a salt of another size, or a serial that is none.
    """
    if len(salt) != SALT_BYTES:
        raise MalformedError(f"a salt has {SALT_BYTES} bytes", "serial_salt")
    if not 0 < len(serial) <= MAX_SERIAL or not (serial.isascii() and serial.isalnum()):
        raise MalformedError("is not a serial", "serial_number")

    return hashlib.sha256(_COMMITMENT + salt + serial.encode("ascii")).hexdigest()


def verify_statement(
    document: bytes,
    *,
    challenge: Challenge,
    identity_key: bytes,
    encryption_key: bytes,
    serial: str,
    salt: bytes,
) -> StatementOutcome:
    """Check that a statement is about this challenge, these keys and this serial.

    Never raises on bad input. That an attested app said it, is for the signature to prove.

    Args:
        document: the statement as carried.
        challenge: what was asked.
        identity_key: the key of the registration, 65 bytes.
        encryption_key: K as registered, 32 bytes.
        serial: what the commitment must open to.
        salt: of the commitment.
    """
    try:
        statement = decode_document(document, DeviceStatement, max_bytes=MAX_STATEMENT_BYTES)
    except MalformedError:
        return StatementOutcome(None, StatementFault.MALFORMED)
    if encode_document(statement) != document:
        return StatementOutcome(statement, StatementFault.NOT_CANONICAL)

    try:
        committed = serial_commitment(serial, salt)
    except MalformedError:
        committed = ""
    rows = (
        (statement.provider_id == challenge.provider_id, StatementFault.WRONG_PROVIDER),
        (
            (statement.nonce, statement.timestamp) == (challenge.nonce, challenge.timestamp),
            StatementFault.WRONG_NONCE,
        ),
        (statement.identity_key == to_base64(identity_key), StatementFault.WRONG_IDENTITY),
        (
            statement.encryption_key == to_base64(encryption_key),
            StatementFault.WRONG_ENCRYPTION_KEY,
        ),
        (
            hmac.compare_digest(statement.serial_commitment, committed),
            StatementFault.WRONG_SERIAL,
        ),
    )
    fault = next((fault for holds, fault in rows if not holds), None)

    return StatementOutcome(statement, fault)
