"""The prefix cache's folder as its owner sees it: what is there, and how to be rid of it.

Safe beside a running agent: a block that vanishes under it is a cold miss.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from darkbloom_provider.engine.prefix.disk import SUFFIX
from darkbloom_provider.engine.prefix.epoch import wipe
from darkbloom_provider.engine.prefix.keys import KeyVault


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What lies in the folder."""

    files: int
    bytes: int
    builds: int
    """Folders with a block in them."""


def contents(root: Path) -> Contents:
    """Count what is there; follows no link."""
    files = size = builds = 0
    for folder in _folders(root):
        with os.scandir(folder) as entries:
            found = [
                one.stat(follow_symlinks=False).st_size
                for one in entries
                if one.name.endswith(SUFFIX)
            ]
        files, size, builds = files + len(found), size + sum(found), builds + bool(found)
    return Contents(files=files, bytes=size, builds=builds)


def purge(root: Path, vault: KeyVault, *, running: bool) -> Contents:
    """Remove every file, and the root key where no agent uses it; returns what there was.

    Raises:
        OSError: something cannot be removed.
    """
    before = contents(root)
    for folder in _folders(root):
        wipe(folder)
        if not running:
            folder.rmdir()
    if not running:
        vault.forget()
    return before


def _folders(root: Path) -> list[Path]:
    try:
        with os.scandir(root) as entries:
            return [Path(one.path) for one in entries if one.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
