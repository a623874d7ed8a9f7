"""When keys were last used: noted on the path in one step, handed in now and then."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

import structlog
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError

PERIOD_S = 10.0
MAX_WAITING = 65_536
"""Keys whose use is remembered while billing is away."""
_BATCH = 1000
_log = structlog.get_logger()


class KeyUses:
    """Collects the keys of a period; a lost batch costs accuracy, never money.

    Args:
        record: hands a batch to billing.
        clock: time.
    """

    def __init__(
        self, record: Callable[[Mapping[str, datetime]], Awaitable[None]], clock: Clock
    ) -> None:
        self._record = record
        self._clock = clock
        self._used: set[str] = set()

    def note(self, key_id: str) -> None:
        """Note a use; an empty id is nobody's key."""
        if key_id and len(self._used) < MAX_WAITING:
            self._used.add(key_id)

    async def flush(self) -> None:
        """Hand in what was noted; what billing does not take now is kept for the next time."""
        used, self._used = sorted(self._used), set()
        now = self._clock.now()
        for start in range(0, len(used), _BATCH):
            batch = used[start : start + _BATCH]
            try:
                await self._record(dict.fromkeys(batch, now))
            except MeshError as error:
                _log.warning("key_uses_not_recorded", error_type=type(error).__name__)
                self._used.update(used[start:])
                return

    async def run(self) -> None:
        """Hand in for ever."""
        while True:
            await self._clock.sleep(PERIOD_S)
            await self.flush()
