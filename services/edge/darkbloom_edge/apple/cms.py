"""CMS signed data in the one shape in which Apple makes receipts.

One signer named by issuer and serial number, SHA-256 with ECDSA directly over the content, no
attributes, no revocation lists, no certificate that the signer's chain does not need. `asn1crypto`
reads it, because Apple writes BER with indefinite lengths, which strict DER readers refuse.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from asn1crypto import cms, core
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from darkbloom_edge.apple.certificates import ChainRules, parse_certificate, verify_chain
from darkbloom_edge.apple.faults import AppleFault, AppleRejected
from darkbloom_edge.signatures import is_canonical_der

MAX_CMS_BYTES = 16 * 1024
"""Largest object that is read; Apple's have under 4 KiB."""
READER_FAILURES = (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError)
"""What `asn1crypto` raises on bytes that it cannot read."""

_ECDSA = ec.ECDSA(hashes.SHA256())
_VERSION = "v1"


def open_signed(
    data: bytes, *, root: x509.Certificate, now: datetime, rules: ChainRules
) -> tuple[bytes, x509.Certificate]:
    """Return the content that was signed, and the certificate of its signer.

    Raises:
        AppleRejected: `receipt_malformed`, `receipt_signer`, `receipt_certificates`,
            `receipt_signature`, or a reason of the chain.
    """
    if not 0 < len(data) <= MAX_CMS_BYTES:
        raise AppleRejected(AppleFault.RECEIPT_MALFORMED, "size")
    try:
        content, certificates, signer = _read(data)
    except READER_FAILURES:
        raise AppleRejected(AppleFault.RECEIPT_MALFORMED) from None

    bag = [parse_certificate(der) for der in certificates]
    chain = _chain(bag, signer["issuer"], signer["serial"])
    # The cheaper check comes first; neither counts without the other.
    _check_signature(chain[0], signer["signature"], content)

    return content, verify_chain(chain, root=root, now=now, rules=rules)


def _read(data: bytes) -> tuple[bytes, list[bytes], dict[str, Any]]:
    """Read everything at once: `asn1crypto` is lazy, and each access may find a fault."""
    outer = cms.ContentInfo.load(data, strict=True)
    if outer["content_type"].native != "signed_data":
        raise AppleRejected(AppleFault.RECEIPT_MALFORMED, "not signed data")
    signed = outer["content"]
    inner = signed["encap_content_info"]
    if (
        signed["version"].native != _VERSION
        or len(signed["digest_algorithms"]) != 1
        or not _is_plain(signed["digest_algorithms"][0], "sha256")
        or inner["content_type"].native != "data"
        or signed["crls"].native
    ):
        raise AppleRejected(AppleFault.RECEIPT_MALFORMED, "shape")
    content = inner["content"].native
    if not isinstance(content, bytes):
        raise AppleRejected(AppleFault.RECEIPT_MALFORMED, "no content")
    choices = list(signed["certificates"])
    if any(choice.name != "certificate" for choice in choices):
        raise AppleRejected(AppleFault.RECEIPT_CERTIFICATES, "not x.509")

    return content, [choice.chosen.dump() for choice in choices], _read_signer(signed)


def _read_signer(signed: Any) -> dict[str, Any]:
    infos = list(signed["signer_infos"])
    if len(infos) != 1:
        raise AppleRejected(AppleFault.RECEIPT_SIGNER, "not exactly one")
    info = infos[0]
    if (
        info["version"].native != "v1"
        or info["sid"].name != "issuer_and_serial_number"
        or not _is_plain(info["digest_algorithm"], "sha256")
        or not _is_plain(info["signature_algorithm"], "sha256_ecdsa")
        # Without this rule signed attributes could be passed off as a payload, and the reverse.
        or info["signed_attrs"].native
        or info["unsigned_attrs"].native
    ):
        raise AppleRejected(AppleFault.RECEIPT_SIGNER, "shape")

    return {
        "issuer": info["sid"].chosen["issuer"].dump(),
        "serial": info["sid"].chosen["serial_number"].native,
        "signature": info["signature"].native,
    }


def _is_plain(algorithm: Any, name: str) -> bool:
    """Whether an algorithm is the one of this name, without parameters."""
    return algorithm["algorithm"].native == name and isinstance(
        algorithm["parameters"], core.Null | core.Void
    )


def _chain(
    bag: Sequence[x509.Certificate], issuer: bytes, serial: int
) -> Sequence[x509.Certificate]:
    """Order the certificates from the signer upwards; none may be left over."""
    found = [
        item
        for item in bag
        if item.serial_number == serial and item.issuer.public_bytes() == issuer
    ]
    if len(found) != 1:
        raise AppleRejected(AppleFault.RECEIPT_SIGNER, "no certificate")

    chain = found
    rest = [item for item in bag if item is not found[0]]
    while rest:
        above = [item for item in rest if item.subject == chain[-1].issuer]
        if len(above) != 1:
            raise AppleRejected(AppleFault.RECEIPT_CERTIFICATES)
        chain.append(above[0])
        rest.remove(above[0])

    return chain


def _check_signature(leaf: x509.Certificate, signature: bytes, content: bytes) -> None:
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not is_canonical_der(signature):
        raise AppleRejected(AppleFault.RECEIPT_SIGNATURE)

    try:
        key.verify(signature, content, _ECDSA)
    except InvalidSignature:
        raise AppleRejected(AppleFault.RECEIPT_SIGNATURE) from None
