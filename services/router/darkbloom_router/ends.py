"""How an attempt ends: before its first content quietly, after it once and openly.

Whatever the way, the place is given back before anybody is told, exactly once, and what money is
open goes to `closing`.
"""

from collections.abc import Callable

from darkbloom.common.v1.frame_pb2 import FrameKind
from darkbloom.router.v1.gateway_lane_pb2 import AttemptFailed, AttemptFailure
from darkbloom.router.v1.provider_link_pb2 import Cancel, CancelReason

from darkbloom_router import failures
from darkbloom_router.attempts import Attempt, Phase, Request
from darkbloom_router.closing import Closing
from darkbloom_router.failures import Failure
from darkbloom_router.fleet import Fleet
from darkbloom_router.meter import Meter
from darkbloom_router.provider import Provider
from darkbloom_router.replicas.lane import ProviderLane, RemoteLane
from darkbloom_router.requests import Requests
from darkbloom_router.spans import Spans

TIMED_OUT = CancelReason.CANCEL_REASON_TIMEOUT


class Ends:
    """Ends attempts.

    Args:
        fleet: Where places are given back.
        requests: Where requests are forgotten.
        lanes: Lanes of the connected providers.
        meter: Counters.
        spans: Traces.
    """

    def __init__(
        self,
        fleet: Fleet,
        requests: Requests,
        lanes: dict[Provider, ProviderLane],
        meter: Meter,
        spans: Spans,
    ) -> None:
        self._fleet = fleet
        self._requests = requests
        self._lanes = lanes
        self._meter = meter
        self._spans = spans
        self._closing: Closing | None = None
        self._retry: Callable[[Request], None] = _unwired
        self._freed: Callable[[Provider], None] = _unwired

    def wire(
        self,
        closing: Closing,
        *,
        retry: Callable[[Request], None],
        freed: Callable[[Provider], None],
    ) -> None:
        """Connect what comes after an end: its money, the next attempt, who waits for the place."""
        self._closing = closing
        self._retry = retry
        self._freed = freed

    @property
    def _money(self) -> Closing:
        if self._closing is None:
            raise RuntimeError("ends are not wired")
        return self._closing

    def fail(self, attempt: Attempt, failure: Failure, *, tell: bool = True) -> None:
        """End an attempt before its first content; the request goes on to another provider.

        Args:
            attempt: What failed.
            failure: Why.
            tell: Whether the provider must hear of it; not when it said so itself.
        """
        request = attempt.request
        request.excluded.add(attempt.provider)
        request.ladder.note(failure)
        self._meter.failed(attempt.candidate.build.build, failure.word)
        self._meter.dispatched("retry_precontent")
        self._span(attempt, failure.word)
        request.gateway.lane.drop_stream(attempt.stream)
        self.stop(attempt, TIMED_OUT, tell=tell)
        self._retry(request)

    def stalled(self, attempt: Attempt) -> None:
        """End an attempt that took too long to begin."""
        if attempt.phase < Phase.COMMITTED:
            self.fail(attempt, failures.STALLED)

    def stop(self, attempt: Attempt, reason: CancelReason.ValueType, *, tell: bool = True) -> None:
        """End an attempt that delivered nothing, and say nothing to the gateway."""
        attempt.request.attempt = None
        sent = tell and attempt.phase > Phase.OFFERED
        self._money.forget(attempt)
        if sent:
            self._cancel(attempt, reason)

    def break_off(self, attempt: Attempt, failure: AttemptFailure.ValueType) -> None:
        """End an attempt after its first content: the gateway ends the answer in-band."""
        self._meter.broke(attempt.candidate.build.build)
        attempt.request.gateway.lane.send_ordered(
            FrameKind.FRAME_KIND_ATTEMPT_FAILED, attempt.stream, AttemptFailed(failure=failure)
        )
        self._leave(attempt, "mid_stream")
        self._cancel(attempt, TIMED_OUT)
        self._money.park(attempt)

    def stop_by_edge(self, attempt: Attempt, reason: CancelReason.ValueType, outcome: str) -> None:
        """Stop a committed attempt whose edge has said its last word.

        The place is given back before the provider hears of it, so a late terminal meets an attempt
        that can only be settled for what was opened.
        """
        attempt.opened_final = True
        attempt.request.gateway.lane.drop_stream(attempt.stream)
        self._leave(attempt, outcome)
        if attempt.terminal is None:
            self._cancel(attempt, reason)
        self._money.park(attempt)

    def complete(self, attempt: Attempt) -> None:
        """Take note that the edge has opened everything."""
        attempt.opened_final = True
        self._leave(attempt, "success")
        self._money.park(attempt)

    def last_word(self, attempt: Attempt) -> None:
        """Take the edge's last word on an attempt that is parked already."""
        attempt.opened_final = True
        self._money.check(attempt)

    def release(self, attempt: Attempt) -> None:
        """Give the place back; only the first call does."""
        if not attempt.debited:
            return
        attempt.debited = False
        if isinstance(attempt.lane, RemoteLane):
            attempt.lane.unreserve(attempt.stream)
        self._fleet.credit(attempt.candidate, attempt.tokens)
        self._freed(attempt.provider)

    def gone(self, attempt: Attempt) -> None:
        """Clean up after an attempt whose money has been handed in."""
        self.release(attempt)
        if attempt.request.attempt is attempt:
            self._requests.finish(attempt.request)

    def _leave(self, attempt: Attempt, outcome: str) -> None:
        self._meter.attempt_ended(attempt.candidate.build.build, outcome)
        self._span(attempt, "" if outcome == "success" else outcome)
        self._requests.finish(attempt.request)
        self.release(attempt)

    def _cancel(self, attempt: Attempt, reason: CancelReason.ValueType) -> None:
        if attempt.provider not in self._lanes:
            return
        attempt.lane.drop_stream(attempt.stream)
        message = Cancel(reason=reason)
        attempt.lane.send_control(FrameKind.FRAME_KIND_CANCEL, attempt.stream, message)
        cause = CancelReason.Name(reason).removeprefix("CANCEL_REASON_").lower()
        self._meter.cancelled(cause, "sent")

    def _span(self, attempt: Attempt, error: str) -> None:
        self._spans.record(
            "provider.attempt",
            attempt.request.traceparent,
            attempt.started_unix_ns,
            error=error,
            attempt=attempt.number,
            chip_family=attempt.provider.hardware.chip_family,
        )


def _unwired(_item: object) -> None:
    raise RuntimeError("ends are not wired")
