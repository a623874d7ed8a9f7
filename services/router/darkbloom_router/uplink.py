"""Frames of requests and attempts from a gateway: what it opens, seals, credits and ends."""

from collections.abc import Callable

from darkbloom.common.v1.frame_pb2 import Frame, FrameKind
from darkbloom.router.v1.gateway_lane_pb2 import (
    Abandon,
    AbandonReason,
    Claim,
    Close,
    Decline,
    DeclineReason,
    Open,
    Sealed,
    SettleOpened,
    Violation,
    ViolationKind,
)
from darkbloom.router.v1.provider_link_pb2 import (
    Cancel,
    CancelReason,
    Credit,
    InferenceRequest,
    Opened,
)

from darkbloom_router import convert, failures, refusals
from darkbloom_router.attempts import ATTEMPT_BIT, Attempt, Attempts, GatewayLink, Phase
from darkbloom_router.closing import Closing
from darkbloom_router.dispatch import Dispatcher
from darkbloom_router.downlink import Patience
from darkbloom_router.ends import Ends
from darkbloom_router.hedging import Hedging
from darkbloom_router.meter import Meter
from darkbloom_router.payloads import read
from darkbloom_router.settlement import Settle
from darkbloom_router.timers import Timers
from darkbloom_router.trust import Trust

_OPEN = FrameKind.FRAME_KIND_OPEN
_CLAIM = FrameKind.FRAME_KIND_CLAIM
_REQUEST = FrameKind.FRAME_KIND_REQUEST
_CREDIT = FrameKind.FRAME_KIND_CREDIT
_BODY_PART = FrameKind.FRAME_KIND_BODY_PART
_CLIENT_GONE = AbandonReason.ABANDON_REASON_CLIENT_GONE
_LINK = "gateway"
_KEY_BYTES = 32
_DIGEST_BYTES = 32
_BODY_BYTES_PER_S = 2 * 1024 * 1024
_MAX_BODY_S = 30.0
_VIOLATIONS = {
    ViolationKind.VIOLATION_KIND_UNOPENABLE: "unopenable",
    ViolationKind.VIOLATION_KIND_HEADER: "header",
    ViolationKind.VIOLATION_KIND_COUNTS: "counts",
    ViolationKind.VIOLATION_KIND_TERMINAL: "terminal",
    ViolationKind.VIOLATION_KIND_DELTA: "delta",
}


class Uplink:
    """Takes frames of request and attempt streams from gateways' lanes."""

    def __init__(
        self,
        attempts: Attempts,
        dispatcher: Dispatcher,
        ends: Ends,
        trust: Trust,
        timers: Timers,
        meter: Meter,
        patience: Patience,
        closing: Closing,
        hedging: Hedging,
        *,
        max_body_bytes: int,
    ) -> None:
        self._closing = closing
        self._hedging = hedging
        self._attempts = attempts
        self._dispatcher = dispatcher
        self._ends = ends
        self._trust = trust
        self._timers = timers
        self._meter = meter
        self._patience = patience
        self._max_body_bytes = max_body_bytes
        self._handlers: dict[int, Callable[[Attempt, bytes], None]] = {
            FrameKind.FRAME_KIND_SEALED: self._sealed,
            FrameKind.FRAME_KIND_CREDIT: self._credit,
            FrameKind.FRAME_KIND_CANCEL: self._cancel,
            FrameKind.FRAME_KIND_CLOSE: self._close,
            FrameKind.FRAME_KIND_VIOLATION: self._violation,
            FrameKind.FRAME_KIND_DECLINE: self._decline,
        }

    def take(self, gateway: GatewayLink, frame: Frame) -> None:
        """Take one frame of a request or attempt stream from a gateway's lane."""
        if not frame.stream & ATTEMPT_BIT:
            self._of_request(gateway, frame)
            return
        attempt = self._attempts.by_stream.get(frame.stream)
        if attempt is None or attempt.request.gateway is not gateway:
            self._meter.ignored(_LINK, "foreign_stream")
            return
        if frame.kind == _BODY_PART:
            self._body_part(attempt, frame)
            return
        handle = self._handlers.get(frame.kind)
        if handle is None:
            self._meter.ignored(_LINK, "unexpected")
            return
        handle(attempt, frame.payload)

    def rescue(self, frame: Frame) -> None:
        """Hand in an answer whose replica is lost; a hold that has ended already stays as it is."""
        message = read(SettleOpened, frame.payload, self._meter, _LINK)
        if message is None or not message.request_id or not message.attempt_id:
            self._meter.ignored(_LINK, "malformed")
            return
        self._closing.rescue(
            Settle(
                request_id=message.request_id[: convert.MAX_TEXT],
                attempt_id=message.attempt_id[: convert.MAX_TEXT],
                verdict=convert.signed(message.verdict),
                terminal=convert.signed(message.terminal) if message.HasField("terminal") else None,
                opened=convert.opened(message.opened),
                price_id=message.price_id[: convert.MAX_TEXT],
                traceparent=message.traceparent[: convert.MAX_TEXT],
            )
        )

    def _of_request(self, gateway: GatewayLink, frame: Frame) -> None:
        if frame.kind == _OPEN:
            message = read(Open, frame.payload, self._meter, _LINK)
            if message is not None:
                self._dispatcher.open(gateway, frame.stream, message)
            return
        if frame.kind == _CLAIM:
            claim = read(Claim, frame.payload, self._meter, _LINK)
            if claim is not None:
                self._dispatcher.claims.take(gateway, frame.stream, claim)
            return
        request = gateway.requests.get(frame.stream)
        if request is None or frame.kind != FrameKind.FRAME_KIND_ABANDON or request.committed:
            self._meter.ignored(_LINK, "unexpected")
            return
        abandon = read(Abandon, frame.payload, self._meter, _LINK)
        if abandon is not None:
            self._dispatcher.abandon(request, abandon.reason)

    def _sealed(self, attempt: Attempt, payload: bytes) -> None:
        message = read(Sealed, payload, self._meter, _LINK)
        if message is None or attempt.phase is not Phase.OFFERED:
            self._meter.ignored(_LINK, "unexpected")
            return
        request, dispatcher = attempt.request, self._dispatcher
        request.sealed = True
        if not self._sound(attempt, message):
            dispatcher.give_up(attempt, refusals.INTERNAL)
            return
        if not dispatcher.still_trusted(attempt):
            self._ends.fail(attempt, failures.STALE)
            return

        now = self._timers.now()
        attempt.phase = Phase.SENT
        attempt.started_at = attempt.seen_at = now
        attempt.body_left = message.body_bytes
        attempt.lane.send_control(
            _REQUEST,
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
                epoch=attempt.provider.epoch,
            ),
        )
        body_s = min(message.body_bytes / _BODY_BYTES_PER_S, _MAX_BODY_S)
        attempt.arm(self._timers, self._patience.accept_s + body_s, self._ends.stalled)
        self._hedging.arm(attempt)

    def _sound(self, attempt: Attempt, message: Sealed) -> bool:
        """Check the outside of a sealed request against what was offered."""
        demand = attempt.request.demand
        return (
            len(message.sender_key) == _KEY_BYTES
            and len(message.body_sha256) == _DIGEST_BYTES
            and 0 < message.body_bytes <= self._max_body_bytes
            and message.verdict_id == attempt.verdict.verdict_id
            and message.prompt_bound == demand.prompt_bound
            and message.output_bound == demand.output_bound
        )

    def _body_part(self, attempt: Attempt, frame: Frame) -> None:
        size = len(frame.payload)
        if attempt.phase <= Phase.OFFERED or not attempt.live or size > attempt.body_left:
            self._meter.ignored(_LINK, "unexpected")
            return
        attempt.body_left -= size
        if not attempt.lane.send_body_part(frame):
            self._ends.fail(attempt, failures.CONGESTED)

    def _credit(self, attempt: Attempt, payload: bytes) -> None:
        message = read(Credit, payload, self._meter, _LINK)
        if message is None:
            return
        self._note_opened(attempt, message.opened)
        if not attempt.live or message.granted_frames <= attempt.granted:
            return
        attempt.granted = message.granted_frames
        attempt.lane.send_control(_CREDIT, attempt.stream, payload)

    def _cancel(self, attempt: Attempt, payload: bytes) -> None:
        message = read(Cancel, payload, self._meter, _LINK)
        if message is None:
            return
        self._note_opened(attempt, message.opened)
        if attempt.phase < Phase.COMMITTED:
            self._dispatcher.abandon(attempt.request, _CLIENT_GONE)
        elif attempt.live:
            self._ends.stop_by_edge(attempt, message.reason, "client_gone")
        else:
            self._ends.last_word(attempt)

    def _close(self, attempt: Attempt, payload: bytes) -> None:
        message = read(Close, payload, self._meter, _LINK)
        if message is None:
            return
        self._note_opened(attempt, message.opened)
        if attempt.phase < Phase.COMMITTED:
            self._dispatcher.abandon(attempt.request, _CLIENT_GONE)
        elif attempt.live and attempt.final:
            self._ends.complete(attempt)
        elif attempt.live:
            self._ends.stop_by_edge(attempt, CancelReason.CANCEL_REASON_TIMEOUT, "timeout")
        else:
            self._ends.last_word(attempt)

    def _violation(self, attempt: Attempt, payload: bytes) -> None:
        message = read(Violation, payload, self._meter, _LINK)
        if message is None:
            return
        self._note_opened(attempt, message.opened)
        if attempt.live and attempt.phase is Phase.COMMITTED and not attempt.opened.frames:
            # What looked like content from outside was none, and the consumer has seen nothing.
            self._dispatcher.uncommit(attempt)
        self._trust.violated(attempt, _VIOLATIONS.get(message.kind, "unopenable"))

    def _decline(self, attempt: Attempt, payload: bytes) -> None:
        message = read(Decline, payload, self._meter, _LINK)
        if message is None or attempt.phase is not Phase.OFFERED:
            self._meter.ignored(_LINK, "unexpected")
            return
        # The gateway has not shown it to anybody, so that another one may be promised.
        attempt.request.promised = attempt.request.claimed
        dear = message.reason != DeclineReason.DECLINE_REASON_VERDICT
        failure = failures.TOO_DEAR if dear else failures.UNTRUSTED
        self._ends.fail(attempt, failure, tell=False)

    def _note_opened(self, attempt: Attempt, message: Opened) -> None:
        """Keep the edge's counts; cumulative, so an older frame never lowers them."""
        opened = convert.opened(message)
        if opened.frames >= attempt.opened.frames:
            attempt.opened = opened
