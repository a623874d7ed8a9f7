"""The key that signs manifests, in a file that only its owner can read."""

import os
import stat
from pathlib import Path

from darkbloom_edge.errors import MalformedError
from darkbloom_edge.signatures import Ed25519Signer, from_base64, to_base64

_OPEN_TO_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_MAX_FILE = 256


class SigningKeyError(Exception):
    """The file cannot be used; the message never holds its content."""


def read_signing_key(path: Path, *, create: bool) -> Ed25519Signer:
    """Read 32 bytes in base64.

    Args:
        path: the file.
        create: draw a key where there is no file; for development.

    Raises:
        SigningKeyError: missing, open to others, or no key.
    """
    if create and not path.exists():
        _create(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise SigningKeyError(f"cannot be read ({type(error).__name__})") from None
    with os.fdopen(descriptor, "rb") as file:
        # Checked on the open file, so that it cannot be exchanged in between.
        facts = os.fstat(file.fileno())
        if facts.st_mode & _OPEN_TO_OTHERS or facts.st_uid != os.geteuid():
            raise SigningKeyError("others may read it; want mode 0600 and own it")
        raw = file.read(_MAX_FILE)
    try:
        return Ed25519Signer(from_base64(raw.decode("ascii").strip()))
    except (MalformedError, UnicodeDecodeError):
        raise SigningKeyError("not an ed25519 key in base64") from None


def _create(path: Path) -> None:
    text = to_base64(Ed25519Signer.generate().private_bytes())
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise SigningKeyError(f"cannot be made ({type(error).__name__})") from None
    with os.fdopen(file, "w", encoding="ascii") as stream:
        stream.write(text + "\n")
