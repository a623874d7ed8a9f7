"""Frames of attempts from a provider to its gateway: the path that every token takes.

A chunk costs a lookup, an ownership check, a count and an append; nothing is parsed, logged or
copied. A frame that does not belong to its lane changes nothing and is counted.
"""

from collections.abc import Callable
from dataclasses import dataclass

from darkbloom.common.v1.frame_pb2 import Frame, FrameKind
from darkbloom.router.v1.gateway_lane_pb2 import AttemptFailure, Committed
from darkbloom.router.v1.provider_link_pb2 import AttemptError, Terminal

from darkbloom_router import convert, failures
from darkbloom_router.attempts import Attempt, Attempts, Phase
from darkbloom_router.closing import Closing
from darkbloom_router.ends import Ends
from darkbloom_router.meter import Meter
from darkbloom_router.model import Blame
from darkbloom_router.payloads import read
from darkbloom_router.provider import Provider
from darkbloom_router.timers import Timers
from darkbloom_router.trust import Trust

_PREAMBLE = FrameKind.FRAME_KIND_PREAMBLE
_CHUNK = FrameKind.FRAME_KIND_CHUNK
_COMMITTED = FrameKind.FRAME_KIND_COMMITTED
_FINAL = FrameKind.FRAME_KIND_CHUNK_FINAL
_SEALED_KINDS = frozenset({_PREAMBLE, _CHUNK, _FINAL})
_LINK = "provider"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long attempts are waited for, in seconds."""

    accept_s: float = 10.0
    """From SEALED to ACCEPTED, beside the time that the body takes."""
    content_s: float = 120.0
    """From ACCEPTED to the first content; a cold load is inside it."""
    preamble_s: float = 90.0
    """From the first preamble to the first content: it has begun, and then fell silent."""
    silence_s: float = 600.0
    """Between chunks after the first content."""


class Downlink:
    """Takes frames of attempt streams from providers' lanes."""

    def __init__(
        self,
        attempts: Attempts,
        ends: Ends,
        closing: Closing,
        trust: Trust,
        timers: Timers,
        meter: Meter,
        patience: Patience,
        relay: Callable[[Provider, Frame], bool],
    ) -> None:
        self._relay = relay
        self._attempts = attempts
        self._ends = ends
        self._closing = closing
        self._trust = trust
        self._timers = timers
        self._meter = meter
        self._patience = patience
        self._handlers: dict[int, Callable[[Attempt, Frame], None]] = {
            FrameKind.FRAME_KIND_ACCEPTED: self._accepted,
            FrameKind.FRAME_KIND_ERROR: self._error,
            FrameKind.FRAME_KIND_TERMINAL: self._terminal,
        }

    def take(self, provider: Provider, frame: Frame, now: float) -> None:
        """Take one frame of an attempt stream from a provider's lane."""
        attempt = self._attempts.by_stream.get(frame.stream)
        if attempt is None or attempt.provider is not provider:
            if not self._relay(provider, frame):
                self.stray(provider, frame)
            return
        kind = frame.kind
        if kind in _SEALED_KINDS:
            self._chunk(attempt, frame, kind, now)
            if kind == _FINAL:
                self._closing.prove(attempt)
            return
        handle = self._handlers.get(kind)
        if handle is None or attempt.phase <= Phase.OFFERED:
            self._meter.ignored(_LINK, "unexpected")
            return
        attempt.seen_at = now
        handle(attempt, frame)

    def _chunk(self, attempt: Attempt, frame: Frame, kind: int, now: float) -> None:
        phase = attempt.phase
        if phase >= Phase.PARKED:
            self._ends.cancels.stray(attempt.provider, attempt.lane, attempt.stream)
        if phase <= Phase.OFFERED or phase >= Phase.PARKED or attempt.final:
            self._meter.ignored(_LINK, "unexpected")
            return
        attempt.relayed += 1
        if attempt.relayed > attempt.granted and kind != _FINAL:
            self._trust.violated(attempt, "credit")
            return
        attempt.seen_at = now
        if kind != _PREAMBLE:
            if frame.tokens < attempt.tokens_out:
                self._trust.violated(attempt, "counts")
                return
            attempt.tokens_out = frame.tokens
            if phase != Phase.COMMITTED:
                self._commit(attempt, now)
            if kind == _FINAL:
                attempt.final = True
        elif phase < Phase.COMMITTED and not attempt.begun:
            attempt.begun = True
            attempt.arm(self._timers, self._patience.preamble_s, self._ends.stalled)
        if not attempt.request.gateway.lane.send_frame(frame):
            # Credits bound what waits; only a gateway that grants without reading gets here.
            self._ends.break_off(attempt, AttemptFailure.ATTEMPT_FAILURE_PROTOCOL)

    def _commit(self, attempt: Attempt, now: float) -> None:
        request = attempt.request
        request.committed = True
        attempt.phase = Phase.COMMITTED
        self._ends.began(attempt)
        if request.timer is not None:
            request.timer.cancel()
        attempt.arm(self._timers, self._patience.silence_s, self._silent)
        committed = Committed(
            queue_ms=_ms(request.queue_s), provider_ms=_ms(now - attempt.started_at)
        )
        request.gateway.lane.send_ordered(_COMMITTED, attempt.stream, committed)
        self._meter.dispatched("success")

    def _accepted(self, attempt: Attempt, _frame: Frame) -> None:
        if attempt.phase is not Phase.SENT:
            self._meter.ignored(_LINK, "unexpected")
            return
        attempt.phase = Phase.ACCEPTED
        self._ends.accepted(attempt)
        attempt.arm(self._timers, self._patience.content_s, self._ends.stalled)

    def _error(self, attempt: Attempt, frame: Frame) -> None:
        message = read(AttemptError, frame.payload, self._meter, _LINK)
        if not attempt.live:
            return
        if message is None:
            message = AttemptError()
        judge = failures.judge_promised if attempt.request.promised else failures.judge
        failure = judge(message.failure_code, message.reason, message.status_code)
        if message.HasField("feasible_after"):
            feasible = message.feasible_after.ToTimedelta().total_seconds()
            attempt.request.ladder.feasible_s = feasible
        if failure.draining:
            self._trust.draining(attempt.provider)
        if attempt.phase < Phase.COMMITTED:
            self._ends.fail(attempt, failure, tell=False)
            return
        self._ends.break_off(attempt, AttemptFailure.ATTEMPT_FAILURE_PROVIDER_ERROR, failure.blame)

    def _terminal(self, attempt: Attempt, frame: Frame) -> None:
        message = read(Terminal, frame.payload, self._meter, _LINK)
        if message is None:
            return
        terminal = convert.signed(message.terminal)
        if attempt.phase < Phase.COMMITTED:
            # An answer that ended without a chunk, not even a final one, is no answer.
            attempt.terminal = terminal
            self._ends.fail(attempt, failures.ENDED_EMPTY, tell=False)
            return
        first = attempt.terminal is None
        if attempt.live and not attempt.proven:
            attempt.proven = True
            attempt.request.gateway.lane.send_frame(frame)
        self._ends.release(attempt)
        if first:
            self._closing.terminal(attempt, terminal)

    def stray(self, provider: Provider, frame: Frame) -> None:
        """Take a frame for a stream that is not this provider's: a terminal, or a zombie."""
        kind = frame.kind
        if kind == FrameKind.FRAME_KIND_TERMINAL:
            self._ends.cancels.ended(provider, frame.stream)
            message = read(Terminal, frame.payload, self._meter, _LINK)
            if message is not None:
                self._closing.stray_terminal(provider, convert.signed(message.terminal))
            return
        if kind == FrameKind.FRAME_KIND_ERROR:
            self._ends.cancels.ended(provider, frame.stream)
        elif kind in _SEALED_KINDS and frame.stream not in self._attempts.by_stream:
            lane = self._ends.lane_of(provider)
            if lane is not None:
                self._ends.cancels.stray(provider, lane, frame.stream)
        self._meter.ignored(_LINK, "foreign_stream")

    def _silent(self, attempt: Attempt) -> None:
        if not attempt.live or attempt.terminal is not None:
            return
        left = attempt.seen_at + self._patience.silence_s - self._timers.now()
        if left > 0:
            attempt.arm(self._timers, left, self._silent)
            return
        self._ends.break_off(attempt, AttemptFailure.ATTEMPT_FAILURE_TIMEOUT, Blame.MACHINE)


def _ms(seconds: float) -> int:
    return int(min(max(seconds, 0.0) * 1000, 2**31 - 1))
