"""The offline verifier of receipts: which claims hold, and what backs each."""

import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from darkbloom_edge.answers import Answer, parse_answer
from darkbloom_edge.content_claims import answer_claims, request_claims
from darkbloom_edge.documents import decode_document, parse_rfc3339
from darkbloom_edge.errors import EdgeError, MalformedError, SignatureRejected
from darkbloom_edge.receipt import (
    Countersign,
    Receipt,
    parse_receipt,
    terminal_sha256,
    verify_countersign,
)
from darkbloom_edge.report import ATTESTATION, GATEWAY, PROVIDER, Claim, Report
from darkbloom_edge.signatures import parse_p256_public
from darkbloom_edge.terminal import Terminal, verify_terminal
from darkbloom_edge.verdict import Verdict, lifetime_of, read_verdict

MAX_STREAM = timedelta(hours=1)
"""How long after its verdict's expiry an answer may still have been running."""
MAX_SKEW = timedelta(minutes=2)
"""How far the clocks of signers may differ."""

Keys = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class _Documents:
    """The three signed documents of a receipt, read whether or not their signatures hold."""

    receipt: Receipt
    verdict: Verdict
    terminal: Terminal
    countersign: Countersign


def verify_receipt(
    receipt: bytes,
    *,
    verdict_keys: Keys | None = None,
    gateway_keys: Keys | None = None,
    request_body: bytes | None = None,
    answer: bytes | None = None,
    now: datetime | None = None,
) -> Report:
    """Check a receipt offline; never raises on bad input.

    Args:
        receipt: its JSON.
        verdict_keys: attestation's public keys by id, from a source that the caller trusts.
        gateway_keys: the gateways' receipt keys by id, likewise.
        request_body: the HTTP body that was sent, byte for byte.
        answer: the saved answer: JSON, an event stream, or the plain text of its content.
        now: the present; receipts from the future fail.

    Returns:
        All claims, in the order in which they build on each other.
    """
    try:
        documents = _read(receipt)
    except MalformedError as error:
        claim = Claim("receipt", holds=False, detail=str(error), backed_by="the receipt's bytes")
        return Report((claim,))

    claims = [
        Claim("receipt", holds=True, detail="is well formed", backed_by="the receipt's bytes"),
        *_signature_claims(documents, verdict_keys, gateway_keys),
        *_binding_claims(documents),
        _timely(documents, now),
        _counts(documents),
        _attested(documents.verdict),
        *request_claims(
            request_body, documents.receipt.receipt_key, documents.terminal, documents.countersign
        ),
        *_answer_claims(answer, documents),
    ]

    return Report(tuple(claims))


def _read(data: bytes) -> _Documents:
    receipt = parse_receipt(data)

    return _Documents(
        receipt,
        decode_document(receipt.verdict, Verdict),
        decode_document(receipt.terminal, Terminal),
        decode_document(receipt.countersign, Countersign),
    )


def _signature_claims(
    documents: _Documents, verdict_keys: Keys | None, gateway_keys: Keys | None
) -> Iterator[Claim]:
    receipt = documents.receipt
    verdict_backing = f"attestation's key {receipt.verdict_key_id}"
    if verdict_keys is None:
        detail = "no verdict keys were given"
        yield Claim("verdict_signed", holds=None, detail=detail, backed_by=verdict_backing)
    else:
        fault = _fault_of_verdict(receipt, verdict_keys)
        yield Claim("verdict_signed", not fault, fault or "signature holds", verdict_backing)

    fault = ""
    try:
        verify_terminal(receipt.terminal, receipt.terminal_signature, receipt.identity_key)
    except SignatureRejected as error:
        fault = str(error)
    yield Claim("terminal_signed", not fault, fault or "signature holds", "the provider's key")

    gateway_backing = f"the gateway's key {receipt.gateway_key_id}"
    if gateway_keys is None:
        detail = "no gateway keys were given"
        yield Claim("countersigned", holds=None, detail=detail, backed_by=gateway_backing)
    else:
        fault = _fault_of_countersign(receipt, gateway_keys)
        yield Claim("countersigned", not fault, fault or "signature holds", gateway_backing)


def _fault_of_verdict(receipt: Receipt, keys: Keys) -> str:
    try:
        read_verdict(receipt.verdict, receipt.verdict_signature, receipt.verdict_key_id, keys)
    except SignatureRejected as error:
        return str(error)

    return ""


def _fault_of_countersign(receipt: Receipt, keys: Keys) -> str:
    try:
        verify_countersign(
            receipt.countersign, receipt.countersign_signature, receipt.gateway_key_id, keys
        )
    except SignatureRejected as error:
        return str(error)

    return ""


def _binding_claims(documents: _Documents) -> Iterator[Claim]:
    """Say whether the three documents speak of the same provider and the same attempt."""
    receipt, verdict, terminal = documents.receipt, documents.verdict, documents.terminal
    countersign = documents.countersign

    same_key = _same_identity(receipt.identity_key, verdict.identity_key)
    yield Claim(
        "identity_bound",
        same_key,
        "the terminal's key is the verdict's" if same_key else "another key signed the terminal",
        ATTESTATION,
    )
    same_box = (terminal.encryption_key, terminal.verdict_id) == (
        verdict.encryption_key,
        verdict.verdict_id,
    )
    sealed_to = max(terminal.sealed_to, countersign.sealed_to or 0)
    yield Claim(
        "encryption_key_bound",
        same_box,
        f"sealed to {sealed_to} provider(s), opened with the verdict's key"
        if same_box
        else "the terminal names another encryption key or verdict",
        f"{PROVIDER} and {ATTESTATION}",
    )
    same_attempt = (countersign.request_id, countersign.attempt_id) == (
        terminal.request_id,
        terminal.attempt_id,
    ) and hmac.compare_digest(countersign.terminal_sha256 or "", terminal_sha256(receipt.terminal))
    yield Claim(
        "same_attempt",
        same_attempt,
        f"request {terminal.request_id}, build {terminal.build}, weights {terminal.weight_hash}"
        if same_attempt
        else "the countersign speaks of another terminal",
        f"{PROVIDER} and {GATEWAY}",
    )


def _same_identity(key: bytes, text: str) -> bool:
    try:
        return parse_p256_public(key) == parse_p256_public(text)
    except MalformedError:
        return False


def _timely(documents: _Documents, now: datetime | None) -> Claim:
    """Say whether the verdict was in force; the receipt knows only when the answer ended."""
    name, backing = "verdict_timely", f"{ATTESTATION} and {GATEWAY}"
    try:
        issued, expires = lifetime_of(documents.verdict)
        ended = parse_rfc3339(documents.countersign.issued_at)
    except MalformedError as error:
        return Claim(name, holds=False, detail=str(error), backed_by=backing)

    if now is not None and ended > now + MAX_SKEW:
        return Claim(name, holds=False, detail="issued in the future", backed_by=backing)
    if ended < issued - MAX_SKEW or ended > expires + MAX_STREAM:
        detail = "the verdict was not in force"
        return Claim(name, holds=False, detail=detail, backed_by=backing)
    if ended > expires:
        detail = "the answer ended after the verdict's expiry; when it began is not known"
        return Claim(name, holds=None, detail=detail, backed_by=backing)

    return Claim(name, holds=True, detail="the verdict was in force", backed_by=backing)


def _counts(documents: _Documents) -> Claim:
    """Compare what the provider counted with what the edge opened; the smaller is charged."""
    terminal, opened = documents.terminal, documents.countersign.opened
    both = f"{PROVIDER} and {GATEWAY}"
    told = f"prompt {terminal.prompt_tokens}, completion {terminal.completion_tokens} tokens"
    if (opened.prompt_tokens, opened.completion_tokens) == (
        terminal.prompt_tokens,
        terminal.completion_tokens,
    ):
        return Claim("counts_agree", holds=True, detail=told, backed_by=both)
    if documents.countersign.outcome != "completed":
        detail = f"the answer was cut; the provider says {told}"
        return Claim("counts_agree", holds=None, detail=detail, backed_by=both)

    detail = (
        f"the provider says {told}, the gateway opened prompt {opened.prompt_tokens}, "
        f"completion {opened.completion_tokens} tokens"
    )

    return Claim("counts_agree", holds=False, detail=detail, backed_by=both)


def _attested(verdict: Verdict) -> Claim:
    """Say what is known about the machine, and no more."""
    name = "attested"
    if verdict.trust_level == "hardware" and verdict.admission == "public":
        detail = f"attested hardware running {verdict.code_release}"
        return Claim(name, holds=True, detail=detail, backed_by=ATTESTATION)

    detail = (
        f"unattested: trust level {verdict.trust_level}, admitted as {verdict.admission}; "
        "nothing proves what machine answered or that it kept the prompt to itself"
    )

    return Claim(name, holds=None, detail=detail, backed_by=ATTESTATION)


def _answer_claims(answer: bytes | None, documents: _Documents) -> Iterator[Claim]:
    parsed: Answer | None = None
    if answer is not None:
        try:
            parsed = parse_answer(answer)
        except EdgeError as error:
            yield Claim("answer", holds=False, detail=str(error), backed_by="the saved answer")
            return

    yield from answer_claims(
        parsed, documents.receipt.receipt_key, documents.terminal, documents.countersign
    )
