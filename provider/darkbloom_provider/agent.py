"""The agent: keeps one registered stream to the router, and a second one only while it moves.

Back-off has full jitter and starts over only after a stream that was registered and lasted, so
that a router that refuses us is not hammered. K, the engine and unacknowledged terminals outlive
streams.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import structlog
from darkbloom_edge.code_identity import SealedChallenge
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.lane import LaneEnd

from darkbloom_provider import state
from darkbloom_provider.desk import Desk
from darkbloom_provider.dialling import Dialler
from darkbloom_provider.link import REGISTER_TIMEOUT_S, Link
from darkbloom_provider.presentation import Presence
from darkbloom_provider.standing import Standing, printable
from darkbloom_provider.state import AgentState
from darkbloom_provider.waiting import first_of
from darkbloom_provider.wishes import Tracked
from darkbloom_provider.witness import Witness

STATE_INTERVAL_S = 2.5
STATE_BURST_S = 0.1
"""Longest and shortest time between two snapshots."""
SETTLED_S = 5.0
"""A stream that lived for so long has worked; the back-off starts over after it."""
LEAST_WAIT_S = 1.0
"""Bound of the wait of who is sent away again and again, however short the grace."""
PART_OF_GRACE = 0.1
"""Part of the grace for which a new stream may be waited for."""
HANDOVER_S = 10.0
"""How long the old stream waits for the new one's verdict before it stops to take work."""

_log = structlog.get_logger()


class Agent:
    """Serves until stopped; run it once.

    Args:
        presence: What this process says of itself.
        witness: What can be shown beyond our own word.
        desk: Keys, engine and memory.
        dialler: Opens connections to the router's provider listener.
        state_file: Where the snapshot goes.
        heartbeat_interval_s: Seconds between heartbeats until the router names its own.
        uniform: Randomness of the back-off, in [0, 1).
        register_timeout_s: How long a router may take to answer a registration.
    """

    def __init__(
        self,
        *,
        presence: Presence,
        witness: Witness,
        desk: Desk,
        dialler: Dialler,
        state_file: Path,
        heartbeat_interval_s: float,
        uniform: Callable[[], float],
        register_timeout_s: float = REGISTER_TIMEOUT_S,
    ) -> None:
        self.registered = asyncio.Event()
        """Set with the first registration."""
        self._presence = presence
        self._witness = witness
        if witness.launcher is not None:
            witness.launcher.on_code_challenge = self._on_code_challenge
        self._desk = desk
        self._dialler = dialler
        self._coordinator = ""
        self._state_file = state_file
        self._interval_s = heartbeat_interval_s
        self._backoff = Backoff(uniform)
        self._register_timeout_s = register_timeout_s
        self._links: set[Link] = set()
        self._current: Link | None = None
        self._stopping = asyncio.Event()
        self._over = asyncio.Event()
        self._changed = asyncio.Event()
        self._last_error = ""
        self._started_at = desk.clock.now().isoformat()

    @property
    def standing(self) -> Standing:
        """What the router last said on the newest stream."""
        return self._current.standing if self._current is not None else Standing()

    @property
    def authorised(self) -> bool:
        """Whether the router has answered the newest stream with a verdict."""
        return self._live and self._current is not None and self._current.admitted.is_set()

    @property
    def connection(self) -> str:
        """How the newest stream is, in one word."""
        return self._connection(live=self._live)

    @property
    def _live(self) -> bool:
        link = self._current
        return link is not None and link in self._links and link.registered.is_set()

    async def run(self) -> None:
        """Keep a stream open until `drain` has finished."""
        try:
            async with asyncio.TaskGroup() as tasks:
                writer = tasks.create_task(self._keep_state(), name="agent.state")
                async with asyncio.TaskGroup() as links:
                    await self._connect(links)
                writer.cancel()
            await self._write_state("stopped")
        finally:
            self._over.set()

    async def drain(self, patience_s: float) -> None:
        """Finish accepted work on every stream, wait until it is settled and `run` has returned.

        What still runs after `patience_s` is cancelled; its delivered tokens are settled too.
        """
        self._stopping.set()
        self._changed.set()
        async with asyncio.TaskGroup() as tasks:
            for link in self._links:
                tasks.create_task(link.drain(patience_s), name="link.drain")
        # Whoever drains cancels `run` next, and that would cut streams that are half-closing.
        await self._over.wait()

    async def _connect(self, tasks: asyncio.TaskGroup) -> None:
        clock = self._desk.clock
        previous = ""
        left: Link | None = None
        while not self._stopping.is_set():
            link = self._open(previous)
            opened_at = clock.monotonic()
            run = tasks.create_task(self._run(link), name="agent.link")
            if left is not None:
                tasks.create_task(self._hand_over(left, link), name="agent.handover")
                left = None
            await first_of(link.leaving.wait(), self._stopping.wait())

            previous = link.standing.provider_id or previous
            if not run.done():
                left = link
            lasted = clock.monotonic() - opened_at >= SETTLED_S
            settled = link.registered.is_set() and lasted and not link.hint.superseded
            if settled:
                self._backoff.reset()
            # A router that sends us away at once, or another machine with our identity, must not
            # make us dial in a tight circle.
            wait_s = 0.0 if settled and left is not None else self._backoff.next_s()
            if left is not None and not link.hint.superseded:
                # The stream that we leave is cut at the end of its grace.
                wait_s = min(wait_s, max(LEAST_WAIT_S, link.hint.grace_s * PART_OF_GRACE))
            wait_s = max(wait_s, link.hint.reconnect_after_s)
            if wait_s and not self._stopping.is_set():
                await first_of(clock.sleep(wait_s), self._stopping.wait())

    def _open(self, previous: str) -> Link:
        self._coordinator, channel = self._dialler.dial()
        link = Link(
            channel,
            presence=self._presence,
            witness=self._witness,
            desk=self._desk,
            interval_s=self._interval_s,
            previous=previous,
            updated=self._on_update,
            register_timeout_s=self._register_timeout_s,
        )
        self._links.add(link)
        self._current = link
        return link

    async def _hand_over(self, old: Link, new: Link) -> None:
        """Let the old stream finish its work once the new one may get some, or cannot for now."""
        clock = self._desk.clock
        await first_of(
            new.admitted.wait(), new.over.wait(), old.over.wait(), clock.sleep(HANDOVER_S)
        )
        await old.drain(old.hint.grace_s)

    async def _run(self, link: Link) -> None:
        try:
            end = await link.run()
        finally:
            self._links.discard(link)
            await link.channel.close()
        if self._current is link:
            self._last_error = _describe(end)
        _log.info("link_ended", reason=end.reason, clean=end.clean)
        self._changed.set()

    def models_changed(self) -> None:
        """Tell the router what is served now; a stream that opens later says it by itself."""
        if self._current is not None:
            self._current.tell_models()
        self._changed.set()

    def wish_changed(self, tracked: Tracked) -> None:
        """Tell the router how far a download is."""
        if self._current is not None:
            self._current.tell_wish(tracked)
        self._changed.set()

    def _on_code_challenge(self, sealed: SealedChallenge) -> None:
        link = self._current
        if link is not None and link.registered.is_set():
            link.answer_code_challenge(sealed)

    def _on_update(self) -> None:
        link = self._current
        if link is not None and link.registered.is_set():
            self.registered.set()
        self._changed.set()

    # The snapshot.

    async def _keep_state(self) -> None:
        clock = self._desk.clock
        while True:
            self._changed.clear()
            await self._write_state()
            await first_of(clock.sleep(STATE_INTERVAL_S), self._changed.wait())
            # A burst of changes becomes one write.
            await clock.sleep(STATE_BURST_S)

    async def _write_state(self, connection: str = "") -> None:
        try:
            await asyncio.to_thread(state.write, self._state_file, self._snapshot(connection))
        except OSError as error:
            # A full disk is no reason to stop serving; `status` says how old its picture is.
            _log.warning("state_not_written", error_type=type(error).__name__)

    def _snapshot(self, connection: str = "") -> AgentState:
        standing, live, stock = self.standing, self._live, self._desk.stock
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
            min_version=standing.min_version,
            trust_level=standing.trust_level if live else "none",
            admission=standing.admission if live else "",
            trust_status=standing.trust_status if live else "",
            trust_reason=standing.trust_reason,
            trust_remedy=standing.trust_remedy if live else "",
            runtime_verified=standing.runtime_verified,
            runtime_mismatches=standing.runtime_mismatches,
            accepted_models=standing.accepted_models if live else (),
            rejected_models=standing.rejected_models,
            routing=standing.routing if live else (),
            slots=state.slot_views(self._desk.engine.slots()),
            downloads=state.download_views(() if stock is None else stock.wishes.all()),
            protections=asdict(self._presence.hardening),
            requests_served=stats.requests_served,
            tokens_generated=stats.tokens_generated,
            unacknowledged_terminals=len(self._desk.terminals),
            prefix_cache=self._desk.engine.prefix_cache(),
            last_error="" if live else self._last_error,
            generation=self._presence.generation,
            authorised=self.authorised,
        )

    def _connection(self, *, live: bool) -> str:
        if self._stopping.is_set():
            return "draining"
        return "registered" if live else "connecting"


def _describe(end: LaneEnd) -> str:
    return end.reason if end.error is None else printable(f"{end.reason}: {end.error.message}")
