"""App Attest attestation objects: a key that Apple says belongs to an unmodified app.

WebAuthn's `apple` objects come from the same vendor with another format and root: refused.
The receipt inside is not covered by the nonce; `receipt.verify_receipt` judges it by itself.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from darkbloom_edge.apple.authenticator import (
    AAGUIDS,
    DEVELOPER_ID,
    AuthenticatorData,
    Credential,
    Environment,
    LaunchFacts,
    read_authenticator_data,
)
from darkbloom_edge.apple.cbor import decode_cbor
from darkbloom_edge.apple.certificates import ChainRules, parse_certificate, verify_chain
from darkbloom_edge.apple.extensions import has_mac_access_control, read_nonce
from darkbloom_edge.apple.faults import AppleFault, AppleRejected
from darkbloom_edge.apple.roots import AppleRoots
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.signatures import from_base64

MAX_ATTESTATION_BYTES = 32 * 1024
"""Largest attestation object that is read."""
FORMAT = "apple-appattest"
"""The only `fmt` that is an App Attest attestation."""

_ATTESTED_KEY_PURPOSE = x509.ObjectIdentifier("1.2.840.113635.100.4.24")
_RULES = ChainRules(
    # The curve is judged after the chain, so that its reason is the more telling `public_key`.
    leaf_curves=("secp256r1", "secp384r1", "secp521r1"),
    purposes=frozenset((_ATTESTED_KEY_PURPOSE,)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppAttestPolicy:
    """Which app, in which environment, on what kind of machine."""

    app_id_hash: bytes
    """SHA-256 of `<TeamID>.<bundle id>`, 32 bytes."""
    environment: Environment = Environment.PRODUCTION
    require_mac_access_control: bool = True
    """Whether the leaf must carry the access policy of a Mac with SIP and full security."""
    launch_categories: frozenset[int] | None = None
    """How the running app may have been signed; None takes any, and systems that do not say."""

    @classmethod
    def for_app(
        cls,
        app_id: str,
        *,
        environment: Environment = Environment.PRODUCTION,
        require_mac_access_control: bool = True,
    ) -> Self:
        """Return the policy for `<TeamID>.<bundle id>`.

        In production the app must run as it was published: signed with a Developer ID. A build
        that a developer signed for himself has the same App ID.
        """
        production = environment is Environment.PRODUCTION

        return cls(
            app_id_hash=hashlib.sha256(app_id.encode()).digest(),
            environment=environment,
            require_mac_access_control=require_mac_access_control,
            launch_categories=frozenset((DEVELOPER_ID,)) if production else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestedKey:
    """A key that was attested; everything in it is signed by Apple, except `receipt`."""

    key_id: bytes
    """SHA-256 of the public key, 32 bytes."""
    public_key: bytes
    """65 bytes; signs assertions."""
    app_id_hash: bytes
    """32 bytes."""
    environment: Environment
    counter: int
    """Always 0: assertions must be above it."""
    flags: int
    mac_access_control: bool
    """Whether the leaf carries the access policy of a Mac with SIP and full security."""
    launch: LaunchFacts
    nonce: bytes
    """What ties the leaf to authenticator data and challenge, 32 bytes."""
    trailing_bytes: int
    """Authenticator data after the COSE key."""
    certificate: bytes
    """The leaf, DER."""
    not_before: datetime
    not_after: datetime
    """End of the leaf's validity, aware; the key may be used after it."""
    chain_length: int
    """Certificates that the object brought along."""
    receipt: bytes
    """CMS, as it came: not verified."""


def verify_attestation(
    attestation: bytes,
    *,
    key_id: str,
    client_data_hash: bytes,
    policy: AppAttestPolicy,
    roots: AppleRoots,
    now: datetime,
) -> AttestedKey:
    """Check an attestation object.

    Args:
        attestation: CBOR, as the app sent it.
        key_id: as the app sent it, canonical base64.
        client_data_hash: what the app handed to Apple's API; it goes into the nonce as it is.
        policy: app and environment.
        roots: the pinned roots.
        now: time at which the certificates must be valid, aware.

    Raises:
        AppleRejected: the first thing that is wrong, in the order of spec/security.md §11.
    """
    chain, receipt, data = _read_object(attestation)
    leaf = verify_chain(chain, root=roots.app_attest, now=now, rules=_RULES)
    point = _leaf_point(leaf)
    identifier = hashlib.sha256(point).digest()
    _check_key_id(key_id, identifier)
    nonce = hashlib.sha256(data + client_data_hash).digest()
    if read_nonce(leaf) != nonce:
        raise AppleRejected(AppleFault.NONCE)
    mac = has_mac_access_control(leaf)
    if policy.require_mac_access_control and not mac:
        raise AppleRejected(AppleFault.MAC_ACCESS_CONTROL, "missing")

    read = _check_data(data, point, identifier, policy)
    return AttestedKey(
        key_id=identifier,
        public_key=point,
        app_id_hash=read.app_id_hash,
        environment=policy.environment,
        counter=read.counter,
        flags=read.flags,
        mac_access_control=mac,
        launch=read.launch,
        nonce=nonce,
        trailing_bytes=read.tail_bytes,
        certificate=leaf.public_bytes(Encoding.DER),
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
        chain_length=len(chain),
        receipt=receipt,
    )


def _read_object(attestation: bytes) -> tuple[list[x509.Certificate], bytes, bytes]:
    """Return certificates, receipt and authenticator data."""
    try:
        found = decode_cbor(attestation, max_bytes=MAX_ATTESTATION_BYTES)
    except MalformedError as error:
        raise AppleRejected(AppleFault.MALFORMED_ATTESTATION, error.what) from None
    if not isinstance(found, dict) or not isinstance(found.get("fmt"), str):
        raise AppleRejected(AppleFault.MALFORMED_ATTESTATION)
    if found["fmt"] != FORMAT:
        raise AppleRejected(AppleFault.WRONG_FORMAT)

    statement, data = found.get("attStmt"), found.get("authData")
    if (
        set(found) != {"fmt", "attStmt", "authData"}
        or not isinstance(data, bytes)
        or not isinstance(statement, dict)
        or set(statement) != {"x5c", "receipt"}
        or not isinstance(statement["receipt"], bytes)
    ):
        raise AppleRejected(AppleFault.MALFORMED_ATTESTATION, "members")

    return _read_certificates(statement["x5c"]), statement["receipt"], data


def _read_certificates(found: Any) -> list[x509.Certificate]:
    if not isinstance(found, list) or not all(isinstance(item, bytes) for item in found):
        raise AppleRejected(AppleFault.MALFORMED_ATTESTATION, "x5c")
    if not _RULES.min_length <= len(found) <= _RULES.max_length:
        raise AppleRejected(AppleFault.CHAIN_LENGTH)

    return [parse_certificate(item) for item in found]


def _leaf_point(leaf: x509.Certificate) -> bytes:
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise AppleRejected(AppleFault.PUBLIC_KEY)

    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _check_key_id(key_id: str, identifier: bytes) -> None:
    try:
        claimed = from_base64(key_id)
    except MalformedError:
        raise AppleRejected(AppleFault.KEY_ID, "not canonical base64") from None
    if claimed != identifier:
        raise AppleRejected(AppleFault.KEY_ID)


def _check_data(
    data: bytes, point: bytes, identifier: bytes, policy: AppAttestPolicy
) -> AuthenticatorData:
    read = read_authenticator_data(data, attestation=True)
    credential = read.credential
    if read.app_id_hash != policy.app_id_hash:
        raise AppleRejected(AppleFault.APP_IDENTITY)
    if read.counter != 0:
        raise AppleRejected(AppleFault.CREDENTIAL_COUNTER)
    if not isinstance(credential, Credential) or credential.credential_id != identifier:
        raise AppleRejected(AppleFault.CREDENTIAL_ID)
    if AAGUIDS.get(credential.aaguid) is not policy.environment:
        raise AppleRejected(AppleFault.ENVIRONMENT)
    if credential.public_key != point:
        raise AppleRejected(AppleFault.CREDENTIAL_KEY, "not the leaf's")
    accepted = policy.launch_categories
    if accepted is not None and read.launch.validation_category not in accepted:
        raise AppleRejected(AppleFault.LAUNCH_CATEGORY)

    return read
