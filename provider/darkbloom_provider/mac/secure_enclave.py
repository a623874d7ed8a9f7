"""The identity key in the Secure Enclave, through Apple's Security framework.

The private key never leaves the enclave: what is kept here is a reference to it. The keychain gives
it back to programs of our team only (access group), after the first unlock, on this Mac.
"""

from dataclasses import dataclass, field
from typing import final

from darkbloom_edge.errors import MalformedError
from darkbloom_edge.signatures import domain_bytes, is_canonical_der, parse_p256_public

from darkbloom_provider.mac.errors import EnclaveError
from darkbloom_provider.mac.frameworks import Frameworks

LABEL = "io.darkbloom.provider.attestation-signing.v2"
"""How the key is called in the keychain."""
KEY_BITS = 256
_ECIES = "kSecKeyAlgorithmECIESEncryptionCofactorVariableIVX963SHA256AESGCM"
ITEM_NOT_FOUND = -25_300
"""OSStatus: no such key yet."""
MISSING_ENTITLEMENT = -34_018
"""OSStatus: this program is not signed for the access group."""

_PRIVATE_KEY_USAGE = 1 << 30


@final
@dataclass(slots=True)
class EnclaveKey:
    """An identity key that only this Mac's enclave can use; an `IdentitySigner`."""

    public: bytes
    """65 bytes."""
    _frameworks: Frameworks = field(repr=False)
    _reference: int = field(repr=False)

    secure_enclave: bool = field(default=True, init=False)

    def sign(self, kind: str, document: bytes) -> bytes:
        """Sign a document of this kind; DER."""
        return self.sign_raw(domain_bytes(kind, document))

    def sign_raw(self, data: bytes) -> bytes:
        """Sign bytes that carry their own domain; DER.

        Raises:
            EnclaveError: the enclave refused.
        """
        apple = self._frameworks
        with apple.scope() as scope:
            message = scope.data(data)
            algorithm = apple.constant("kSecKeyAlgorithmECDSASignatureMessageX962SHA256")
            signature, code = apple.create_signature(self._reference, algorithm, message)
            if not signature:
                raise EnclaveError("signing", code)
            made = apple.bytes_of(scope.keep(signature))
        if not is_canonical_der(made):
            raise EnclaveError("signing", 0)

        return made

    def seal(self, content: bytes) -> bytes:
        """Encrypt to this key (ECIES); only this Mac's enclave opens it.

        Raises:
            EnclaveError: the system refused.
        """
        apple = self._frameworks
        with apple.scope() as scope:
            public = scope.keep(apple.copy_public_key(self._reference))
            made, code = apple.create_encrypted_data(
                public, apple.constant(_ECIES), scope.data(content)
            )
            if not made:
                raise EnclaveError("encrypting", code)
            return apple.bytes_of(scope.keep(made))

    def open(self, sealed: bytes) -> bytes:
        """Decrypt what was sealed to this key.

        Raises:
            EnclaveError: the enclave refused.
        """
        apple = self._frameworks
        with apple.scope() as scope:
            made, code = apple.create_decrypted_data(
                self._reference, apple.constant(_ECIES), scope.data(sealed)
            )
            if not made:
                raise EnclaveError("decrypting", code)
            return apple.bytes_of(scope.keep(made))

    def close(self) -> None:
        """Let go of the reference; the key itself stays in the enclave."""
        if self._reference:
            self._frameworks.release(self._reference)
            self._reference = 0


def open_enclave_key(frameworks: Frameworks, access_group: str, label: str = LABEL) -> EnclaveKey:
    """Return the key of this Mac, made on first use.

    Args:
        frameworks: Apple's libraries.
        access_group: keychain group of our team, an entitlement of the running program.
        label: how the key is called; the identity's, unless it is another one.

    Raises:
        EnclaveError: there is no enclave, or it refused.
    """
    reference = _find(frameworks, access_group, label) or _create(frameworks, access_group, label)
    try:
        public = _public(frameworks, reference)
    except BaseException:
        frameworks.release(reference)
        raise

    return EnclaveKey(public, frameworks, reference)


def _find(apple: Frameworks, access_group: str, label: str) -> int:
    with apple.scope() as scope:
        query = scope.dictionary(
            {
                "kSecClass": apple.constant("kSecClassKey"),
                "kSecAttrKeyType": apple.constant("kSecAttrKeyTypeECSECPrimeRandom"),
                "kSecAttrTokenID": apple.constant("kSecAttrTokenIDSecureEnclave"),
                "kSecAttrLabel": scope.string(label),
                "kSecAttrAccessGroup": scope.string(access_group),
                "kSecUseDataProtectionKeychain": apple.true,
                "kSecReturnRef": apple.true,
            }
        )
        found, status = apple.copy_matching(query)
    if status == ITEM_NOT_FOUND:
        return 0
    if status != 0 or not found:
        raise EnclaveError("looking for the key", status)

    return found


def _create(apple: Frameworks, access_group: str, label: str) -> int:
    with apple.scope() as scope:
        access, code = apple.create_access_control(
            apple.constant("kSecAttrAccessibleAfterFirstUnlockThisDeviceOnly"), _PRIVATE_KEY_USAGE
        )
        if not access:
            raise EnclaveError("access control", code)
        private = {
            "kSecAttrIsPermanent": apple.true,
            "kSecAttrAccessControl": scope.keep(access),
            "kSecAttrAccessGroup": scope.string(access_group),
            "kSecAttrLabel": scope.string(label),
        }
        attributes = scope.dictionary(
            {
                "kSecAttrKeyType": apple.constant("kSecAttrKeyTypeECSECPrimeRandom"),
                "kSecAttrKeySizeInBits": scope.number(KEY_BITS),
                "kSecAttrTokenID": apple.constant("kSecAttrTokenIDSecureEnclave"),
                "kSecUseDataProtectionKeychain": apple.true,
                "kSecPrivateKeyAttrs": scope.dictionary(private),
            }
        )
        key, code = apple.create_random_key(attributes)
    if not key:
        raise EnclaveError("making a key", code)

    return key


def _public(apple: Frameworks, reference: int) -> bytes:
    with apple.scope() as scope:
        public = apple.copy_public_key(reference)
        if not public:
            raise EnclaveError("reading the public key", 0)
        exported, code = apple.copy_external_representation(scope.keep(public))
        if not exported:
            raise EnclaveError("reading the public key", code)
        point = apple.bytes_of(scope.keep(exported))
    try:
        return parse_p256_public(point)
    except MalformedError:
        raise EnclaveError("reading the public key", 0) from None
