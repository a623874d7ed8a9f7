"""Receipts: the gateway's countersignature over what a provider has signed."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, final

from darkbloom_edge.documents import rfc3339
from darkbloom_edge.gateway_evidence import GatewayStatement, sign_statement
from darkbloom_edge.offers import OfferDocument, sign_offer
from darkbloom_edge.receipt import (
    Countersign,
    OpenedCounts,
    build_receipt,
    sign_countersign,
    terminal_sha256,
)
from darkbloom_edge.signatures import Ed25519Signer
from darkbloom_edge.terminal import Outcome, Terminal

from darkbloom_gateway.attempt import Attempt
from darkbloom_gateway.carried import Carried
from darkbloom_gateway.model import Plan, SignedBytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Relayed:
    """What a gateway can say of an answer that it could not open; hashes in hex."""

    sealed_sha256: str
    relayed_sha256: str
    outcome: Outcome | Literal["broken"]
    terminal_sha256: str | None = None


@final
class ReceiptPress:
    """Countersigns with the key of this worker, which never leaves its memory."""

    def __init__(self, signer: Ed25519Signer) -> None:
        self._signer = signer

    @property
    def key_id(self) -> str:
        """Id of the key."""
        return self._signer.key_id

    @property
    def public_key(self) -> bytes:
        """The key, 32 bytes."""
        return self._signer.public

    def press(
        self,
        attempt: Attempt,
        plan: Plan,
        terminal: Terminal,
        signed: SignedBytes,
        now: datetime,
        *,
        sealed_to: int,
    ) -> tuple[bytes, SignedBytes]:
        """Return the receipt's JSON, and the countersigned record for billing.

        Args:
            attempt: the winner, concluded.
            plan: what was asked.
            terminal: the verified terminal.
            signed: its exact bytes and signature.
            now: time of issue.
            sealed_to: providers that the request was sealed to in the end, racers included.
        """
        record = self._sign(
            attempt,
            plan,
            terminal_hash=terminal_sha256(signed.document),
            outcome=terminal.outcome,
            now=now,
            sealed_to=sealed_to,
        )
        return assembled(attempt, signed, record, attempt.receipt_key), record

    def broken(self, attempt: Attempt, plan: Plan, now: datetime, *, sealed_to: int) -> SignedBytes:
        """Return the record of an answer without a verified terminal.

        It is not for the consumer: it lets billing see whether a router settled more than was
        opened, or for another provider.
        """
        return self._sign(
            attempt, plan, terminal_hash=None, outcome="broken", now=now, sealed_to=sealed_to
        )

    def relayed(self, attempt: Carried, plan: Plan, seen: Relayed, now: datetime) -> SignedBytes:
        """Return the record of an answer of end-to-end mode, of which only ciphertext was seen."""
        document, signature = sign_countersign(
            Countersign(
                request_id=attempt.request_id,
                attempt_id=attempt.offer.attempt_id,
                verdict_id=attempt.checked.verdict.verdict_id,
                terminal_sha256=seen.terminal_sha256,
                mode="end_to_end",
                sealed_sha256=seen.sealed_sha256,
                relayed_sha256=seen.relayed_sha256,
                requested_model=plan.requested_model,
                opened=_counts(attempt),
                outcome=seen.outcome,
                issued_at=rfc3339(now),
                output_bound=plan.output_bound,
            ),
            self._signer,
        )
        return SignedBytes(document, signature, self._signer.key_id)

    def promise(self, document: OfferDocument) -> SignedBytes:
        """Sign an offer of end-to-end mode."""
        data, signature = sign_offer(document, self._signer)
        return SignedBytes(data, signature, self._signer.key_id)

    def state(self, statement: GatewayStatement) -> SignedBytes:
        """Sign what this process says of itself."""
        data, signature = sign_statement(statement, self._signer)
        return SignedBytes(data, signature, self._signer.key_id)

    def _sign(
        self,
        attempt: Attempt,
        plan: Plan,
        *,
        terminal_hash: str | None,
        outcome: Outcome | Literal["broken"],
        now: datetime,
        sealed_to: int,
    ) -> SignedBytes:
        document, signature = sign_countersign(
            Countersign(
                request_id=attempt.request_id,
                attempt_id=attempt.offer.attempt_id,
                verdict_id=attempt.checked.verdict.verdict_id,
                terminal_sha256=terminal_hash,
                body_digest=attempt.body_digest,
                requested_model=plan.requested_model,
                opened=_counts(attempt),
                outcome=outcome,
                issued_at=rfc3339(now),
                output_bound=plan.output_bound,
                prompt_date=plan.prompt_date,
                sealed_to=sealed_to if sealed_to > attempt.sealed_to else None,
            ),
            self._signer,
        )
        return SignedBytes(document, signature, self._signer.key_id)


def assembled(
    attempt: Carried,
    terminal: SignedBytes,
    countersign: SignedBytes,
    receipt_key: bytes | None = None,
) -> bytes:
    """Return a receipt's JSON.

    Args:
        attempt: that answered.
        terminal: signed by its provider.
        countersign: what this gateway says of it.
        receipt_key: opens the digests; None where only the consumer has it.
    """
    verdict = attempt.checked.signed
    return build_receipt(
        receipt_key=receipt_key,
        terminal=terminal.document,
        terminal_signature=terminal.signature,
        identity_key=attempt.checked.identity_key,
        verdict=verdict.document,
        verdict_signature=verdict.signature,
        verdict_key_id=verdict.key_id,
        countersign=countersign.document,
        countersign_signature=countersign.signature,
        gateway_key_id=countersign.key_id,
    )


def _counts(attempt: Carried) -> OpenedCounts:
    opened = attempt.opened
    return OpenedCounts(
        frames=opened.frames,
        prompt_tokens=opened.prompt_tokens,
        completion_tokens=opened.completion_tokens,
        cached_tokens=opened.cached_tokens,
    )
