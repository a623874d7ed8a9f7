"""A complete local snapshot becomes a manifest; pure but for reading the files."""

import hashlib
from datetime import datetime
from pathlib import Path

from darkbloom_edge.errors import MalformedError
from darkbloom_edge.manifest import ManifestFile, build_manifest, role_of

_BLOCK = 1 << 20


def hash_snapshot(directory: Path, model_id: str, version: str, now: datetime) -> bytes:
    """Return the `manifest.json` of a directory: every file of the integrity surface.

    Raises:
        MalformedError: nothing to publish, or a name breaks a rule.
        OSError: a file cannot be read.
    """
    files = []
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        role = role_of(name)
        hidden = any(part.startswith(".") for part in Path(name).parts)
        if role is None or hidden or not path.is_file():
            continue
        size, digest = digest_of(path)
        files.append(ManifestFile(path=name, size_bytes=size, sha256=digest, role=role))
    if not files:
        raise MalformedError("holds no file of a model", "directory")
    return build_manifest(model_id, version, files, now.isoformat())


def digest_of(path: Path) -> tuple[int, str]:
    """Return size and SHA-256 of a file, 64 hex characters."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()
