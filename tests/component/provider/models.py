"""A model store with the scripted build, which has no weights."""

import hashlib
from pathlib import Path

from darkbloom_edge.manifest import FileRole, ManifestFile, build_manifest
from darkbloom_provider.models.store import ModelStore

BUILD = "dev/scripted"
VERSION = "local"
_CONFIG = b'{"model_type":"scripted"}\n'


def place_model(root: Path, build: str = BUILD) -> Path:
    """Publish the build and return its folder."""
    root.mkdir(parents=True, exist_ok=True)
    file = ManifestFile(
        path="config.json",
        size_bytes=len(_CONFIG),
        sha256=hashlib.sha256(_CONFIG).hexdigest(),
        role=FileRole.CONFIG,
    )
    store = ModelStore(root)
    with store.staging(build, VERSION) as staging:
        (staging / "config.json").write_bytes(_CONFIG)
        document = build_manifest(build, VERSION, [file], "2026-01-01T00:00:00+00:00")
        return store.publish(staging, document).directory
