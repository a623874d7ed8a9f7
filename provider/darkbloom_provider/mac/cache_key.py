"""The root key of the prefix cache, wrapped by the Secure Enclave.

32 random bytes that only this Mac's enclave can unwrap, for programs of our team only. What lies on
the disk is the wrapped form: with a copy of every file, and on another Mac, it opens nothing.
"""

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

from darkbloom_provider.engine.prefix.files import read_private, write_private
from darkbloom_provider.engine.prefix.keys import KEY_BYTES
from darkbloom_provider.mac.errors import EnclaveError
from darkbloom_provider.mac.frameworks import Frameworks
from darkbloom_provider.mac.secure_enclave import EnclaveKey, open_enclave_key

LABEL: Final = "io.darkbloom.kv.kek.v1"
"""How the wrapping key is called in the keychain."""
_MAX_WRAPPED_BYTES: Final = 1024


@final
class EnclaveVault:
    """A `KeyVault` whose key never lies on the disk in the clear.

    Args:
        path: The wrapped key, 0600.
        frameworks: Loads Apple's libraries.
        access_group: Keychain group of our team.
    """

    kind = "secure-enclave"

    def __init__(self, path: Path, frameworks: Callable[[], Frameworks], access_group: str) -> None:
        self._path = path
        self._frameworks = frameworks
        self._access_group = access_group

    def root(self) -> bytes:
        """Return the key, made and wrapped on first use.

        Raises:
            OSError: the enclave refused, or the file cannot be used.
        """
        try:
            key = open_enclave_key(self._frameworks(), self._access_group, LABEL)
        except EnclaveError as error:
            raise OSError(f"the enclave refused: {error}") from None
        try:
            return self._unwrapped(key)
        except EnclaveError as error:
            raise OSError(f"the enclave refused: {error}") from None
        finally:
            key.close()

    def forget(self) -> None:
        """Remove the wrapped key; the wrapping one stays in the enclave and opens nothing more."""
        self._path.unlink(missing_ok=True)

    def _unwrapped(self, key: EnclaveKey) -> bytes:
        try:
            root = key.open(read_private(self._path, _MAX_WRAPPED_BYTES))
            if len(root) == KEY_BYTES:
                return root
        except FileNotFoundError:
            pass
        # None yet, or no key at all: what it wrote is gone anyway.
        self.forget()
        root = secrets.token_bytes(KEY_BYTES)
        write_private(self._path, key.seal(root))
        return root
