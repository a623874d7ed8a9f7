"""Import a folder in the layout of the Hugging Face hub: weights, config, tokenizer, template.

Only files of the integrity surface are copied, so neither notes nor code come along.
"""

import os
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from darkbloom_edge.manifest import FileRole, Manifest, role_of

from darkbloom_provider.models.errors import ManifestError, ModelCorruptError
from darkbloom_provider.models.files import plain_files
from darkbloom_provider.models.store import ModelStore, describe, require_ids

_REQUIRED: Final = ("config.json", "tokenizer.json")


def import_directory(
    source: Path,
    *,
    build_id: str,
    version: str,
    root: Path,
    created_at: datetime,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Manifest:
    """Copy a model folder into the store under `root`.

    Args:
        source: The folder; links to plain files are followed, as hub caches are made of them.
        build_id: What the build will be called.
        version: The version tag; the same bytes again are a no-op.
        root: The model store.
        created_at: Written into the manifest; not part of the identity.
        progress: Called with bytes copied so far and in all.

    Raises:
        ManifestError: An id is outside the rules, or the folder is not a model.
        ModelCorruptError: A file cannot be read.
        ModelExistsError: The version exists with other bytes.
        ModelBusyError: Another process is writing this build.
        DiskFullError: The volume cannot hold the copy.
    """
    require_ids(build_id, version)
    files = [path for path in plain_files(source, follow=True) if role_of(path) is not None]
    if any(name not in files for name in _REQUIRED):
        raise ManifestError("folder has no config.json or no tokenizer.json")
    if not any(role_of(path) is FileRole.WEIGHT for path in files):
        raise ManifestError("folder has no weights")

    store = ModelStore(root)
    total = sum((source / path).stat().st_size for path in files)
    store.require_space(total)
    with store.staging(build_id, version) as staging:
        done = 0
        for path in files:
            done += _copy(source / path, staging / path)
            progress(done, total)
        document = describe(staging, build_id, version, created_at.isoformat())
        return store.publish(staging, document).manifest


def _copy(source: Path, target: Path) -> int:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as reader, target.open("wb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
            writer.flush()
            os.fsync(writer.fileno())
            return writer.tell()
    except OSError as error:
        raise ModelCorruptError(f"file {source.name} cannot be copied") from error
