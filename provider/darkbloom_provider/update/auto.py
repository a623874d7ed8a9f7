"""Updates that come by themselves, run by the watchdog: never by the process that sees prompts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, final

import structlog
from darkbloom_mesh.clock import Clock

from darkbloom_provider.errors import ProviderError
from darkbloom_provider.update.results import UpdateError, UpdateResult
from darkbloom_provider.update.updater import Updater

FIRST_S: Final = 300.0
EVERY_S: Final = 1800.0
DRAIN_S: Final = 120.0
"""How long an update waits for running work; it is tried again at the next check."""

_log = structlog.get_logger()


@final
class AutoUpdate:
    """Looks for updates and installs them.

    Args:
        updater: makes one for each look; None where updates cannot be had here.
        restart: drains the agent and starts the version in use.
        enabled: whether the owner wants it; read anew at each look.
        jitter_s: longest random delay of an installation, so that not all machines leave at once.
        uniform: randomness in [0, 1).
        clock: of looks and waits.
    """

    def __init__(
        self,
        updater: Callable[[], Updater | None],
        restart: Callable[[], None],
        *,
        enabled: Callable[[], bool],
        jitter_s: float,
        uniform: Callable[[], float],
        clock: Clock,
    ) -> None:
        self._updater = updater
        self._restart = restart
        self._enabled = enabled
        self._jitter_s = jitter_s
        self._uniform = uniform
        self._clock = clock

    async def run(self) -> None:
        """Look until cancelled."""
        await self._clock.sleep(FIRST_S)
        while True:
            await self.look()
            await self._clock.sleep(EVERY_S)

    async def look(self) -> UpdateResult | None:
        """Look once; returns what came of it, None where nothing was asked."""
        if not self._enabled():
            return None
        try:
            result = await self._update()
        except UpdateError as error:
            _log.warning("update_failed", result=error.result.value)
            return error.result
        except (ProviderError, OSError) as error:
            # The new version is in place; the old process goes on until the next look.
            _log.warning("update_not_started", error_type=type(error).__name__)
            return UpdateResult.BUSY
        if result is not UpdateResult.UP_TO_DATE:
            _log.info("update_looked", result=result.value)
        return result

    async def _update(self) -> UpdateResult:
        updater = self._updater()
        if updater is None:
            return UpdateResult.UP_TO_DATE
        found = await asyncio.to_thread(updater.check)
        if found.result is not UpdateResult.AVAILABLE or found.release is None:
            return found.result
        await self._clock.sleep(self._uniform() * self._jitter_s)
        if not self._enabled():
            return UpdateResult.CANCELLED
        await asyncio.to_thread(updater.install, found.release)
        await asyncio.to_thread(self._restart)
        return UpdateResult.UPDATED
