"""A throw-away authority for a mesh on this machine: one certificate for each room.

Its key never leaves memory, so a mesh that starts again gets a new authority.
"""

import os
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from darkbloom_mesh.callers import OPERATOR
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.tls import TlsPaths

TRUST_DOMAIN = "darkbloom.local"
_LIFE = timedelta(days=30)
_SLACK = timedelta(minutes=5)
_PRIVATE_MODE = 0o600


class LocalAuthority:
    """Signs certificates of `spiffe://darkbloom.local/<room>` into a directory."""

    def __init__(
        self, directory: Path, clock: Clock, key: ec.EllipticCurvePrivateKey | None = None
    ) -> None:
        self.directory = directory
        self._clock = clock
        self._key = key or ec.generate_private_key(ec.SECP256R1())
        self._key_id = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "darkbloom local authority")])
        self._certificate = (
            self._builder(name, name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(self._key_id, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self._believed = self.pem

    def renewed(self, directory: Path) -> "LocalAuthority":
        """Return it with another certificate for the same name and key, over another directory."""
        return LocalAuthority(directory, self._clock, self._key)

    @property
    def pem(self) -> bytes:
        """Its own certificate."""
        return _pem(self._certificate)

    def believe(self, *authorities: bytes) -> None:
        """Write whom every room believes, as PEM: two while one replaces the other."""
        self._believed = b"".join(authorities)
        replace(self.directory / "ca.pem", self._believed)

    def issue(self, rooms: Iterable[str], life: timedelta = _LIFE) -> None:
        """Write authority, certificates and keys; what a running room reads changes under it."""
        self.believe(self._believed)
        for room in rooms:
            key = ec.generate_private_key(ec.SECP256R1())
            names = [
                x509.UniformResourceIdentifier(f"spiffe://{TRUST_DOMAIN}/{room}"),
                x509.DNSName(f"{room}.{TRUST_DOMAIN}"),
            ]
            certificate = (
                self._builder(x509.Name([]), self._certificate.subject, key.public_key(), life)
                .add_extension(x509.SubjectAlternativeName(names), critical=True)
                # Two authorities of one name are told apart by their keys.
                .add_extension(
                    x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._key_id),
                    critical=False,
                )
                .sign(self._key, hashes.SHA256())
            )
            secret = key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            replace(self.directory / f"{room}.key", secret)
            replace(self.directory / f"{room}.pem", _pem(certificate))

    def _builder(
        self,
        subject: x509.Name,
        issuer: x509.Name,
        key: ec.EllipticCurvePublicKey,
        life: timedelta = _LIFE,
    ) -> x509.CertificateBuilder:
        now = self._clock.now()
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _SLACK)
            .not_valid_after(now + life)
        )


def tls_environment(directory: Path, room: str) -> dict[str, str]:
    """Return what tells a process that it is this room."""
    return {
        "DARKBLOOM_TLS_CERT_FILE": str(directory / f"{room}.pem"),
        "DARKBLOOM_TLS_KEY_FILE": str(directory / f"{room}.key"),
        "DARKBLOOM_TLS_CA_FILE": str(directory / "ca.pem"),
        "DARKBLOOM_TRUST_DOMAIN": TRUST_DOMAIN,
    }


def operator_paths(directory: Path) -> TlsPaths:
    """Return the files of whoever runs this mesh."""
    return TlsPaths(
        certificate=directory / f"{OPERATOR}.pem",
        key=directory / f"{OPERATOR}.key",
        authorities=directory / "ca.pem",
        trust_domain=TRUST_DOMAIN,
    )


def replace(path: Path, content: bytes) -> None:
    """Write a file of mode 0600 and put it in place of another at once."""
    staged = path.with_suffix(f"{path.suffix}.new")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    staged.replace(path)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
