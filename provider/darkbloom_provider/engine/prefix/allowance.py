"""How much may be written: a day's bytes as a bucket that fills evenly, and a pause at trouble."""

from dataclasses import dataclass
from typing import Final

DAY_S: Final = 86_400.0
NEW_SHARE: Final = 0.9
"""Beginnings that nobody has asked for twice leave this much of the bucket to longer ones."""
FULL_DISK_PAUSE_S: Final = 600.0


@dataclass(slots=True)
class Allowance:
    """Bytes that may still be written.

    Args:
        daily_bytes: Of one day.
        level: Bytes in the bucket; it begins full.
        at_s: Monotonic time of `level`.
    """

    daily_bytes: int
    level: float
    at_s: float
    paused_until_s: float = 0.0

    @classmethod
    def full(cls, daily_bytes: int, now_s: float) -> "Allowance":
        """Begin with a full bucket."""
        return cls(daily_bytes, float(daily_bytes), now_s)

    def take(self, size: int, now_s: float, *, new: bool) -> bool:
        """Take bytes out; False where they must not be written now."""
        passed_s = max(0.0, now_s - self.at_s)
        self.level = min(self.daily_bytes, self.level + passed_s * self.daily_bytes / DAY_S)
        self.at_s = now_s
        floor = self.daily_bytes * (1 - NEW_SHARE) if new else 0.0
        if now_s < self.paused_until_s or self.level - size < floor:
            return False
        self.level -= size
        return True

    def pause(self, now_s: float) -> None:
        """Write nothing for a while: the disk is full."""
        self.paused_until_s = now_s + FULL_DISK_PAUSE_S
