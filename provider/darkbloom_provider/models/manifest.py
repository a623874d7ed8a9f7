"""The manifest of a build: which files, how large, which digests; and the hashes that name it.

The document is JSON, at most 1 MiB. Two numbers are derived from it and compared by all parties:
the aggregate (the weight hash that travels in offers, verdicts and receipts) covers the file digests
in path order; the identity also covers paths, sizes, roles and names, so that two layouts with the
same digests cannot be confused.
"""

import dataclasses
import enum
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Self, TypeVar

from darkbloom_provider.models.errors import ManifestError

_Kind = TypeVar("_Kind")

SCHEMA_VERSION: Final = 1
MAX_DOCUMENT_BYTES: Final = 1 << 20
MAX_FILES: Final = 16_384
MAX_TOTAL_BYTES: Final = (1 << 63) - 1
MAX_PATH_CHARS: Final = 1024
MAX_ID_CHARS: Final = 256
MANIFEST_NAME: Final = "manifest.json"

_MODEL_ID = re.compile(r"[0-9A-Za-z._/-]+", re.ASCII)
_VERSION = re.compile(r"[0-9A-Za-z._-]+", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_OUTSIDE_SLUG = re.compile(r"[^0-9A-Za-z._-]", re.ASCII)

_WEIGHT_SUFFIXES: Final = (".safetensors", ".npz", ".bin")
_ROLES_BY_NAME: Final = {
    "config.json": "config",
    "generation_config.json": "config",
    "quantize_config.json": "config",
    "tokenizer.json": "tokenizer",
    "tokenizer_config.json": "tokenizer",
    "tokenizer.model": "tokenizer",
    "chat_template.jinja": "template",
    "chat_template.json": "template",
    "preprocessor_config.json": "preprocessor",
    "model.safetensors.index.json": "index",
}


class FileRole(enum.StrEnum):
    """What a file of a build is for."""

    WEIGHT = "weight"
    TOKENIZER = "tokenizer"
    CONFIG = "config"
    TEMPLATE = "template"
    PREPROCESSOR = "preprocessor"
    INDEX = "index"
    OTHER = "other"


_ROLES: Final = frozenset(role.value for role in FileRole)


def role_of(path: str) -> FileRole | None:
    """Tell the role of a file by its name; None when it is outside the integrity surface."""
    name = path.rsplit("/", 1)[-1]
    if name.endswith(_WEIGHT_SUFFIXES):
        return FileRole.WEIGHT
    role = _ROLES_BY_NAME.get(name)
    return None if role is None else FileRole(role)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ManifestFile:
    """One file of a build."""

    path: str
    """Relative, `/` separated."""
    size_bytes: int
    sha256: str
    """64 lower-case hex characters."""
    role: FileRole


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A validated manifest: every instance obeys all rules of the schema."""

    model_id: str
    version: str
    files: tuple[ManifestFile, ...]
    """In path order."""
    created_at: str
    """ISO 8601; not part of the identity."""

    def __post_init__(self) -> None:
        check_model_id(self.model_id)
        check_version(self.version)
        _check_files(self.files)
        _check_created_at(self.created_at)

        ordered = tuple(sorted(self.files, key=lambda file: file.path))
        object.__setattr__(self, "files", ordered)

    @property
    def r2_prefix(self) -> str:
        """Where the object store keeps this version."""
        return object_prefix(self.model_id, self.version)

    @property
    def aggregate_sha256(self) -> str:
        """The weight hash of this version."""
        return aggregate_sha256({file.path: file.sha256 for file in self.files})

    @property
    def identity_sha256(self) -> str:
        """SHA-256 of the canonical JSON of everything but the time."""
        identity = {key: value for key, value in self.to_dict().items() if key in _IDENTITY_FIELDS}
        encoded = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(encoded.encode()).hexdigest()

    @property
    def total_size_bytes(self) -> int:
        """Sum of all files."""
        return sum(file.size_bytes for file in self.files)

    @property
    def weight_bytes(self) -> int:
        """Bytes of weight files, the number that the fit rule takes."""
        return sum(file.size_bytes for file in self.files if file.role is FileRole.WEIGHT)

    def to_dict(self) -> dict[str, Any]:
        """Give the document without `identity_sha256`, in plain JSON types."""
        return {
            "schema_version": SCHEMA_VERSION,
            "model_id": self.model_id,
            "version": self.version,
            "r2_prefix": self.r2_prefix,
            "aggregate_sha256": self.aggregate_sha256,
            "total_size_bytes": self.total_size_bytes,
            "file_count": len(self.files),
            "files": [
                {
                    "path": file.path,
                    "size_bytes": file.size_bytes,
                    "sha256": file.sha256,
                    "role": file.role.value,
                }
                for file in self.files
            ],
            "created_at": self.created_at,
        }

    def encode(self) -> bytes:
        """Give the bytes of `manifest.json`."""
        document = self.to_dict() | {"identity_sha256": self.identity_sha256}
        return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse and validate `manifest.json`.

        Raises:
            ManifestError: The document breaks any rule, derived numbers included.
        """
        document = _load_object(data)
        if _field(document, "schema_version", int) != SCHEMA_VERSION:
            raise ManifestError("schema_version must be 1")

        manifest = cls(
            model_id=_field(document, "model_id", str),
            version=_field(document, "version", str),
            files=_decode_files(_field(document, "files", list)),
            created_at=_field(document, "created_at", str),
        )
        for name, derived in (
            ("r2_prefix", manifest.r2_prefix),
            ("aggregate_sha256", manifest.aggregate_sha256),
            ("total_size_bytes", manifest.total_size_bytes),
            ("file_count", len(manifest.files)),
        ):
            if _field(document, name, type(derived)) != derived:
                raise ManifestError(f"{name} does not match the files")
        # Older publishers do not write the identity; where it is written it must be right.
        if document.get("identity_sha256", manifest.identity_sha256) != manifest.identity_sha256:
            raise ManifestError("identity_sha256 does not match the files")
        return manifest


_IDENTITY_FIELDS: Final = frozenset(
    {"schema_version", "model_id", "version", "r2_prefix", "aggregate_sha256", "files"}
)


def aggregate_sha256(digests: Mapping[str, str]) -> str:
    """Hash the raw digests in path order.

    Args:
        digests: Path to SHA-256 in hex.
    """
    # Code-point order of `str` equals byte order of UTF-8.
    raw = b"".join(bytes.fromhex(digests[path]) for path in sorted(digests))
    return hashlib.sha256(raw).hexdigest()


def object_prefix(model_id: str, version: str) -> str:
    """Give the object-store prefix of a version."""
    return f"v2/{store_name(model_id)}/{version}"


def store_name(model_id: str) -> str:
    """Give the folder name of a build: a readable slug and 12 hex characters of its id's digest."""
    slug = _OUTSIDE_SLUG.sub("-", model_id).strip("-") or "model"
    return f"{slug}--{hashlib.sha256(model_id.encode()).hexdigest()[:12]}"


def check_model_id(model_id: str) -> None:
    """Refuse an id outside the registry's rules.

    Raises:
        ManifestError: Empty, too long, outside the charset, absolute, or with `..`.
    """
    if len(model_id) > MAX_ID_CHARS or not _MODEL_ID.fullmatch(model_id):
        raise ManifestError("model_id is empty, too long or outside [0-9A-Za-z._/-]")
    if model_id.startswith("/") or ".." in model_id:
        raise ManifestError("model_id must be relative and without ..")


def check_version(version: str) -> None:
    """Refuse a version outside the registry's rules.

    Raises:
        ManifestError: Empty, too long, outside the charset, or with `..`.
    """
    if len(version) > MAX_ID_CHARS or not _VERSION.fullmatch(version):
        raise ManifestError("version is empty, too long or outside [0-9A-Za-z._-]")
    # A leading dot is the mark of staging folders in the store.
    if version.startswith(".") or ".." in version:
        raise ManifestError("version must not begin with a dot or contain ..")


def check_path(path: str) -> None:
    """Refuse a file path that could leave its folder or mean two things.

    Raises:
        ManifestError: Absolute, with backslash, or with an empty, `.` or `..` segment.
    """
    if not 0 < len(path) <= MAX_PATH_CHARS or not path.isprintable() or "\\" in path:
        raise ManifestError("file path is empty, too long or has a forbidden character")
    if any(segment in {"", ".", ".."} for segment in path.split("/")):
        raise ManifestError("file path has an empty, . or .. segment")
    if path.casefold() == MANIFEST_NAME:
        raise ManifestError("a manifest does not list itself")


def _check_files(files: Sequence[ManifestFile]) -> None:
    if not 1 <= len(files) <= MAX_FILES:
        raise ManifestError(f"file_count must be 1 to {MAX_FILES}")

    seen: set[str] = set()
    total = 0
    for file in files:
        check_path(file.path)
        # macOS file systems fold case, so two such names would be one file.
        folded = file.path.casefold()
        if folded in seen:
            raise ManifestError("file path occurs twice, case ignored")
        seen.add(folded)

        if not _SHA256.fullmatch(file.sha256):
            raise ManifestError("sha256 must be 64 lower-case hex characters")
        if file.size_bytes < 0:
            raise ManifestError("size_bytes must not be negative")
        total += file.size_bytes
        if total > MAX_TOTAL_BYTES:
            raise ManifestError("total_size_bytes overflows 63 bits")


def _check_created_at(created_at: str) -> None:
    try:
        datetime.fromisoformat(created_at)
    except ValueError as error:
        raise ManifestError("created_at is not an ISO 8601 time") from error


def _load_object(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_DOCUMENT_BYTES:
        raise ManifestError("manifest exceeds 1 MiB")
    try:
        document = json.loads(data, object_pairs_hook=_unique_pairs)
    except (ValueError, RecursionError) as error:
        raise ManifestError("manifest is not valid JSON") from error
    if not isinstance(document, dict):
        raise ManifestError("manifest is not an object")
    return document


def _unique_pairs(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key, value in pairs:
        if key in document:
            raise ManifestError("manifest has a duplicate key")
        document[key] = value
    return document


def _field(document: Mapping[str, Any], name: str, kind: type[_Kind]) -> _Kind:
    value = document.get(name)
    # bool is an int to isinstance, and `true` is not a size.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ManifestError(f"{name} is missing or has the wrong type")
    return value


def _decode_files(entries: Sequence[Any]) -> tuple[ManifestFile, ...]:
    if len(entries) > MAX_FILES:
        raise ManifestError(f"file_count must be 1 to {MAX_FILES}")
    files = []
    for entry in entries:
        if not isinstance(entry, dict):
            raise ManifestError("files holds something other than an object")
        role = _field(entry, "role", str)
        if role not in _ROLES:
            raise ManifestError("role is not one of the known roles")
        files.append(
            ManifestFile(
                path=_field(entry, "path", str),
                size_bytes=_field(entry, "size_bytes", int),
                sha256=_field(entry, "sha256", str),
                role=FileRole(role),
            )
        )
    return tuple(files)
