"""The consumer's own clock: ages are never taken from the gateway's word."""

from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """Return the present, time zone aware."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """Return the present, time zone aware."""
        return datetime.now(UTC)  # noqa: TID251 - this is the clock; the mesh's kit stays out of clients
