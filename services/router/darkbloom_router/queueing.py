"""Waiting for a place: lines and their clocks, when they are looked through, how long it takes."""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from math import ceil
from typing import Protocol

from darkbloom_router.attempts import Request
from darkbloom_router.conditions import wants
from darkbloom_router.meter import Meter
from darkbloom_router.model import Demand, OwnerPolicy
from darkbloom_router.timers import Timers
from darkbloom_router.waiting import Waiting, share_of

COALESCE_S = 0.02
PATIENCE_S, LEAST_DEPTH, MOST_DEPTH = 8.0, 32, 8192
_WEIGHT = 0.2

Shape = tuple[str, OwnerPolicy, str, str, int, int, frozenset[str]]


class Trigger(StrEnum):
    """Why a line is looked through; a closed list."""

    HEARTBEAT = "heartbeat"
    IDLE = "idle"
    CHALLENGE = "challenge"
    LOAD = "load"
    DISCONNECT = "disconnect"
    KICK = "kick"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class LineLimits:
    """Bounds of the lines."""

    depth: int = 0
    """Places per build; 0 is as many as its machines serve in eight seconds, 32 at least."""
    wait_s: float = 120.0


@dataclass(frozen=True, slots=True)
class _Place:
    """What a pass asks about a waiter."""

    tokens: int
    shape: Shape
    """What gates look at."""
    wanted: int
    """Abilities that he needs, as `Lack` bits."""
    stranger: bool
    """His account had no machine connected when he came."""


class Others(Protocol):
    """Who waits at other replicas."""

    def elsewhere(self, build: str) -> int:
        """Return how many wait for a build there."""
        ...

    def hold_s(self, build: str) -> float:
        """Return for how long they go first."""
        ...


def _no_limit(_wanted: Collection[int]) -> float:
    return float("inf")


def _no_hold(_build: str) -> float:
    return 0.0


class Line:
    """Requests that wait for a place, fair between accounts, one line per build.

    Args:
        timers: Clocks of those who wait.
        meter: Counters.
        limits: Bounds.
        has_machines: Whether an account has machines connected, which treat it differently.
    """

    def __init__(
        self,
        timers: Timers,
        meter: Meter,
        limits: LineLimits,
        has_machines: Callable[[str], bool] = bool,
    ) -> None:
        self.longer: Callable[[str], int] = _no_longer
        """Returns the depth that a build's capacity is good for."""
        self.displaced: Callable[[Request], None] = _unnoticed
        """Hears of who had to leave a full line."""
        self._has_machines = has_machines
        self._timers = timers
        self._meter = meter
        self._limits = limits
        self._waiting: Waiting[Request] = Waiting(limits.depth or LEAST_DEPTH)
        self._failed: dict[Shape, int] = {}
        self._places: dict[Request, _Place] = {}
        self._wanted: dict[str, Counter[int]] = {}
        """How many ask for which abilities, by build."""
        self._sizes: dict[str, list[int]] = {}
        """Tokens that are asked for, by build, the least first."""
        self._owners: Counter[str] = Counter()
        """Waiters by build whose account had machines when they came."""
        self.others: Others | None = None
        """Who waits at other replicas; None where this one is alone."""

    def length(self, build: str) -> int:
        """Return how many wait for a build, here and at other replicas."""
        elsewhere = self.others.elsewhere(build) if self.others is not None else 0
        return self._waiting.depth(build) + elsewhere

    def hold_s(self, build: str) -> float:
        """Return for how long a free place is left to those who have waited longer elsewhere."""
        return self.others.hold_s(build) if self.others is not None else 0.0

    def ages(self) -> dict[str, list[tuple[str, float]]]:
        """Return id and age in seconds of everybody who waits, by build."""
        now = self._timers.now()
        return {
            build: [(item.request_id, now - item.queued_at) for item in self._waiting.line(build)]
            for build in self._waiting.builds()
        }

    def depth(self, build: str) -> int:
        """Return how many wait for a build."""
        return self._waiting.depth(build)

    def waiting(self, build: str) -> list[Request]:
        """Return who waits for a build, in the order in which they are served."""
        return self._waiting.line(build)

    def join(
        self, request: Request, waited_out: Callable[[], None], wait_s: float = float("inf")
    ) -> bool:
        """Stand in line; False where it is full, or the account's share of it.

        In a full line the newcomer takes the place of who would be served after him, last of all.
        Nobody waits longer than `wait_s` or the line's own limit.
        """
        now = self._timers.now()
        demand = request.demand
        work = float(demand.tokens)
        depth = self._limits.depth or max(LEAST_DEPTH, self.longer(demand.build))
        last = None
        full = self.length(demand.build) >= depth
        if full:
            share = share_of(depth)
            last = self._waiting.last(demand.build, demand.account_id, work, share)
        if last is not None:
            self.leave(last, "displaced")
            # One for one: a line that is too long already grows no longer.
            depth, full = max(depth, self._waiting.depth(demand.build) + 1), False
        if full or not self._waiting.join(
            demand.build, request, now, demand.account_id, work, depth
        ):
            self._meter.waited(demand.build, "full")
            return False
        request.build = demand.build
        request.queued_at = now
        stranger = demand.policy is OwnerPolicy.PUBLIC and not self._has_machines(demand.account_id)
        # Strangers are alike to the gates: else each account in a full line cost a scan per pass.
        alike = shape(replace(demand, account_id="") if stranger else demand)
        wanted = wants(demand)
        self._places[request] = _Place(demand.tokens, alike, wanted, stranger=stranger)
        self._wanted.setdefault(demand.build, Counter())[wanted] += 1
        self._owners[demand.build] += not stranger
        insort(self._sizes.setdefault(demand.build, []), demand.tokens)
        if last is not None:
            self.displaced(last)
        # Never past its own deadline: that has a clock of its own.
        request.queue_timer = self._timers.after(min(wait_s, self._limits.wait_s), waited_out)
        return True

    def leave(self, request: Request, outcome: str) -> None:
        """Step out of line; does nothing where the request stands in none."""
        if not request.build:
            return
        self._waiting.leave(request.build, request, served=outcome == "served")
        request.queue_s = self._timers.now() - request.queued_at
        if request.queue_timer is not None:
            request.queue_timer.cancel()
        self._meter.waited(request.build, outcome)
        place = self._places.pop(request)
        self._owners[request.build] -= not place.stranger
        if not self._owners[request.build]:
            del self._owners[request.build]
        asked = self._wanted[request.build]
        asked[place.wanted] -= 1
        if not asked[place.wanted]:
            del asked[place.wanted]
        sizes = self._sizes[request.build]
        del sizes[bisect_left(sizes, place.tokens)]
        if not sizes:
            del self._sizes[request.build], self._wanted[request.build]
        request.build = ""

    def servable(
        self, build: str, owner: str = "", room: Callable[[Collection[int]], float] = _no_limit
    ) -> Iterator[Request]:
        """Yield who may be tried now, in order.

        Whoever asks for no less than one of the same shape who just failed is passed over: he
        would fail as well, and a scan is not free. So is a stranger who asks for more than the
        roomiest machine has: in a full fleet that is everybody, at every heartbeat.

        Args:
            build: Which line.
            owner: Account whose machine has come free.
            room: Returns the most tokens that a stranger gets who needs one of these abilities.
        """
        failed, places = self._failed, self._places
        failed.clear()
        most = room(self._wanted.get(build, ()))
        if self._too_large(build, most) and not self._waiting.waits(build, owner):
            return
        for request in self._waiting.first(build, owner):
            place = places.get(request)
            if place is None:
                continue
            alike = place.stranger and request.demand.account_id != owner
            if alike and place.tokens > most:
                continue
            least = failed.get(place.shape)
            if least is None or place.tokens < least:
                yield request
                most = room(self._wanted.get(build, ()))
                if self._too_large(build, most):
                    return

    def _too_large(self, build: str, most: float) -> bool:
        """Return whether everybody who waits asks for more, and nobody has machines of his own."""
        sizes = self._sizes.get(build)
        return not self._owners[build] and (not sizes or most < sizes[0])

    def failed(self, request: Request) -> None:
        """Remember that nobody could take this one."""
        place = self._places.get(request)
        if place is not None:
            known = self._failed.get(place.shape, place.tokens)
            self._failed[place.shape] = min(known, place.tokens)

    def depths(self) -> dict[str, tuple[int, float]]:
        """Return depth and age of the oldest, per build."""
        now = self._timers.now()
        return {
            build: (self._waiting.depth(build), self._waiting.oldest_age_s(build, now))
            for build in self._waiting.builds()
        }


class Passes:
    """Looks lines through, one pass per build at a time.

    Heartbeats that come on the heels of a pass that left somebody waiting are gathered into one
    trailing pass: in a full fleet they are many and change little.

    Args:
        timers: For the trailing pass.
        serve: Serves who can be served of a build, preferring an owner's waiters.
        depth: Returns how many wait for a build.
        hold_s: Returns how long a pass waits for those who came earlier to other replicas.
    """

    def __init__(
        self,
        timers: Timers,
        serve: Callable[[str, str], None],
        depth: Callable[[str], int],
        hold_s: Callable[[str], float] = _no_hold,
    ) -> None:
        self._timers = timers
        self._serve = serve
        self._depth = depth
        self._hold_s = hold_s
        self._running: set[str] = set()
        self._again: set[str] = set()
        self._saturated: dict[str, float] = {}
        self._trailing: set[str] = set()

    def run(self, build: str, trigger: Trigger = Trigger.UNKNOWN, owner: str = "") -> None:
        """Look a line through, now or together with others."""
        if not self._depth(build):
            return
        if build in self._running:
            self._again.add(build)
            return
        if hold_s := self._hold_s(build):
            self._later(build, hold_s)
            return
        now = self._timers.now()
        since = now - self._saturated.get(build, float("-inf"))
        if trigger is Trigger.HEARTBEAT and since < COALESCE_S:
            self._later(build, COALESCE_S)
            return
        self._pass(build, owner)

    def _pass(self, build: str, owner: str) -> None:
        self._running.add(build)
        try:
            self._serve(build, owner)
            while build in self._again:
                self._again.discard(build)
                self._serve(build, "")
        finally:
            self._running.discard(build)
            self._again.discard(build)
        if self._depth(build):
            self._saturated[build] = self._timers.now()
        else:
            self._saturated.pop(build, None)

    def _later(self, build: str, seconds: float) -> None:
        if build not in self._trailing:
            self._trailing.add(build)
            self._timers.after(seconds, partial(self._trail, build))

    def _trail(self, build: str) -> None:
        self._trailing.discard(build)
        if self._depth(build):
            self._pass(build, "")


class ServiceTimes:
    """How long a place is taken, per build: the evidence for how soon one comes free."""

    def __init__(self) -> None:
        self._mean_s: dict[str, float] = {}

    def add(self, build: str, seconds: float) -> None:
        """Take the length of one attempt."""
        known = self._mean_s.get(build)
        self._mean_s[build] = seconds if known is None else known + _WEIGHT * (seconds - known)

    def depth(self, build: str, places: int) -> int:
        """Return how many may wait so that the last of them is served in eight seconds.

        A fleet of thousands empties a short line in a blink; refusing there is refusing for want
        of patience, not of machines. A burst is over sooner than its deadlines.
        """
        mean = self._mean_s.get(build)
        if mean is None or mean <= 0:
            return 0
        return min(ceil(places * PATIENCE_S / mean), MOST_DEPTH)

    def wait_s(self, build: str, ahead: int, places: int) -> float | None:
        """Return how long the next in line would wait; None where nothing is known.

        Args:
            build: Which line.
            ahead: Requests in line already.
            places: Attempts that run.
        """
        mean = self._mean_s.get(build)
        if mean is None or places <= 0:
            return None
        return mean * (ahead + 1) / places


def _unnoticed(_request: Request) -> None:
    """Nobody refuses him."""


def _no_longer(_build: str) -> int:
    return 0


def shape(demand: Demand) -> Shape:
    """Return everything about a request that gates look at, but its size."""
    return (
        demand.build,
        demand.policy,
        demand.account_id,
        demand.machine,
        wants(demand),
        demand.floor,
        demand.serials,
    )
