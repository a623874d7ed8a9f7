"""The agent: keeps one registered stream to the router, and a second one only while it moves.

Back-off has full jitter and starts over only after a stream that was registered, so that a router
that refuses us is not hammered. K, the engine and unacknowledged terminals outlive streams.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import grpc
import structlog
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.lane import LaneEnd

from darkbloom_provider import state
from darkbloom_provider.link import Link, Standing
from darkbloom_provider.presentation import Presence
from darkbloom_provider.state import AgentState, SlotView
from darkbloom_provider.work import Desk

STATE_INTERVAL_S = 2.5
"""Least often that the snapshot is written."""

_log = structlog.get_logger()


class Agent:
    """Serves until stopped; run it once.

    Args:
        presence: What this process says of itself.
        desk: Keys, engine and memory.
        channel: To the router's provider listener.
        coordinator: Its address, for the snapshot.
        state_file: Where the snapshot goes.
        heartbeat_interval_s: Seconds between heartbeats until the router names its own.
        uniform: Randomness of the back-off, in [0, 1).
    """

    def __init__(
        self,
        *,
        presence: Presence,
        desk: Desk,
        channel: grpc.aio.Channel,
        coordinator: str,
        state_file: Path,
        heartbeat_interval_s: float,
        uniform: Callable[[], float],
    ) -> None:
        self._presence = presence
        self._desk = desk
        self._channel = channel
        self._coordinator = coordinator
        self._state_file = state_file
        self._interval_s = heartbeat_interval_s
        self._backoff = Backoff(uniform)
        self._links: set[Link] = set()
        self._current: Link | None = None
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()
        self._last_error = ""
        self._started_at = desk.clock.now().isoformat()

    async def run(self) -> None:
        """Keep a stream open until `drain` has finished."""
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(self._keep_state(), name="agent.state")
            await self._connect(tasks)
            writer.cancel()
        await asyncio.to_thread(state.write, self._state_file, self._snapshot("stopped"))

    async def drain(self) -> None:
        """Finish accepted work on every stream, wait until it is settled, and let `run` return."""
        self._stopping.set()
        self._changed.set()
        async with asyncio.TaskGroup() as tasks:
            for link in self._links:
                tasks.create_task(link.drain(), name="link.drain")

    async def _connect(self, tasks: asyncio.TaskGroup) -> None:
        previous = ""
        stopping = tasks.create_task(self._stopping.wait(), name="agent.stopping")
        while not self._stopping.is_set():
            link = Link(
                self._channel,
                presence=self._presence,
                desk=self._desk,
                interval_s=self._interval_s,
                previous=previous,
                updated=self._changed.set,
            )
            self._links.add(link)
            self._current = link
            run = tasks.create_task(self._run(link), name="agent.link")
            moved = tasks.create_task(link.leaving.wait(), name="agent.leaving")
            await asyncio.wait({moved, stopping}, return_when=asyncio.FIRST_COMPLETED)
            moved.cancel()
            if self._stopping.is_set():
                await run
                return
            previous = link.standing.provider_id or previous
            if link.registered.is_set():
                self._backoff.reset()
            if run.done():
                await self._pause()
            else:
                # Told to leave: the new stream opens at once, the old one finishes its work.
                tasks.create_task(link.drain(), name="agent.handover")
        stopping.cancel()

    async def _pause(self) -> None:
        wait = asyncio.ensure_future(self._desk.clock.sleep(self._backoff.next_s()))
        stop = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({wait, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            wait.cancel()
            stop.cancel()

    async def _run(self, link: Link) -> None:
        end = await link.run()
        self._links.discard(link)
        if self._current is link:
            self._last_error = _describe(end)
        _log.info("link_ended", reason=end.reason, clean=end.clean)
        self._changed.set()

    # The snapshot.

    async def _keep_state(self) -> None:
        clock = self._desk.clock
        while True:
            self._changed.clear()
            await asyncio.to_thread(state.write, self._state_file, self._snapshot())
            quiet = asyncio.ensure_future(clock.sleep(STATE_INTERVAL_S))
            news = asyncio.ensure_future(self._changed.wait())
            try:
                await asyncio.wait({quiet, news}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                quiet.cancel()
                news.cancel()
            # A burst of changes becomes one write.
            await clock.sleep(0.1)

    def _snapshot(self, connection: str = "") -> AgentState:
        link = self._current
        standing = link.standing if link is not None else Standing()
        live = link is not None and link in self._links and link.registered.is_set()
        stats = self._desk.stats
        return AgentState(
            pid=os.getpid(),
            version=self._presence.release.version,
            started_at=self._started_at,
            updated_at=self._desk.clock.now().isoformat(),
            coordinator=self._coordinator,
            connection=connection or self._connection(live=live),
            engine=self._presence.backend,
            provider_id=standing.provider_id if live else "",
            account_id=standing.account_id,
            trust_level=standing.trust_level if live else "none",
            admission=standing.admission if live else "",
            trust_status=standing.trust_status if live else "",
            trust_reason=standing.trust_reason,
            runtime_verified=standing.runtime_verified,
            runtime_mismatches=standing.runtime_mismatches,
            accepted_models=standing.accepted_models if live else (),
            rejected_models=standing.rejected_models,
            slots=tuple(
                SlotView(
                    model=slot.model,
                    state=slot.state.value,
                    running=slot.num_running,
                    waiting=slot.num_waiting,
                    budget_used=slot.active_token_budget_used,
                    budget_max=slot.active_token_budget_max,
                    decode_tps=slot.observed_decode_tps or None,
                )
                for slot in self._desk.engine.slots()
            ),
            requests_served=stats.requests_served,
            tokens_generated=stats.tokens_generated,
            unacknowledged_terminals=len(self._desk.terminals),
            last_error="" if live else self._last_error,
        )

    def _connection(self, *, live: bool) -> str:
        if self._stopping.is_set():
            return "draining"
        return "registered" if live else "connecting"


def _describe(end: LaneEnd) -> str:
    return end.reason if end.error is None else f"{end.reason}: {end.error.message}"
