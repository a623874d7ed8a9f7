"""What happens to attempts when somebody is lost: a gateway, a provider, or trust in one."""

from collections.abc import Iterable

from darkbloom.router.v1.gateway_lane_pb2 import AttemptFailure
from darkbloom.router.v1.provider_link_pb2 import CancelReason

from darkbloom_router import failures
from darkbloom_router.attempts import Attempts, GatewayLink, Phase, Request
from darkbloom_router.closing import Closing
from darkbloom_router.ends import Ends
from darkbloom_router.failures import Failure
from darkbloom_router.provider import Provider
from darkbloom_router.replicas.lane import ProviderLane
from darkbloom_router.requests import Requests
from darkbloom_router.settlement import Cause

_CLIENT_GONE = CancelReason.CANCEL_REASON_CLIENT_GONE


class Losses:
    """Moves what can be moved, breaks what cannot, and hands in the money.

    Args:
        attempts: Every attempt.
        requests: Every request.
        ends: How attempts end.
        closing: Where money goes.
        lanes: Lanes of the connected providers.
        orphan_s: How long the hold of a lost gateway's request waits for it to come back.
    """

    def __init__(
        self,
        attempts: Attempts,
        requests: Requests,
        ends: Ends,
        closing: Closing,
        lanes: dict[Provider, ProviderLane],
        *,
        orphan_s: float,
    ) -> None:
        self._attempts = attempts
        self._requests = requests
        self._ends = ends
        self._closing = closing
        self._lanes = lanes
        self._orphan_s = orphan_s

    def gateway(self, gateway: GatewayLink) -> None:
        """Stop what a lost lane had open.

        The first content may have been lost with the lane. As long as nothing was opened there is
        nothing to pay, and the gateway may come back with the same request and the same hold.
        """
        for request in list(gateway.requests.values()):
            attempt = request.attempt
            if request.unclaimed:
                # Any other lane may still claim it.
                continue
            if attempt is not None and request.committed and attempt.opened.frames:
                self._ends.stop_by_edge(attempt, _CLIENT_GONE, "lane_lost")
                continue
            if attempt is not None and request.committed and request.promised:
                # Content may have reached the consumer; its gateway says so on another lane.
                self._ends.stop_unheard(attempt, _CLIENT_GONE, "lane_lost")
                continue
            self._ends.stop_all(request, _CLIENT_GONE)
            if request.promised:
                # Only the consumer could seal it again, and he asks for a new offer.
                self._requests.finish(request)
                self._release(request)
                continue
            self._requests.orphan(request, self._orphan_s, self._release)
        for attempt in list(self._attempts.by_stream.values()):
            if attempt.request.gateway is gateway and not attempt.unheard:
                self._ends.last_word(attempt)

    def provider(
        self, provider: Provider, *, clean: bool, others: Iterable[tuple[str, int]] = ()
    ) -> None:
        """Move or break everything that a lost stream carried.

        Args:
            provider: Whose stream.
            clean: It ended in order: nobody's fault.
            others: What it carried for other replicas, as build and shape.
        """
        self._lanes.pop(provider, None)
        self._ends.cancels.gone(provider)
        failure = failures.LEFT if clean else failures.LOST
        carried = self._attempts.of_provider(provider)
        if not clean:
            self._ends.lost(provider, carried, others)
        for attempt in carried:
            if attempt.phase < Phase.COMMITTED:
                self._ends.fail(attempt, failure)
            elif attempt.live and not (attempt.final and attempt.terminal):
                self._ends.break_off(attempt, AttemptFailure.ATTEMPT_FAILURE_PROVIDER_LOST)

    def trust(self, provider: Provider, failure: Failure) -> None:
        """Take away every attempt of a provider that has not delivered content yet."""
        for attempt in self._attempts.of_provider(provider):
            if attempt.phase < Phase.COMMITTED:
                self._ends.fail(attempt, failure)

    def verdict(self, verdict_id: str) -> None:
        """Take away every attempt offered under a verdict that has not delivered content yet."""
        for attempt in list(self._attempts.by_stream.values()):
            if attempt.verdict.verdict_id == verdict_id and attempt.phase < Phase.COMMITTED:
                self._ends.fail(attempt, failures.STALE)

    def everything(self) -> None:
        """Hand in all open money now: the process is about to end."""
        self._requests.expire(self._release)
        self._closing.hurry()

    def _release(self, request: Request) -> None:
        self._closing.free(request, Cause.CLIENT_GONE)
