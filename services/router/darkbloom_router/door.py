"""The pace at which provider streams are let in, so that a fleet that comes back tramples nobody.

A registration costs attestation and billing a call each. A thousand machines that lost their
router dial within a second; those that are turned away come again by themselves, after a wait with
jitter, and often at another replica (operations section 13.4).
"""

from collections.abc import Callable

_BURST_S = 2.0


class Door:
    """Lets in so many a second, and twice as many at once.

    Args:
        per_s: Registrations that may begin in a second; 0 has no bound.
        now: Monotonic time, in seconds.
    """

    def __init__(self, per_s: float, now: Callable[[], float]) -> None:
        self._per_s = per_s
        self._now = now
        self._most = max(1.0, per_s * _BURST_S)
        self._places = self._most
        self._counted_at = now()

    def admits(self) -> bool:
        """Return whether one more may come in now, and count it if so."""
        if self._per_s <= 0:
            return True
        now = self._now()
        gained = (now - self._counted_at) * self._per_s
        self._places = min(self._most, self._places + gained)
        self._counted_at = now
        if self._places < 1:
            return False
        self._places -= 1
        return True
