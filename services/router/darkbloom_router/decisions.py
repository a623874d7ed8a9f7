"""Decisions as they are taken live: chosen, counted, timed, and now and then checked."""

from collections.abc import Callable
from dataclasses import asdict
from time import perf_counter

import structlog

from darkbloom_router.conditions import View
from darkbloom_router.fleet import Fleet
from darkbloom_router.forecast import careful_ms
from darkbloom_router.groups import sample
from darkbloom_router.hints import HintMemory
from darkbloom_router.meter import Meter
from darkbloom_router.model import Demand, Gate
from darkbloom_router.placement import Choice, audit, choose
from darkbloom_router.tally import tally

_log = structlog.get_logger()
AUDIT_EVERY = 1000
_SAMPLE = 128


class Decisions:
    """Chooses providers for one dispatcher.

    Args:
        fleet: Who is there.
        hints: Who read which prefix last.
        meter: Counters.
        pick: Returns an index below its argument, at random.
        timer: Measures decisions, in seconds.
        audit_every: At one decision of so many the whole chain is asked as well, of machines in
            turn.
    """

    def __init__(
        self,
        fleet: Fleet,
        hints: HintMemory,
        meter: Meter,
        pick: Callable[[int], int],
        *,
        audit_every: int = AUDIT_EVERY,
        timer: Callable[[], float] = perf_counter,
    ) -> None:
        self._fleet = fleet
        self._hints = hints
        self._meter = meter
        self._pick = pick
        self._every = audit_every
        self._timer = timer
        self._taken = 0

    def choose(self, build: str, view: View) -> Choice:
        """Return the winner, or who failed where."""
        started = self._timer()
        demand = view.demand
        hint = None
        if demand.prefix_keys:
            hint = self._hints.find(
                demand.account_id, build, demand.prefix_keys, demand.prompt_tokens, view.now
            )
        choice = choose(self._fleet, build, view, self._pick, hint=hint)
        outcome = "selected" if choice.candidate else "none"
        self._meter.decided(build, outcome, self._timer() - started)
        self._meter.path(choice.path.value)
        if choice.candidate is not None:
            self._meter.selected(build, choice.candidate.provider.level.word, choice.price_ms)
        self._taken += 1
        if self._taken % self._every == 0:
            self._tell(build, view, choice)
            agreed = audit(self._fleet, build, view, self._taken // self._every)
            self._meter.audited("agreed" if agreed else "disagreed")
            if not agreed:
                _log.error("routing_audit_disagreed", build=build)
        return choice

    def _tell(self, build: str, view: View, choice: Choice) -> None:
        """Log a decision in full."""
        facts: dict[str, object] = {"candidates": choice.priced, "open": choice.open}
        if choice.candidate is None:
            facts |= {gate.name.lower(): count for gate, count in choice.tally.items()}
        else:
            cost, expected = choice.breakdown(view.demand, view.now, view.left_ms)
            facts |= {
                "provider": choice.candidate.provider.provider_id,
                "price_ms": round(choice.price_ms, 3),
                "cost": asdict(cost),
                "forecast": asdict(expected),
            }
        _log.info("routing_decision", build=build, path=choice.path.value, **facts)

    def tally(self, build: str, view: View) -> dict[Gate, int]:
        """Return who fails where."""
        self._fleet.advance(view.now)
        counts, _ = tally(self._fleet, build, view)
        return dict(counts)

    def never_fits(self, demand: Demand) -> bool:
        """Return whether every machine says a budget, and each is too small even when empty."""
        rows = self._fleet.index(demand.build)
        return rows.size > 0 and all(
            row.slot is not None and 0 < row.slot.budget_max < demand.tokens for row in rows
        )

    def soonest_ms(self, demand: Demand) -> float:
        """Return the best careful forecast among a sample."""
        index = self._fleet.index(demand.build)
        stride = max(1, index.size // _SAMPLE)
        rows = sample(list(index.groups.values()), self._pick(stride), stride)
        return min((careful_ms(row, demand) for row in rows), default=0.0)
