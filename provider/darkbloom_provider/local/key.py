"""The key of the local endpoint: made once, kept in a private file, compared in constant time."""

from __future__ import annotations

import base64
import hmac
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

from darkbloom_provider.local.errors import LocalStartError
from darkbloom_provider.service.files import write_private

PREFIX: Final = "dk-local-"
_RANDOM_BYTES = 32
_KEY = re.compile(r"dk-local-[A-Za-z0-9_-]{43}\Z", re.ASCII)
_OPEN_TO_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_MAX_BYTES = 256


@final
class LocalKey:
    """A key; its text shows nowhere by accident."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text, for its file and its owner."""
        return self._text

    def opens(self, presented: bytes | None) -> bool:
        """Compare an `Authorization` header, in a time that tells nothing of the key."""
        expected = b"Bearer " + self._text.encode()
        return hmac.compare_digest(presented or b"", expected)

    def __repr__(self) -> str:
        return "LocalKey(…)"


def read_or_make(path: Path, entropy: Callable[[int], bytes] = os.urandom) -> LocalKey:
    """Return the key in a file, made first where there is none.

    Raises:
        LocalStartError: the file is a link, open to others, or holds no key.
    """
    found = read(path)
    if found is not None:
        return found
    text = PREFIX + base64.urlsafe_b64encode(entropy(_RANDOM_BYTES)).rstrip(b"=").decode()
    write_private(path, text.encode() + b"\n")
    return LocalKey(text)


def read(path: Path) -> LocalKey | None:
    """Return the key in a file, or None where there is none; errors as `read_or_make`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError:
        raise LocalStartError(f"{path} is not a plain file", "remove it") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid != os.getuid() or status.st_mode & _OPEN_TO_OTHERS:
            raise LocalStartError(
                f"{path} must belong to you and be closed to others", f"chmod 600 {path}"
            )
        text = file.read(_MAX_BYTES).decode("ascii", "replace").strip()
    if _KEY.match(text) is None:
        raise LocalStartError(f"{path} holds no key", "remove it; a new one is made")
    return LocalKey(text)
