"""launchd, per user: property lists in `~/Library/LaunchAgents`.

Never run on a Mac by us: the property lists are read back, the commands are recorded.
"""

from __future__ import annotations

import plistlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

from darkbloom_provider.service.errors import ServiceError
from darkbloom_provider.service.files import write_private
from darkbloom_provider.service.plan import EXIT_TIMEOUT_S, ServicePlan
from darkbloom_provider.service.running import Done, Runner

_LAUNCHCTL = "/bin/launchctl"
REMOVAL_S: Final = 10.0
"""How long the removal of a service may take to be confirmed."""
POLL_S: Final = 0.1


def property_list(plan: ServicePlan) -> bytes:
    """Return the definition of a program, as launchd reads it."""
    return plistlib.dumps(
        {
            "Label": plan.label,
            "ProgramArguments": list(plan.arguments),
            "EnvironmentVariables": dict(plan.environment),
            "RunAtLoad": True,
            # A crash of the agent is the watchdog's business: launchd would start it at once, for
            # ever, and knows nothing of versions that keep dying.
            "KeepAlive": plan.keep_alive,
            "ProcessType": "Interactive",
            # Pushes and the keychain exist only inside a login session.
            "LimitLoadToSessionType": "Aqua",
            "ExitTimeOut": EXIT_TIMEOUT_S,
            "ThrottleInterval": 30,
            "StandardOutPath": str(plan.log),
            "StandardErrorPath": str(plan.log),
            "Umask": 0o077,
            "HardResourceLimits": {"Core": 0},
            "SoftResourceLimits": {"Core": 0},
        }
    )


@final
class Launchd:
    """See `ServiceManager`.

    Args:
        run: runs `launchctl`.
        agents: folder of the definitions.
        uid: the user whose login session the programs belong to.
        sleep: waits between two looks at a removal.
    """

    name = "launchd"

    def __init__(
        self,
        run: Runner,
        *,
        agents: Path,
        uid: int,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._run = run
        self._agents = agents
        self._domain = f"gui/{uid}"
        self._sleep = sleep

    def install(self, plan: ServicePlan) -> Path:
        """Replace the definition; a loaded one is removed first, and that is waited for."""
        self._remove(plan.label)
        path = self._path(plan.label)
        write_private(path, property_list(plan))
        self._must("enable", f"{self._domain}/{plan.label}")
        return path

    def start(self, label: str) -> None:
        """Load the definition, which also runs it; kick one that is loaded and ended."""
        self._must("enable", f"{self._domain}/{label}")
        if not self._loaded(label):
            self._must("bootstrap", self._domain, str(self._path(label)))
            return
        self._must("kickstart", f"{self._domain}/{label}")

    def stop(self, label: str) -> None:
        """Unload it, and keep it from being loaded at the next login."""
        self._must("disable", f"{self._domain}/{label}")
        self._remove(label)

    def uninstall(self, label: str) -> None:
        """Unload it and remove the file."""
        self._remove(label)
        self._path(label).unlink(missing_ok=True)

    def installed(self, label: str) -> bool:
        """Whether the file is there."""
        return self._path(label).is_file()

    def running(self, label: str) -> bool:
        """Whether launchd names a process of it."""
        return "state = running" in self._call("print", f"{self._domain}/{label}").output

    def _loaded(self, label: str) -> bool:
        return self._call("print", f"{self._domain}/{label}").ok

    def _remove(self, label: str) -> None:
        if not self._loaded(label):
            return
        self._call("bootout", f"{self._domain}/{label}")
        for _ in range(round(REMOVAL_S / POLL_S)):
            if not self._loaded(label):
                return
            self._sleep(POLL_S)
        raise ServiceError(
            f"launchd has not let go of {label} within {REMOVAL_S:.0f} s",
            f"look at `launchctl print {self._domain}/{label}`, then try again",
        )

    def _must(self, *arguments: str) -> None:
        done = self._call(*arguments)
        if not done.ok:
            detail = done.errors.strip().splitlines()[-1:] or [f"code {done.code}"]
            raise ServiceError(
                f"launchctl {arguments[0]} failed: {detail[0][:200]}",
                "log in at this Mac's screen: its login session must be open",
            )

    def _call(self, *arguments: str) -> Done:
        return self._run((_LAUNCHCTL, *arguments))

    def _path(self, label: str) -> Path:
        return self._agents / f"{label}.plist"
