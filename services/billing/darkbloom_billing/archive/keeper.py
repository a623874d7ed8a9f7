"""What the archive does by itself: seal batches, have them anchored, forget old receipts."""

from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

import structlog
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError

from darkbloom_billing.archive.model import Batch
from darkbloom_billing.archive.store import PostgresArchive

ANCHORED_AT_ONCE = 64
"""Batches of one round, so that a log that was away is not flooded."""
FORGET_S = 3600.0
FORGOTTEN_AT_ONCE = 1000

_log = structlog.get_logger()


class Log(Protocol):
    """Where batches are anchored."""

    async def append(self, batch: Batch) -> int:
        """Append a batch and return its index; the same batch again has the same index.

        Raises:
            MeshError: it cannot be appended now.
        """
        ...


class ArchiveKeeper:
    """Keeps the archive; every replica runs all of it.

    Args:
        archive: the receipts.
        log: where their batches are anchored.
        clock: time.
        keep: how long a receipt can be looked up.
        on_anchored: told how many receipts have just come into the log.
    """

    def __init__(
        self,
        archive: PostgresArchive,
        log: Log,
        clock: Clock,
        *,
        keep: timedelta,
        on_anchored: Callable[[int], None] = lambda _receipts: None,
    ) -> None:
        self._archive = archive
        self._log = log
        self._clock = clock
        self._keep = keep
        self._on_anchored = on_anchored

    async def run_anchoring(self, period_s: float) -> None:
        """Seal and anchor, for ever; what fails is tried again in the next round."""
        while True:
            await self._clock.sleep(period_s)
            try:
                await self.anchor()
            except MeshError as error:
                _log.warning("receipts_not_anchored", reason=error.reason_name)

    async def run_forgetting(self) -> None:
        """Forget old receipts, for ever."""
        while True:
            try:
                while await self.forget():
                    continue
            except MeshError as error:
                _log.warning("receipts_not_forgotten", reason=error.reason_name)
            await self._clock.sleep(FORGET_S)

    async def anchor(self) -> None:
        """Seal what waits, and have every sealed batch in the log.

        Raises:
            MeshError: the store or the log does not answer.
        """
        while await self._archive.seal(now=self._clock.now()):
            continue
        for batch in await self._archive.unanchored(limit=ANCHORED_AT_ONCE):
            await self._archive.anchored(batch.batch_id, await self._log.append(batch))
            self._on_anchored(batch.size)

    async def forget(self) -> bool:
        """Forget some receipts; returns whether more may be left."""
        before = self._clock.now() - self._keep

        return bool(await self._archive.forget(before=before, limit=FORGOTTEN_AT_ONCE))
