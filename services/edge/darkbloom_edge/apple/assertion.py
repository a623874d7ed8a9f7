"""App Attest assertions: data that an attested key has signed, in order."""

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from darkbloom_edge.apple.authenticator import LaunchFacts, read_authenticator_data
from darkbloom_edge.apple.cbor import decode_cbor
from darkbloom_edge.apple.faults import AppleFault, AppleRejected
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.signatures import is_canonical_der

MAX_ASSERTION_BYTES = 8 * 1024
"""Largest assertion that is read."""

_ECDSA = ec.ECDSA(hashes.SHA256())


@dataclass(frozen=True, slots=True, kw_only=True)
class Assertion:
    """What an attested key has said."""

    counter: int
    """Above the one before; the caller stores it in the same transaction in which it counts."""
    flags: int
    launch: LaunchFacts


def verify_assertion(
    assertion: bytes,
    *,
    client_data_hash: bytes,
    public_key: bytes,
    app_id_hash: bytes,
    previous_counter: int,
    launch_categories: frozenset[int] | None = None,
) -> Assertion:
    """Check an assertion.

    Args:
        assertion: CBOR, as the app sent it.
        client_data_hash: SHA-256 of what the app was asked to sign, 32 bytes.
        public_key: of the attested key, 65 bytes.
        app_id_hash: SHA-256 of the App ID, 32 bytes.
        previous_counter: the last counter that was stored for this key; 0 after attestation.
        launch_categories: how the running app may have been signed, where the assertion tells;
            None takes any. The attestation had to tell.

    Raises:
        AppleRejected: the first thing that is wrong.
    """
    signature, data = _read_object(assertion)
    _check_signature(public_key, signature, hashlib.sha256(data + client_data_hash).digest())
    read = read_authenticator_data(data, attestation=False)
    if read.app_id_hash != app_id_hash:
        raise AppleRejected(AppleFault.APP_IDENTITY)
    if read.counter <= previous_counter:
        raise AppleRejected(AppleFault.COUNTER_REPLAY)
    told = read.launch.validation_category
    if launch_categories is not None and told is not None and told not in launch_categories:
        raise AppleRejected(AppleFault.LAUNCH_CATEGORY)

    return Assertion(counter=read.counter, flags=read.flags, launch=read.launch)


def _read_object(assertion: bytes) -> tuple[bytes, bytes]:
    try:
        found = decode_cbor(assertion, max_bytes=MAX_ASSERTION_BYTES)
    except MalformedError as error:
        raise AppleRejected(AppleFault.MALFORMED_ASSERTION, error.what) from None
    if not isinstance(found, dict) or set(found) != {"signature", "authenticatorData"}:
        raise AppleRejected(AppleFault.MALFORMED_ASSERTION, "members")
    signature, data = found["signature"], found["authenticatorData"]
    if not isinstance(signature, bytes) or not isinstance(data, bytes):
        raise AppleRejected(AppleFault.MALFORMED_ASSERTION, "members")

    return signature, data


def _check_signature(public_key: bytes, signature: bytes, nonce: bytes) -> None:
    """Check ES256 over the nonce as the message: it is hashed once more."""
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public_key)
    except ValueError:
        raise AppleRejected(AppleFault.PUBLIC_KEY) from None
    if not is_canonical_der(signature):
        raise AppleRejected(AppleFault.ASSERTION_SIGNATURE, "not canonical der")

    try:
        key.verify(signature, nonce, _ECDSA)
    except InvalidSignature:
        raise AppleRejected(AppleFault.ASSERTION_SIGNATURE) from None
