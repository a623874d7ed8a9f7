"""The transparency log: what its entries say, its signed head, and proofs (docs/wire.md §5).

Anybody may keep a copy. What is in it can neither be changed nor taken out unseen: each head is
signed, and two heads that do not grow out of each other convict whoever signed them.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from darkbloom_edge.documents import (
    Count,
    HexDigest,
    Instant,
    Key32,
    Name,
    Version,
    decode_document,
    encode_document,
)
from darkbloom_edge.merkle import leaf_hash, verify_consistency, verify_inclusion
from darkbloom_edge.signatures import Ed25519Signer
from darkbloom_edge.signed import open_signed

KIND = "log_head"
"""Domain of a head's signature."""
MAX_ENTRY_BYTES = 1 << 20
"""Largest entry that is written or read."""
MAX_BATCH = 4096
"""Most receipts under one entry."""

EntryKind = Literal["release", "receipt_key", "verdict_key", "catalog", "receipts"]
"""What an entry speaks of."""


class LogHead(msgspec.Struct, frozen=True, kw_only=True):
    """The log at one moment."""

    version: Version = 1
    tree_size: Count
    root_hash: HexDigest
    time: Instant


class ReleaseEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A code release was blessed, or the blessing was taken back."""

    version: Version = 1
    kind: Literal["release"] = "release"
    action: Literal["blessed", "withdrawn"]
    code_release: Name
    release_version: Annotated[str, Meta(max_length=512)]
    platform: Annotated[str, Meta(max_length=512)]
    python_hash: HexDigest
    runtime_hash: HexDigest
    template_hashes: dict[str, HexDigest]
    development: bool
    manifest_sha256: HexDigest | None = None
    """SHA-256 of the signed manifest's bytes, where there is one."""
    time: Instant


class KeyEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A public key came into use, or signs no more."""

    version: Version = 1
    kind: Literal["receipt_key", "verdict_key"]
    action: Literal["published", "retired"]
    key_id: Name
    public_key: Key32
    time: Instant


class LoggedBuild(msgspec.Struct, frozen=True, kw_only=True):
    """Which weights a build may answer with."""

    weight_hash: Annotated[str, Meta(max_length=512)]
    """Of the active version."""
    identity_hash: Annotated[str, Meta(max_length=512)]
    accepted: list[Annotated[str, Meta(max_length=512)]]
    """Active and retained, sorted."""


class CatalogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A revision of the catalog: all builds that are served."""

    version: Version = 1
    kind: Literal["catalog"] = "catalog"
    generation: Count
    builds: dict[str, LoggedBuild]
    time: Instant


class ReceiptsEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A batch of receipts. It tells nobody anything of them: one root over keyed digests."""

    version: Version = 1
    kind: Literal["receipts"] = "receipts"
    batch: Name
    root_hash: HexDigest
    """Of the tree over the countersigns of the batch."""
    size: Annotated[int, Meta(ge=1, le=MAX_BATCH)]
    time: Instant


Entry = ReleaseEntry | KeyEntry | CatalogEntry | ReceiptsEntry
"""What the log holds."""

_SHAPES: Mapping[str, type[Entry]] = {
    "release": ReleaseEntry,
    "receipt_key": KeyEntry,
    "verdict_key": KeyEntry,
    "catalog": CatalogEntry,
    "receipts": ReceiptsEntry,
}


class _Kind(msgspec.Struct):
    kind: EntryKind


def encode_entry(entry: Entry) -> bytes:
    """Write the canonical bytes that become a leaf."""
    return encode_document(entry)


def timeless(entry: Entry) -> bytes:
    """Write an entry without its time, to tell whether two say the same."""
    return encode_document(msgspec.structs.replace(entry, time="1970-01-01T00:00:00Z"))


def decode_entry(data: bytes) -> Entry:
    """Read an entry.

    Raises:
        MalformedError: not one of this version.
    """
    kind = decode_document(data, _Kind, max_bytes=MAX_ENTRY_BYTES).kind

    return decode_document(data, _SHAPES[kind], max_bytes=MAX_ENTRY_BYTES)


def subjects_of(entry: Entry) -> Sequence[str]:
    """Return the names under which an entry is looked up, together with its kind."""
    match entry:
        case ReleaseEntry():
            return [entry.code_release]
        case KeyEntry():
            return [entry.key_id]
        case ReceiptsEntry():
            return [entry.batch]
        case CatalogEntry():
            return [
                build_subject(name, weight_hash)
                for name, build in entry.builds.items()
                for weight_hash in build.accepted
            ]


def build_subject(build: str, weight_hash: str) -> str:
    """Name a build with certain weights, for a look-up in the log."""
    return f"{build}@{weight_hash}"


def sign_head(head: LogHead, signer: Ed25519Signer) -> tuple[bytes, bytes]:
    """Return (document, signature)."""
    document = encode_document(head)

    return document, signer.sign(KIND, document)


def open_head(document: bytes, signature: bytes, key_id: str, keys: Mapping[str, bytes]) -> LogHead:
    """Check a head's signature and read it.

    Raises:
        SignatureRejected: unknown key, bad signature, or malformed.
    """
    return open_signed(document, signature, key_id, keys=keys, kind=KIND, shape=LogHead)


def includes(head: LogHead, entry: bytes, index: int, path: Sequence[bytes]) -> bool:
    """Tell whether an entry is in the log as a head has it."""
    root = bytes.fromhex(head.root_hash)

    return verify_inclusion(leaf_hash(entry), index, head.tree_size, path, root)


def grown(old: LogHead, new: LogHead, path: Sequence[bytes]) -> bool:
    """Tell whether the log has only grown from one head to another."""
    roots = bytes.fromhex(old.root_hash), bytes.fromhex(new.root_hash)

    return verify_consistency(old.tree_size, new.tree_size, *roots, path)
