"""Machines on their way back: the replica that held them is gone, not they.

They dial again within seconds. A request that finds nobody meanwhile waits for them, though nobody
is merely full: a consumer must not hear of a replica that left (routing section 20).
"""

from collections.abc import Callable, Iterable
from typing import Final

RETURN_S: Final = 8.0
"""After so long nobody is on the way any more; an agent dials again within two seconds."""


class Returning:
    """Which builds have machines on their way back.

    Args:
        now: Monotonic seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._until: dict[str, float] = {}

    def lost(self, builds: Iterable[str]) -> None:
        """Note that the holder of machines that serve these builds is gone."""
        until = self._now() + RETURN_S
        for build in builds:
            self._until[build] = until

    def wait_s(self, build: str) -> float:
        """Return how long it is worth to wait for them; 0 where nobody is on the way."""
        until = self._until.get(build)
        if until is None:
            return 0.0
        left = until - self._now()
        if left <= 0:
            del self._until[build]
            return 0.0
        return left
