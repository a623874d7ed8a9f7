"""Which keys may sign manifests: those that the owner names, or those first seen at the gateway.

Trust on first use, per gateway, in one file: whoever takes over the gateway later cannot bring a
key of his own.
"""

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from darkbloom_edge.errors import MalformedError
from darkbloom_edge.signatures import ED25519_BYTES, ed25519_key_id, from_base64, to_base64

from darkbloom_provider.errors import ProviderError

_MAX_FILE: Final = 1 << 16


class PinsError(ProviderError):
    """The file of pinned keys cannot be used."""


def parse_keys(texts: Iterable[str]) -> dict[str, bytes]:
    """Read public keys in base64, by id.

    Raises:
        MalformedError: one is no Ed25519 key.
    """
    keys = [from_base64(text, "key") for text in texts]
    if any(len(key) != ED25519_BYTES for key in keys):
        raise MalformedError("an ed25519 public key has 32 bytes", "key")
    return {ed25519_key_id(key): key for key in keys}


def read_pins(path: Path, gateway: str) -> dict[str, bytes]:
    """Return the keys pinned for a gateway; none before the first use.

    Raises:
        PinsError: The file cannot be read as pins.
    """
    return _read(path).get(_name(gateway), {})


def pin(path: Path, gateway: str, keys: dict[str, bytes]) -> None:
    """Keep the keys of a gateway, whole or not at all.

    Raises:
        PinsError: What is there cannot be read as pins; it stays.
    """
    pins = _read(path) | {_name(gateway): keys}
    document = {name: sorted(map(to_base64, found.values())) for name, found in pins.items()}
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        json.dump(document, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    Path(scratch).replace(path)


def _read(path: Path) -> dict[str, dict[str, bytes]]:
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_MAX_FILE))
        return {str(name): parse_keys(map(str, texts)) for name, texts in document.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError, MalformedError):
        raise PinsError(
            f"{path} does not hold pinned keys",
            "remove it to pin the network's key anew, if you trust the network today",
        ) from None


def _name(gateway: str) -> str:
    return gateway.rstrip("/").lower()
