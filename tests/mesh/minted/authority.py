"""The throw-away Apple as files, so that two processes can share it: one trusts it, one mints."""

import os
from dataclasses import fields
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from darkbloom_edge.apple.roots import AppleRoots

from tests.fakes.apple_ca import Authority
from tests.fakes.apple_service import AppleService

VARIABLE = "MINTED_APPLE_DIR"
APP_ID = "0123456789.io.darkbloom.provider"
SERIAL = "C02MINTED001"
_NAMES = ("app_attest", "app_attest_root", "enterprise", "enterprise_root", "receipt_root")


def save(apple: AppleService, directory: Path) -> dict[str, str]:
    """Write an Apple down; return what its processes must be told."""
    directory.mkdir()
    for name in _NAMES:
        authority: Authority = getattr(apple, name)
        key = authority.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (directory / f"{name}.pem").write_bytes(
            key + authority.certificate.public_bytes(Encoding.PEM)
        )
    return {VARIABLE: str(directory)}


def load() -> AppleService:
    """Read the Apple of this process's environment."""
    directory = Path(os.environ[VARIABLE])  # noqa: TID251 - no config here
    apple = AppleService()
    for name in _NAMES:
        data = (directory / f"{name}.pem").read_bytes()
        key = load_pem_private_key(data, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        setattr(apple, name, Authority(key, x509.load_pem_x509_certificate(data)))
    return apple


def roots() -> AppleRoots:
    """Return the roots of that Apple."""
    found = load().roots
    assert len(fields(found)) == 3
    return found
