"""Violations on their way to attestation: a bounded line, repeated until heard."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError, NotFoundError

from darkbloom_router.meter import Meter
from darkbloom_router.ports import Attestation

_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class _Report:
    report_id: str
    provider_id: str
    attempt_id: str
    kind: str


class Reports:
    """Sends one report at a time. `run()` must be running."""

    def __init__(
        self,
        attestation: Attestation,
        clock: Clock,
        backoff: Backoff,
        meter: Meter,
        new_id: Callable[[str], str],
    ) -> None:
        self._attestation = attestation
        self._clock = clock
        self._backoff = backoff
        self._meter = meter
        self._new_id = new_id
        self._queue: asyncio.Queue[_Report] = asyncio.Queue(_LIMIT)

    def add(self, provider_id: str, attempt_id: str, kind: str) -> None:
        """Queue a report; beyond the bound it is dropped and counted."""
        try:
            self._queue.put_nowait(_Report(self._new_id("rep"), provider_id, attempt_id, kind))
        except asyncio.QueueFull:
            self._meter.distrusted("report_dropped")

    async def run(self) -> None:
        """Send for ever."""
        while True:
            report = await self._queue.get()
            while not await self._sent(report):
                await self._clock.sleep(self._backoff.next_s())
            self._backoff.reset()

    async def _sent(self, report: _Report) -> bool:
        try:
            await self._attestation.report(
                report.report_id, report.provider_id, report.attempt_id, report.kind
            )
        except NotFoundError:
            return True
        except MeshError:
            return False
        return True
