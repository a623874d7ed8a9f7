"""One attempt at one machine: what was sealed to it, and whether its answer is true.

The consumer's own checks, of everything that the gateway checks in edge mode, and of the nonce.
"""

import hashlib
import hmac
from collections.abc import Callable
from typing import final

from darkbloom_edge.answers import MAX_ANSWER_BYTES
from darkbloom_edge.delta import Delta, decode
from darkbloom_edge.envelope import EdgeSession, RequestHeader
from darkbloom_edge.errors import EnvelopeError, MalformedError, SignatureRejected
from darkbloom_edge.offers import OfferDocument
from darkbloom_edge.records import Record, RecordKind
from darkbloom_edge.signatures import from_base64, to_base64
from darkbloom_edge.terminal import Terminal, verify_terminal
from darkbloom_edge.transcript import Transcript

from darkbloom_client.evidence import Machine
from darkbloom_client.refusal import Reason, RefusedError

BYTES_ALLOWANCE = 256
"""Completion tokens beyond the delivered UTF-8 bytes that are still believed."""
LIFETIME_MS = 600_000
"""How long the sealed request may be opened."""


@final
class Attempt:
    """Seals one request to one machine and checks all that comes back; for one use.

    Args:
        offer: signed by the gateway, and checked.
        machine: satisfies the policy.
        sealed_to: machines that this prompt was sealed to, this one included.
        entropy: draws random bytes.

    Raises:
        RefusedError: K is no usable key.
    """

    def __init__(
        self,
        offer: OfferDocument,
        machine: Machine,
        *,
        sealed_to: int,
        entropy: Callable[[int], bytes],
    ) -> None:
        self.offer = offer
        self.machine = machine
        self.sealed_to = sealed_to
        self.receipt_key = entropy(32)
        self.sealed_sha256 = ""
        self.frames = 0
        self.last = Delta()
        self.final = False
        self._transcript = Transcript(self.receipt_key)
        self._relayed = hashlib.sha256()
        self._bytes_left = MAX_ANSWER_BYTES
        try:
            self._session = EdgeSession.create(
                provider_key=machine.encryption_key,
                request_id=offer.request_id,
                attempt_id=offer.attempt_id,
            )
        except (EnvelopeError, MalformedError):
            raise RefusedError(Reason.KEY_SWAPPED, expected="a usable key", found="none") from None

    def __repr__(self) -> str:
        return f"Attempt({self.offer.attempt_id!r}, <redacted>)"

    @property
    def relayed_sha256(self) -> str:
        """SHA-256 of all chunk payloads so far, hex."""
        return self._relayed.hexdigest()

    def seal(self, canonical: bytes, *, now_ms: int, whole: bool, cache_scope: bytes) -> bytes:
        """Return what is posted: sender key ‖ ciphertext.

        Args:
            canonical: the canonical request.
            now_ms: Unix milliseconds.
            whole: the caller takes the answer in one piece.
            cache_scope: of the offer; empty keeps nothing of the prompt.
        """
        self._transcript.request(canonical)
        offer = self.offer
        header = RequestHeader(
            not_after_ms=now_ms + LIFETIME_MS,
            prompt_bound=offer.prompt_bound,
            output_bound=offer.output_bound,
            receipt_key=self.receipt_key,
            verdict_id=self.machine.verdict.verdict_id,
            sealed_to=self.sealed_to,
            edge_nonce=from_base64(offer.nonce),
            end_to_end=True,
            whole=whole,
            cache_scope=cache_scope,
        )
        ciphertext = self._session.seal_request(header, canonical)
        self.sealed_sha256 = hashlib.sha256(ciphertext).hexdigest()

        return self._session.sender_key + ciphertext

    def open(self, record: Record) -> Delta:
        """Open the next chunk.

        Raises:
            RefusedError: it is not the next one unaltered, lacks the nonce, or cannot be true.
        """
        if self.final:
            raise _altered("nothing after the final chunk", "another chunk")
        self._relayed.update(record.payload)
        try:
            data, sealed_final = self._session.open_chunk(record.payload)
            delta = decode(data)
            self._transcript.feed(delta)
        except EnvelopeError as error:
            raise _altered("the next sealed chunk", error.reason.value) from None
        except MalformedError as error:
            raise _altered("a piece of an answer", error.what) from None

        said_final = record.kind is RecordKind.FINAL
        self._bytes_left -= len(data)
        if (
            sealed_final is not said_final
            or said_final is not (delta.finish_reason is not None)
            or (record.kind is RecordKind.PREAMBLE and delta.has_content)
            or self._bytes_left < 0
        ):
            raise _altered("a chunk of the kind that its record says", record.kind.name.lower())
        self._check_nonce(delta)
        self._check_counts(delta, record.tokens)
        self.frames += 1
        self.last = delta
        self.final = said_final

        return delta

    def conclude(self, document: bytes, signature: bytes) -> Terminal:
        """Check the provider's signed last word against all that was opened.

        Args:
            document: the exact bytes.
            signature: of the identity key in the verdict.

        Raises:
            RefusedError: it is not the machine's, not about this request, or not what came.
        """
        verdict, offer, last = self.machine.verdict, self.offer, self.last
        try:
            terminal = verify_terminal(document, signature, self.machine.identity_key)
            digests = self._transcript.digests()
        except (SignatureRejected, MalformedError) as error:
            raise _forged("the machine's signature", str(error)) from None
        if terminal.edge_nonce is None or not hmac.compare_digest(terminal.edge_nonce, offer.nonce):
            raise RefusedError(
                Reason.NONCE_WRONG,
                expected="our nonce in the signed terminal",
                found="none" if terminal.edge_nonce is None else "another one",
            )

        rows = (
            ("request", terminal.request_id, offer.request_id),
            ("attempt", terminal.attempt_id, offer.attempt_id),
            ("build", terminal.build, offer.build),
            ("verdict", terminal.verdict_id, verdict.verdict_id),
            ("key", terminal.encryption_key, verdict.encryption_key),
            ("sealed_to", terminal.sealed_to, self.sealed_to),
            ("chunks", terminal.chunks, self.frames),
            ("finish reason", terminal.finish_reason, last.finish_reason),
            ("outcome", terminal.outcome, "completed"),
        )
        for name, said, known in rows:
            if said != known:
                raise _forged(f"{name} {known}", str(said))
        counts = (
            ("prompt tokens", terminal.prompt_tokens, last.prompt_tokens),
            ("completion tokens", terminal.completion_tokens, last.completion_tokens),
            ("cached tokens", terminal.cached_tokens, last.cached_tokens),
            ("reasoning tokens", terminal.reasoning_tokens, last.reasoning_tokens),
        )
        for name, said, known in counts:
            if said != known:
                raise RefusedError(Reason.COUNTS_FALSE, expected=f"{known} {name}", found=str(said))
        signed, own = terminal.digests, digests
        if not hmac.compare_digest(
            "".join((signed.request, signed.content, signed.reasoning, *signed.tool_calls)),
            "".join((own.request, own.content, own.reasoning, *own.tool_calls)),
        ):
            raise _forged("digests of what was asked and answered", "others")

        return terminal

    def _check_nonce(self, delta: Delta) -> None:
        expected = self.offer.nonce if self.frames == 0 else ""
        found = to_base64(delta.edge_nonce) if delta.edge_nonce else ""
        if not hmac.compare_digest(found, expected):
            raise RefusedError(
                Reason.NONCE_WRONG,
                expected="our nonce in the first chunk, and in no other",
                found="another one" if found else "none",
            )

    def _check_counts(self, delta: Delta, tokens: int) -> None:
        last, offer = self.last, self.offer
        rows = (
            (delta.completion_tokens == tokens, f"{tokens} completion tokens, as the record says"),
            (delta.completion_tokens >= last.completion_tokens, "counts that only rise"),
            (delta.prompt_tokens >= last.prompt_tokens, "counts that only rise"),
            (delta.cached_tokens >= last.cached_tokens, "counts that only rise"),
            (delta.reasoning_tokens >= last.reasoning_tokens, "counts that only rise"),
            (delta.completion_tokens <= offer.output_bound, f"at most {offer.output_bound} tokens"),
            (delta.prompt_tokens <= offer.prompt_bound, f"at most {offer.prompt_bound} tokens"),
            (
                delta.completion_tokens <= self._transcript.delivered_bytes + BYTES_ALLOWANCE,
                "no more tokens than bytes",
            ),
        )
        for holds, expected in rows:
            if not holds:
                raise RefusedError(
                    Reason.COUNTS_FALSE,
                    expected=expected,
                    found=f"prompt {delta.prompt_tokens}, completion {delta.completion_tokens}",
                )


def _altered(expected: str, found: str) -> RefusedError:
    return RefusedError(Reason.CHUNK_ALTERED, expected=expected, found=found)


def _forged(expected: str, found: str) -> RefusedError:
    return RefusedError(Reason.TERMINAL_FORGED, expected=expected, found=found)
