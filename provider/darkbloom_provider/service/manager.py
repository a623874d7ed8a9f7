"""The one interface to whatever keeps programs running for a user."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Protocol

from darkbloom_provider.service.errors import ServiceError
from darkbloom_provider.service.launchd import Launchd
from darkbloom_provider.service.plan import ServicePlan
from darkbloom_provider.service.running import Runner, run_tool
from darkbloom_provider.service.systemd import Systemd


class ServiceManager(Protocol):
    """Keeps programs for one user, across logins."""

    name: str
    """How people call it."""

    def install(self, plan: ServicePlan) -> Path:
        """Write the definition and enable it at login; returns its file.

        Raises:
            ServiceError: the manager refused.
        """
        ...

    def start(self, label: str) -> None:
        """Start an installed program; does nothing where it runs.

        Raises:
            ServiceError: the manager refused.
        """
        ...

    def stop(self, label: str) -> None:
        """Stop it if it runs and keep it stopped across logins; the definition stays.

        Raises:
            ServiceError: the manager did not let go of it in time.
        """
        ...

    def uninstall(self, label: str) -> None:
        """Stop it and remove its definition; does nothing where there is none.

        Raises:
            ServiceError: the manager did not let go of it in time.
        """
        ...

    def installed(self, label: str) -> bool:
        """Whether its definition is on disk."""
        ...

    def running(self, label: str) -> bool:
        """Whether the manager says that it runs."""
        ...


def manager_here(
    run: Runner = run_tool, *, platform: str = sys.platform, user_home: Path | None = None
) -> ServiceManager:
    """Return the manager of this system.

    Raises:
        ServiceError: this system has none that we know.
    """
    home = user_home or Path.home()
    if platform == "darwin":
        return Launchd(run, agents=home / "Library" / "LaunchAgents", uid=os.getuid())
    if platform == "linux":
        return Systemd(run, units=home / ".config" / "systemd" / "user")
    raise ServiceError(
        f"there is no background service on {platform}", "run `darkbloom start --foreground`"
    )
