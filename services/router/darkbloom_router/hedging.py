"""The second offer: when the first machine is slow to begin, an idle one may race it (section 11).

At most one per request, never after a retry, only to an idle machine that is believed to be in
time, and only as long as the governor leaves room. The first content wins.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from darkbloom_router.attempts import Attempt, Phase, Request
from darkbloom_router.conditions import View, owns
from darkbloom_router.decisions import Decisions
from darkbloom_router.fleet import Fleet
from darkbloom_router.forecast import Credence, credence
from darkbloom_router.gates import first_gate
from darkbloom_router.governor import Governor, Leave
from darkbloom_router.meter import Meter
from darkbloom_router.model import Gate, OwnerPolicy
from darkbloom_router.offers import Offers
from darkbloom_router.placement import Choice, Path
from darkbloom_router.provider import Candidate
from darkbloom_router.timers import Timers
from darkbloom_router.warm.targets import Signal

_COUNT_EVERY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeLimits:
    """When a second offer is made.

    Attributes:
        enabled: Whether at all.
        share: Of the time to the deadline, from receipt.
        after_s: At the latest after so long; 0 is only by share.
    """

    enabled: bool = True
    share: float = 0.5
    after_s: float = 0.0


class Hedging:
    """Makes second offers.

    Args:
        fleet: Who is idle.
        decisions: Who would be chosen.
        offers: Makes attempts.
        timers: When.
        meter: Counters.
        depth: Returns how many wait for a build.
        limits: When.
    """

    def __init__(
        self,
        fleet: Fleet,
        decisions: Decisions,
        offers: Offers,
        timers: Timers,
        meter: Meter,
        *,
        depth: Callable[[str], int],
        limits: HedgeLimits,
    ) -> None:
        self.governor = Governor()
        self._fleet = fleet
        self._decisions = decisions
        self._offers = offers
        self._timers = timers
        self._meter = meter
        self._depth = depth
        self._limits = limits
        self._idle = 0
        self._counted_at = float("-inf")
        self._sign: Callable[[str, Signal], None] = _unnoticed

    def wire(self, sign: Callable[[str, Signal], None]) -> None:
        """Connect who hears what shows that a build has too few machines."""
        self._sign = sign
        self.governor.won = partial(_swapped, sign, Signal.HEDGE_WIN)

    def arm(self, attempt: Attempt) -> None:
        """Set the clock of a second offer, once the first one has been sealed to."""
        request, limits = attempt.request, self._limits
        if not limits.enabled or request.hedged or request.hedge_timer or attempt.number > 1:
            return
        own = owns(attempt.candidate, request.demand)
        if request.reserve_s or request.demand.policy is OwnerPolicy.EXCLUSIVE:
            return
        if own and request.demand.policy is OwnerPolicy.PREFER:
            # What costs nothing must not become what costs.
            return
        wait_s = (request.deadline - request.opened_at) * limits.share
        if limits.after_s:
            wait_s = min(wait_s, limits.after_s)
        due = request.opened_at + wait_s
        request.hedge_timer = self._timers.at(due, partial(self._launch, request))

    def _launch(self, request: Request) -> None:
        attempt = request.attempt
        if request.committed or request.hedged or attempt is None:
            return
        if not Phase.SENT <= attempt.phase < Phase.COMMITTED:
            return
        build = attempt.candidate.build.build
        choice = self._alternative(request, attempt)
        leave = self.governor.ask(
            build,
            queued=self._depth(build),
            alternative=choice is not None,
            idle=self._count_idle(),
        )
        if isinstance(leave, Leave) or choice is None:
            self._meter.hedge_suppressed(str(leave))
            return
        request.hedged = True
        self._meter.hedged(build)
        self._sign(build, Signal.HEDGE_START)
        self._offers.make(request, choice, leave)

    def _alternative(self, request: Request, attempt: Attempt) -> Choice | None:
        """Return the cheapest idle machine that is believed to be in time."""
        excluded = {*request.excluded, attempt.provider}
        now, rules = self._timers.now(), self._fleet.rules
        view = View(request.demand, rules, now, excluded, request.deadline)
        choice = self._decisions.choose(attempt.candidate.build.build, view)
        for price, row in sorted(choice.ranked, key=lambda entry: entry[0]):
            if self._may_race(row, attempt, view):
                return replace(choice, candidate=row, path=Path.HEDGE, price_ms=price, hint_ms=0.0)
        return None

    def _may_race(self, row: Candidate, attempt: Attempt, view: View) -> bool:
        provider = row.provider
        return (
            provider.inflight == 0
            and provider.stable_id != attempt.provider.stable_id
            and credence(row, view.demand, view.now, view.left_ms) is Credence.FEASIBLE
            and first_gate(row, view) is Gate.ELIGIBLE
        )

    def _count_idle(self) -> int:
        """Return the fleet's idle machines, counted at most once a second."""
        now = self._timers.now()
        if now - self._counted_at >= _COUNT_EVERY_S:
            self._counted_at = now
            self._idle = sum(
                provider.inflight == 0 and provider.verdict is not None
                for provider in self._fleet.providers.values()
            )
        return self._idle


def _unnoticed(_build: str, _signal: Signal) -> None:
    """Nobody wants to know."""


def _swapped(sign: Callable[[str, Signal], None], signal: Signal, build: str) -> None:
    sign(build, signal)
