"""Time as a collaborator: rooms take a `Clock`, so that tests can move it."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Where a room gets its time from."""

    def now(self) -> datetime:
        """Return the wall-clock time, aware and in UTC: for documents and expiries."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back: for spans and deadlines."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return once `seconds` have passed on this clock."""
        ...


class SystemClock:
    """The clock of the machine.

    Args:
        offset_s: Seconds by which the wall clock is wrong on purpose, for drills; spans and
            deadlines stay right, as they do on a machine whose clock was set badly.
    """

    def __init__(self, offset_s: float = 0.0) -> None:
        self._offset = timedelta(seconds=offset_s)

    def now(self) -> datetime:
        """Return the wall-clock time in UTC."""
        return datetime.now(UTC) + self._offset  # noqa: TID251 - the one place that reads it

    def monotonic(self) -> float:
        """Return seconds of the monotonic clock."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Sleep on the running loop."""
        await asyncio.sleep(seconds)  # noqa: TID251 - the one place that waits for time alone
