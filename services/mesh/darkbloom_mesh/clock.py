"""Time as a collaborator: rooms take a `Clock`, so that tests can move it."""

import asyncio
import time
from datetime import UTC, datetime
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
    """The clock of the machine."""

    def now(self) -> datetime:
        """Return the wall-clock time in UTC."""
        return datetime.now(UTC)  # noqa: TID251 - the one place that reads it

    def monotonic(self) -> float:
        """Return seconds of the monotonic clock."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Sleep on the running loop."""
        await asyncio.sleep(seconds)  # noqa: TID251 - the one place that waits for time alone
