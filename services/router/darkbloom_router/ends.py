"""How an attempt ends: before its first content quietly, after it once and openly.

Whatever the way, the place is given back before anybody is told, exactly once, and what money is
open goes to `closing`.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

from darkbloom.common.v1.frame_pb2 import FrameKind
from darkbloom.router.v1.gateway_lane_pb2 import AttemptFailed, AttemptFailure
from darkbloom.router.v1.provider_link_pb2 import CancelReason

from darkbloom_router import failures
from darkbloom_router.attempts import Attempt, Phase, Request
from darkbloom_router.cancels import Cancels, cause_of
from darkbloom_router.closing import Closing
from darkbloom_router.conditions import wants
from darkbloom_router.failures import Failure, Kind
from darkbloom_router.fleet import Fleet
from darkbloom_router.health import Health
from darkbloom_router.hints import HintMemory
from darkbloom_router.meter import Meter
from darkbloom_router.model import Blame
from darkbloom_router.observations import Observations
from darkbloom_router.provider import Provider
from darkbloom_router.queueing import ServiceTimes
from darkbloom_router.replicas.lane import ProviderLane, RemoteLane
from darkbloom_router.requests import Requests
from darkbloom_router.spans import Spans
from darkbloom_router.timers import Timers

TIMED_OUT = CancelReason.CANCEL_REASON_TIMEOUT
_BROKEN = {
    AttemptFailure.ATTEMPT_FAILURE_PROVIDER_LOST: "mid_stream_lost",
    AttemptFailure.ATTEMPT_FAILURE_TIMEOUT: "mid_stream_timeout",
    AttemptFailure.ATTEMPT_FAILURE_ENCRYPTION_FAILURE: "mid_stream_violation",
}
"""Words of what ends an answer after its first content; the machine's own error is the rest."""


class Ends:
    """Ends attempts.

    Args:
        fleet: Where places are given back.
        requests: Where requests are forgotten.
        lanes: Lanes of the connected providers.
        meter: Counters.
        spans: Traces.
        timers: What time it is.
        health: What failures teach about machines.
        cancels: Tells providers to stop, until they do.
    """

    def __init__(
        self,
        fleet: Fleet,
        requests: Requests,
        lanes: dict[Provider, ProviderLane],
        meter: Meter,
        spans: Spans,
        timers: Timers,
        health: Health,
        cancels: Cancels,
    ) -> None:
        self.health = health
        self.cancels = cancels
        self.hints = HintMemory()
        self.seen = Observations()
        self.over: Callable[[Attempt], None] = _unnoticed
        """Hears of every attempt that is over."""
        self.service_times = ServiceTimes()
        self._timers = timers
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

        Where two race, the other one is awaited; what was learned here is not forgotten.

        Args:
            attempt: What failed.
            failure: Why.
            tell: Whether the provider must hear of it; not when it said so itself.
        """
        request = attempt.request
        request.excluded.add(attempt.provider)
        request.ladder.note(failure)
        self._blame(attempt, failure.blame)
        self._meter.failed(attempt.candidate.build.build, failure.word)
        self._meter.dispatched("retry_precontent")
        if failure.kind is Kind.FAULT and not request.demand.avoid_version:
            request.demand = replace(request.demand, avoid_version=attempt.provider.version)
        request.hedged = True
        attempt.outcome = failure.word
        request.gateway.lane.drop_stream(attempt.stream)
        self.stop(attempt, TIMED_OUT, tell=tell)
        if not request.racers:
            self._retry(request)

    def lost(
        self,
        provider: Provider,
        carried: Iterable[Attempt],
        others: Iterable[tuple[str, int]] = (),
    ) -> None:
        """Note a stream that broke; what it carried has one cause and counts once.

        Args:
            provider: Whose stream.
            carried: Our attempts on it.
            others: Those of other replicas, as build and shape.
        """
        broken = [
            (attempt.candidate.build.build, wants(attempt.request.demand))
            for attempt in carried
            if attempt.live and attempt.phase > Phase.OFFERED and attempt.terminal is None
        ]
        self.health.lost(provider, (*broken, *others), self._timers.now())
        for build, _ in broken:
            self.seen.failed(build)

    def began(self, attempt: Attempt) -> None:
        """Note the first content: it has won, and whoever raced against it is stopped."""
        request = attempt.request
        if request.hedge_timer is not None:
            request.hedge_timer.cancel()
        if attempt.ticket is not None and attempt.ticket.end(won=True):
            self._meter.hedge_won(attempt.candidate.build.build)
        for other in request.racers:
            if other is not attempt:
                request.gateway.lane.drop_stream(other.stream)
                self.stop(other, CancelReason.CANCEL_REASON_LOST_RACE)
        request.attempt, request.hedge, request.plan = attempt, None, None
        attempt.content_at = self._timers.now()
        self._fleet.began(attempt.reservation)
        self.accepted(attempt)

    def accepted(self, attempt: Attempt) -> None:
        """Note an admission; who waits may profit where the machine had said that it is full."""
        attempt.accepted_at = attempt.accepted_at or self._timers.now()
        if attempt.candidate.pair is not None:
            self.health.accepted(attempt.candidate, self._timers.now())
            self._freed(attempt.provider)

    def lane_of(self, provider: Provider) -> ProviderLane | None:
        """Return the lane of a connected provider."""
        return self._lanes.get(provider)

    def stalled(self, attempt: Attempt) -> None:
        """End an attempt that took too long to begin."""
        if attempt.phase < Phase.COMMITTED:
            if attempt.accepted_at:
                self._meter.suspected(attempt.candidate.build.build, "first_token_wedge")
            self.fail(attempt, failures.STALLED)

    def stop(self, attempt: Attempt, reason: CancelReason.ValueType, *, tell: bool = True) -> None:
        """End an attempt that delivered nothing, and say nothing to the gateway."""
        request = attempt.request
        self._end(attempt, attempt.outcome or cause_of(reason), attempt.phase)
        if request.attempt is attempt:
            request.attempt, request.hedge = request.hedge, None
        elif request.hedge is attempt:
            request.hedge = None
        if attempt.ticket is not None:
            attempt.ticket.end(won=False)
        sent = tell and attempt.phase > Phase.OFFERED
        self._money.forget(attempt)
        if sent:
            self._cancel(attempt, reason)

    def stop_all(self, request: Request, reason: CancelReason.ValueType) -> None:
        """End everything that runs for a request and has delivered nothing."""
        for attempt in request.racers:
            self.stop(attempt, reason)

    def break_off(
        self,
        attempt: Attempt,
        failure: AttemptFailure.ValueType,
        blame: Blame = Blame.NOBODY,
    ) -> None:
        """End an attempt after its first content: the gateway ends the answer in-band."""
        self._blame(attempt, blame)
        self._meter.broke(attempt.candidate.build.build)
        attempt.request.gateway.lane.send_ordered(
            FrameKind.FRAME_KIND_ATTEMPT_FAILED, attempt.stream, AttemptFailed(failure=failure)
        )
        self._leave(attempt, _BROKEN.get(failure, "mid_stream"))
        self._cancel(attempt, TIMED_OUT)
        self._money.park(attempt)

    def stop_by_edge(self, attempt: Attempt, reason: CancelReason.ValueType, outcome: str) -> None:
        """Stop a committed attempt whose edge has said its last word.

        The place is given back before the provider hears of it, so a late terminal meets an attempt
        that can only be settled for what was opened.
        """
        attempt.opened_final = True
        self.stop_unheard(attempt, reason, outcome)

    def stop_unheard(self, attempt: Attempt, reason: CancelReason.ValueType, outcome: str) -> None:
        """Stop a committed attempt whose edge may still say its last word elsewhere."""
        attempt.request.gateway.lane.drop_stream(attempt.stream)
        self._leave(attempt, outcome)
        if attempt.terminal is None:
            self._cancel(attempt, reason)
        self._money.park(attempt)

    def complete(self, attempt: Attempt) -> None:
        """Take note that the edge has opened everything."""
        attempt.opened_final = True
        now = self._timers.now()
        self.health.succeeded(attempt.candidate, now)
        ttft_s = attempt.content_at - attempt.started_at
        self.seen.succeeded(attempt.candidate.build.build, ttft_s)
        self._remember_prefix(attempt, now)
        self._leave(attempt, "success")
        self._money.park(attempt)

    def last_word(self, attempt: Attempt) -> None:
        """Take the edge's last word on an attempt that is parked already."""
        attempt.opened_final = True
        self._money.check(attempt)

    def release(self, attempt: Attempt) -> None:
        """Give the place back; only the first call does."""
        if not self._fleet.credit(attempt.reservation):
            return
        if isinstance(attempt.lane, RemoteLane):
            attempt.lane.unreserve(attempt.stream)
        if attempt.phase >= Phase.COMMITTED:
            taken_s = self._timers.now() - attempt.started_at
            self.service_times.add(attempt.candidate.build.build, taken_s)
        self._freed(attempt.provider)

    def gone(self, attempt: Attempt) -> None:
        """Clean up after an attempt whose money has been handed in."""
        self.release(attempt)
        self.over(attempt)
        if attempt.request.attempt is attempt:
            self._requests.finish(attempt.request)

    def _blame(self, attempt: Attempt, blame: Blame) -> None:
        if attempt.phase > Phase.OFFERED:
            shape = wants(attempt.request.demand)
            self.health.failed(attempt.candidate, blame, shape, self._timers.now())
            if blame is Blame.MACHINE:
                self.seen.failed(attempt.candidate.build.build)
            elif blame is Blame.LOAD:
                build = attempt.candidate.build.build
                self.seen.load_failed(build, attempt.provider.stable_id)

    def _remember_prefix(self, attempt: Attempt, now: float) -> None:
        """Note who read this prompt; a hint that did not hold is dropped."""
        demand, identity = attempt.request.demand, attempt.provider.identity_key
        if not demand.prefix_keys or not identity:
            return
        build, keys = attempt.candidate.build.build, demand.prefix_keys
        if attempt.hinted:
            self._meter.hinted(build, held=attempt.opened.cached_tokens > 0)
        if attempt.hinted and not attempt.opened.cached_tokens:
            self.hints.miss(demand.account_id, build, keys, identity, now)
            return
        self.hints.note(demand.account_id, build, keys, demand.prompt_tokens, identity, now)

    def _leave(self, attempt: Attempt, outcome: str) -> None:
        self._end(attempt, outcome, Phase.COMMITTED)
        self._requests.finish(attempt.request)
        self.release(attempt)

    def _cancel(self, attempt: Attempt, reason: CancelReason.ValueType) -> None:
        if attempt.provider not in self._lanes:
            return
        attempt.lane.drop_stream(attempt.stream)
        if attempt.terminal is None:
            self.cancels.send(attempt.provider, attempt.lane, attempt.stream, reason)

    def _end(self, attempt: Attempt, outcome: str, reached: Phase) -> None:
        """Write down how an attempt ended: only its first end counts."""
        if attempt.ended:
            return
        attempt.ended, attempt.outcome, attempt.reached = True, outcome, reached
        self._meter.attempt_ended(attempt.candidate.build.build, outcome)
        self._spans.attempt(attempt)


def _unnoticed(_attempt: Attempt) -> None:
    """Nobody keeps records."""


def _unwired(_item: object) -> None:
    raise RuntimeError("ends are not wired")
