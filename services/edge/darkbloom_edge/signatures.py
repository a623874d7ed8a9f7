"""Signatures over domain-separated bytes: Ed25519 for services, P-256 for providers."""

import base64
import binascii
import hashlib
from functools import lru_cache
from typing import Protocol, final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from nacl.bindings import (
    crypto_sign,
    crypto_sign_BYTES,
    crypto_sign_open,
    crypto_sign_seed_keypair,
    randombytes,
)
from nacl.exceptions import BadSignatureError

from darkbloom_edge.errors import MalformedError, NotOnCurveError, RejectReason, SignatureRejected

ED25519_BYTES = 32
"""Size of an Ed25519 key."""
POINT_BYTES = 65
"""Size of an uncompressed P-256 point, `04 ‖ X ‖ Y`; without its first byte it is also read."""
SCALAR_BYTES = 32
"""Size of a P-256 private key."""

_UNCOMPRESSED = b"\x04"
_KEYS_KEPT = 1024
_ECDSA = ec.ECDSA(hashes.SHA256())
_MAX_DER_BYTES = 72


class IdentitySigner(Protocol):
    """Whatever signs as a provider's identity: a key in a file, or one in a Secure Enclave."""

    @property
    def public(self) -> bytes:
        """The identity key, 65 bytes."""
        ...

    def sign(self, kind: str, document: bytes) -> bytes:
        """Sign a document of this kind; DER."""
        ...

    def sign_raw(self, data: bytes) -> bytes:
        """Sign bytes that carry their own domain; DER."""
        ...


def domain_bytes(kind: str, document: bytes) -> bytes:
    """Return what is signed for a document: its kind can never be mistaken for another."""
    return b"darkbloom:" + kind.encode() + b":v1\x00" + document


def to_base64(data: bytes) -> str:
    """Write standard, padded base64."""
    return base64.b64encode(data).decode("ascii")


def from_base64(text: str, what: str = "base64") -> bytes:
    """Read standard, padded base64 in its one spelling.

    Raises:
        MalformedError: anything else.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedError("not base64", what) from None
    if to_base64(data) != text:
        raise MalformedError("not canonical base64", what)

    return data


def ed25519_key_id(public: bytes) -> str:
    """Name a key: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:16]


@final
class Ed25519Signer:
    """A service's signing key; repr shows its id only.

    By libsodium, which signs and checks in two thirds and half of the time that OpenSSL takes.
    """

    __slots__ = ("_private", "key_id", "public")

    def __init__(self, private: bytes) -> None:
        if len(private) != ED25519_BYTES:
            raise MalformedError("an ed25519 private key has 32 bytes")
        self.public, self._private = crypto_sign_seed_keypair(private)
        """32 bytes."""
        self.key_id = ed25519_key_id(self.public)
        """What pins and documents call this key."""

    @classmethod
    def generate(cls) -> "Ed25519Signer":
        """Draw a new key from the system's randomness."""
        return cls(randombytes(ED25519_BYTES))

    def private_bytes(self) -> bytes:
        """Return the 32 secret bytes, for a file that only its owner reads."""
        return self._private[:ED25519_BYTES]

    def sign(self, kind: str, document: bytes) -> bytes:
        """Sign a document of this kind; 64 bytes."""
        return crypto_sign(domain_bytes(kind, document), self._private)[:crypto_sign_BYTES]

    def __repr__(self) -> str:
        return f"Ed25519Signer(key_id={self.key_id!r})"


def verify_ed25519(public: bytes, kind: str, document: bytes, signature: bytes) -> None:
    """Check a service's signature.

    Raises:
        SignatureRejected: bad key or bad signature.
    """
    if len(public) != ED25519_BYTES:
        raise SignatureRejected(RejectReason.BAD_KEY)
    if len(signature) != crypto_sign_BYTES:
        raise SignatureRejected(RejectReason.BAD_SIGNATURE)

    try:
        crypto_sign_open(signature + domain_bytes(kind, document), public)
    except BadSignatureError:
        raise SignatureRejected(RejectReason.BAD_SIGNATURE) from None


@final
class P256Signer:
    """A provider's identity key in software; it can never be `hardware`. Repr shows no secret."""

    __slots__ = ("_key", "_public")

    def __init__(self, private: bytes) -> None:
        if len(private) != SCALAR_BYTES:
            raise MalformedError("a p-256 private key has 32 bytes")
        try:
            self._key = ec.derive_private_key(int.from_bytes(private, "big"), ec.SECP256R1())
        except ValueError:
            raise MalformedError("not a p-256 private key") from None
        self._public = self._key.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )

    @classmethod
    def generate(cls) -> "P256Signer":
        """Draw a new key from the system's randomness."""
        value = ec.generate_private_key(ec.SECP256R1()).private_numbers().private_value

        return cls(value.to_bytes(SCALAR_BYTES, "big"))

    @property
    def public(self) -> bytes:
        """The identity key, 65 bytes."""
        return self._public

    @property
    def public_text(self) -> str:
        """The identity key in base64, as documents carry it."""
        return to_base64(self._public)

    def private_bytes(self) -> bytes:
        """Return the 32 secret bytes, for a file that only its owner reads."""
        return self._key.private_numbers().private_value.to_bytes(SCALAR_BYTES, "big")

    def sign(self, kind: str, document: bytes) -> bytes:
        """Sign a document of this kind; DER."""
        return self.sign_raw(domain_bytes(kind, document))

    def sign_raw(self, data: bytes) -> bytes:
        """Sign bytes that carry their own domain; DER."""
        return self._key.sign(data, _ECDSA)

    def __repr__(self) -> str:
        return "P256Signer(<redacted>)"


def parse_p256_public(key: str | bytes) -> bytes:
    """Read an identity key and return its one form of 65 bytes.

    Args:
        key: base64 text, or raw bytes, with or without the leading 4.

    Raises:
        MalformedError: not base64, not 64 or 65 bytes, or not a point of the curve.
    """
    raw = from_base64(key, "identity_key") if isinstance(key, str) else key
    point = raw if len(raw) == POINT_BYTES else _UNCOMPRESSED + raw
    if len(point) != POINT_BYTES or not point.startswith(_UNCOMPRESSED):
        raise MalformedError("a p-256 public key has 64 or 65 bytes", "identity_key")
    _load_point(point)

    return point


def verify_p256(public: str | bytes, kind: str, document: bytes, signature: bytes) -> None:
    """Check a provider's signature over a document.

    Raises:
        SignatureRejected: bad key or bad signature.
    """
    verify_p256_raw(public, domain_bytes(kind, document), signature)


def verify_p256_raw(public: str | bytes, data: bytes, signature: bytes) -> None:
    """Check a provider's signature over bytes that carry their own domain.

    High-S signatures pass: a Secure Enclave makes them, and nothing is keyed by a signature.

    Raises:
        SignatureRejected: bad key, or a signature that is not canonical DER or not of this key.
    """
    try:
        key = _load_point(parse_p256_public(public))
    except MalformedError:
        raise SignatureRejected(RejectReason.BAD_KEY) from None
    if not is_canonical_der(signature):
        raise SignatureRejected(RejectReason.BAD_SIGNATURE, "not canonical der")

    try:
        key.verify(signature, data, _ECDSA)
    except InvalidSignature:
        raise SignatureRejected(RejectReason.BAD_SIGNATURE) from None


def is_canonical_der(signature: bytes) -> bool:
    """Whether the bytes are the one DER spelling of a signature."""
    if len(signature) > _MAX_DER_BYTES:
        return False

    try:
        r, s = decode_dss_signature(signature)
    except ValueError:
        return False

    return r > 0 and s > 0 and encode_dss_signature(r, s) == signature


@lru_cache(maxsize=_KEYS_KEPT)
def _load_point(point: bytes) -> ec.EllipticCurvePublicKey:
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except ValueError:
        raise NotOnCurveError("not a point of the p-256 curve", "identity_key") from None
