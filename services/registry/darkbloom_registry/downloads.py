"""How many machines more may begin to fetch builds (spec/registry.md §12, "Better" c); pure."""

from datetime import timedelta
from typing import Final

ACTIVE: Final = timedelta(minutes=2)
"""A download that says nothing for so long has ended; agents speak every two seconds."""
GRANTED: Final = timedelta(seconds=30)
"""Until then a granted download counts, though it has said nothing yet."""


def granted(wanted: int, most: int, running: int, begun: int) -> int:
    """Return how many of those who wait may begin.

    Args:
        wanted: Machines that wait at one router.
        most: That may fetch at once; 0 bounds nothing.
        running: That said lately that they fetch.
        begun: That were given leave lately. One of them may be running already: it counts twice
            for a moment, which makes the bound stricter, never looser.
    """
    if not most:
        return max(0, wanted)
    return max(0, min(wanted, most - running - begun))
