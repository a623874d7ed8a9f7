"""Bundles: everything that an offline check of one answer needs, in one JSON file.

Nothing in a bundle is believed because it is there. Whoever checks it brings his own pins: keys of
verdicts, keys of releases, the App ID; what they do not cover is reported as not claimed.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from darkbloom_edge.documents import Count, HexDigest, Name, Version, decode_document

MAX_BUNDLE_BYTES = 16 * 1024 * 1024
"""Largest bundle that is read."""

Bytes = Annotated[bytes, Meta(max_length=2 * 1024 * 1024)]
"""Base64 in the JSON."""
Path = Annotated[list[HexDigest], Meta(max_length=64)]
"""Hashes from the bottom up."""


class BundledSigned(msgspec.Struct, frozen=True, kw_only=True):
    """A signed document, exactly as signed."""

    document: Bytes
    signature: Bytes
    key_id: Name


class BundledAnchor(msgspec.Struct, frozen=True, kw_only=True):
    """A receipt's place in its batch, as `GET /v1/receipts/{id}` shows it."""

    batch: Name
    index: Count
    size: Count
    path: Path
    root_hash: HexDigest
    log_index: Count


class BundledEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the log and its path to the bundled head."""

    index: Count
    entry: Bytes
    path: Path


class BundledLog(msgspec.Struct, frozen=True, kw_only=True):
    """A head of the log, and entries below it."""

    head: BundledSigned
    entries: Annotated[list[BundledEntry], Meta(max_length=256)]


class BundledKey(msgspec.Struct, frozen=True, kw_only=True):
    """A published key."""

    key_id: Name
    public_key: Bytes


class BundledKeys(msgspec.Struct, frozen=True, kw_only=True):
    """What `GET /v1/receipts/keys` answered."""

    verdict_keys: list[BundledKey]
    receipt_keys: list[BundledKey]


class BundledEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of evidence, as the attestation page shows it."""

    id: Name
    kind: Name
    backing: Name
    document: Bytes = b""
    signature: Bytes = b""
    attestation: Bytes = b""
    attestation_document: Bytes = b""
    key_id: Bytes = b""
    environment: Annotated[str, Meta(max_length=64)] = ""


class BundledProvider(msgspec.Struct, frozen=True, kw_only=True):
    """The entry of a machine on the attestation page; other fields are its own or our word."""

    provider_id: Name
    identity_key: Bytes
    encryption_key: Bytes
    evidence: Annotated[list[BundledEvidence], Meta(max_length=64)]


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """One answer's receipt and all that backs it; repr is redacted."""

    version: Version = 1
    receipt: dict[str, Any]
    keys: BundledKeys
    """As published; believed only as far as pins or the log cover them."""
    anchor: BundledAnchor | None = None
    log: BundledLog | None = None
    provider: BundledProvider | None = None
    release: BundledSigned | None = None
    """The signed manifest of the release in the verdict."""

    def __repr__(self) -> str:
        return "Bundle(<redacted>)"


def parse_bundle(data: bytes) -> Bundle:
    """Read a bundle; nothing in it is checked yet, see `verify_bundle`.

    Raises:
        MalformedError: not a bundle of this version.
    """
    return decode_document(data, Bundle, max_bytes=MAX_BUNDLE_BYTES)
