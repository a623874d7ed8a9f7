"""Chain rules for Apple's certificates: what each kind must be, and the reason when it is not.

X.509 is read by `cryptography`. The rules below name the reason; after them the path verifier of
`cryptography`, an independent reading of RFC 5280, must agree (`chain_rejected`).
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Annotated

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from darkbloom_edge.apple.faults import AppleFault, AppleRejected

MAX_CERTIFICATE_BYTES = 8192
"""Largest certificate that is read; Apple's have about 1 KiB."""

_UNDERSTOOD = frozenset((x509.BasicConstraints.oid, x509.KeyUsage.oid, x509.ExtendedKeyUsage.oid))
"""Extensions that may be critical, because the rules look at them."""
_V3 = 2
_UNREADABLE = (
    ValueError,
    TypeError,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    CryptographyDeprecationWarning,
)
_NO_KEY = (ValueError, TypeError, UnsupportedAlgorithm)
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainRules:
    """What a chain of one kind must look like."""

    min_length: int = 2
    """Fewest certificates, leaf included; the pinned root counts if it is sent."""
    max_length: int = 4
    """Most certificates, likewise."""
    leaf_curves: tuple[str, ...]
    """Curves that the leaf's key may be on, by the names of `cryptography`."""
    purposes: frozenset[x509.ObjectIdentifier] | None = None
    """Extended key usages, of which the leaf has one or no such extension; None allows any."""
    marker: x509.ObjectIdentifier | None = None
    """Extension that the leaf must have, where the root issues for other purposes too."""


def parse_certificate(der: bytes) -> x509.Certificate:
    """Read one certificate, strictly.

    Raises:
        AppleRejected: `certificate_malformed`, `…_extension`, `…_algorithm`, `…_key`.
    """
    if not 0 < len(der) <= MAX_CERTIFICATE_BYTES:
        raise AppleRejected(AppleFault.CERTIFICATE_MALFORMED, "size")

    _check_outline(der)
    # `cryptography` reads lazily: what is not asked for here could still fail in mid-verification.
    try:
        with warnings.catch_warnings():
            # What it will refuse one day, such as a negative number that an extension names.
            warnings.simplefilter("error", CryptographyDeprecationWarning)
            certificate = x509.load_der_x509_certificate(der)
            extensions = certificate.extensions
            _ = certificate.subject, certificate.issuer, certificate.serial_number
            _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except x509.DuplicateExtension:
        raise AppleRejected(AppleFault.CERTIFICATE_EXTENSION, "an extension twice") from None
    except _UNREADABLE:
        raise AppleRejected(AppleFault.CERTIFICATE_MALFORMED) from None
    for extension in extensions:
        if extension.critical and extension.oid not in _UNDERSTOOD:
            raise AppleRejected(AppleFault.CERTIFICATE_EXTENSION, "critical and not understood")
        if extension.oid == x509.NameConstraints.oid:
            raise AppleRejected(AppleFault.CERTIFICATE_EXTENSION, "name constraints")
    _check_algorithm(certificate)
    try:
        certificate.public_key()
    except _NO_KEY:
        raise AppleRejected(AppleFault.CERTIFICATE_KEY) from None

    return certificate


def verify_chain(
    chain: Sequence[x509.Certificate], *, root: x509.Certificate, now: datetime, rules: ChainRules
) -> x509.Certificate:
    """Check a chain, leaf first, up to the pinned root, which may end it or be left out.

    Args:
        chain: as sent, read by `parse_certificate`.
        root: the pinned root.
        now: the time at which every certificate must be valid, aware.
        rules: what chains of this kind look like.

    Returns:
        The leaf.

    Raises:
        AppleRejected: a `certificate_…` or `chain_…` reason.
    """
    if not rules.min_length <= len(chain) <= rules.max_length:
        raise AppleRejected(AppleFault.CHAIN_LENGTH)
    path = [*chain[:-1], root] if chain[-1] == root else [*chain, root]
    if len(path) < rules.min_length or len(set(path)) != len(path):
        raise AppleRejected(AppleFault.CHAIN_LENGTH, "a certificate twice, or no leaf")
    if any(certificate.subject == root.subject for certificate in path[:-1]):
        raise AppleRejected(AppleFault.CHAIN_ROOT, "another certificate of the root's name")

    _check_links(path)
    for certificate in path:
        if now < certificate.not_valid_before_utc:
            raise AppleRejected(AppleFault.CERTIFICATE_NOT_YET_VALID)
        if now > certificate.not_valid_after_utc:
            raise AppleRejected(AppleFault.CERTIFICATE_EXPIRED)
    for below, issuer in enumerate(path[1:]):
        _check_issuer(issuer, below)
    _check_leaf(path[0], rules)
    _check_again(path, now)

    return path[0]


def extension_value(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> bytes | None:
    """Return the raw value of an extension that `cryptography` does not read, if it is there."""
    try:
        value = certificate.extensions.get_extension_for_oid(oid).value
    except x509.ExtensionNotFound:
        return None

    return value.value if isinstance(value, x509.UnrecognizedExtension) else value.public_bytes()


@asn1.sequence
@dataclass(frozen=True)
class _Extension:
    oid: x509.ObjectIdentifier
    critical: Annotated[bool, asn1.Default(value=False)]
    value: bytes


@asn1.sequence
@dataclass(frozen=True)
class _Body:
    """A version 3 certificate without its unique identifiers, which nobody writes any more."""

    version: Annotated[int, asn1.Explicit(0)]
    serial_number: int
    signature: asn1.TLV
    issuer: asn1.TLV
    validity: asn1.TLV
    subject: asn1.TLV
    key: asn1.TLV
    extensions: Annotated[list[_Extension] | None, asn1.Explicit(3)]


@asn1.sequence
@dataclass(frozen=True)
class _Outline:
    body: _Body
    algorithm: asn1.TLV
    signature: asn1.BitString


def _check_outline(der: bytes) -> None:
    """Check what `cryptography` would only warn of, or let pass, before it reads anything."""
    try:
        outline = asn1.decode_der(_Outline, der)
    except ValueError:
        raise AppleRejected(AppleFault.CERTIFICATE_MALFORMED) from None
    if outline.body.version != _V3 or outline.body.serial_number <= 0:
        raise AppleRejected(AppleFault.CERTIFICATE_MALFORMED, "version or serial number")
    if outline.signature.padding_bits():
        raise AppleRejected(AppleFault.CERTIFICATE_MALFORMED, "signature")


def _check_algorithm(certificate: x509.Certificate) -> None:
    try:
        parameters = certificate.signature_algorithm_parameters
        used = certificate.signature_hash_algorithm
    except _NO_KEY:
        raise AppleRejected(AppleFault.CERTIFICATE_ALGORITHM) from None
    if not isinstance(parameters, ec.ECDSA) or not isinstance(used, _HASHES):
        raise AppleRejected(AppleFault.CERTIFICATE_ALGORITHM)


def _check_links(path: Sequence[x509.Certificate]) -> None:
    """Check names and signatures from the leaf to the root."""
    last = len(path) - 2
    for at, (certificate, issuer) in enumerate(pairwise(path)):
        if certificate.issuer != issuer.subject:
            raise AppleRejected(AppleFault.CHAIN_ROOT if at == last else AppleFault.CHAIN_ORDER)

    for at, (certificate, issuer) in enumerate(pairwise(path)):
        try:
            certificate.verify_directly_issued_by(issuer)
        except (InvalidSignature, ValueError, TypeError):
            # Another root can have the pinned one's name; only its key tells them apart.
            reason = AppleFault.CHAIN_ROOT if at == last else AppleFault.CHAIN_SIGNATURE
            raise AppleRejected(reason) from None


def _check_issuer(issuer: x509.Certificate, below: int) -> None:
    """Check that a certificate may issue, with so many authorities below it."""
    try:
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        raise AppleRejected(AppleFault.CERTIFICATE_NOT_CA) from None
    if not constraints.ca:
        raise AppleRejected(AppleFault.CERTIFICATE_NOT_CA)
    if not usage.key_cert_sign:
        raise AppleRejected(AppleFault.CERTIFICATE_KEY_USAGE, "may not issue")
    if constraints.path_length is not None and below > constraints.path_length:
        raise AppleRejected(AppleFault.CHAIN_PATH_LENGTH)


def _check_leaf(leaf: x509.Certificate, rules: ChainRules) -> None:
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in rules.leaf_curves:
        raise AppleRejected(AppleFault.CERTIFICATE_KEY)

    found = {extension.oid: extension.value for extension in leaf.extensions}
    constraints = found.get(x509.BasicConstraints.oid)
    if isinstance(constraints, x509.BasicConstraints) and constraints.ca:
        raise AppleRejected(AppleFault.CERTIFICATE_IS_CA)
    usage = found.get(x509.KeyUsage.oid)
    if not isinstance(usage, x509.KeyUsage) or not usage.digital_signature or usage.key_cert_sign:
        raise AppleRejected(AppleFault.CERTIFICATE_KEY_USAGE, "leaf")
    purposes = found.get(x509.ExtendedKeyUsage.oid)
    if (
        rules.purposes is not None
        and isinstance(purposes, x509.ExtendedKeyUsage)
        and rules.purposes.isdisjoint(purposes)
    ):
        raise AppleRejected(AppleFault.CERTIFICATE_PURPOSE)
    if rules.marker is not None and rules.marker not in found:
        raise AppleRejected(AppleFault.CERTIFICATE_MARKER)


def _check_again(path: Sequence[x509.Certificate], now: datetime) -> None:
    authorities = ExtensionPolicy.permit_all().require_present(
        x509.BasicConstraints, Criticality.CRITICAL, None
    )
    verifier = (
        PolicyBuilder()
        .store(Store([path[-1]]))
        .time(now)
        .max_chain_depth(len(path))
        .extension_policies(ca_policy=authorities, ee_policy=ExtensionPolicy.permit_all())
        .build_client_verifier()
    )
    try:
        verifier.verify(path[0], list(path[1:-1]))
    except VerificationError:
        raise AppleRejected(AppleFault.CHAIN_REJECTED) from None
