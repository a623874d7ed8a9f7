"""Moves idle providers off a replica that holds more than its share (routing section 20.5).

After a restart one replica holds nobody and another one everybody: then a single loss is the loss
of the whole fleet. Who is asked to leave opens its next stream elsewhere before it closes this
one, so a move costs nobody a request.
"""

from collections.abc import Callable, Sequence
from math import ceil

from darkbloom_mesh.clock import Clock

TOO_MANY = 1.25
"""Times the mean from which on a replica sheds."""
_PERIOD_S = 1.0


def surplus(mine: int, leaving: int, others: Sequence[int]) -> int:
    """Return how many providers a replica holds beyond 1.25 times the mean.

    Args:
        mine: Providers that it holds itself, for good.
        leaving: Those that it has asked to move and that have not arrived anywhere. Left out of the
            mean they would make it look smaller than it is, and the fleet would swing.
        others: What each other replica holds; nobody sheds where there is none.
    """
    if not others:
        return 0
    mean = (mine + leaving + sum(others)) / (len(others) + 1)
    return max(0, mine - ceil(TOO_MANY * mean))


class Balance:
    """Sheds the surplus of this replica, slowly.

    Args:
        held: Returns how many providers stay here, and how many are on their way out.
        others: Returns what each reachable replica holds.
        shed: Asks up to so many idle providers to move.
        clock: Time.
        per_s: Most that are asked in a second; 0 asks nobody.
    """

    def __init__(
        self,
        held: Callable[[], tuple[int, int]],
        others: Callable[[], Sequence[int]],
        shed: Callable[[int], object],
        clock: Clock,
        *,
        per_s: float,
    ) -> None:
        self._held = held
        self._others = others
        self._shed = shed
        self._clock = clock
        self._per_s = per_s
        self._allowed = 0.0

    def step(self) -> None:
        """Look once; called each second."""
        self._allowed = min(self._allowed + self._per_s * _PERIOD_S, max(1.0, self._per_s))
        count = min(surplus(*self._held(), self._others()), int(self._allowed))
        if count > 0:
            self._allowed -= count
            self._shed(count)

    async def run(self) -> None:
        """Look each second, for ever."""
        while True:
            await self._clock.sleep(_PERIOD_S)
            self.step()
