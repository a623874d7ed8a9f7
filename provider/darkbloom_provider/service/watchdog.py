"""The watchdog: looks every minute whether the agent runs, and starts it again after a crash.

A process of its own under the service manager, so that it outlives whatever kills the agent. It
holds no key, opens no prompt and talks to nobody but the manager.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol, final

import msgspec
import structlog
from darkbloom_mesh.clock import Clock

from darkbloom_provider import lock, state
from darkbloom_provider.home import Home
from darkbloom_provider.service.errors import ServiceError
from darkbloom_provider.service.files import write_private
from darkbloom_provider.service.guard import CHECK_S, Advice, Seen, Watch, advise
from darkbloom_provider.service.intent import read_intent
from darkbloom_provider.service.manager import ServiceManager
from darkbloom_provider.service.plan import PROVIDER_LABEL
from darkbloom_provider.state import AgentState

MAX_LOG_BYTES: Final = 16 * 1024 * 1024
"""A log file that is larger is set aside, once, and begun anew."""
_MAX_BYTES = 65_536

_log = structlog.get_logger()


class Witness(Protocol):
    """Who wants to know how versions fare."""

    def alive(self, snapshot: AgentState | None, now: datetime) -> None:
        """The agent runs; `snapshot` is its last."""
        ...

    def died(self, snapshot: AgentState | None) -> str | None:
        """The agent stayed dead; returns the version that was returned to, if any."""
        ...


@final
class Watchdog:
    """Looks, remembers, acts.

    Args:
        home: the agent's folder.
        manager: starts the agent.
        clock: of looks and waits.
        version: returns the version that would be started now.
        auto_restart: whether the owner lets it act; read anew at each look.
        witness: hears of lives and deaths of versions; None where none are installed by update.
    """

    def __init__(
        self,
        home: Home,
        manager: ServiceManager,
        clock: Clock,
        *,
        version: Callable[[], str],
        auto_restart: Callable[[], bool],
        witness: Witness | None = None,
    ) -> None:
        self._home = home
        self._manager = manager
        self._clock = clock
        self._version = version
        self._auto_restart = auto_restart
        self._witness = witness

    async def run(self) -> None:
        """Look until cancelled; a look that fails is logged, and the next one comes."""
        while True:
            try:
                await asyncio.to_thread(self.look)
            except (OSError, ServiceError) as error:
                _log.warning("look_failed", error_type=type(error).__name__)
            await self._clock.sleep(CHECK_S)

    def look(self) -> Advice:
        """Look once and do what is due; returns what that was.

        Raises:
            ServiceError: the manager refused to start it.
            OSError: what was seen cannot be kept.
        """
        home = self._home
        before = read_watch(home.watchdog_state)
        seen = Seen(
            now=self._clock.now().timestamp(),
            version=self._version(),
            running=lock.holder(home.lock) is not None,
            wanted=read_intent(home.intent).wanted == "running" and self._auto_restart(),
        )
        after, advice = advise(before, seen)
        if self._witness is not None and seen.wanted and seen.running:
            self._witness.alive(state.read(home.state), self._clock.now())
        # Kept before anything is done: a restart that kills us as well is still counted.
        if after != before:
            write_private(home.watchdog_state, msgspec.json.encode(after))
        if advice is Advice.RELAUNCH:
            # Only now, and not when it was first seen dead: a restart leaves a gap as well.
            if self._witness is not None:
                self._witness.died(state.read(home.state))
            _log.warning("agent_relaunched", version=seen.version, restarts=len(after.restarts))
            self._manager.start(PROVIDER_LABEL)
        elif advice is Advice.TRIPPED and not before.tripped:
            _log.error("guard_tripped", version=seen.version)
        self._trim()
        return advice

    def _trim(self) -> None:
        home = self._home
        for path in (home.log, home.watchdog_log):
            set_aside(path)


def read_watch(path: Path) -> Watch:
    """Return what was remembered; a missing or damaged file is a clean sheet."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(_MAX_BYTES), type=Watch)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return Watch()


def set_aside(path: Path, limit: int = MAX_LOG_BYTES) -> None:
    """Copy the end of a log that is too large to `<name>.1` and empty it; its writer keeps it."""
    try:
        with path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            if size <= limit:
                return
            file.seek(size - limit)
            write_private(path.with_name(f"{path.name}.1"), file.read(limit))
            file.truncate(0)
    except FileNotFoundError:
        return
