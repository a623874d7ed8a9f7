"""Offers: a place is debited, the gateway is told whom to seal to, and the clock of the offer runs.

A place at a provider of another replica is asked for there; that replica has the last word on it.
"""

from collections.abc import Callable
from functools import partial

from darkbloom.common.v1.frame_pb2 import FrameKind
from darkbloom.common.v1.price_pb2 import PriceRow
from darkbloom.router.v1.gateway_lane_pb2 import Offer
from darkbloom.router.v1.peer_lane_pb2 import Reserve

from darkbloom_router import convert, failures, refusals
from darkbloom_router.attempts import Attempt, Attempts, Phase, Request
from darkbloom_router.ends import TIMED_OUT, Ends
from darkbloom_router.fleet import Fleet
from darkbloom_router.governor import Ticket
from darkbloom_router.model import Verdict
from darkbloom_router.own_prices import OwnPrices
from darkbloom_router.placement import Choice
from darkbloom_router.provider import Candidate, Provider
from darkbloom_router.refusals import Refusal
from darkbloom_router.replicas.lane import ProviderLane, RemoteLane
from darkbloom_router.retry_after import RouteTime
from darkbloom_router.spans import Spans
from darkbloom_router.timers import Timers

_OFFER = FrameKind.FRAME_KIND_OFFER
RESERVE_S = 2.0
"""Longest wait for another replica's answer to a reservation."""


class Offers:
    """Makes attempts of choices.

    Args:
        fleet: Where places are debited.
        attempts: Where attempts are looked up.
        ends: How attempts end.
        lanes: Lanes of the connected providers.
        timers: Deadlines.
        spans: Traces.
        prices: What providers charge of their own.
        new_id: Makes an id of a prefix.
    """

    def __init__(
        self,
        fleet: Fleet,
        attempts: Attempts,
        ends: Ends,
        lanes: dict[Provider, ProviderLane],
        timers: Timers,
        spans: Spans,
        *,
        prices: OwnPrices,
        new_id: Callable[[str], str],
    ) -> None:
        self.route_time = RouteTime()
        self.chosen: Callable[[Attempt, Choice], None] = _unnoticed
        """Hears of every choice that became an offer."""
        self._fleet = fleet
        self._attempts = attempts
        self._ends = ends
        self._lanes = lanes
        self._timers = timers
        self._spans = spans
        self._prices = prices
        self._new_id = new_id
        self._refuse: Callable[[Request, Refusal], None] = _unwired

    def wire(self, refuse: Callable[[Request, Refusal], None]) -> None:
        """Connect who says the last word about a request that nobody serves."""
        self._refuse = refuse

    def make(self, request: Request, choice: Choice, ticket: Ticket | None = None) -> None:
        """Debit the winner of a choice and offer it; the caller has just seen every gate open.

        Args:
            request: For whom.
            choice: Whom.
            ticket: Leave to race against the attempt that runs already.
        """
        candidate = choice.candidate
        if candidate is None:
            raise RuntimeError("nobody was chosen")
        provider, verdict = candidate.provider, candidate.provider.verdict
        lane = self._lanes.get(provider)
        if verdict is None or lane is None:
            raise RuntimeError("a provider without lane or verdict passed the gates")
        now, demand = self._timers.now(), request.demand
        reservation = self._fleet.debit(candidate, demand.tokens, demand.prompt_tokens)
        if not request.routed:
            request.routed = True
            self.route_time.add(now - request.opened_at)
        request.ladder.attempts += 1
        price = self._price(request, candidate)
        attempt = Attempt(
            attempt_id=self._new_id("att"),
            stream=self._attempts.next_stream(),
            number=request.ladder.attempts,
            request=request,
            candidate=candidate,
            provider=provider,
            lane=lane,
            verdict=verdict,
            reservation=reservation,
            hinted=choice.hint_ms > 0,
            ticket=ticket,
            price_id=price.price_id if price is not None else "",
            started_at=now,
            started_unix_ns=self._spans.now_ns(),
            seen_at=now,
        )
        if ticket is None:
            request.attempt = attempt
        else:
            request.hedge = attempt
        self._attempts.add(attempt)
        self.chosen(attempt, choice)
        if isinstance(lane, RemoteLane):
            self._reserve(attempt, lane)
        else:
            self._announce(attempt)

    def granted(self, attempt: Attempt, verdict: Verdict) -> None:
        """Go on with an attempt whose place another replica has debited."""
        if attempt.timer is not None:
            attempt.timer.cancel()
        attempt.verdict = verdict
        attempt.phase = Phase.OFFERED
        self._announce(attempt)

    def declined(self, attempt: Attempt) -> None:
        """Try elsewhere: the holder knows better than our picture of its provider."""
        if attempt.phase is Phase.RESERVING:
            self._ends.fail(attempt, failures.MOVED, tell=False)

    def hand_over(self, attempt: Attempt, seconds: float) -> None:
        """Repeat a promised offer to the lane that has claimed it, and wait for its body.

        Args:
            attempt: Whose request is on that lane by now.
            seconds: How long the sealed body may take.
        """
        self._say(attempt, attempt.request.message.offer_context)
        attempt.arm(self._timers, seconds, self._unsealed)

    def _reserve(self, attempt: Attempt, lane: RemoteLane) -> None:
        """Ask the replica that holds the provider's stream; it has the last word on its places."""
        attempt.phase = Phase.RESERVING
        attempt.timer = self._timers.after(RESERVE_S, partial(self.declined, attempt))
        message = Reserve(
            attempt_id=attempt.attempt_id,
            provider_id=attempt.provider.provider_id,
            epoch=attempt.provider.epoch,
            build=attempt.candidate.build.build,
            open=attempt.request.message,
        )
        lane.peer.send_control(FrameKind.FRAME_KIND_RESERVE, attempt.stream, message)

    def _announce(self, attempt: Attempt) -> None:
        request = attempt.request
        self._say(attempt)
        if request.reserve_s:
            request.promised = True
            attempt.arm(self._timers, request.reserve_s, self._unsealed)

    def _say(self, attempt: Attempt, context: bytes = b"") -> None:
        request, candidate = attempt.request, attempt.candidate
        offer = Offer(
            attempt_id=attempt.attempt_id,
            attempt_stream=attempt.stream,
            attempt_number=attempt.number,
            verdict=convert.signed_document(attempt.verdict.signed),
            price=self._price(request, candidate) if attempt.price_id else None,
            build=candidate.build.build,
            provider=convert.facts(attempt.provider),
            # Whoever it was to race against may have failed while another replica was asked.
            hedge=attempt is request.hedge,
            scripted=candidate.build.scripted,
            context=context,
        )
        request.gateway.lane.send_control(_OFFER, request.stream, offer)

    def _price(self, request: Request, candidate: Candidate) -> PriceRow | None:
        """Return the provider's own row; None: the hold's price counts.

        One's own machine costs nothing, and a hold knows the prices of its own build only.
        """
        owner, build = candidate.provider.account_id, candidate.build.build
        if owner == request.demand.account_id or build != request.demand.build:
            return None
        return self._prices.of(owner, build)

    def _unsealed(self, attempt: Attempt) -> None:
        """Give up a reserved place that nobody sealed for in time."""
        if attempt.phase is Phase.OFFERED:
            attempt.request.ladder.note(failures.STALLED)
            self._ends.stop(attempt, TIMED_OUT)
            self._refuse(attempt.request, refusals.QUEUE_DEADLINE)


def _unnoticed(_attempt: Attempt, _choice: Choice) -> None:
    """Nobody keeps records."""


def _unwired(_request: object, _refusal: object) -> None:
    raise RuntimeError("offers are not wired")
