"""Files that hold a provider's own statements, read so that signed bytes stay as they were."""

from datetime import datetime
from typing import Annotated, TypeVar

import msgspec
from darkbloom_edge.documents import parse_rfc3339
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.signatures import from_base64
from darkbloom_edge.strict_json import parse_json_object
from msgspec import Meta

MAX_FILE_BYTES = 1_048_576
"""Largest file that is read."""

Text = Annotated[str, Meta(max_length=4096)]

T = TypeVar("T", bound=msgspec.Struct)


class BlobFile(msgspec.Struct, frozen=True, kw_only=True):
    """A registration as it was presented, for `verify-blob`."""

    attestation: msgspec.Raw
    """The signed object: its exact bytes count, spelling included."""
    signature: Text
    """DER in base64."""
    verify_at: Text
    """RFC 3339: when it was presented."""
    public_key: Text | None = None
    """K as registered, base64; absent: the one in the object, unchecked."""
    known_binaries: Annotated[list[Text], Meta(max_length=4096)] | None = None
    """Blessed binary hashes; absent where that is not enforced."""


class ChallengeFile(msgspec.Struct, frozen=True, kw_only=True):
    """A challenge and its answer, for `verify-challenge`."""

    nonce: Text
    timestamp: Text
    provider_id: Text
    status: Annotated[str, Meta(max_length=65_536)]
    """The signed status, exactly."""
    status_signature: Text
    """DER in base64."""
    identity_key: Text
    """Key of the registration, base64 of 64 or 65 bytes."""
    public_key: Text
    """K as registered, base64."""
    verify_at: Text
    """RFC 3339: when the answer came."""
    posture_required: bool = True
    """Whether bad posture untrusts, as for every provider above `none`."""
    binary_hash: Text | None = None
    metallib_hash: Text | None = None
    runtime_capabilities: Annotated[list[Text], Meta(max_length=64)] | None = None
    known_binaries: Annotated[list[Text], Meta(max_length=4096)] | None = None
    model_hashes: Annotated[dict[Text, Text], Meta(max_length=1024)] | None = None


def read_file(data: bytes, kind: type[T]) -> T:
    """Read one file.

    Raises:
        MalformedError: too large, ambiguous, or a field missing or of another type.
    """
    # First for what a lenient reader would let pass, such as a repeated key.
    parse_json_object(data, max_bytes=MAX_FILE_BYTES)
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError):
        raise MalformedError("is not a file of this kind") from None


def read_time(text: str) -> datetime:
    """Read `verify_at`.

    Raises:
        MalformedError: no such time.
    """
    return parse_rfc3339(text, fraction=True)


def read_key(text: str, what: str) -> bytes:
    """Read base64.

    Raises:
        MalformedError: it is none.
    """
    return from_base64(text, what)
