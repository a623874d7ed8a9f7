"""When a refused consumer should come again, in whole seconds (routing section 8)."""

from math import ceil

LEAST_S, MOST_S = 2, 30
PER_WAITER_S = 3
DISTRESS_ABOVE_S, DISTRESS_FACTOR, DISTRESS_MOST_S = 1.0, 5, 60
_WEIGHT = 0.2


class RouteTime:
    """Smoothed time from receipt to a place, of first attempts.

    A queue can be empty because nothing gets that far any more; this figure notices.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """Take one more."""
        self.seconds += _WEIGHT * (max(0.0, seconds) - self.seconds)


def retry_after_s(waiting: int, route_s: float = 0.0) -> int:
    """Return a Retry-After that grows with the line, and in distress.

    Args:
        waiting: Requests in line for the build.
        route_s: `RouteTime.seconds`.
    """
    seconds = _clamped(waiting * PER_WAITER_S)
    if route_s > DISTRESS_ABOVE_S:
        seconds = min(max(seconds, ceil(route_s) * DISTRESS_FACTOR), DISTRESS_MOST_S)
    return seconds


def feasible_after_s(feasible_s: float) -> int:
    """Return what a provider itself said about when it could."""
    return _clamped(ceil(feasible_s))


def late_s(best_ms: float, left_ms: float) -> int:
    """Return by how much the best forecast misses the deadline."""
    return _clamped(max(1, ceil((best_ms - left_ms) / 1000)))


def _clamped(seconds: int) -> int:
    return max(LEAST_S, min(seconds, MOST_S))
