"""One attempt at one provider: what was sealed to it, and whether its answer is true."""

import hmac
from typing import final

from darkbloom_edge.answers import MAX_ANSWER_BYTES
from darkbloom_edge.delta import Delta, decode
from darkbloom_edge.envelope import EdgeSession, RequestHeader
from darkbloom_edge.errors import EnvelopeError, EnvelopeFault, MalformedError, SignatureRejected
from darkbloom_edge.terminal import Terminal, verify_terminal
from darkbloom_edge.transcript import Transcript, body_digest

from darkbloom_gateway.errors import ViolationError, ViolationFault
from darkbloom_gateway.model import Offer, OpenedCounts
from darkbloom_gateway.verdicts import Checked

BYTES_ALLOWANCE = 256
"""Completion tokens beyond the delivered UTF-8 bytes that are still believed."""

_HEADER_FAULTS = frozenset(
    {
        EnvelopeFault.BAD_VERSION,
        EnvelopeFault.BAD_DIRECTION,
        EnvelopeFault.BAD_SEQUENCE,
        EnvelopeFault.BAD_IDS,
        EnvelopeFault.BAD_HEADER,
    }
)


@final
class Attempt:
    """Seals one request to one provider and checks everything that comes back; holds no answer.

    Invariant: `opened` counts only what was opened and checked, so it is what may be charged.
    """

    __slots__ = (
        "_bytes_left",
        "_cache_scope",
        "_edge_nonce",
        "_session",
        "_transcript",
        "body_digest",
        "checked",
        "final",
        "frames",
        "last",
        "offer",
        "output_bound",
        "prompt_bound",
        "receipt_key",
        "request_id",
        "sealed_to",
    )

    def __init__(
        self,
        offer: Offer,
        checked: Checked,
        *,
        request_id: str,
        prompt_bound: int,
        output_bound: int,
        sealed_to: int,
        randomness: bytes,
        cache_scope: bytes = b"",
        max_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        """Prepare an attempt.

        Args:
            offer: who was reserved.
            checked: its verified verdict.
            request_id: `req_…`.
            prompt_bound: the hold's.
            output_bound: the hold's.
            sealed_to: providers that this request was sealed to, this one included.
            randomness: 64 fresh bytes: receipt key and edge nonce.
            cache_scope: who may share what the provider keeps of the prompt; empty: nobody.
            max_bytes: the most that is opened of it; tokens alone bound no bytes.

        Raises:
            ViolationError: the provider's key or the attempt id is unusable.
        """
        self.offer = offer
        self.checked = checked
        self.receipt_key = randomness[:32]
        self._edge_nonce = randomness[32:]
        self._cache_scope = cache_scope
        self.request_id = request_id
        self.prompt_bound = prompt_bound
        self.output_bound = output_bound
        self.sealed_to = sealed_to
        self._transcript = Transcript(self.receipt_key)
        self.body_digest = ""
        self._bytes_left = max_bytes
        self.frames = 0
        self.last = Delta()
        self.final = False
        try:
            self._session = EdgeSession.create(
                provider_key=checked.encryption_key,
                request_id=request_id,
                attempt_id=offer.attempt_id,
            )
        except (EnvelopeError, MalformedError):
            raise ViolationError(ViolationFault.HEADER) from None

    def __repr__(self) -> str:
        return f"Attempt({self.offer.attempt_id!r}, <redacted>)"

    @property
    def sender_key(self) -> bytes:
        """The attempt's fresh public key."""
        return self._session.sender_key

    @property
    def opened(self) -> OpenedCounts:
        """What was opened and checked so far."""
        last = self.last
        return OpenedCounts(
            self.frames, last.prompt_tokens, last.completion_tokens, last.cached_tokens
        )

    def seal(
        self, canonical: bytes, body: bytes, *, not_after_ms: int, whole: bool = False
    ) -> bytes:
        """Seal the canonical request; slow for large bodies, safe in a thread.

        Args:
            canonical: the canonical request.
            body: the HTTP body exactly as received, for its digest.
            not_after_ms: Unix milliseconds after which nobody may open it.
            whole: the consumer takes the answer in one piece.
        """
        self._transcript.request(canonical)
        self.body_digest = body_digest(self.receipt_key, body)
        header = RequestHeader(
            not_after_ms=not_after_ms,
            prompt_bound=self.prompt_bound,
            output_bound=self.output_bound,
            receipt_key=self.receipt_key,
            verdict_id=self.checked.verdict.verdict_id,
            sealed_to=self.sealed_to,
            edge_nonce=self._edge_nonce,
            whole=whole,
            cache_scope=self._cache_scope,
        )
        return self._session.seal_request(header, canonical)

    def open(self, payload: bytes, tokens: int, *, final: bool, preamble: bool = False) -> Delta:
        """Open the next chunk.

        Args:
            payload: ciphertext.
            tokens: the frame's plaintext claim of cumulative completion tokens.
            final: whether the frame says that it is the last one.
            preamble: whether the frame says that it holds no content; content in it would be
                counted and signed for, and nobody would pass it on.

        Raises:
            ViolationError: it does not open, a count in it cannot be true, or it is too much.
        """
        try:
            data, sealed_final = self._session.open_chunk(payload)
        except EnvelopeError as error:
            fault = error.reason
            raise ViolationError(
                ViolationFault.HEADER if fault in _HEADER_FAULTS else ViolationFault.UNOPENABLE
            ) from None
        if sealed_final is not final:
            raise ViolationError(ViolationFault.HEADER)

        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            raise ViolationError(ViolationFault.DELTA)

        try:
            delta = decode(data)
            self._transcript.feed(delta)
        except MalformedError:
            raise ViolationError(ViolationFault.DELTA) from None
        if final is not (delta.finish_reason is not None) or (preamble and delta.has_content):
            raise ViolationError(ViolationFault.DELTA)
        self._check_counts(delta, tokens)

        self.frames += 1
        self.last = delta
        self.final = final
        return delta

    def conclude(
        self, document: bytes, signature: bytes, weight_hashes: frozenset[str]
    ) -> Terminal:
        """Check the signed terminal against everything that was opened.

        Args:
            document: the exact bytes.
            signature: of the identity key that the verdict names.
            weight_hashes: those that the catalog accepts for the build; empty checks none.

        Raises:
            ViolationError: the signature is not the provider's, or it does not say what came.
        """
        verdict, last = self.checked.verdict, self.last
        try:
            terminal = verify_terminal(document, signature, self.checked.identity_key)
            digests = self._transcript.digests()
        except (SignatureRejected, MalformedError):
            raise ViolationError(ViolationFault.TERMINAL) from None

        said = (
            terminal.request_id,
            terminal.attempt_id,
            terminal.build,
            terminal.verdict_id,
            terminal.encryption_key,
            terminal.sealed_to,
            terminal.chunks,
            terminal.finish_reason,
        )
        known = (
            self.request_id,
            self.offer.attempt_id,
            self.offer.build,
            verdict.verdict_id,
            verdict.encryption_key,
            self.sealed_to,
            self.frames,
            last.finish_reason,
        )
        if said != known or (weight_hashes and terminal.weight_hash not in weight_hashes):
            raise ViolationError(ViolationFault.TERMINAL)

        counts = (
            terminal.prompt_tokens,
            terminal.completion_tokens,
            terminal.cached_tokens,
            terminal.reasoning_tokens,
        )
        opened = (
            last.prompt_tokens,
            last.completion_tokens,
            last.cached_tokens,
            last.reasoning_tokens,
        )
        if counts != opened:
            raise ViolationError(ViolationFault.COUNTS)

        signed = (
            terminal.digests.request,
            terminal.digests.content,
            terminal.digests.reasoning,
            *terminal.digests.tool_calls,
        )
        computed = (digests.request, digests.content, digests.reasoning, *digests.tool_calls)
        if not hmac.compare_digest("".join(signed), "".join(computed)):
            raise ViolationError(ViolationFault.TERMINAL)
        return terminal

    def _check_counts(self, delta: Delta, tokens: int) -> None:
        last = self.last
        if (
            delta.completion_tokens != tokens
            or delta.completion_tokens < last.completion_tokens
            or delta.completion_tokens > self.output_bound
            or delta.completion_tokens > self._transcript.delivered_bytes + BYTES_ALLOWANCE
            or delta.prompt_tokens < last.prompt_tokens
            or delta.prompt_tokens > self.prompt_bound
            or delta.cached_tokens < last.cached_tokens
            or delta.reasoning_tokens < last.reasoning_tokens
        ):
            raise ViolationError(ViolationFault.COUNTS)
