"""The last word about a request that nobody serves: said once, counted, recorded, money freed."""

from collections.abc import Callable, Mapping

from darkbloom.common.v1.frame_pb2 import FrameKind
from darkbloom.router.v1.gateway_lane_pb2 import Open

from darkbloom_router import convert, refusals
from darkbloom_router.attempts import GatewayLink, Request
from darkbloom_router.decisions import Decisions
from darkbloom_router.meter import Meter
from darkbloom_router.model import Gate
from darkbloom_router.queueing import Line
from darkbloom_router.records.scribe import Scribe
from darkbloom_router.refusals import Refusal
from darkbloom_router.requests import Requests
from darkbloom_router.retry_after import RouteTime, feasible_after_s, late_s, retry_after_s
from darkbloom_router.settlement import Cause
from darkbloom_router.timers import Timers
from darkbloom_router.warm.targets import SIGNALS, Signal


class LastWords:
    """Refuses requests.

    Args:
        requests: Where requests are forgotten.
        line: Who waits, which is how long a Retry-After becomes.
        decisions: What nobody could hold, and how late the best would be.
        route_time: How long first attempts take to be routed.
        timers: What time it is.
        meter: Counters.
    """

    def __init__(
        self,
        requests: Requests,
        line: Line,
        decisions: Decisions,
        route_time: RouteTime,
        timers: Timers,
        meter: Meter,
    ) -> None:
        self.scribe: Scribe | None = None
        """Keeps records of refusals, where there is a store."""
        self.free: Callable[[Request, Cause], None] = _unwired
        """Gives money back."""
        self.sign: Callable[[str, Signal], None] = _unwired
        """Hears what shows that a build has too few machines."""
        self._requests = requests
        self._line = line
        self._decisions = decisions
        self._route_time = route_time
        self._timers = timers
        self._meter = meter

    def turn_away(self, gateway: GatewayLink, stream: int, message: Open, refusal: Refusal) -> None:
        """Refuse what is not taken in at all: it is no request yet."""
        self._say(gateway, stream, refusal, {})
        if self.scribe is not None:
            self.scribe.unwelcome(message, refusal)

    def unreadable(self, gateway: GatewayLink, stream: int) -> None:
        """Refuse what makes no sense."""
        self._say(gateway, stream, refusals.INTERNAL, {})

    def too_late(self, gateway: GatewayLink, stream: int) -> None:
        """Refuse to hand over an offer that is not there, or not for this account."""
        self._say(gateway, stream, refusals.OFFER_EXPIRED, {})

    def refuse(
        self, request: Request, refusal: Refusal, gates: Mapping[Gate, int] | None = None
    ) -> None:
        """Say the last word about a request."""
        if refusal.retry_after_s == refusals.MIN_RETRY_S:
            refusal = refusal.after(self._come_again(request))
        self._requests.finish(request)
        if (signal := SIGNALS.get(refusal.reason)) is not None:
            self.sign(request.demand.build, signal)
        if self.scribe is not None:
            self.scribe.refused(request, refusal, gates)
        if not request.unclaimed:
            self._say(request.gateway, request.stream, refusal, dict(gates or {}))
        self._meter.decided(request.demand.build, refusal.reason.name.lower(), 0.0)
        if request.ladder.attempts:
            self._meter.dispatched("failure")
            self.free(request, Cause.REFUSED)

    def refuse_for(self, request: Request, gates: Mapping[Gate, int]) -> None:
        """Refuse a request that nobody could take, from who failed where."""
        demand = request.demand
        refusal = refusals.for_gates(gates, demand)
        if refusal is refusals.MACHINE_BUSY and self._decisions.never_fits(demand):
            refusal = refusals.PROMPT_TOO_LONG
        if refusal is refusals.TTFT_TOO_SLOW:
            left_s = request.deadline - self._timers.now()
            best_ms = self._decisions.soonest_ms(demand)
            refusal = refusal.after(late_s(best_ms, left_s * 1000))
        self.refuse(request, refusal, gates)

    def _come_again(self, request: Request) -> int:
        feasible_s = request.ladder.feasible_s
        if feasible_s is not None:
            return feasible_after_s(feasible_s)
        waiting = self._line.length(request.demand.build)
        return retry_after_s(waiting, self._route_time.seconds)

    def _say(
        self, gateway: GatewayLink, stream: int, refusal: Refusal, gates: dict[Gate, int]
    ) -> None:
        gateway.lane.send_control(
            FrameKind.FRAME_KIND_REFUSED, stream, convert.refused(refusal, gates)
        )


def _unwired(_item: object, _why: object) -> None:
    raise RuntimeError("last words are not wired")
