"""Claims: an offer of end-to-end mode changes its lane.

The consumer's two calls may reach two workers. The first one asks for an offer and forgets it; the
reservation is kept here, for two seconds, and whichever lane claims it gets all its frames.
"""

from darkbloom.router.v1.gateway_lane_pb2 import Claim

from darkbloom_router.attempts import PREFIX_SHIFT, Attempts, GatewayLink, Phase
from darkbloom_router.last_words import LastWords
from darkbloom_router.meter import Meter
from darkbloom_router.offers import Offers

MAX_BODY_S = 10.0
"""Longest wait for a sealed body; a place at another replica is given back after 15 s."""


class Claims:
    """Hands offers over, each one once.

    Args:
        attempts: Where offers are looked up.
        offers: Repeats them.
        last_words: Refuses.
        meter: Counters.
        max_requests: Most requests of one lane.
    """

    def __init__(
        self,
        attempts: Attempts,
        offers: Offers,
        last_words: LastWords,
        meter: Meter,
        *,
        max_requests: int,
    ) -> None:
        self._attempts = attempts
        self._offers = offers
        self._last_words = last_words
        self._meter = meter
        self._max_requests = max_requests

    def take(self, gateway: GatewayLink, stream: int, message: Claim) -> None:
        """Give the claiming lane the request, or tell it that there is none for this account."""
        if stream >> PREFIX_SHIFT != gateway.prefix or stream in gateway.requests:
            self._meter.ignored("gateway", "foreign_stream")
            return
        attempt = self._attempts.by_id(message.attempt_id)
        if (
            attempt is None
            or attempt.phase is not Phase.OFFERED
            or not attempt.request.unclaimed
            or attempt.request.demand.account_id != message.account_id
            or len(gateway.requests) >= self._max_requests
        ):
            self._last_words.too_late(gateway, stream)
            return

        request = attempt.request
        request.gateway.requests.pop(request.stream, None)
        request.gateway, request.stream, request.claimed = gateway, stream, True
        gateway.requests[stream] = request
        seconds = message.body_time.ToTimedelta().total_seconds()
        self._offers.hand_over(attempt, min(max(seconds, 0.0), MAX_BODY_S))
