"""A moving average of a rate, for heartbeats."""

from typing import Final

_WEIGHT: Final = 0.1


class Rate:
    """Exponentially weighted tokens per second; zero until the first sample."""

    def __init__(self) -> None:
        self.per_second = 0.0

    def add(self, tokens: float, seconds: float) -> None:
        """Take one measurement; one without tokens or time says nothing."""
        if tokens <= 0 or seconds <= 0:
            return
        sample = tokens / seconds
        if self.per_second == 0.0:
            self.per_second = sample
            return
        self.per_second += _WEIGHT * (sample - self.per_second)
