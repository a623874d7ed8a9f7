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
