"""When the device manager's push certificate ends: once it has, every Mac must enrol again.

Apple issues it for a year, the manager holds it, and nobody but the manager can renew it. We ask
for its end alone, so that somebody is told a month before.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol, final

import structlog
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import UnavailableError

EVERY_S = 3600.0
"""Between two questions."""
AGAIN_S = 60.0
"""After one that was not answered."""

_log = structlog.get_logger()


class Knows(Protocol):
    """Whoever knows the end of the certificate."""

    async def push_certificate_end(self) -> datetime:
        """Return when it ends.

        Raises:
            UnavailableError: nobody says.
        """
        ...


@final
class PushCertificate:
    """Asks now and then, and tells; what was told last stays while nobody answers.

    Args:
        manager: is asked.
        clock: time.
        told: hears the end, in Unix seconds.
    """

    def __init__(self, manager: Knows, clock: Clock, told: Callable[[float], None]) -> None:
        self._manager = manager
        self._clock = clock
        self._told = told

    async def run(self) -> None:
        """Ask for as long as the room lives."""
        while True:
            try:
                end = await self._manager.push_certificate_end()
            except UnavailableError:
                _log.warning("push_certificate_not_known")
                await self._clock.sleep(AGAIN_S)
            else:
                self._told(end.timestamp())
                await self._clock.sleep(EVERY_S)
