"""What the process says of itself beside its stream: to commands that ask, and while it has none.

While a stream is kept the agent writes the snapshot; before, after and outside the schedule's
windows it is written here, so that `status` never reads a tale of yesterday.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import final

import structlog
from darkbloom_mesh.clock import Clock

from darkbloom_provider import state
from darkbloom_provider.opening import Lasting
from darkbloom_provider.service.control import Facts, Phase
from darkbloom_provider.shifts import Shifts
from darkbloom_provider.state import AgentState
from darkbloom_provider.waiting import first_of

INTERVAL_S = 2.5
_log = structlog.get_logger()


@final
class Reporter:
    """Answers what is true now, and keeps the snapshot while nobody else does.

    Args:
        shifts: what serves.
        lasting: who we are.
        clock: of the snapshot.
        engine: its name, as in the agent's snapshot.
        network: whether a router is asked at all.
    """

    def __init__(
        self, shifts: Shifts, lasting: Lasting, clock: Clock, *, engine: str, network: bool
    ) -> None:
        self.local_url: str | None = None
        """Where the local endpoint listens; None where it does not."""
        self.sleep_prevented = False
        """Whether the system is kept from sleeping now."""
        self.changed = asyncio.Event()
        self._shifts = shifts
        self._lasting = lasting
        self._clock = clock
        self._engine = engine
        self._network = network
        self._started_at = clock.now().isoformat()

    def facts(self) -> Facts:
        """Return the answer to whoever asks over the control socket."""
        shift, opens_at = self._shifts.current, self._shifts.opens_at
        agent = None if shift is None else shift.agent
        serving = shift is not None
        return Facts(
            pid=os.getpid(),
            generation=self._lasting.generation,
            version=self._lasting.release.version,
            phase=self._phase(),
            authorised=serving if not self._network else agent is not None and agent.authorised,
            connection=self._connection() if agent is None else agent.connection,
            trust_level="none" if agent is None else agent.standing.trust_level,
            opens_at=None if opens_at is None else opens_at.isoformat(),
            local_url=self.local_url,
            sleep_prevented=self.sleep_prevented,
        )

    async def keep(self, path: Path) -> None:
        """Write the snapshot whenever there is no agent to write it; for ever."""
        while True:
            self.changed.clear()
            await self._write(path)
            await first_of(self._clock.sleep(INTERVAL_S), self.changed.wait())

    async def finish(self, path: Path) -> None:
        """Leave a snapshot that says that it is over."""
        await self._write(path, "stopped")

    async def _write(self, path: Path, connection: str = "") -> None:
        shift = self._shifts.current
        if shift is not None and shift.agent is not None:
            return
        snapshot = self._snapshot(connection or self._connection())
        try:
            await asyncio.to_thread(state.write, path, snapshot)
        except OSError as error:
            _log.warning("state_not_written", error_type=type(error).__name__)

    def _snapshot(self, connection: str) -> AgentState:
        shift, opens_at = self._shifts.current, self._shifts.opens_at
        engine = None if shift is None else shift.kitchen.engine
        return AgentState(
            pid=os.getpid(),
            version=self._lasting.release.version,
            started_at=self._started_at,
            updated_at=self._clock.now().isoformat(),
            coordinator="",
            connection=connection,
            engine=self._engine,
            generation=self._lasting.generation,
            opens_at=None if opens_at is None else opens_at.isoformat(),
            slots=state.slot_views(engine.slots() if engine is not None else ()),
            prefix_cache=engine.prefix_cache() if engine is not None else None,
            requests_served=self._lasting.stats.requests_served,
            tokens_generated=self._lasting.stats.tokens_generated,
            unacknowledged_terminals=len(self._lasting.terminals),
        )

    def _phase(self) -> Phase:
        if self._shifts.leaving.is_set():
            return "draining"
        if self._shifts.current is not None:
            return "draining" if self._shifts.current.draining else "serving"
        return "closed" if self._shifts.opens_at is not None else "loading"

    def _connection(self) -> str:
        phase = self._phase()
        return "local" if phase == "serving" else phase
