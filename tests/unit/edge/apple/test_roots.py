"""The pinned roots: Apple's, and nobody else's, whatever the environment says."""

import hashlib
import os
from importlib.resources import files

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from darkbloom_edge.apple.roots import PinMismatchError, apple_roots, load_pinned

from tests.fakes.apple_ca import Authority
from tests.fakes.apple_samples import sample_path

PINS = {
    "app_attest": "1cb9823ba28ba6ad2d33a006941de2ae4f513ef1d4e831b9f7e0fa7b6242c932",
    "enterprise": "ccf59ef8fcb3017d97f8b5fa6fa90e7a3f9283f76b55ac6cf6eda8b8b949f05b",
    "receipts": "63343abfb89a6a03ebb57e9b3f5fa7be7c4f5c756f3017b3a8c488c3653e9179",
}


def fingerprint(root: x509.Certificate) -> str:
    return hashlib.sha256(root.public_bytes(Encoding.DER)).hexdigest()


@pytest.mark.parametrize("kind", PINS)
def test_each_root_is_the_published_one_and_signs_itself(kind: str) -> None:
    root = getattr(apple_roots(), kind)
    assert fingerprint(root) == PINS[kind]
    root.verify_directly_issued_by(root)


def test_the_root_of_webauthn_is_not_among_them() -> None:
    webauthn = x509.load_pem_x509_certificate(
        sample_path("webauthn", "py-webauthn-apple-passkey")
        .parents[1]
        .joinpath("roots/Apple_WebAuthn_Root_CA.pem")
        .read_bytes()
    )
    assert fingerprint(webauthn) not in PINS.values()


def test_a_replaced_root_stops_the_library() -> None:
    other = Authority.root("Apple Root CA - G3").certificate.public_bytes(Encoding.PEM)
    for pem in (other, b"", b"-----BEGIN CERTIFICATE-----\n"):
        with pytest.raises(PinMismatchError):
            load_pinned(pem, PINS["receipts"])


def test_only_the_three_roots_are_in_the_package() -> None:
    folder = files("darkbloom_edge.apple").joinpath("pinned")
    assert sorted(item.name for item in folder.iterdir()) == [
        "Apple_App_Attestation_Root_CA.pem",
        "Apple_Enterprise_Attestation_Root_CA.pem",
        "Apple_Root_CA_G3.pem",
    ]


def test_no_variable_of_the_environment_replaces_a_root(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "DARKBLOOM_APPLE_ROOTS"):
        monkeypatch.setitem(os.environ, name, "/nowhere")  # noqa: TID251 - what must not matter
    apple_roots.cache_clear()
    assert fingerprint(apple_roots().app_attest) == PINS["app_attest"]
