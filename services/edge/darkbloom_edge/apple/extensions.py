"""Two extensions of App Attest leaves: the nonce, and a Mac's access policy.

Both are read with the strict DER reader of `cryptography`, so each has one spelling only.
"""

import base64
from dataclasses import dataclass
from typing import Annotated

from cryptography import x509
from cryptography.hazmat import asn1

from darkbloom_edge.apple.certificates import extension_value
from darkbloom_edge.apple.faults import AppleFault, AppleRejected

NONCE_OID = x509.ObjectIdentifier("1.2.840.113635.100.8.2")
"""Extension with the nonce of an attestation."""
ACCESS_CONTROL_OID = x509.ObjectIdentifier("1.2.840.113635.100.8.6")
"""Extension with the access policy of a key on a Mac."""
ACCESS_CONTROL = base64.b64decode(
    "MEAMAjExMDowCQwCb2uhAwEB/zAJDAJvYaEDAQH/MAsMBG9kZWyhAwEB/zAVDARvc2duoAYMBHJzZWMwBaYDAgEB"
)
"""The policy of every key on a Mac with SIP and full security: 66 bytes, never another."""


@asn1.sequence
@dataclass(frozen=True)
class NonceValue:
    """SEQUENCE { [1] EXPLICIT OCTET STRING }."""

    nonce: Annotated[bytes, asn1.Explicit(1)]


@asn1.sequence
@dataclass(frozen=True)
class TaggedPolicy:
    """SEQUENCE { [3] EXPLICIT OCTET STRING }."""

    policy: Annotated[bytes, asn1.Explicit(3)]


@asn1.sequence
@dataclass(frozen=True)
class PlainPolicy:
    """SEQUENCE { OCTET STRING }."""

    policy: bytes


def read_nonce(leaf: x509.Certificate) -> bytes:
    """Return the nonce of a leaf.

    Raises:
        AppleRejected: `nonce`, missing or not encoded as Apple does.
    """
    value = extension_value(leaf, NONCE_OID)
    if value is None:
        raise AppleRejected(AppleFault.NONCE, "missing")

    try:
        return asn1.decode_der(NonceValue, value).nonce
    except ValueError:
        raise AppleRejected(AppleFault.NONCE, "encoding") from None


def has_mac_access_control(leaf: x509.Certificate) -> bool:
    """Whether a leaf carries a Mac's access policy; iOS leaves carry none.

    No attestation of a Mac is public, so the value is taken bare and in both wrappers that
    implementations describe; what counts is that the policy inside is the fixed one.

    Raises:
        AppleRejected: `mac_access_control`, the policy is another one.
    """
    value = extension_value(leaf, ACCESS_CONTROL_OID)
    if value is None:
        return False
    if value != ACCESS_CONTROL and ACCESS_CONTROL not in _unwrapped(value):
        raise AppleRejected(AppleFault.MAC_ACCESS_CONTROL)

    return True


def _unwrapped(value: bytes) -> list[bytes]:
    shapes: tuple[type[TaggedPolicy | PlainPolicy], ...] = (TaggedPolicy, PlainPolicy)
    found = []
    for shape in shapes:
        try:
            found.append(asn1.decode_der(shape, value).policy)
        except ValueError:
            continue

    return found
