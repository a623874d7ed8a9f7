"""Health of one machine: the node breaker and health ejection (routing section 13)."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

from darkbloom_router.faults.holds import Hold

_KEPT = 64
BREAKER_IN_A_ROW, BREAKER_FIRST_S, BREAKER_MOST_S = 5, 60.0, 300.0
BREAKER_RING, BREAKER_WINDOW_S, BREAKER_SHARE = 20, 120.0, 0.8
EJECT_IN_A_ROW, EJECT_FIRST_S, EJECT_MOST_S = 8, 60.0, 600.0
EJECT_LEAST, EJECT_WINDOW_S, EJECT_SHARE = 15, 600.0, 0.1
EJECT_FULL_IN_A_ROW = 10


class Outcome(Enum):
    """What one attempt says about a machine; what is neutral is never noted."""

    SUCCESS = auto()
    FAULT = auto()
    FLUSH = auto()
    """Lost because the stream broke: forgiven when another version comes back."""
    FULL = auto()

    @property
    def bad(self) -> bool:
        """Whether it is the machine's failure."""
        return self in (Outcome.FAULT, Outcome.FLUSH)


@dataclass(slots=True)
class NodeFaults:
    """The last outcomes of a machine and the two sentences that follow from them."""

    events: deque[tuple[float, Outcome]] = field(default_factory=lambda: deque(maxlen=_KEPT))
    breaker: Hold = field(default_factory=Hold)
    ejection: Hold = field(default_factory=Hold)

    def note(self, outcome: Outcome, now: float) -> None:
        """Take one outcome and judge."""
        self.events.append((now, outcome))
        if outcome is Outcome.SUCCESS:
            self.breaker.heal(now)
            self.ejection.heal(now)
        if self._breaks(now):
            self.breaker.trip(now, BREAKER_FIRST_S, BREAKER_MOST_S)
        if self._ejects(now):
            self.ejection.trip(now, EJECT_FIRST_S, EJECT_MOST_S)

    def forgive_flushes(self, now: float) -> None:
        """Erase what broken streams caused; a sentence that rested on it alone is lifted."""
        kept = [event for event in self.events if event[1] is not Outcome.FLUSH]
        if len(kept) == len(self.events):
            return
        self.events = deque(kept, maxlen=_KEPT)
        if not self._breaks(now):
            self.breaker.clear()
        if not self._ejects(now):
            self.ejection.clear()

    def merge(self, other: "NodeFaults") -> None:
        """Take over what was known under another name of the same machine."""
        self.events = deque(sorted((*self.events, *other.events), key=_when), maxlen=_KEPT)
        self.breaker.merge(other.breaker)
        self.ejection.merge(other.ejection)

    @property
    def until(self) -> float:
        """When the last sentence ends."""
        return max(self.breaker.until, self.ejection.until)

    def _breaks(self, now: float) -> bool:
        if self._in_a_row() >= BREAKER_IN_A_ROW:
            return True
        ring = list(self._judged(now, BREAKER_WINDOW_S))[-BREAKER_RING:]
        return len(ring) >= BREAKER_RING and sum(ring) > BREAKER_SHARE * len(ring)

    def _ejects(self, now: float) -> bool:
        if self._in_a_row() >= EJECT_IN_A_ROW or self._full_in_a_row() >= EJECT_FULL_IN_A_ROW:
            return True
        found = list(self._judged(now, EJECT_WINDOW_S))
        successes = len(found) - sum(found)
        return len(found) >= EJECT_LEAST and successes < EJECT_SHARE * len(found)

    def _judged(self, now: float, window_s: float) -> Iterator[bool]:
        """Yield for each outcome that counts whether it was bad."""
        for when, outcome in self.events:
            if outcome is not Outcome.FULL and now - when <= window_s:
                yield outcome.bad

    def _in_a_row(self) -> int:
        count = 0
        for _, outcome in reversed(self.events):
            if outcome is Outcome.SUCCESS:
                break
            count += outcome.bad
        return count

    def _full_in_a_row(self) -> int:
        count = 0
        for _, outcome in reversed(self.events):
            if outcome is not Outcome.FULL:
                break
            count += 1
        return count


def _when(event: tuple[float, Outcome]) -> float:
    return event[0]
