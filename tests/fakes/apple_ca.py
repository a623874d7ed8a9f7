"""A throw-away certificate authority in the shape of Apple's; its roots are nobody's."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
"""The time at which everything minted here is valid unless told otherwise."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What a certificate looks like; the defaults are those of a leaf for three days."""

    not_before: datetime = NOW - timedelta(days=1)
    not_after: datetime = NOW + timedelta(days=2)
    ca: bool = False
    path_length: int | None = None
    digital_signature: bool = True
    key_cert_sign: bool = False
    constraints: bool = True
    usage: bool = True
    purposes: tuple[str, ...] = ()
    extensions: tuple[tuple[str, bytes, bool], ...] = ()
    """Object identifier, raw value, critical."""
    digest: type[hashes.HashAlgorithm] = hashes.SHA256


AUTHORITY = Profile(
    not_before=NOW - timedelta(days=2000),
    not_after=NOW + timedelta(days=2000),
    ca=True,
    path_length=0,
    digital_signature=False,
    key_cert_sign=True,
    digest=hashes.SHA384,
)
"""What an authority looks like."""


def name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Apple Inc."),
        ]
    )


def issue(
    subject: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    profile: Profile,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(profile.not_before)
        .not_valid_after(profile.not_after)
    )
    if profile.constraints:
        length = profile.path_length if profile.ca else None
        builder = builder.add_extension(x509.BasicConstraints(profile.ca, length), critical=True)
    if profile.usage:
        builder = builder.add_extension(
            x509.KeyUsage(
                digital_signature=profile.digital_signature,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=profile.key_cert_sign,
                crl_sign=profile.key_cert_sign,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    if profile.purposes:
        purposes = x509.ExtendedKeyUsage([x509.ObjectIdentifier(item) for item in profile.purposes])
        builder = builder.add_extension(purposes, critical=False)
    for oid, value, critical in profile.extensions:
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
        builder = builder.add_extension(extension, critical=critical)

    return builder.sign(issuer_key, profile.digest())


@dataclass(frozen=True)
class Authority:
    """A certificate that issues others, with its key."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def root(cls, common: str, profile: Profile | None = None) -> Self:
        key = ec.generate_private_key(ec.SECP384R1())
        # A root may have authorities below it: Apple's name no path length.
        profile = profile or replace(AUTHORITY, path_length=None)
        return cls(key, issue(name(common), key.public_key(), name(common), key, profile))

    def authority(self, common: str, profile: Profile = AUTHORITY) -> "Authority":
        key = ec.generate_private_key(ec.SECP384R1())
        return Authority(key, self.issue(common, key.public_key(), profile))

    def issue(
        self, common: str, public_key: ec.EllipticCurvePublicKey, profile: Profile | None = None
    ) -> x509.Certificate:
        subject = self.certificate.subject
        return issue(name(common), public_key, subject, self.key, profile or Profile())


def der(certificates: Sequence[x509.Certificate]) -> list[bytes]:
    return [certificate.public_bytes(Encoding.DER) for certificate in certificates]
