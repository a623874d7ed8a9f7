"""One attempt whose boxes only the consumer can open: what of it can be counted from outside."""

import hashlib
from typing import final

from darkbloom_edge.answers import MAX_ANSWER_BYTES
from darkbloom_edge.boxes import HEADER_BYTES
from darkbloom_edge.errors import SignatureRejected
from darkbloom_edge.terminal import Terminal, verify_terminal

from darkbloom_gateway.attempt import BYTES_ALLOWANCE
from darkbloom_gateway.errors import ViolationError, ViolationFault
from darkbloom_gateway.model import Offer, OpenedCounts, Plan
from darkbloom_gateway.prompt import SealedBody
from darkbloom_gateway.verdicts import Checked

_BOX_BYTES = HEADER_BYTES + 16
"""What a box has beside its delta; a delta has at least the bytes of its text."""


@final
class RelayedAttempt:
    """Counts what was passed on, and checks what is not sealed; see `carried.Carried`.

    `opened` is what may be charged. Completion tokens are the frames' claims, within the output
    bound and the ciphertext's size; whoever opens the boxes compares them with the counts inside.
    Of the prompt nothing is seen. Where the provider breaks off, the consumer's own number counts,
    which he cannot exploit, because he cannot make a provider break off. Where the consumer leaves,
    the bound counts, and settlement takes the smaller of it and the signed terminal.
    """

    __slots__ = (
        "_bytes",
        "_bytes_left",
        "_cached",
        "_digest",
        "_estimate",
        "_prompt",
        "checked",
        "final",
        "frames",
        "offer",
        "output_bound",
        "prompt_bound",
        "request_id",
        "sealed_sha256",
        "sender_key",
        "tokens",
    )

    def __init__(
        self,
        offer: Offer,
        checked: Checked,
        plan: Plan,
        *,
        request_id: str,
        sender_key: bytes,
        body: SealedBody,
    ) -> None:
        """Prepare an attempt.

        Args:
            offer: who was reserved.
            checked: its verified verdict.
            plan: the bounds.
            request_id: `req_…`.
            sender_key: the client's.
            body: the client's ciphertext.
        """
        self.offer = offer
        self.checked = checked
        self.request_id = request_id
        self.sender_key = sender_key
        self.prompt_bound = plan.prompt_bound
        self.output_bound = plan.output_bound
        self.sealed_sha256 = body.sha256.hex()
        self.frames = 0
        self.tokens = 0
        self.final = False
        self._estimate = min(plan.prompt_estimate, plan.prompt_bound)
        self._prompt = self._estimate
        self._cached = 0
        self._bytes = 0
        self._bytes_left = MAX_ANSWER_BYTES
        self._digest = hashlib.sha256()

    def __repr__(self) -> str:
        return f"RelayedAttempt({self.offer.attempt_id!r})"

    @property
    def opened(self) -> OpenedCounts:
        """What was passed on so far."""
        if not self.frames:
            return OpenedCounts()
        return OpenedCounts(self.frames, self._prompt, self.tokens, self._cached)

    @property
    def relayed_sha256(self) -> str:
        """Hash of every payload so far, in order, in hex."""
        return self._digest.hexdigest()

    @property
    def estimate(self) -> int:
        """Prompt tokens as the consumer has named them: all that is due without a terminal."""
        return self._estimate

    def left(self) -> None:
        """Note that the consumer has ended it: the terminal decides, up to the bound."""
        self._prompt = self.prompt_bound

    def take(self, payload: bytes, tokens: int, *, final: bool) -> None:
        """Count the next chunk.

        Args:
            payload: ciphertext.
            tokens: the frame's claim of cumulative completion tokens.
            final: whether the frame says that it is the last one.

        Raises:
            ViolationError: the count cannot be true, it is too much, or something follows the end.
        """
        if self.final:
            raise ViolationError(ViolationFault.HEADER)
        self._bytes_left -= len(payload)
        if self._bytes_left < 0:
            raise ViolationError(ViolationFault.DELTA)
        self._bytes += max(0, len(payload) - _BOX_BYTES)
        if (
            tokens < self.tokens
            or tokens > self.output_bound
            or tokens > self._bytes + BYTES_ALLOWANCE
        ):
            raise ViolationError(ViolationFault.COUNTS)
        self._digest.update(payload)
        self.frames += 1
        self.tokens = tokens
        self.final = final

    def conclude(
        self, document: bytes, signature: bytes, weight_hashes: frozenset[str]
    ) -> Terminal:
        """Check the signed terminal against what was passed on; its counts are then those charged.

        Args:
            document: the exact bytes.
            signature: of the identity key that the verdict names.
            weight_hashes: those that the catalog accepts for the build; empty checks none.

        Raises:
            ViolationError: the signature is not the provider's, or it does not say what passed.
        """
        verdict = self.checked.verdict
        try:
            terminal = verify_terminal(document, signature, self.checked.identity_key)
        except SignatureRejected:
            raise ViolationError(ViolationFault.TERMINAL) from None
        said = (
            terminal.request_id,
            terminal.attempt_id,
            terminal.build,
            terminal.verdict_id,
            terminal.encryption_key,
            terminal.chunks,
        )
        known = (
            self.request_id,
            self.offer.attempt_id,
            self.offer.build,
            verdict.verdict_id,
            verdict.encryption_key,
            self.frames,
        )
        if said != known or (weight_hashes and terminal.weight_hash not in weight_hashes):
            raise ViolationError(ViolationFault.TERMINAL)
        if terminal.completion_tokens != self.tokens or terminal.prompt_tokens > self.prompt_bound:
            raise ViolationError(ViolationFault.COUNTS)
        self._prompt, self._cached = terminal.prompt_tokens, terminal.cached_tokens
        return terminal
