"""Who waits for a place: one bounded first-in-first-out line per build."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

WaiterT = TypeVar("WaiterT")


class Waiting(Generic[WaiterT]):
    """Lines of requests, each at most `depth` long; a waiter stands in one line once."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._lines: dict[str, OrderedDict[WaiterT, float]] = {}

    def join(self, build: str, waiter: WaiterT, now: float) -> bool:
        """Stand at the end of the line; False where it is full."""
        line = self._lines.setdefault(build, OrderedDict())
        if len(line) >= self._depth:
            return False
        line[waiter] = now
        return True

    def leave(self, build: str, waiter: WaiterT) -> bool:
        """Step out, from wherever in the line; False where the waiter was not in it."""
        line = self._lines.get(build)
        if line is None or line.pop(waiter, None) is None:
            return False
        if not line:
            del self._lines[build]
        return True

    def depth(self, build: str) -> int:
        """Return how many wait for a build."""
        return len(self._lines.get(build, ()))

    def oldest_age_s(self, build: str, now: float) -> float:
        """Return for how long the first in line has waited, in seconds."""
        line = self._lines.get(build)
        return now - next(iter(line.values())) if line else 0.0

    def line(self, build: str) -> list[WaiterT]:
        """Return the waiters of a build, first in line first."""
        return list(self._lines.get(build, ()))

    def builds(self) -> Iterator[str]:
        """Yield the builds that somebody waits for."""
        return iter(list(self._lines))
