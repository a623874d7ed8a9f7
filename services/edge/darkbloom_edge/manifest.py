"""The manifest of a build: which files, how large, which digests; and the hashes that name it.

The document is JSON, at most 1 MiB. Two numbers are derived from it and compared by all parties:
the aggregate (the *weight hash* of offers, terminals and receipts) covers the file digests in path
order; the identity covers names, paths, sizes and roles too, so that two layouts with the same
digests cannot be confused. Publisher, registry and provider share this one implementation.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, TypeVar

import orjson

from darkbloom_edge.errors import MalformedError
from darkbloom_edge.strict_json import canonical_json, parse_json_object

_Kind = TypeVar("_Kind", int, str)

SCHEMA_VERSION: Final = 1
"""The only version of the document."""
MAX_DOCUMENT_BYTES: Final = 1 << 20
"""Largest document, inclusive. Readers fetch one byte more, so a lying length is noticed."""
MAX_FILES: Final = 16_384
"""Most files of one version."""
MAX_TOTAL_BYTES: Final = (1 << 63) - 1
"""Largest sum of all file sizes."""
MAX_PATH_CHARS: Final = 1024
"""Longest path inside a version."""
MAX_ID_CHARS: Final = 256
"""Longest model id and longest version."""
MANIFEST_NAME: Final = "manifest.json"
"""Name of the document beside the files; it never lists itself."""

_MODEL_ID = re.compile(r"[0-9A-Za-z._/-]{1,256}")
_VERSION = re.compile(r"[0-9A-Za-z._-]{1,256}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OUTSIDE_SLUG = re.compile(r"[^0-9A-Za-z._-]")


class FileRole(StrEnum):
    """What a file of a build is for."""

    WEIGHT = "weight"
    TOKENIZER = "tokenizer"
    CONFIG = "config"
    TEMPLATE = "template"
    PREPROCESSOR = "preprocessor"
    INDEX = "index"
    OTHER = "other"


_ROLES: Final = {role.value: role for role in FileRole}
_WEIGHT_SUFFIXES: Final = (".safetensors", ".npz", ".bin")
_ROLES_BY_NAME: Final = {
    "config.json": FileRole.CONFIG,
    "generation_config.json": FileRole.CONFIG,
    "quantize_config.json": FileRole.CONFIG,
    "tokenizer.json": FileRole.TOKENIZER,
    "tokenizer_config.json": FileRole.TOKENIZER,
    "tokenizer.model": FileRole.TOKENIZER,
    "chat_template.jinja": FileRole.TEMPLATE,
    "chat_template.json": FileRole.TEMPLATE,
    "preprocessor_config.json": FileRole.PREPROCESSOR,
    "model.safetensors.index.json": FileRole.INDEX,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestFile:
    """One file of a build."""

    path: str
    """Relative, `/` separated."""
    size_bytes: int
    """0 or more."""
    sha256: str
    """64 lower-case hex characters."""
    role: FileRole
    """What it is for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A validated manifest; only `parse_manifest` makes one, so each obeys every rule."""

    schema_version: int
    """Always 1."""
    model_id: str
    """The build."""
    version: str
    """The immutable upload of it."""
    r2_prefix: str
    """Where the object store keeps this version."""
    aggregate_sha256: str
    """The weight hash, 64 hex characters."""
    identity_sha256: str
    """Covers everything but the time, 64 hex characters."""
    total_size_bytes: int
    """Sum of all files."""
    file_count: int
    """1 to 16,384."""
    files: tuple[ManifestFile, ...]
    """In path order."""
    created_at: str
    """ISO 8601; not part of the identity."""

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weight files, the number that the fit rule takes."""
        return sum(file.size_bytes for file in self.files if file.role is FileRole.WEIGHT)


def parse_manifest(data: bytes) -> Manifest:
    """Read `manifest.json` and check every rule, derived numbers included.

    Raises:
        MalformedError: the document breaks a rule; `field` names the one at fault.
    """
    document = parse_json_object(data, max_bytes=MAX_DOCUMENT_BYTES)
    if _take(document, "schema_version", int) != SCHEMA_VERSION:
        raise MalformedError("must be 1", "schema_version")

    manifest = _derive(
        model_id=_take(document, "model_id", str),
        version=_take(document, "version", str),
        files=_read_files(document.get("files")),
        created_at=_take(document, "created_at", str),
    )
    for name, derived in (
        ("r2_prefix", manifest.r2_prefix),
        ("aggregate_sha256", manifest.aggregate_sha256),
        ("total_size_bytes", manifest.total_size_bytes),
        ("file_count", manifest.file_count),
    ):
        stated = document.get(name)
        # Types are compared too: to Python `true` equals 1 and 2.0 equals 2.
        if type(stated) is not type(derived) or stated != derived:
            raise MalformedError("does not match the files", name)
    # Older publishers do not write the identity; where it is written it must be right.
    if document.get("identity_sha256", manifest.identity_sha256) != manifest.identity_sha256:
        raise MalformedError("does not match the files", "identity_sha256")

    return manifest


def build_manifest(
    model_id: str, version: str, files: Iterable[ManifestFile], created_at: str
) -> bytes:
    """Write the `manifest.json` of a version.

    Args:
        model_id: the build.
        version: its new, never used tag.
        files: in any order.
        created_at: ISO 8601.

    Raises:
        MalformedError: the manifest would break a rule.
    """
    manifest = _derive(
        model_id=model_id, version=version, files=tuple(files), created_at=created_at
    )
    document = _identity_fields(manifest.model_id, manifest.version, manifest.files) | {
        "identity_sha256": manifest.identity_sha256,
        "total_size_bytes": manifest.total_size_bytes,
        "file_count": manifest.file_count,
        "created_at": manifest.created_at,
    }
    data = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise MalformedError(f"manifest is larger than {MAX_DOCUMENT_BYTES} bytes")

    return data


def aggregate_sha256(files: Iterable[ManifestFile]) -> str:
    """Hash the raw digests of the files in path order; 64 hex characters."""
    # Code-point order of text equals byte order of its UTF-8.
    ordered = sorted(files, key=lambda file: file.path)
    return hashlib.sha256(b"".join(bytes.fromhex(file.sha256) for file in ordered)).hexdigest()


def identity_sha256(model_id: str, version: str, files: Iterable[ManifestFile]) -> str:
    """Hash the canonical JSON of all that a version is, its time excepted; 64 hex characters."""
    return hashlib.sha256(canonical_json(_identity_fields(model_id, version, files))).hexdigest()


def object_prefix(model_id: str, version: str) -> str:
    """Give the object-store prefix of a version, without a slash at the end."""
    return f"v2/{store_name(model_id)}/{version}"


def store_name(model_id: str) -> str:
    """Give the folder name of a build: a readable slug and 12 hex characters of its id's digest."""
    slug = _OUTSIDE_SLUG.sub("-", model_id).strip("-") or "model"
    return f"{slug}--{hashlib.sha256(model_id.encode()).hexdigest()[:12]}"


def role_of(path: str) -> FileRole | None:
    """Tell the role of a file by its name; None when it is outside the integrity surface."""
    name = path.rsplit("/", 1)[-1]
    if name.endswith(_WEIGHT_SUFFIXES):
        return FileRole.WEIGHT

    return _ROLES_BY_NAME.get(name)


def valid_model_id(model_id: str) -> bool:
    """Tell whether this may name a build: charset of paths, relative, without `..`."""
    return (
        _MODEL_ID.fullmatch(model_id) is not None
        and not model_id.startswith("/")
        and ".." not in model_id
    )


def valid_version(version: str) -> bool:
    """Tell whether this may name a version: one path segment without `..`, not hidden."""
    # A leading dot marks staging folders in the stores of providers.
    return (
        _VERSION.fullmatch(version) is not None
        and not version.startswith(".")
        and ".." not in version
    )


def valid_path(path: str) -> bool:
    """Tell whether a file path stays inside its folder and means one thing everywhere."""
    return (
        0 < len(path) <= MAX_PATH_CHARS
        and path.isprintable()
        and "\\" not in path
        and not any(segment in {"", ".", ".."} for segment in path.split("/"))
        and path.casefold() != MANIFEST_NAME
    )


def _derive(
    *, model_id: str, version: str, files: Sequence[ManifestFile], created_at: str
) -> Manifest:
    if not valid_model_id(model_id):
        raise MalformedError("not an id of a build", "model_id")
    if not valid_version(version):
        raise MalformedError("not a version", "version")
    total = _check_files(files)
    try:
        datetime.fromisoformat(created_at)
    except ValueError:
        raise MalformedError("not an iso 8601 time", "created_at") from None

    return Manifest(
        schema_version=SCHEMA_VERSION,
        model_id=model_id,
        version=version,
        r2_prefix=object_prefix(model_id, version),
        aggregate_sha256=aggregate_sha256(files),
        identity_sha256=identity_sha256(model_id, version, files),
        total_size_bytes=total,
        file_count=len(files),
        files=tuple(sorted(files, key=lambda file: file.path)),
        created_at=created_at,
    )


def _check_files(files: Sequence[ManifestFile]) -> int:
    """Check the file list and return the sum of its sizes."""
    if not 1 <= len(files) <= MAX_FILES:
        raise MalformedError(f"must hold 1 to {MAX_FILES} entries", "files")

    seen: set[str] = set()
    total = 0
    for file in files:
        if not valid_path(file.path):
            raise MalformedError("not a plain relative path", "files.path")
        # macOS file systems fold case, so two such names would be one file.
        folded = file.path.casefold()
        if folded in seen:
            raise MalformedError("occurs twice, case ignored", "files.path")
        seen.add(folded)

        if _SHA256.fullmatch(file.sha256) is None:
            raise MalformedError("must be 64 lower-case hex characters", "files.sha256")
        if file.size_bytes < 0:
            raise MalformedError("must not be negative", "files.size_bytes")
        total += file.size_bytes
        if total > MAX_TOTAL_BYTES:
            raise MalformedError("sum does not fit into 63 bits", "files.size_bytes")

    return total


def _identity_fields(model_id: str, version: str, files: Iterable[ManifestFile]) -> dict[str, Any]:
    ordered = sorted(files, key=lambda file: file.path)
    return {
        "schema_version": SCHEMA_VERSION,
        "model_id": model_id,
        "version": version,
        "r2_prefix": object_prefix(model_id, version),
        "aggregate_sha256": aggregate_sha256(ordered),
        "files": [
            {
                "path": file.path,
                "size_bytes": file.size_bytes,
                "sha256": file.sha256,
                "role": file.role.value,
            }
            for file in ordered
        ],
    }


def _read_files(entries: object) -> tuple[ManifestFile, ...]:
    if not isinstance(entries, list):
        raise MalformedError("missing or of the wrong type", "files")
    if len(entries) > MAX_FILES:
        raise MalformedError(f"must hold 1 to {MAX_FILES} entries", "files")

    files = []
    for entry in entries:
        if not isinstance(entry, dict):
            raise MalformedError("must hold objects only", "files")
        role = _ROLES.get(_take(entry, "role", str))
        if role is None:
            raise MalformedError("not a known role", "files.role")
        files.append(
            ManifestFile(
                path=_take(entry, "path", str),
                size_bytes=_take(entry, "size_bytes", int),
                sha256=_take(entry, "sha256", str),
                role=role,
            )
        )

    return tuple(files)


def _take(document: Mapping[str, Any], name: str, kind: type[_Kind]) -> _Kind:
    value = document.get(name)
    # To isinstance a bool is an int, and `true` is not a size.
    if isinstance(value, bool) or not isinstance(value, kind):
        raise MalformedError("missing or of the wrong type", name)

    return value
