"""Whether a second offer may be made: never against queued demand, never beyond its budget.

Pure (routing section 11). A verdict and the slot that it takes are one step, so two requests never
share the last one; a slot is given back exactly once, whatever becomes of the race.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

IDLE_SHARE = 4
LEAST_WIN_RATE = 0.10
LEAST_OUTCOMES = 8
REMEASURE_EVERY = 16
_WEIGHT = 0.2


class Leave(StrEnum):
    """The governor's verdict; a closed list, in the order in which it is looked for."""

    GRANTED = "granted"
    QUEUED = "queued"
    """Somebody waits for this build: the place is his."""
    NO_IDLE_CAPACITY = "no_idle_capacity"
    GLOBAL_BUDGET = "global_budget"
    WIN_RATE = "win_rate"
    """Second offers for this build hardly ever win."""


@dataclass(slots=True)
class _Record:
    """How often second offers of one build won."""

    outcomes: int = 0
    win_rate: float = 0.0
    suppressed: int = 0


def _unheard(_build: str) -> None:
    """Tell nobody."""


@dataclass(slots=True)
class Governor:
    """Second offers that run, and what came of earlier ones.

    Attributes:
        active: Second offers that race now.
        won: Hears of each build whose second offer won.
    """

    active: int = 0
    won: Callable[[str], None] = _unheard
    _builds: dict[str, _Record] = field(default_factory=dict)

    def ask(self, build: str, *, queued: int, alternative: bool, idle: int) -> "Ticket | Leave":
        """Return a ticket, or why there is none.

        Args:
            build: Of the request.
            queued: Requests that wait for it.
            alternative: Whether an idle machine was found that would be in time.
            idle: Idle machines of the whole fleet.
        """
        if queued:
            return Leave.QUEUED
        if not alternative:
            return Leave.NO_IDLE_CAPACITY
        if self.active >= (max(1, idle // IDLE_SHARE) if idle else 0):
            return Leave.GLOBAL_BUDGET
        record = self._builds.setdefault(build, _Record())
        if record.outcomes >= LEAST_OUTCOMES and record.win_rate < LEAST_WIN_RATE:
            record.suppressed += 1
            if record.suppressed % REMEASURE_EVERY:
                return Leave.WIN_RATE
        self.active += 1
        return Ticket(self, build)

    def ended(self, build: str, *, won: bool) -> None:
        """Take a slot back; called by tickets only."""
        self.active -= 1
        record = self._builds[build]
        record.outcomes += 1
        record.win_rate += _WEIGHT * (float(won) - record.win_rate)
        if won:
            self.won(build)


@dataclass(slots=True, eq=False)
class Ticket:
    """Leave for one second offer."""

    governor: Governor
    build: str
    over: bool = False

    def end(self, *, won: bool) -> bool:
        """Give the slot back; only the first call does, and says so."""
        if self.over:
            return False
        self.over = True
        self.governor.ended(self.build, won=won)
        return True
