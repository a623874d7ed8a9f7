"""Frames of attempts, in both directions: the path that every token takes.

A chunk costs a lookup, an ownership check, a count and an append; nothing is parsed, logged or
copied. Control frames are decoded here and move the attempt's state through the dispatcher. A frame
that does not belong to its lane changes nothing and is counted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from darkbloom.common.v1.frame_pb2 import Frame, FrameKind
from darkbloom.router.v1 import provider_link_pb2
from darkbloom.router.v1.gateway_lane_pb2 import (
    Abandon,
    AbandonReason,
    AttemptFailure,
    Close,
    Committed,
    Open,
    Sealed,
    Violation,
    ViolationKind,
)
from darkbloom.router.v1.provider_link_pb2 import (
    AttemptError,
    Cancel,
    CancelReason,
    Credit,
    InferenceRequest,
    Terminal,
)
from google.protobuf.message import DecodeError, Message

from darkbloom_router import convert, failures, refusals
from darkbloom_router.attempts import ATTEMPT_BIT, Attempt, Attempts, GatewayLink, Phase
from darkbloom_router.closing import Closing
from darkbloom_router.dispatch import Dispatcher
from darkbloom_router.meter import Meter
from darkbloom_router.provider import Provider
from darkbloom_router.timers import Timers
from darkbloom_router.trust import Trust

MessageT = TypeVar("MessageT", bound=Message)

_PREAMBLE = FrameKind.FRAME_KIND_PREAMBLE
_CHUNK = FrameKind.FRAME_KIND_CHUNK
_FINAL = FrameKind.FRAME_KIND_CHUNK_FINAL
_BODY_PART = FrameKind.FRAME_KIND_BODY_PART
_SEALED_KINDS = frozenset({_PREAMBLE, _CHUNK, _FINAL})
_CLIENT_GONE = AbandonReason.ABANDON_REASON_CLIENT_GONE
_KEY_BYTES = 32
_DIGEST_BYTES = 32
_VIOLATIONS = {
    ViolationKind.VIOLATION_KIND_UNOPENABLE: "unopenable",
    ViolationKind.VIOLATION_KIND_HEADER: "header",
    ViolationKind.VIOLATION_KIND_COUNTS: "counts",
    ViolationKind.VIOLATION_KIND_TERMINAL: "terminal",
    ViolationKind.VIOLATION_KIND_DELTA: "delta",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayLimits:
    """Bounds and patience of attempts."""

    max_body_bytes: int = 32 * 1024 * 1024
    accept_s: float = 10.0
    """From the last sealed byte to ACCEPTED, beside the time that the body takes."""
    content_s: float = 120.0
    """From ACCEPTED to the first content; a cold load is inside it."""
    silence_s: float = 600.0
    """Between chunks after the first content."""
    body_bytes_per_s: float = 2 * 1024 * 1024
    max_body_s: float = 30.0


class Relay:
    """Moves frames between gateways and providers."""

    def __init__(
        self,
        attempts: Attempts,
        dispatcher: Dispatcher,
        closing: Closing,
        trust: Trust,
        timers: Timers,
        meter: Meter,
        limits: RelayLimits,
    ) -> None:
        self._attempts = attempts
        self._dispatcher = dispatcher
        self._closing = closing
        self._trust = trust
        self._timers = timers
        self._meter = meter
        self._limits = limits
        kind = FrameKind
        self._of_gateway: dict[int, Callable[[GatewayLink, Attempt, bytes], None]] = {
            kind.FRAME_KIND_SEALED: self._sealed,
            kind.FRAME_KIND_CREDIT: self._credit,
            kind.FRAME_KIND_CANCEL: self._cancel,
            kind.FRAME_KIND_CLOSE: self._close,
            kind.FRAME_KIND_VIOLATION: self._violation,
        }
        self._of_provider: dict[int, Callable[[Attempt, Frame], None]] = {
            kind.FRAME_KIND_ACCEPTED: self._accepted,
            kind.FRAME_KIND_ERROR: self._error,
            kind.FRAME_KIND_TERMINAL: self._terminal,
        }

    # Provider to gateway

    def from_provider(self, provider: Provider, frame: Frame, now: float) -> None:
        """Take one frame of an attempt stream from a provider's lane."""
        attempt = self._attempts.by_stream.get(frame.stream)
        if attempt is None or attempt.provider is not provider:
            self._stray(provider, frame)
            return
        kind = frame.kind
        if kind in _SEALED_KINDS:
            self._chunk(attempt, frame, kind, now)
            return
        handle = self._of_provider.get(kind)
        if handle is None or attempt.phase is Phase.OFFERED:
            self._meter.ignored("provider", "unexpected")
            return
        attempt.seen_at = now
        handle(attempt, frame)

    def _chunk(self, attempt: Attempt, frame: Frame, kind: int, now: float) -> None:
        phase = attempt.phase
        if phase == Phase.OFFERED or phase >= Phase.PARKED or attempt.final:
            self._meter.ignored("provider", "unexpected")
            return
        attempt.relayed += 1
        if attempt.relayed > attempt.granted and kind != _FINAL:
            self._distrust(attempt, "credit")
            return
        attempt.seen_at = now
        if kind != _PREAMBLE:
            if frame.tokens < attempt.tokens_out:
                self._distrust(attempt, "counts")
                return
            attempt.tokens_out = frame.tokens
            if phase != Phase.COMMITTED:
                self._commit(attempt, now)
            if kind == _FINAL:
                attempt.final = True
        if not attempt.request.gateway.lane.send_frame(frame):
            # Credits bound what waits; only a gateway that grants without reading gets here.
            self._dispatcher.break_off(attempt, AttemptFailure.ATTEMPT_FAILURE_PROTOCOL)

    def _commit(self, attempt: Attempt, now: float) -> None:
        request = attempt.request
        request.committed = True
        attempt.phase = Phase.COMMITTED
        if request.timer is not None:
            request.timer.cancel()
        self._arm(attempt, self._limits.silence_s, self._silent)
        committed = Committed(
            queue_ms=_ms(request.queue_s), provider_ms=_ms(now - attempt.started_at)
        )
        request.gateway.lane.send_ordered(FrameKind.FRAME_KIND_COMMITTED, attempt.stream, committed)
        self._meter.dispatched("success")

    def _accepted(self, attempt: Attempt, frame: Frame) -> None:
        if attempt.phase is not Phase.SENT:
            self._meter.ignored("provider", "unexpected")
            return
        attempt.phase = Phase.ACCEPTED
        self._arm(attempt, self._limits.content_s, self._stalled)
        attempt.request.gateway.lane.send_frame(frame)

    def _error(self, attempt: Attempt, frame: Frame) -> None:
        message = self._read(AttemptError, frame.payload, "provider")
        if not attempt.live:
            return
        if message is None:
            message = AttemptError()
        failure = failures.judge(message.failure_code, message.reason, message.status_code)
        if failure.draining:
            self._trust.draining(attempt.provider)
        if attempt.phase < Phase.COMMITTED:
            self._dispatcher.fail(attempt, failure, tell=False)
            return
        self._dispatcher.break_off(attempt, AttemptFailure.ATTEMPT_FAILURE_PROVIDER_ERROR)

    def _terminal(self, attempt: Attempt, frame: Frame) -> None:
        message = self._read(Terminal, frame.payload, "provider")
        if message is None:
            return
        terminal = convert.signed(message.terminal)
        if attempt.phase < Phase.COMMITTED:
            # An answer that ended without a chunk, not even a final one, is no answer.
            attempt.terminal = terminal
            self._dispatcher.fail(attempt, failures.ENDED_EMPTY, tell=False)
            return
        first = attempt.terminal is None
        if attempt.live and first:
            attempt.request.gateway.lane.send_frame(frame)
        self._dispatcher.release(attempt)
        if first:
            self._closing.terminal(attempt, terminal)

    def _stray(self, provider: Provider, frame: Frame) -> None:
        """Take a frame for a stream that is not this provider's: only a terminal can matter."""
        if frame.kind == FrameKind.FRAME_KIND_TERMINAL:
            message = self._read(Terminal, frame.payload, "provider")
            if message is not None:
                self._closing.stray_terminal(provider, convert.signed(message.terminal))
            return
        self._meter.ignored("provider", "foreign_stream")

    def stray_terminal(self, provider: Provider, frame: Frame) -> None:
        """Take a terminal that was sent again on another stream."""
        self._stray(provider, frame)

    # Gateway to provider

    def from_gateway(self, gateway: GatewayLink, frame: Frame) -> None:
        """Take one frame of a request or attempt stream from a gateway's lane."""
        if not frame.stream & ATTEMPT_BIT:
            self._of_request(gateway, frame)
            return
        attempt = self._attempts.by_stream.get(frame.stream)
        if attempt is None or attempt.request.gateway is not gateway:
            self._meter.ignored("gateway", "foreign_stream")
            return
        if frame.kind == _BODY_PART:
            self._body_part(attempt, frame)
            return
        handle = self._of_gateway.get(frame.kind)
        if handle is None:
            self._meter.ignored("gateway", "unexpected")
            return
        handle(gateway, attempt, frame.payload)

    def _of_request(self, gateway: GatewayLink, frame: Frame) -> None:
        if frame.kind == FrameKind.FRAME_KIND_OPEN:
            message = self._read(Open, frame.payload, "gateway")
            if message is not None:
                self._dispatcher.open(gateway, frame.stream, message)
            return
        request = gateway.requests.get(frame.stream)
        if request is None or frame.kind != FrameKind.FRAME_KIND_ABANDON or request.committed:
            self._meter.ignored("gateway", "unexpected")
            return
        abandon = self._read(Abandon, frame.payload, "gateway")
        if abandon is not None:
            self._dispatcher.abandon(request, abandon.reason)

    def _sealed(self, _gateway: GatewayLink, attempt: Attempt, payload: bytes) -> None:
        message = self._read(Sealed, payload, "gateway")
        if message is None or attempt.phase is not Phase.OFFERED:
            self._meter.ignored("gateway", "unexpected")
            return
        request, dispatcher = attempt.request, self._dispatcher
        request.sealed = True
        if not self._sound(attempt, message):
            dispatcher.give_up(attempt, refusals.INTERNAL)
            return
        if not dispatcher.still_trusted(attempt):
            dispatcher.fail(attempt, failures.STALE)
            return

        now, limits = self._timers.now(), self._limits
        attempt.phase = Phase.SENT
        attempt.started_at = attempt.seen_at = now
        attempt.body_left = message.body_bytes
        attempt.lane.send_control(
            FrameKind.FRAME_KIND_REQUEST,
            attempt.stream,
            InferenceRequest(
                request_id=request.request_id,
                attempt_id=attempt.attempt_id,
                build=attempt.candidate.build.build,
                sender_key=message.sender_key,
                body_bytes=message.body_bytes,
                body_sha256=message.body_sha256,
                prompt_bound=message.prompt_bound,
                output_bound=message.output_bound,
                first_content_budget=convert.duration(request.deadline - now),
                verdict_id=message.verdict_id,
            ),
        )
        body_s = min(message.body_bytes / limits.body_bytes_per_s, limits.max_body_s)
        self._arm(attempt, limits.accept_s + body_s, self._stalled)

    def _sound(self, attempt: Attempt, message: Sealed) -> bool:
        """Check the outside of a sealed request against what was offered."""
        demand = attempt.request.demand
        return (
            len(message.sender_key) == _KEY_BYTES
            and len(message.body_sha256) == _DIGEST_BYTES
            and 0 < message.body_bytes <= self._limits.max_body_bytes
            and message.verdict_id == attempt.verdict.verdict_id
            and message.prompt_bound == demand.prompt_bound
            and message.output_bound == demand.output_bound
        )

    def _body_part(self, attempt: Attempt, frame: Frame) -> None:
        size = len(frame.payload)
        if attempt.phase is Phase.OFFERED or not attempt.live or size > attempt.body_left:
            self._meter.ignored("gateway", "unexpected")
            return
        attempt.body_left -= size
        if not attempt.lane.send_body_part(frame):
            self._dispatcher.fail(attempt, failures.CONGESTED)

    def _credit(self, _gateway: GatewayLink, attempt: Attempt, payload: bytes) -> None:
        message = self._read(Credit, payload, "gateway")
        if message is None:
            return
        self._note_opened(attempt, message.opened)
        if not attempt.live or message.granted_frames <= attempt.granted:
            return
        attempt.granted = message.granted_frames
        attempt.lane.send_control(FrameKind.FRAME_KIND_CREDIT, attempt.stream, payload)

    def _cancel(self, _gateway: GatewayLink, attempt: Attempt, payload: bytes) -> None:
        message = self._read(Cancel, payload, "gateway")
        if message is None:
            return
        self._note_opened(attempt, message.opened)
        if attempt.phase < Phase.COMMITTED:
            self._dispatcher.abandon(attempt.request, _CLIENT_GONE)
        elif attempt.live:
            self._meter.attempt_ended(attempt.candidate.build.build, "client_gone")
            self._dispatcher.end_by_edge(attempt, message.reason)
        else:
            self._last_word(attempt)

    def _close(self, _gateway: GatewayLink, attempt: Attempt, payload: bytes) -> None:
        message = self._read(Close, payload, "gateway")
        if message is None:
            return
        self._note_opened(attempt, message.opened)
        if attempt.phase < Phase.COMMITTED:
            self._dispatcher.abandon(attempt.request, _CLIENT_GONE)
        elif attempt.live and attempt.final:
            self._dispatcher.completed(attempt)
        elif attempt.live:
            self._dispatcher.end_by_edge(attempt, CancelReason.CANCEL_REASON_TIMEOUT)
        else:
            self._last_word(attempt)

    def _violation(self, _gateway: GatewayLink, attempt: Attempt, payload: bytes) -> None:
        message = self._read(Violation, payload, "gateway")
        if message is None:
            return
        self._note_opened(attempt, message.opened)
        self._distrust(attempt, _VIOLATIONS.get(message.kind, "unopenable"))

    def _distrust(self, attempt: Attempt, kind: str) -> None:
        """End an attempt of a provider that broke the envelope, a count or its credit."""
        attempt.disowned = True
        if attempt.phase >= Phase.COMMITTED:
            attempt.opened_final = True
            if attempt.live:
                self._dispatcher.break_off(
                    attempt, AttemptFailure.ATTEMPT_FAILURE_ENCRYPTION_FAILURE
                )
            else:
                self._closing.check(attempt)
            self._trust.violated(attempt, kind)
            return
        self._trust.violated(attempt, kind)
        if attempt.phase is not Phase.DONE:
            self._dispatcher.fail(attempt, failures.VIOLATION)

    def _last_word(self, attempt: Attempt) -> None:
        attempt.opened_final = True
        self._closing.check(attempt)

    def _note_opened(self, attempt: Attempt, message: provider_link_pb2.Opened) -> None:
        """Keep the edge's counts; cumulative, so an older frame never lowers them."""
        opened = convert.opened(message)
        if opened.frames >= attempt.opened.frames:
            attempt.opened = opened

    # Clocks

    def _arm(self, attempt: Attempt, seconds: float, action: Callable[[Attempt], None]) -> None:
        if attempt.timer is not None:
            attempt.timer.cancel()
        attempt.timer = self._timers.after(seconds, partial(action, attempt))

    def _stalled(self, attempt: Attempt) -> None:
        if attempt.phase < Phase.COMMITTED:
            self._dispatcher.fail(attempt, failures.STALLED)

    def _silent(self, attempt: Attempt) -> None:
        if not attempt.live or attempt.terminal is not None:
            return
        left = attempt.seen_at + self._limits.silence_s - self._timers.now()
        if left > 0:
            self._arm(attempt, left, self._silent)
            return
        self._dispatcher.break_off(attempt, AttemptFailure.ATTEMPT_FAILURE_TIMEOUT)

    def _read(self, kind: type[MessageT], payload: bytes, link: str) -> MessageT | None:
        try:
            return kind.FromString(payload)
        except DecodeError:
            self._meter.ignored(link, "malformed")
            return None


def _ms(seconds: float) -> int:
    return int(min(max(seconds, 0.0) * 1000, 2**31 - 1))
