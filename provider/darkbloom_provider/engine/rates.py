"""A moving average of a rate, for heartbeats."""

from typing import Final

_WEIGHT: Final = 0.1


class Rate:
    """Exponentially weighted tokens per second; zero until the first sample.

    Args:
        first: A sample that is known already; 0 for none.
    """

    def __init__(self, first: float = 0.0) -> None:
        self.per_second = first

    def add(self, tokens: float, seconds: float) -> None:
        """Take one measurement; one without tokens or time says nothing."""
        if tokens <= 0 or seconds <= 0:
            return
        sample = tokens / seconds
        if self.per_second == 0.0:
            self.per_second = sample
            return
        self.per_second += _WEIGHT * (sample - self.per_second)
