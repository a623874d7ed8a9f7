"""What a build's cached KV depends on; when any of it changes, all of it goes.

Each build has a folder with `cache-epoch.json`: the facts that its blocks were made under, and a
random epoch that every block names. Drift means a new epoch and an empty folder.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from darkbloom_provider.engine.prefix.files import read_file, write_file

SCHEMA: Final = "darkbloom.cache-epoch.v1"
FILE_NAME: Final = "cache-epoch.json"
MAX_BYTES: Final = 64 * 1024


def folder_name(build_id: str) -> str:
    """Return the folder of a build: 12 hex digits."""
    return hashlib.sha256(build_id.encode()).hexdigest()[:12]


def enter(folder: Path, identity: Mapping[str, str]) -> str:
    """Return the epoch of a folder, emptied first where its identity is another one.

    Args:
        folder: Of one build; made when it is not there.
        identity: Everything that the KV depends on.

    Raises:
        OSError: the folder cannot be made or emptied.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    known = _read(folder / FILE_NAME)
    if known is not None and known.get("identity") == dict(identity):
        epoch = known.get("epoch")
        if isinstance(epoch, str) and epoch:
            return epoch
    wipe(folder)
    epoch = secrets.token_hex(16)
    facts = {"schema": SCHEMA, "epoch": epoch, "identity": dict(identity)}
    write_file(folder / FILE_NAME, [json.dumps(facts, sort_keys=True, indent=2).encode()])
    return epoch


def wipe(folder: Path) -> int:
    """Remove every file of a folder; returns how many there were. Links are removed, not followed.

    Raises:
        OSError: something cannot be removed.
    """
    count = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                Path(entry.path).unlink(missing_ok=True)
                count += 1
    return count


def _read(path: Path) -> dict[str, object] | None:
    try:
        found = json.loads(read_file(path, MAX_BYTES))
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        return None
    return found
