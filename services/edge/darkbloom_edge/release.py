"""Code releases: what exactly a tree of code holds, and the operator's signature over it.

A manifest lists every file of our packages as (path, mode, size, digest) and every library by its
version and by the listing that its installer recorded; the runtime hash, which providers report and
verdicts name, is computed from nothing else. So anybody with the tree can compute it again.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from darkbloom_edge.documents import (
    Count,
    HexDigest,
    Instant,
    Name,
    Version,
    decode_document,
    encode_document,
)
from darkbloom_edge.errors import MalformedError, RejectReason, SignatureRejected
from darkbloom_edge.signatures import Ed25519Signer, verify_ed25519

KIND = "release"
"""Domain of the signature."""
MAX_MANIFEST_BYTES = 1 << 20
"""Largest manifest that is read."""
EXECUTABLE_BITS = 0o111
"""The bits of a mode that are told: a umask must not change a release."""


class TreeFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a package."""

    path: Annotated[str, Meta(min_length=1, max_length=1024)]
    """Below the package, `/` separated."""
    mode: Annotated[str, Meta(pattern=r"^[01]{1,3}\Z")]
    """Its executable bits, octal."""
    size: Count
    sha256: HexDigest


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """One of our packages."""

    name: Name
    files: Annotated[list[TreeFile], Meta(max_length=16_384)]


class Library(msgspec.Struct, frozen=True, kw_only=True):
    """A library that sees plaintext or keys."""

    name: Name
    installed: Annotated[str, Meta(max_length=512)]
    """Its version; empty where it is not installed."""
    listing_sha256: HexDigest | None = None
    """SHA-256 of the lines of its record of files, sorted."""


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """The archive that installs a release, whole: interpreter, packages, libraries."""

    url: Annotated[str, Meta(pattern=r"^https?://[!-~]{1,2040}\Z")]
    sha256: HexDigest
    size_bytes: Annotated[int, Meta(ge=1, le=1 << 33)]


class ReleaseManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a release holds."""

    version: Version = 1
    release_version: Annotated[str, Meta(min_length=1, max_length=64)]
    platform: Annotated[str, Meta(min_length=1, max_length=64)]
    code_release: Name
    python_hash: HexDigest
    runtime_hash: HexDigest
    template_hashes: Annotated[dict[str, HexDigest], Meta(max_length=256)]
    packages: Annotated[list[Package], Meta(min_length=1, max_length=64)]
    libraries: Annotated[list[Library], Meta(max_length=256)]
    created_at: Instant
    bundle: Bundle | None = None
    """Where it is to be had; absent in releases that nobody installs by `darkbloom update`."""


def tree_hash(files: Iterable[TreeFile]) -> str:
    """Hash the records of a tree in path order: `path NUL mode NUL size NUL sha256 LF`."""
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda one: one.path.split("/")):
        digest.update(f"{file.path}\0{file.mode}\0{file.size}\0{file.sha256}\n".encode())

    return digest.hexdigest()


def runtime_hash(packages: Iterable[Package], libraries: Iterable[Library]) -> str:
    """Hash all that runs beside the interpreter, in the order given."""
    digest = hashlib.sha256()
    for package in packages:
        digest.update(f"{package.name}\0{tree_hash(package.files)}\n".encode())
    for library in libraries:
        listing = library.listing_sha256 or "absent"
        digest.update(f"{library.name}\0{library.installed}\0{listing}\n".encode())

    return digest.hexdigest()


def code_release_id(runtime: str) -> str:
    """Name a tree of code by its runtime hash."""
    return f"sha256:{runtime}"


def parse_manifest(data: bytes) -> ReleaseManifest:
    """Read a manifest and compute its hashes again.

    Raises:
        MalformedError: not one of this version, or its hashes are not those of its files.
    """
    manifest = decode_document(data, ReleaseManifest, max_bytes=MAX_MANIFEST_BYTES)
    if manifest.runtime_hash != runtime_hash(manifest.packages, manifest.libraries):
        raise MalformedError("is not the hash of the files", "runtime_hash")
    if manifest.code_release != code_release_id(manifest.runtime_hash):
        raise MalformedError("does not name the runtime hash", "code_release")

    return manifest


def sign_manifest(manifest: ReleaseManifest, signer: Ed25519Signer) -> tuple[bytes, bytes]:
    """Return (document, signature).

    Raises:
        MalformedError: the manifest contradicts itself or is too large.
    """
    document = encode_document(manifest)
    parse_manifest(document)

    return document, signer.sign(KIND, document)


def open_manifest(
    document: bytes, signature: bytes, key_id: str, keys: Mapping[str, bytes]
) -> ReleaseManifest:
    """Check the operator's signature over a manifest and read it.

    Args:
        document: the exact bytes.
        signature: 64 bytes.
        key_id: the release key that is said to have signed.
        keys: the pinned release keys by id.

    Raises:
        SignatureRejected: unknown key, bad signature, or malformed.
    """
    public = keys.get(key_id)
    if public is None:
        raise SignatureRejected(RejectReason.UNKNOWN_KEY)
    verify_ed25519(public, KIND, document, signature)

    try:
        return parse_manifest(document)
    except MalformedError as error:
        raise SignatureRejected(RejectReason.MALFORMED, str(error)) from None
