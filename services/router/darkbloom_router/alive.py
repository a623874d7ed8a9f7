"""Telling attestation which streams are alive, so that a short gap can be told from a long one."""

import structlog
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError

from darkbloom_router.fleet import Fleet
from darkbloom_router.model import TrustLevel
from darkbloom_router.ports import Attestation

INTERVAL_S = 30.0
"""A third of the longest gap across which trust is reused."""
BATCH = 4096
"""Most streams of one call."""

_log = structlog.get_logger()


class Alive:
    """Speaks for the streams that this replica holds and that have something to lose."""

    def __init__(self, fleet: Fleet, attestation: Attestation, clock: Clock) -> None:
        self._fleet = fleet
        self._attestation = attestation
        self._clock = clock

    async def run(self) -> None:
        """Report for ever; a neighbour that is away is told the next time."""
        while True:
            await self._clock.sleep(INTERVAL_S)
            try:
                await self.report()
            except MeshError as error:
                _log.warning("sessions_unreported", reason=error.reason_name)

    async def report(self) -> None:
        """Report once.

        Raises:
            MeshError: attestation is away.
        """
        held = [
            provider.provider_id
            for provider in self._fleet.providers.values()
            if not provider.remote and provider.level is TrustLevel.HARDWARE
        ]
        for start in range(0, len(held), BATCH):
            await self._attestation.alive(held[start : start + BATCH])
