"""The roots that Apple's evidence must lead to, pinned in the package.

Nothing of the environment can add or replace one. Tests hand their own `AppleRoots` to the
verifiers, which is why every verifier takes them as an argument.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from darkbloom_edge.errors import EdgeError

_PINS = {
    "Apple_App_Attestation_Root_CA": (
        "1cb9823ba28ba6ad2d33a006941de2ae4f513ef1d4e831b9f7e0fa7b6242c932"
    ),
    "Apple_Enterprise_Attestation_Root_CA": (
        "ccf59ef8fcb3017d97f8b5fa6fa90e7a3f9283f76b55ac6cf6eda8b8b949f05b"
    ),
    "Apple_Root_CA_G3": "63343abfb89a6a03ebb57e9b3f5fa7be7c4f5c756f3017b3a8c488c3653e9179",
}
"""SHA-256 of the DER form, lower case hex (spec/security.md §8, §11)."""


class PinMismatchError(EdgeError):
    """A root in the package is not the pinned one: the installation has been altered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppleRoots:
    """One root for each kind of evidence; none stands in for another."""

    app_attest: x509.Certificate
    """Issues the authorities of App Attest keys."""
    enterprise: x509.Certificate
    """Issues the authority of Managed Device Attestation."""
    receipts: x509.Certificate
    """Issues, among much else, the authority of the signers of App Attest receipts."""


def load_pinned(pem: bytes, fingerprint: str) -> x509.Certificate:
    """Read one root and compare it with its pin.

    Raises:
        PinMismatchError: it is another certificate, or none.
    """
    try:
        root = x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise PinMismatchError("a pinned root is not a certificate") from None
    if hashlib.sha256(root.public_bytes(Encoding.DER)).hexdigest() != fingerprint:
        raise PinMismatchError("a pinned root has another fingerprint")

    return root


@cache
def apple_roots() -> AppleRoots:
    """Return the pinned roots.

    Raises:
        PinMismatchError: the package's files are not the pinned ones.
    """
    folder = files("darkbloom_edge.apple").joinpath("pinned")
    app_attest, enterprise, receipts = (
        load_pinned(folder.joinpath(f"{name}.pem").read_bytes(), pin) for name, pin in _PINS.items()
    )

    return AppleRoots(app_attest=app_attest, enterprise=enterprise, receipts=receipts)
