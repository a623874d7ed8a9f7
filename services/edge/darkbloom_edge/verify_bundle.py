"""The offline verifier of bundles: the receipt, the machine, the release and the log."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from darkbloom_edge.apple.roots import AppleRoots
from darkbloom_edge.bundle import Bundle, parse_bundle
from darkbloom_edge.documents import convert_document, decode_document
from darkbloom_edge.errors import MalformedError, SignatureRejected
from darkbloom_edge.evidence_claims import evidence_claims
from darkbloom_edge.log_claims import log_claims
from darkbloom_edge.receipt import Receipt
from darkbloom_edge.release import open_manifest
from darkbloom_edge.report import Claim, Report
from darkbloom_edge.strict_json import canonical_json
from darkbloom_edge.terminal import Terminal
from darkbloom_edge.verdict import Verdict
from darkbloom_edge.verify import verify_receipt

RELEASER = "the release key"
"""Backs what exactly a tree of code holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pins:
    """What the one who checks believes, from sources of his own; None is nothing."""

    verdict_keys: Mapping[str, bytes] | None = None
    """Attestation's: they sign verdicts and heads of the log."""
    gateway_keys: Mapping[str, bytes] | None = None
    """Gateways'; without them the bundled ones count once the log covers them."""
    release_keys: Mapping[str, bytes] | None = None
    """Whose signatures bless code."""
    apple: AppleRoots | None = None
    app_id: str | None = None
    """`<TeamID>.<bundle id>` of the provider's app."""


def verify_bundle(
    data: bytes,
    *,
    pins: Pins,
    request_body: bytes | None = None,
    answer: bytes | None = None,
    now: datetime | None = None,
) -> Report:
    """Check a bundle offline; never raises on bad input.

    Args:
        data: the bundle.
        pins: what is believed beforehand.
        request_body: the HTTP body that was sent, byte for byte.
        answer: the saved answer.
        now: the present; receipts from the future fail.

    Returns:
        All claims, in the order in which they build on each other.
    """
    try:
        bundle = parse_bundle(data)
        receipt = convert_document(bundle.receipt, Receipt)
        verdict = decode_document(receipt.verdict, Verdict)
        terminal = decode_document(receipt.terminal, Terminal)
    except MalformedError as error:
        claim = Claim("bundle", holds=False, detail=str(error), backed_by="the bundle's bytes")
        return Report((claim,))

    logged = tuple(log_claims(bundle, receipt, verdict, terminal, pins.verdict_keys))
    gateway_keys = pins.gateway_keys
    if any(claim.name == "receipt_key_logged" and claim.holds for claim in logged):
        bundled = {key.key_id: key.public_key for key in bundle.keys.receipt_keys}
        named = {receipt.gateway_key_id: bundled[receipt.gateway_key_id]}
        gateway_keys = {**named, **(gateway_keys or {})}
    about = verify_receipt(
        canonical_json(bundle.receipt),
        verdict_keys=pins.verdict_keys,
        gateway_keys=gateway_keys,
        request_body=request_body,
        answer=answer,
        now=now,
    )

    return Report(
        (
            *about.claims,
            *evidence_claims(bundle.provider, verdict, roots=pins.apple, app_id=pins.app_id),
            *_release_claims(bundle, verdict, pins),
            *logged,
        )
    )


def _release_claims(bundle: Bundle, verdict: Verdict, pins: Pins) -> Iterator[Claim]:
    name, signed = "release_signed", bundle.release
    if signed is None:
        detail = "nobody has signed what this release holds"
        yield Claim(name, holds=None, detail=detail, backed_by=RELEASER)
        return
    if pins.release_keys is None:
        yield Claim(name, holds=None, detail="no release keys were given", backed_by=RELEASER)
        return

    try:
        manifest = open_manifest(
            signed.document, signed.signature, signed.key_id, pins.release_keys
        )
    except SignatureRejected as error:
        yield Claim(name, holds=False, detail=str(error), backed_by=RELEASER)
        return
    same = manifest.code_release == verdict.code_release
    files = sum(len(package.files) for package in manifest.packages)
    detail = (
        f"version {manifest.release_version}, {files} files, key {signed.key_id}"
        if same
        else f"the signed manifest is that of {manifest.code_release}"
    )
    yield Claim(name, same, detail, RELEASER)
