"""The one order of checks of every document that a service signs: key, signature, shape."""

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from darkbloom_edge.documents import decode_document
from darkbloom_edge.errors import MalformedError, RejectReason, SignatureRejected
from darkbloom_edge.signatures import verify_ed25519

T = TypeVar("T", bound=msgspec.Struct)


def open_signed(
    document: bytes,
    signature: bytes,
    key_id: str,
    *,
    keys: Mapping[str, bytes],
    kind: str,
    shape: type[T],
) -> T:
    """Check an Ed25519-signed document and read it.

    Args:
        document: the exact bytes that were carried.
        signature: 64 bytes.
        key_id: the key that is said to have signed.
        keys: the pinned public keys by id.
        kind: the document's kind, as in docs/wire.md §5.
        shape: what to read it as.

    Raises:
        SignatureRejected: unknown key, bad signature, or signed but malformed.
    """
    public = keys.get(key_id)
    if public is None:
        raise SignatureRejected(RejectReason.UNKNOWN_KEY)
    verify_ed25519(public, kind, document, signature)

    return read_signed(document, shape)


def read_signed(document: bytes, shape: type[T]) -> T:
    """Read a document whose signature has been checked.

    Raises:
        SignatureRejected: it is malformed.
    """
    try:
        return decode_document(document, shape)
    except MalformedError as error:
        raise SignatureRejected(RejectReason.MALFORMED, str(error)) from None
