"""End-to-end credits of one stream: a sender's window and a receiver's meter.

A chunk needs a credit. A stream begins with 32; the receiver grants 16 more each time it has passed
16 on. Without them one stalled reader fills every buffer on the way and ruins its neighbours.
"""

import asyncio

WINDOW = 32
GRANT = 16


class CreditWindow:
    """What a sender may still send; never more than `window` at a time."""

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self._available = window
        self._granted = asyncio.Event()
        self._granted.set()

    @property
    def available(self) -> int:
        """How many chunks may be sent now."""
        return self._available

    def take(self) -> bool:
        """Use one credit; False where there is none, and then the chunk must wait."""
        if self._available == 0:
            return False
        self._available -= 1
        if self._available == 0:
            self._granted.clear()
        return True

    def grant(self, credits_: int) -> None:
        """Add what the receiver granted; a grant beyond the window is worth the window."""
        self._available = min(self._window, self._available + max(0, credits_))
        if self._available:
            self._granted.set()

    async def wait(self) -> None:
        """Return once at least one credit is there."""
        await self._granted.wait()


class CreditMeter:
    """What a receiver owes: counts chunks passed on and says when to grant."""

    def __init__(self, grant: int = GRANT) -> None:
        self._grant = grant
        self._owed = 0

    def consumed(self, chunks: int = 1) -> int:
        """Count chunks that were passed on; returns the credits to grant now, often 0."""
        self._owed += chunks
        due = self._owed - self._owed % self._grant
        self._owed -= due
        return due
