"""Keys of the SSD tier: one root, from which everything else is derived.

The root (KEK) is 32 random bytes behind a `KeyVault`. On a Mac with our signed app it is wrapped by
the Secure Enclave; anywhere else it is a file of its own, 0600, outside the cache's folder. That
is no protection against somebody who can read this account's files, and says so: it keeps a copied
or backed-up cache folder unreadable, and makes `cache purge` final.
"""

import hashlib
import hmac
import secrets
from pathlib import Path
from typing import Final, Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from darkbloom_provider.engine.prefix.files import read_private, write_private

KEY_BYTES: Final = 32
IV_BYTES: Final = 12
TAG_BYTES: Final = 16
_WRAP: Final = b"dbkv3-wrap-v1"
_LOOKUP: Final = b"dbkv3-lookup-v1"
_NAME: Final = b"dbkv3-name-v1"
_CHUNK: Final = b"dbkv-chunk-v3"
_PRINT: Final = b"dbkv3-fingerprint-v1"


class KeyVault(Protocol):
    """Where the root key is kept."""

    @property
    def kind(self) -> str:
        """`secure-enclave` or `file`; shown to the owner."""
        ...

    def root(self) -> bytes:
        """Return the root key, made on first use; 32 bytes.

        Raises:
            OSError: it cannot be read or made, or others can read it.
        """
        ...

    def forget(self) -> None:
        """Destroy the root key: what was written under it can never be read again."""
        ...


class FileVault:
    """The root key in a file of mode 0600.

    Args:
        path: The file; its folder exists and is private.
    """

    kind = "file"

    def __init__(self, path: Path) -> None:
        self._path = path

    def root(self) -> bytes:
        """Read the key, or make one."""
        try:
            key = read_private(self._path, KEY_BYTES)
        except FileNotFoundError:
            return self._make()
        if len(key) == KEY_BYTES:
            return key
        # Half a key opens nothing: what it wrote is gone anyway.
        self.forget()
        return self._make()

    def forget(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)

    def _make(self) -> bytes:
        key = secrets.token_bytes(KEY_BYTES)
        write_private(self._path, key)
        return key


class CacheKeys:
    """What is derived from the root; repr is redacted."""

    def __init__(self, root: bytes) -> None:
        self._wrap = AESGCM(_derive(root, _WRAP))
        self._lookup = _derive(root, _LOOKUP)
        self.fingerprint = _derive(root, _PRINT)[:8].hex()
        """Tells keys apart and says nothing about them."""

    def __repr__(self) -> str:
        return "CacheKeys(<redacted>)"

    def tag(self, scope: bytes, name: bytes) -> str:
        """Return the file name of a block; without the root nobody can make or check one."""
        message = _NAME + len(scope).to_bytes(4, "little") + scope + name
        return hmac.digest(self._lookup, message, hashlib.sha256)[:TAG_BYTES].hex()

    def wrap(self, data_key: bytes, iv: bytes) -> bytes:
        """Return a data key that only the root opens."""
        nonce = secrets.token_bytes(IV_BYTES)
        return nonce + self._wrap.encrypt(nonce, data_key, _WRAP + iv)

    def unwrap(self, wrapped: bytes, iv: bytes) -> bytes:
        """Return the data key.

        Raises:
            InvalidTag: it was wrapped by another root, or damaged.
        """
        return self._wrap.decrypt(wrapped[:IV_BYTES], wrapped[IV_BYTES:], _WRAP + iv)


def chunk_nonce(data_key: bytes, iv: bytes, index: int) -> bytes:
    """Return the nonce of one chunk; each data key encrypts one file."""
    info = _CHUNK + iv + index.to_bytes(4, "big")
    return HKDFExpand(algorithm=hashes.SHA256(), length=IV_BYTES, info=info).derive(data_key)


def _derive(root: bytes, label: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=label).derive(root)
