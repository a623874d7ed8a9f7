"""Files of the SSD tier: regular ones only, links are never followed, writes are atomic."""

import errno
import os
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

SCRATCH: Final = ".part"
"""End of the name of a file that is being written."""


def read_file(path: Path, most: int) -> bytes:
    """Return what is in a regular file.

    Raises:
        OSError: it is not there, is a link or a device, or is longer than `most` bytes.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
        facts = os.fstat(stream.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "no regular file")
        if facts.st_size > most:
            raise OSError(errno.EFBIG, "too long")
        return stream.read(most)


def read_private(path: Path, most: int) -> bytes:
    """Return what is in a regular file that nobody else can read.

    Raises:
        FileNotFoundError: it is not there.
        OSError: it is a link, others can read it, or it is longer than `most` bytes.
    """
    facts = path.stat(follow_symlinks=False)
    if facts.st_mode & 0o077 and stat.S_ISREG(facts.st_mode):
        raise PermissionError(errno.EACCES, "others can read the key of the prefix cache")
    return read_file(path, most)


def write_private(path: Path, content: bytes) -> None:
    """Make a file, 0600, that was not there; on the disk when this returns.

    Raises:
        OSError: it is there, or the disk does not take it.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, 0o600), "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def write_file(path: Path, parts: Iterable[bytes]) -> int:
    """Write a file, 0600, that is there whole or not at all; returns its size.

    Not synced: a file that a power cut tears does not open, which is a cold miss.

    Raises:
        OSError: the disk does not take it; nothing is left behind.
    """
    scratch = path.with_name(f"{path.name}.{secrets.token_hex(4)}{SCRATCH}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    file = os.open(scratch, flags, 0o600)
    try:
        with os.fdopen(file, "wb") as stream:
            for part in parts:
                stream.write(part)
            size = stream.tell()
        scratch.replace(path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise
    return size
