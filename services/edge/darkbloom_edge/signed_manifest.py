"""Manifests as strangers get them: the exact document, and the registry's signature over it.

The store of the bytes need not be trusted then, not even at the first download: who lists a
file's digest has signed it.
"""

from collections.abc import Mapping
from typing import Final

from darkbloom_edge.errors import RejectReason, SignatureRejected
from darkbloom_edge.manifest import Manifest, parse_manifest
from darkbloom_edge.signatures import Ed25519Signer, verify_ed25519

MANIFEST_KIND: Final = "manifest"
"""The document's kind, as in docs/wire.md §5."""
SIGNATURE_HEADER: Final = "x-darkbloom-manifest-signature"
"""Carries the signature over HTTP, base64."""
KEY_ID_HEADER: Final = "x-darkbloom-manifest-key-id"
"""Carries the id of the key that signed."""


def sign_manifest(document: bytes, signer: Ed25519Signer) -> bytes:
    """Sign the exact bytes of a manifest; 64 bytes."""
    return signer.sign(MANIFEST_KIND, document)


def open_manifest(
    document: bytes, signature: bytes, key_id: str, keys: Mapping[str, bytes]
) -> Manifest:
    """Check the signature, then every rule of the document.

    Args:
        document: the exact bytes that were carried.
        signature: 64 bytes.
        key_id: the key that is said to have signed.
        keys: the pinned public keys by id.

    Raises:
        SignatureRejected: unknown key or bad signature.
        MalformedError: signed, but it breaks a rule.
    """
    public = keys.get(key_id)
    if public is None:
        raise SignatureRejected(RejectReason.UNKNOWN_KEY)
    verify_ed25519(public, MANIFEST_KIND, document, signature)

    return parse_manifest(document)
