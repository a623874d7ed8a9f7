"""Take a folder in the layout of the Hugging Face hub into the model store."""

import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from darkbloom_edge.manifest import Manifest, role_of

from darkbloom_provider.models.errors import ManifestError
from darkbloom_provider.models.store import ModelStore, describe, require_ids


def import_directory(
    source: Path,
    *,
    build_id: str,
    version: str,
    root: Path,
    created_at: datetime,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Manifest:
    """Copy the integrity surface of a folder and publish it under `root`.

    Args:
        source: Flat folder with weights, tokenizer and config; other files stay behind.
        build_id: What the build will be called.
        version: The version tag; the same bytes again are a no-op.
        root: The model store.
        created_at: Written into the manifest; not part of the identity.
        progress: Called with bytes copied so far and in all.

    Raises:
        ManifestError: An id outside the rules, or nothing to import.
        ModelExistsError: The version exists with other bytes.
        ModelBusyError: Another process is writing this build.
        DiskFullError: The volume cannot hold the copy.
    """
    require_ids(build_id, version)
    files = sorted(
        path
        for path in source.iterdir()
        if path.is_file() and not path.name.startswith(".") and role_of(path.name) is not None
    )
    if not files:
        raise ManifestError("the folder holds no file of a model")

    store = ModelStore(root)
    total = sum(path.stat().st_size for path in files)
    store.require_space(total)
    with store.staging(build_id, version) as staging:
        done = 0
        for path in files:
            shutil.copyfile(path, staging / path.name)
            done += path.stat().st_size
            progress(done, total)
        document = describe(staging, build_id, version, created_at.isoformat())
        return store.publish(staging, document).manifest
