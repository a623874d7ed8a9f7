"""Keys from files of the operator: pinned ones, and the operator's own."""

import hashlib
import json
from pathlib import Path

from darkbloom_edge.errors import EdgeError
from darkbloom_edge.signatures import from_base64

MIN_ADMIN_KEY_BYTES = 32


def read_pins(path: Path) -> dict[str, bytes]:
    """Read a file of pinned keys: JSON, key id to base64.

    Raises:
        ValueError: it cannot be read as that.
    """
    try:
        return {str(name): from_base64(key) for name, key in json.loads(path.read_text()).items()}
    except (OSError, AttributeError, TypeError, EdgeError) as error:
        raise ValueError(f"pinned keys are unusable ({type(error).__name__})") from None


def read_admin_key(path: Path) -> bytes:
    """Return the hash of the operator's key; the key itself is not kept.

    Raises:
        ValueError: the file cannot be read, or the key could be guessed.
    """
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise ValueError(f"admin key is unusable ({type(error).__name__})") from None
    if len(secret) < MIN_ADMIN_KEY_BYTES:
        raise ValueError(f"admin key is shorter than {MIN_ADMIN_KEY_BYTES} bytes")
    return hashlib.sha256(secret).digest()
