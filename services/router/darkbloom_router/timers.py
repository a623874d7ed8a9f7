"""Deadlines without tasks: one heap, one sleeper, callbacks that run on the loop.

A request on the router has no task of its own; what would be its timeouts are entries here. The
resolution is a tick, which is plenty for deadlines of seconds.
"""

import heapq
import itertools
from collections.abc import Callable

from darkbloom_mesh.clock import Clock

TICK_S = 0.05
_COMPACT_ABOVE = 1024


class Timer:
    """One pending call; `cancel()` may be called at any time, also afterwards."""

    __slots__ = ("_heap", "action")

    def __init__(self, heap: "Timers", action: Callable[[], object]) -> None:
        self._heap = heap
        self.action: Callable[[], object] | None = action

    def cancel(self) -> None:
        """Forget the call."""
        if self.action is not None:
            self.action = None
            self._heap.forgot()


class Timers:
    """A heap of timers on one clock. `run()` must be running for anything to happen."""

    def __init__(self, clock: Clock, *, tick_s: float = TICK_S) -> None:
        self._clock = clock
        self._tick_s = tick_s
        self._order = itertools.count()
        self._heap: list[tuple[float, int, Timer]] = []
        self._dead = 0

    def __len__(self) -> int:
        return len(self._heap) - self._dead

    def now(self) -> float:
        """Return monotonic seconds."""
        return self._clock.monotonic()

    def after(self, seconds: float, action: Callable[[], object]) -> Timer:
        """Call `action` once, `seconds` from now at the earliest."""
        return self.at(self.now() + seconds, action)

    def at(self, due: float, action: Callable[[], object]) -> Timer:
        """Call `action` once, at `due` monotonic seconds at the earliest."""
        timer = Timer(self, action)
        heapq.heappush(self._heap, (due, next(self._order), timer))
        return timer

    def forgot(self) -> None:
        """Note a cancelled timer; when most are, they are swept out."""
        self._dead += 1
        if self._dead > _COMPACT_ABOVE and self._dead * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].action is not None]
            heapq.heapify(self._heap)
            self._dead = 0

    def fire(self) -> None:
        """Run everything that is due."""
        now = self.now()
        while self._heap and self._heap[0][0] <= now:
            timer = heapq.heappop(self._heap)[2]
            action, timer.action = timer.action, None
            if action is None:
                self._dead -= 1
            else:
                action()

    async def run(self) -> None:
        """Fire for ever."""
        while True:
            await self._clock.sleep(self._tick_s)
            self.fire()
