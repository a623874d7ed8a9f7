"""When this machine serves: one shift after the other, as the schedule says (spec: provider 8.3).

Outside the windows there is no stream, no model in memory and nothing to do but wait. A closing
drains first; each opening reads the models anew. The wall clock may jump, so a wait is looked at
again after an hour at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final, final

import structlog
from darkbloom_mesh.clock import Clock

from darkbloom_provider.schedule import Phase, Schedule
from darkbloom_provider.shift import Shift
from darkbloom_provider.waiting import first_of

RECHECK_S: Final = 3600.0
"""Longest wait without a look at the clock."""
CLOSING_PATIENCE_S: Final = 600.0
"""How long work that was accepted before a closing may go on after it."""

_log = structlog.get_logger()


@final
class Shifts:
    """Opens and closes shifts until told to leave. `begin`, then `run` once.

    Args:
        open_shift: picks and hashes models, loads the first and makes a stream; it may raise.
        schedule: read anew at each look.
        clock: of windows and waits.
    """

    def __init__(
        self,
        open_shift: Callable[[], Awaitable[Shift]],
        *,
        schedule: Callable[[], Schedule],
        clock: Clock,
    ) -> None:
        self.current: Shift | None = None
        """The shift that serves; None outside the windows and while one is being opened."""
        self.opens_at: datetime | None = None
        """The next opening; set outside the windows."""
        self.leaving = asyncio.Event()
        self.changed: Callable[[], None] = _ignore
        """Called when the phase has changed."""
        self._open_shift = open_shift
        self._schedule = schedule
        self._clock = clock
        self.over = asyncio.Event()
        """Set when `run` has returned."""

    async def begin(self) -> None:
        """Open the first shift if its time is now, so that what is wrong is said at once.

        Raises:
            ProviderError: no model can be served.
        """
        if self._phase().open:
            self.current = await self._open_shift()

    async def run(self) -> None:
        """Serve by the schedule until `drain`."""
        try:
            while not self.leaving.is_set():
                phase = self._phase()
                if phase.open:
                    await self._serve(phase)
                else:
                    await self._rest(phase)
        finally:
            self.over.set()

    async def drain(self, patience_s: float) -> None:
        """Finish accepted work and open nothing more; returns when `run` has."""
        self.leaving.set()
        shift = self.current
        if shift is not None:
            await shift.drain(patience_s)
        await self.over.wait()

    def _phase(self) -> Phase:
        return self._schedule().at(self._clock.now())

    async def _serve(self, phase: Phase) -> None:
        if self.opens_at is not None:
            _log.info("schedule_opened")
        self.opens_at = None
        shift = self.current or await self._open_shift()
        self.current = shift
        self.changed()
        try:
            async with asyncio.TaskGroup() as tasks:
                closing = tasks.create_task(self._close(shift, phase), name="schedule.close")
                if self.leaving.is_set():
                    # Told to leave while the models were loading.
                    tasks.create_task(shift.drain(0.0), name="schedule.leave")
                await shift.run()
                closing.cancel()
        finally:
            self.current = None
            self.changed()

    async def _close(self, shift: Shift, phase: Phase) -> None:
        """Drain the shift when its window closes."""
        while phase.open:
            await self._wait_until(phase.until)
            # The schedule or the clock may have been changed meanwhile.
            phase = self._phase()
        _log.info("schedule_closing")
        await shift.drain(CLOSING_PATIENCE_S)

    async def _rest(self, phase: Phase) -> None:
        if self.opens_at is None:
            _log.info("schedule_closed", opens_at=str(phase.until))
        self.opens_at = phase.until
        self.changed()
        await first_of(self._wait_until(phase.until), self.leaving.wait())

    async def _wait_until(self, instant: datetime | None) -> None:
        wait_s = RECHECK_S
        if instant is not None:
            left = instant - self._clock.now()
            wait_s = min(wait_s, max(left, timedelta(0)).total_seconds())
        await self._clock.sleep(wait_s)


def _ignore() -> None:
    """Nobody wants to know."""
