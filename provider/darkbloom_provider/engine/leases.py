"""How long a job or a step may go without progress, and what becomes of it then.

| Lease | Seconds | Afterwards |
|---|---|---|
| admission: nothing of the prompt read yet | 120 | refused as full |
| prefill, decode: no chunk read, no token drawn | 120 | failed |
| consumer: paused because nobody takes what was drawn | 120 | cancelled, what was sent is settled |
| one step or one command of the engine thread | 30 | the slot is restarted |
| any progress of a slot that has work | 10 | `wedge_suspected` |
"""

from typing import Final

from darkbloom_provider.engine.errors import (
    EngineError,
    ErrorReason,
    capacity,
    generation_failed,
)

LEASE_S: Final = 120.0
STEP_S: Final = 30.0
WEDGE_S: Final = 10.0


class Lease:
    """When one job last got on; seconds of the monotonic clock.

    Args:
        now: When it was submitted.
    """

    def __init__(self, now: float) -> None:
        self.begun = False
        self.paused = False
        self._since = now

    def renew(self, now: float) -> None:
        """Note progress."""
        self.begun = True
        self._since = now

    def pause(self, now: float, *, paused: bool) -> None:
        """Note that the consumer stopped taking, or takes again."""
        self.paused = paused
        self._since = now

    def idle_s(self, now: float) -> float:
        """Return the seconds since the last progress."""
        return now - self._since

    def expired(self, now: float) -> bool:
        """Tell whether the job must end."""
        return self.idle_s(now) > LEASE_S

    def error(self) -> EngineError | None:
        """Say why an expired job ends; None for one that its consumer has left."""
        if self.paused:
            return None
        if not self.begun:
            return capacity("no place within the lease", ErrorReason.QUEUE_FULL)
        return generation_failed("no progress within the lease")
