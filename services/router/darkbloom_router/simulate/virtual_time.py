"""Virtual time: the router's own heap of timers, moved from event to event."""

import heapq
from datetime import UTC, datetime, timedelta

from darkbloom_router.timers import Timers

_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class VirtualClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.moment = 0.0

    def now(self) -> datetime:
        """Return the virtual wall-clock time."""
        return _EPOCH + timedelta(seconds=self.moment)

    def monotonic(self) -> float:
        """Return virtual seconds since the start."""
        return self.moment

    async def sleep(self, seconds: float) -> None:
        """Fail: nothing in a simulation waits."""
        raise RuntimeError(f"somebody sleeps for {seconds} s in a simulation")


class VirtualTimers(Timers):
    """Timers that fire at exactly their moment; every event of a simulation is one of them."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock)
        self._virtual = clock
        self.events = 0

    def now(self) -> float:
        """Return virtual seconds since the start."""
        return self._virtual.moment

    def run_until(self, moment: float) -> None:
        """Let everything happen that is due by then."""
        while self._heap and self._heap[0][0] <= moment:
            due, _, timer = heapq.heappop(self._heap)
            action, timer.action = timer.action, None
            if action is None:
                self._dead -= 1
                continue
            self._virtual.moment = max(self._virtual.moment, due)
            self.events += 1
            action()
        self._virtual.moment = max(self._virtual.moment, moment)
