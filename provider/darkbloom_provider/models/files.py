"""Plain files of the store: hashed, written durably, listed without links."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from darkbloom_edge.manifest import MANIFEST_NAME

from darkbloom_provider.models.errors import ModelCorruptError

HASH_CHUNK_BYTES: Final = 1 << 20


def ignore_progress(_done: int) -> None:
    """Hear of progress and do nothing."""


def hash_file(path: Path, progress: Callable[[int], None] = ignore_progress) -> str:
    """Give the SHA-256 of a plain file in hex.

    Raises:
        ModelCorruptError: Not readable, or not a plain file.
    """
    digest = hashlib.sha256()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - opened by descriptor so that a link is refused
            while block := file.read(HASH_CHUNK_BYTES):
                digest.update(block)
                progress(len(block))
    except OSError as error:
        raise ModelCorruptError(f"file {path.name} cannot be read") from error
    return digest.hexdigest()


def write_durably(path: Path, data: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def plain_files(directory: Path, *, follow: bool = False) -> Iterator[str]:
    """Give the relative paths of all files in a folder, `/` separated, manifests excepted.

    Args:
        directory: The folder.
        follow: Whether a link to a plain file counts as one; links to folders never do.

    Raises:
        ModelCorruptError: A link or a special file, or the folder cannot be read.
    """
    try:
        for parent, folders, names in os.walk(directory, followlinks=False):
            if not follow and any((Path(parent) / name).is_symlink() for name in folders):
                raise ModelCorruptError("folder holds a symbolic link")
            for name in names:
                path = Path(parent) / name
                if not stat.S_ISREG((path.stat() if follow else path.lstat()).st_mode):
                    raise ModelCorruptError("folder holds something other than plain files")
                relative = path.relative_to(directory).as_posix()
                if relative != MANIFEST_NAME:
                    yield relative
    except OSError as error:
        raise ModelCorruptError("folder cannot be read") from error


def sync(path: Path) -> None:
    """Wait until a file or a folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
