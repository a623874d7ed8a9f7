"""The identity key of this machine: in the Secure Enclave of a Mac, or else in a file.

Which of the two is configuration and never a guess: a machine that fell back by itself would become
another machine, linked to no account. Only the kind is claimed here; what it is worth is decided by
who verifies Apple's evidence.
"""

from dataclasses import dataclass, field
from typing import Protocol, final

from darkbloom_edge.signatures import IdentitySigner, P256Signer

from darkbloom_provider import identity
from darkbloom_provider.config import ProviderConfig
from darkbloom_provider.mac.frameworks import Frameworks
from darkbloom_provider.mac.secure_enclave import open_enclave_key


class DeviceKey(IdentitySigner, Protocol):
    """An identity key, and where it is."""

    @property
    def secure_enclave(self) -> bool:
        """Whether its private half is in a Secure Enclave."""
        ...


@final
@dataclass(frozen=True, slots=True)
class SoftwareKey:
    """A key in a file of its owner: names a machine and proves nothing about it."""

    _signer: P256Signer = field(repr=False)
    secure_enclave: bool = field(default=False, init=False)

    @property
    def public(self) -> bytes:
        """The identity key, 65 bytes."""
        return self._signer.public

    def sign(self, kind: str, document: bytes) -> bytes:
        """Sign a document of this kind; DER."""
        return self._signer.sign(kind, document)

    def sign_raw(self, data: bytes) -> bytes:
        """Sign bytes that carry their own domain; DER."""
        return self._signer.sign_raw(data)


def open_device_key(config: ProviderConfig) -> DeviceKey:
    """Return the identity of this home, made on first use.

    Raises:
        IdentityError: the key file cannot be trusted.
        EnclaveError: the enclave is configured, and refused.
    """
    if config.keychain_group is not None:
        return open_enclave_key(Frameworks.load(), config.keychain_group)

    return SoftwareKey(identity.load_or_create(config.folders.identity_key))
