"""One attempt on this machine: from the first frame of a sealed request to its signed terminal.

A state machine without I/O of its own. The worker feeds it frames, the engine feeds it deltas, and
it speaks through an `Outlet`. What the engine produces while there is no credit is merged into one
pending delta, and past a bound the engine's row is paused: chunks are coalesced by draining, never
by a timer.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from darkbloom.common.v1.frame_pb2 import FrameKind
from darkbloom.common.v1.price_pb2 import SignedDocument
from darkbloom.router.v1.provider_link_pb2 import (
    Accepted,
    AttemptError,
    InferenceRequest,
    Terminal,
)
from darkbloom_edge.delta import Delta, encode
from darkbloom_edge.envelope import Opened, wipe
from darkbloom_edge.errors import EdgeError
from darkbloom_edge.signatures import IdentitySigner, to_base64
from darkbloom_edge.terminal import Outcome as TerminalOutcome
from darkbloom_edge.terminal import Terminal as TerminalDocument
from darkbloom_edge.terminal import sign_terminal
from darkbloom_edge.transcript import Transcript
from msgspec import structs

from darkbloom_provider import failures
from darkbloom_provider.engine.interface import Engine, Outcome, OutcomeKind
from darkbloom_provider.failures import Failure
from darkbloom_provider.merge import merge

PENDING_CHARS = 4096
"""Text that may wait for credit before the engine's row is paused."""
PENDING_TOKENS = 32
"""Tokens that may wait for credit before the engine's row is paused."""
WHOLE_TOKENS = 64
"""Tokens that are merged into one chunk where the consumer takes the answer in one piece."""


class Outlet(Protocol):
    """Where an attempt's frames go."""

    def send_control(self, kind: int, stream: int, message: Accepted | AttemptError) -> None:
        """Send a frame that overtakes data."""
        ...

    def send_chunk(
        self, kind: int, stream: int, sequence: int, payload: bytes, tokens: int
    ) -> bool:
        """Send a sealed chunk in order; False where too many of this stream wait."""
        ...

    def send_ordered(self, kind: int, stream: int, message: Terminal | AttemptError) -> bool:
        """Send a control frame behind the stream's chunks; returns as `send_chunk` does."""
        ...


class Ending(Enum):
    """How an attempt left this machine."""

    COMPLETED = auto()
    CANCELLED = auto()
    FAILED = auto()


class Listener(Protocol):
    """Who wants to know that an attempt is over."""

    def attempt_ended(self, attempt: "Attempt", ending: Ending, terminal: Terminal | None) -> None:
        """Take the end; with a terminal, keep it and then call `send_terminal`."""
        ...


class _OutletFullError(Exception):
    """The lane takes no more chunks of this stream: too much credit was granted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hosted:
    """The facts of a build that go into a terminal."""

    build: str
    weight_hash: str


class Attempt:
    """Opened and admitted; answers one request and ends exactly once.

    Args:
        request: The attempt's plaintext frame.
        stream: Its stream number on this lane.
        opened: Session, header and body, already checked. The body is read here and not kept.
        hosted: The build that answers.
        credit: Chunk frames that may be sent before the first grant.
        encryption_key: K of this process, public half.
        signer: Signs the terminal.
    """

    def __init__(
        self,
        *,
        request: InferenceRequest,
        stream: int,
        opened: Opened,
        hosted: Hosted,
        credit: int,
        encryption_key: bytes,
        signer: IdentitySigner,
        engine: Engine,
        outlet: Outlet,
        listener: Listener,
    ) -> None:
        self.stream = stream
        self.request_id = request.request_id
        self.attempt_id = request.attempt_id
        self.completion_tokens = 0
        """Tokens in the chunks that were sent."""
        self._session = opened.session
        self._header = opened.header
        self._hosted = hosted
        self._granted = credit
        self._encryption_key = encryption_key
        self._signer = signer
        self._engine = engine
        self._outlet = outlet
        self._listener = listener
        self._transcript = Transcript(opened.header.receipt_key)
        self._transcript.request(opened.body)
        self._pending: Delta | None = None
        self._last = Delta()
        self._paused = False
        self._final: Outcome | None = None
        self._over = False

    def __repr__(self) -> str:
        return f"Attempt({self.attempt_id!r})"

    # What the engine says (engine.interface.Sink).

    def on_delta(self, delta: Delta) -> None:
        """Take the next piece of the answer."""
        if self._over:
            return
        self._pending = delta if self._pending is None else merge(self._pending, delta)
        self._advance()
        if not self._paused and self._credit_left <= 0 and self._too_much_pending():
            self._paused = True
            self._engine.pause(self.attempt_id)

    def on_end(self, outcome: Outcome) -> None:
        """Take the engine's last word: answered, stopped or failed."""
        if self._over:
            return
        if outcome.kind is OutcomeKind.COMPLETED:
            self._final = outcome
            self._advance()
            return
        if outcome.kind is OutcomeKind.CANCELLED:
            self._end(Ending.CANCELLED, self._terminal("cancelled", self._last))
            return
        self.fail(failures.INTERNAL if outcome.error is None else failures.of_engine(outcome.error))

    # What the router says.

    def credit(self, granted: int) -> None:
        """Raise the number of chunk frames that may have been sent in all."""
        if granted <= self._granted or self._over:
            return
        self._granted = granted
        self._advance()
        if self._paused and self._pending is None and not self._over:
            self._paused = False
            self._engine.resume(self.attempt_id)

    def cancel(self) -> None:
        """Stop at the next step; the terminal says what was delivered."""
        if self._over:
            return
        if self._final is None:
            self._engine.cancel(self.attempt_id)
            return
        # The engine is done, only credit is missing, and nobody will grant it any more.
        self._end(Ending.CANCELLED, self._terminal("cancelled", self._last))

    def fail(self, failure: Failure) -> None:
        """End with a typed error."""
        if self._over:
            return
        self._end(Ending.FAILED, None)
        error = FrameKind.FRAME_KIND_ERROR
        # Behind the chunks, so that what was generated is delivered; but it must get through.
        if self._session.sealed_frames and self._outlet.send_ordered(
            error, self.stream, failure.message()
        ):
            return
        self._outlet.send_control(error, self.stream, failure.message())

    def lose(self) -> None:
        """The lane is gone: stop the engine; what was delivered stays in a terminal."""
        if self._over:
            return
        if self._final is None:
            self._engine.cancel(self.attempt_id)
        self._end(Ending.CANCELLED, self._terminal("cancelled", self._last))

    # Sending.

    @property
    def over(self) -> bool:
        """Whether it has ended; nothing more will be sent."""
        return self._over

    @property
    def _credit_left(self) -> int:
        return self._granted - self._session.sealed_frames

    def _too_much_pending(self) -> bool:
        pending = self._pending
        if pending is None:
            return False
        tokens = pending.completion_tokens - self.completion_tokens
        chars = len(pending.text) + len(pending.reasoning)
        chars += sum(len(part.arguments) for part in pending.tool_calls)
        return tokens > PENDING_TOKENS or chars > PENDING_CHARS

    def _worth_waiting(self) -> bool:
        """Whether more may be merged: nobody reads before the end, and the request is committed."""
        pending = self._pending
        if pending is None or not self._header.whole or not self.completion_tokens:
            return False
        waiting = pending.completion_tokens - self.completion_tokens
        return waiting < WHOLE_TOKENS and len(pending.text) < PENDING_CHARS

    def _advance(self) -> None:
        """Send what credit allows; an answer that cannot be carried ends the attempt."""
        try:
            self._flush()
        except _OutletFullError:
            self._break(failures.BACKPRESSURE)
        except (EdgeError, ValueError):
            # Too large, no unicode, impossible counts. The cause may quote content: it ends here.
            self._break(failures.INTERNAL)

    def _flush(self) -> None:
        if self._credit_left <= 0:
            return
        if self._final is not None:
            self._finish(self._final)
            return
        if self._pending is not None and not self._worth_waiting():
            pending, self._pending = self._pending, None
            content = FrameKind.FRAME_KIND_CHUNK
            self._send(content if pending.has_content else FrameKind.FRAME_KIND_PREAMBLE, pending)

    def _finish(self, outcome: Outcome) -> None:
        last = outcome.last_delta
        if self._pending is not None:
            last, self._pending = merge(self._pending, last), None
        self._send(FrameKind.FRAME_KIND_CHUNK_FINAL, last)
        self._end(Ending.COMPLETED, self._terminal("completed", last))

    def _send(self, kind: FrameKind.ValueType, delta: Delta) -> None:
        self._transcript.feed(delta)
        sequence = self._session.sealed_frames
        if not sequence and self._header.end_to_end:
            delta = structs.replace(delta, edge_nonce=self._header.edge_nonce)
        final = kind == FrameKind.FRAME_KIND_CHUNK_FINAL
        plain = encode(delta)
        payload = self._session.seal_chunk(plain, final=final)
        wipe(plain)
        self.completion_tokens = delta.completion_tokens
        self._last = delta
        tokens = delta.completion_tokens
        if not self._outlet.send_chunk(kind, self.stream, sequence, payload, tokens):
            raise _OutletFullError

    # The end.

    def _break(self, failure: Failure) -> None:
        if self._final is None:
            self._engine.cancel(self.attempt_id)
        self.fail(failure)

    def _end(self, ending: Ending, terminal: Terminal | None) -> None:
        self._over = True
        self._pending = None
        self._listener.attempt_ended(self, ending, terminal)

    def send_terminal(self, terminal: Terminal) -> None:
        """Send it behind the chunks; on a lane that is gone this does nothing."""
        self._outlet.send_ordered(FrameKind.FRAME_KIND_TERMINAL, self.stream, terminal)

    def _terminal(self, outcome: TerminalOutcome, last: Delta) -> Terminal:
        document, signature = sign_terminal(
            TerminalDocument(
                request_id=self.request_id,
                attempt_id=self.attempt_id,
                build=self._hosted.build,
                weight_hash=self._hosted.weight_hash,
                prompt_tokens=last.prompt_tokens,
                completion_tokens=last.completion_tokens,
                cached_tokens=last.cached_tokens,
                reasoning_tokens=last.reasoning_tokens,
                chunks=self._session.sealed_frames,
                finish_reason=last.finish_reason if outcome == "completed" else "cancelled",
                encryption_key=to_base64(self._encryption_key),
                verdict_id=self._header.verdict_id,
                sealed_to=self._header.sealed_to,
                digests=self._transcript.digests(),
                outcome=outcome,
                edge_nonce=to_base64(self._header.edge_nonce) if self._header.end_to_end else None,
            ),
            self._signer,
        )
        return Terminal(terminal=SignedDocument(document=document, signature=signature))
