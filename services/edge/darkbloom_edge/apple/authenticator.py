"""Authenticator data of App Attest: who signed, in which environment, from which code.

Every byte read here is covered by the leaf's nonce or by the assertion's signature, which the
callers check first or at once; reading it is no proof (spec/security.md §11).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from darkbloom_edge.apple.cbor import decode_cbor, decode_first
from darkbloom_edge.apple.faults import AppleFault, AppleRejected
from darkbloom_edge.errors import MalformedError

FLAG_ATTESTED = 0x40
"""Attested credential data follow; assertions of a Mac may keep it without any."""
FLAG_EXTENSIONS = 0x80
"""Extensions follow."""
DEVELOPER_ID = 6
"""Validation category of an app that its developer signed and Apple notarised."""
SHA256_DIRECTORY = 2
"""Type of a code directory hash: SHA-256, whole or its first 20 bytes."""

_HEADER = 37
_CREDENTIAL = 16 + 2 + 32
_ID_BYTES = 32
_MAX_BYTES = 4096
_MAX_VERSION = 128
_MAX_DIRECTORY_HASH = 64
_MAX_COSE_BYTES = 256
_DIRECTORY_SIZES = (32, 20)
_WORD_BYTES = 4
_COORDINATE = 32


class Environment(StrEnum):
    """Which of Apple's two services vouched."""

    PRODUCTION = "production"
    DEVELOPMENT = "development"


AAGUIDS = {
    b"appattest".ljust(16, b"\0"): Environment.PRODUCTION,
    b"appattestdevelop": Environment.DEVELOPMENT,
}
"""How an attestation names its environment, 16 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchFacts:
    """What the system says about the running app; all None before macOS and iOS 27."""

    bundle_version: str | None = None
    """`CFBundleVersion`, at most 128 characters."""
    validation_category: int | None = None
    """How the app was signed: 3 development, 4 App Store, 6 Developer ID."""
    code_directory_type: int | None = None
    """2 is SHA-256; others are reported and prove nothing."""
    code_directory_hash: bytes | None = None
    """Of the signed code, 32 bytes, or only its first 20."""

    @property
    def measured(self) -> bool:
        """Whether the whole set is there that a Mac sends: category, SHA-256 code directory."""
        return self.validation_category is not None and self.code_directory_type == SHA256_DIRECTORY


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """The part that only attestations have."""

    aaguid: bytes
    """16 bytes."""
    credential_id: bytes
    """32 bytes: the key id."""
    public_key: bytes
    """65 bytes, as the COSE key says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticatorData:
    """What was read."""

    app_id_hash: bytes
    """SHA-256 of the App ID, 32 bytes."""
    flags: int
    counter: int
    credential: Credential | None
    launch: LaunchFacts
    tail_bytes: int
    """Size of what follows the fixed part and the credential."""


def read_authenticator_data(data: bytes, *, attestation: bool) -> AuthenticatorData:
    """Read the data of an attestation, or of an assertion.

    Raises:
        AppleRejected: `authenticator_…`, `credential_…`, or one of the extensions' reasons.
    """
    if not _HEADER <= len(data) <= _MAX_BYTES:
        raise AppleRejected(AppleFault.AUTHENTICATOR_DATA)
    flags = data[32]
    if attestation and not flags & FLAG_ATTESTED:
        raise AppleRejected(AppleFault.AUTHENTICATOR_FLAGS)

    credential, tail = _read_credential(data[_HEADER:]) if attestation else (None, data[_HEADER:])
    launch = LaunchFacts()
    if flags & FLAG_EXTENSIONS:
        launch = _read_extensions(tail)
    elif tail:
        launch = _read_unannounced(tail, flags, attestation=attestation)

    return AuthenticatorData(
        app_id_hash=data[:_ID_BYTES],
        flags=flags,
        counter=int.from_bytes(data[33:_HEADER], "big"),
        credential=credential,
        launch=launch,
        tail_bytes=len(tail),
    )


def _read_credential(data: bytes) -> tuple[Credential, bytes]:
    if len(data) < _CREDENTIAL:
        raise AppleRejected(AppleFault.AUTHENTICATOR_DATA, "no credential")
    if int.from_bytes(data[16:18], "big") != _ID_BYTES:
        raise AppleRejected(AppleFault.CREDENTIAL_ID, "length")

    rest = data[_CREDENTIAL:]
    try:
        cose, size = decode_first(rest[:_MAX_COSE_BYTES], max_bytes=_MAX_COSE_BYTES)
    except MalformedError:
        # The window may cut what follows the key, never the key itself: it has 77 bytes.
        raise AppleRejected(AppleFault.CREDENTIAL_KEY, "not strict cbor") from None

    return (
        Credential(
            aaguid=data[:16],
            credential_id=data[18:_CREDENTIAL],
            public_key=_cose_point(cose),
        ),
        rest[size:],
    )


def _cose_point(cose: Any) -> bytes:
    """Return the point of an EC2 key, ES256, on P-256, that has these members and no more."""
    if not isinstance(cose, dict) or {
        key: value for key, value in cose.items() if key not in (-2, -3)
    } != {1: 2, 3: -7, -1: 1}:
        raise AppleRejected(AppleFault.CREDENTIAL_KEY, "not an es256 key")
    if any(isinstance(value, bool) for value in (*cose.keys(), *cose.values())):
        raise AppleRejected(AppleFault.CREDENTIAL_KEY, "not an es256 key")

    x, y = cose.get(-2), cose.get(-3)
    if not isinstance(x, bytes) or not isinstance(y, bytes) or {len(x), len(y)} != {_COORDINATE}:
        raise AppleRejected(AppleFault.CREDENTIAL_KEY, "coordinates")

    return b"\x04" + x + y


def _read_unannounced(tail: bytes, flags: int, *, attestation: bool) -> LaunchFacts:
    """Read what some Macs append without the flag, if it is the whole set that they append."""
    try:
        launch = _read_extensions(tail)
    except AppleRejected:
        raise AppleRejected(AppleFault.AUTHENTICATOR_TRAILING_DATA) from None
    if not launch.measured:
        raise AppleRejected(AppleFault.AUTHENTICATOR_TRAILING_DATA)
    if not attestation and (flags != FLAG_ATTESTED or launch.validation_category != DEVELOPER_ID):
        # Assertions were seen in this shape only from Developer ID apps with this one flag.
        raise AppleRejected(AppleFault.AUTHENTICATOR_TRAILING_DATA)

    return launch


def _read_extensions(tail: bytes) -> LaunchFacts:
    try:
        found = decode_cbor(tail, max_bytes=_MAX_BYTES)
    except MalformedError:
        raise AppleRejected(AppleFault.EXTENSIONS) from None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise AppleRejected(AppleFault.EXTENSIONS)

    version = found.get("apple_bundle_version_01")
    if version is not None and not (isinstance(version, str) and len(version) <= _MAX_VERSION):
        raise AppleRejected(AppleFault.BUNDLE_VERSION)
    kind, digest = _code_directory(found)

    return LaunchFacts(
        bundle_version=version,
        validation_category=_category(found.get("apple_validation_category_01")),
        code_directory_type=kind,
        code_directory_hash=digest,
    )


def _category(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bytes) and len(value) == _WORD_BYTES:
        return int.from_bytes(value, "little")
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32:
        return value

    raise AppleRejected(AppleFault.VALIDATION_CATEGORY)


def _code_directory(found: dict[str, Any]) -> tuple[int | None, bytes | None]:
    kind, digest = found.get("apple_cd_hash_type_01"), found.get("apple_cd_hash_hash_01")
    if kind is None and digest is None:
        return None, None
    if not isinstance(kind, bytes) or len(kind) != 1:
        raise AppleRejected(AppleFault.CODE_DIRECTORY, "type")
    if not isinstance(digest, bytes) or not 0 < len(digest) <= _MAX_DIRECTORY_HASH:
        raise AppleRejected(AppleFault.CODE_DIRECTORY, "hash")
    if kind[0] == SHA256_DIRECTORY and len(digest) not in _DIRECTORY_SIZES:
        raise AppleRejected(AppleFault.CODE_DIRECTORY, "hash")

    return kind[0], digest
