"""Waiting for a place: lines, their clocks, and who failed where, remembered for a moment."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from darkbloom_router.attempts import Request
from darkbloom_router.fleet import Fleet
from darkbloom_router.gates import View, wants
from darkbloom_router.meter import Meter
from darkbloom_router.model import Demand, Gate, OwnerPolicy
from darkbloom_router.placement import tally
from darkbloom_router.timers import Timers
from darkbloom_router.waiting import Waiting

_TALLY_AGE_S = 0.1
_MAX_TALLIES = 1024

Shape = tuple[str, OwnerPolicy, str, str, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class LineLimits:
    """Bounds of the lines."""

    depth: int = 32
    wait_s: float = 10.0


class Line:
    """Requests that wait for a place, in order of arrival, one line per build."""

    def __init__(self, timers: Timers, meter: Meter, limits: LineLimits) -> None:
        self._timers = timers
        self._meter = meter
        self._limits = limits
        self._waiting: Waiting[Request] = Waiting(limits.depth)
        self._failed: dict[Shape, int] = {}

    def depth(self, build: str) -> int:
        """Return how many wait for a build."""
        return self._waiting.depth(build)

    def join(self, request: Request, waited_out: Callable[[], None]) -> bool:
        """Stand in line; False where it is full."""
        now = self._timers.now()
        build = request.demand.build
        if not self._waiting.join(build, request, now):
            self._meter.waited(build, "full")
            return False
        request.build = build
        request.queued_at = now
        request.queue_timer = self._timers.after(self._limits.wait_s, waited_out)
        return True

    def leave(self, request: Request, outcome: str) -> None:
        """Step out of line; does nothing where the request stands in none."""
        if not request.build:
            return
        self._waiting.leave(request.build, request)
        request.queue_s = self._timers.now() - request.queued_at
        if request.queue_timer is not None:
            request.queue_timer.cancel()
        self._meter.waited(request.build, outcome)
        request.build = ""

    def servable(self, build: str) -> Iterator[Request]:
        """Yield who may be tried now, in order.

        Whoever asks for no less than one of the same shape who just failed is passed over: he
        would fail as well, and a scan is not free.
        """
        self._failed.clear()
        for request in self._waiting.line(build):
            least = self._failed.get(shape(request.demand))
            if request.build and (least is None or request.demand.tokens < least):
                yield request

    def failed(self, request: Request) -> None:
        """Remember that nobody could take this one."""
        key = shape(request.demand)
        self._failed[key] = min(self._failed.get(key, 1 << 62), request.demand.tokens)

    def depths(self) -> dict[str, tuple[int, float]]:
        """Return depth and age of the oldest, per build."""
        now = self._timers.now()
        return {
            build: (self._waiting.depth(build), self._waiting.oldest_age_s(build, now))
            for build in self._waiting.builds()
        }


class Tallies:
    """How many providers fail at which gate; counted at most ten times a second per shape and size.

    A fleet that is full refuses often, and each count walks all of it.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._known: dict[tuple[Shape, int], tuple[float, dict[Gate, int]]] = {}

    def of(self, view: View) -> dict[Gate, int]:
        """Return the counts for a request."""
        key = (shape(view.demand), view.demand.tokens.bit_length())
        known = self._known.get(key)
        if known and not view.excluded and 0 <= view.now - known[0] < _TALLY_AGE_S:
            return known[1]
        counts, _ = tally(self._fleet.providers.values(), view.demand.build, view)
        if not view.excluded:
            if len(self._known) >= _MAX_TALLIES:
                self._known.clear()
            self._known[key] = (view.now, dict(counts))
        return dict(counts)


def shape(demand: Demand) -> Shape:
    """Return everything about a request that gates look at, but its size."""
    return (
        demand.build,
        demand.policy,
        demand.account_id,
        demand.machine,
        wants(demand),
        demand.floor,
    )
