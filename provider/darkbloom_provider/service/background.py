"""Starting, stopping and restarting the background service, as the commands do.

Blocking, with the world handed in; every wait has a bound. The owner's word is written down before
anything is asked of the agent, so that the watchdog never starts what was just told to stop, and
never forgets what was told to go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from darkbloom_mesh.clock import Clock, SystemClock

from darkbloom_provider import lock
from darkbloom_provider.home import Home
from darkbloom_provider.service.control import Facts, NoAnswerError, Question, ask
from darkbloom_provider.service.errors import ServiceError
from darkbloom_provider.service.intent import Intent, Wanted, read_intent, write_intent
from darkbloom_provider.service.leaving import DEFAULT_TIMEOUT_S, Waiting, leave
from darkbloom_provider.service.manager import ServiceManager
from darkbloom_provider.service.plan import (
    PROVIDER_LABEL,
    WATCHDOG_LABEL,
    provider_plan,
    watchdog_plan,
)
from darkbloom_provider.service.program import Program

DEFAULT_STARTUP_S: Final = 180.0
MAX_STARTUP_S: Final = 3600.0
POLL_S: Final = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class Background:
    """The background service of one home.

    Args:
        home: the agent's folder.
        manager: keeps the programs.
        program: how this installation is started.
        environment: of the command, for what the service inherits.
        clock: dates the owner's word.
        waiting: how the command lets time pass.
    """

    home: Home
    manager: ServiceManager
    program: Program
    environment: Mapping[str, str]
    clock: Clock = field(default_factory=SystemClock)
    waiting: Waiting = field(default_factory=Waiting)

    def start(
        self,
        arguments: Sequence[str] = (),
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        force: bool = False,
    ) -> None:
        """Install the service and its watchdog and start both.

        An agent that runs drains first; `arguments` follow `start --foreground` and are recorded.

        Raises:
            StillDrainingError: the one that runs has not ended in time.
            ServiceError: the manager refused.
        """
        home = self.home
        home.create()
        # First: where the one that runs takes longer than we wait, the watchdog starts the next.
        self._want("running", arguments)
        # The owner's word lifts the guard: what the watchdog has counted begins anew.
        home.watchdog_state.unlink(missing_ok=True)
        leave(home, timeout_s=timeout_s, force=force, waiting=self.waiting)
        self.manager.install(provider_plan(home, self.program, self.environment, arguments))
        self.manager.install(watchdog_plan(home, self.program, self.environment))
        self.manager.start(PROVIDER_LABEL)
        self.manager.start(WATCHDOG_LABEL)

    def stop(
        self,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        force: bool = False,
        uninstall: bool = False,
    ) -> int | None:
        """Drain the agent and keep it stopped, also after a reboot; returns its process id.

        Raises:
            StillDrainingError: it has not ended in time; it will not be started again.
            ServiceError: the manager refused.
        """
        home = self.home
        if home.root.is_dir():
            self._want("stopped", read_intent(home.intent).arguments)
        pid = leave(home, timeout_s=timeout_s, force=force, waiting=self.waiting)
        for label in (WATCHDOG_LABEL, PROVIDER_LABEL):
            if uninstall:
                self.manager.uninstall(label)
            elif self.manager.installed(label):
                self.manager.stop(label)
        return pid

    def restart(
        self,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        startup_s: float = DEFAULT_STARTUP_S,
        force: bool = False,
    ) -> Facts:
        """Drain, start with the recorded arguments, and wait until the new process is authorised.

        Returns:
            What the new agent says of itself: another process with another K, which the router has
            answered with a verdict, or which rests outside its schedule.

        Raises:
            StillDrainingError: the old one has not ended in time.
            ServiceError: nothing is installed, or no new agent is authorised in time.
        """
        if not self.manager.installed(PROVIDER_LABEL):
            raise ServiceError(
                "the background service is not installed", "run `darkbloom start` first"
            )
        before = self._facts()
        self.start(read_intent(self.home.intent).arguments, timeout_s=timeout_s, force=force)
        return self.confirm(None if before is None else before.generation, startup_s)

    def relaunch(self, *, timeout_s: float) -> None:
        """Drain the agent and start it as it is installed: for the watchdog, after an update.

        Raises:
            StillDrainingError: it has not ended in time.
            ServiceError: the manager refused.
        """
        self._want("running", read_intent(self.home.intent).arguments)
        leave(self.home, timeout_s=timeout_s, waiting=self.waiting)
        self.manager.start(PROVIDER_LABEL)

    def confirm(self, before: str | None, startup_s: float) -> Facts:
        """Wait for an agent that is not the one with the generation `before`, and is authorised.

        Raises:
            ServiceError: none in time; the message says how far it came.
        """
        until = self.waiting.monotonic() + startup_s
        found: Facts | None = None
        while self.waiting.monotonic() < until:
            found = self._facts()
            fresh = found is not None and found.generation != before
            if fresh and found is not None and (found.authorised or found.phase == "closed"):
                return found
            self.waiting.pause(POLL_S)
        if found is None or found.generation == before:
            running = lock.holder(self.home.lock) is not None
            state = "it holds its place but does not answer" if running else "none runs"
            raise ServiceError(
                f"no new agent has come up within {startup_s:.0f} s: {state}",
                "see `darkbloom logs`; the watchdog goes on trying",
            )
        raise ServiceError(
            f"the new agent (process {found.pid}) is not authorised after {startup_s:.0f} s:"
            f" {found.phase}, {found.connection}, trust {found.trust_level or 'unknown'}",
            "it goes on trying; `darkbloom status` and `darkbloom doctor` say what is missing",
        )

    def _facts(self) -> Facts | None:
        try:
            return ask(self.home.control, Question(op="facts"))
        except NoAnswerError:
            return None

    def _want(self, wanted: Wanted, arguments: Sequence[str]) -> None:
        intent = Intent(
            wanted=wanted, arguments=tuple(arguments), since=self.clock.now().isoformat()
        )
        write_intent(self.home.intent, intent)
