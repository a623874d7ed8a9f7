"""Verdicts that were revoked, remembered until they would have expired.

A verdict and its revocation travel on different ways. Whichever comes first, the verdict never
counts again: it is asked for here when it is put in force, and once more before a body is sent.
"""

from collections import OrderedDict

KEPT_S = 18 * 60.0
"""The longest life of a verdict, and two minutes for clocks that differ."""
MAX_KEPT = 100_000
"""Bound of the memory; the oldest go first."""


class RevokedVerdicts:
    """Ids of verdicts that count no more."""

    def __init__(self) -> None:
        self._until: OrderedDict[str, float] = OrderedDict()

    def __contains__(self, verdict_id: str) -> bool:
        return verdict_id in self._until

    def __len__(self) -> int:
        return len(self._until)

    def add(self, verdict_id: str, now: float) -> None:
        """Remember a revoked verdict.

        Args:
            verdict_id: which one.
            now: monotonic seconds.
        """
        self._until[verdict_id] = now + KEPT_S
        self._until.move_to_end(verdict_id)
        while self._until:
            oldest, until = next(iter(self._until.items()))
            if until > now and len(self._until) <= MAX_KEPT:
                break
            del self._until[oldest]
