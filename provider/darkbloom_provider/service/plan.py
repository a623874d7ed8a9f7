"""What the service manager is asked to run: program, environment, log."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from darkbloom_provider.home import Home
from darkbloom_provider.service.program import Program

PROVIDER_LABEL = "io.darkbloom.provider"
WATCHDOG_LABEL = "io.darkbloom.watchdog"
EXIT_TIMEOUT_S = 3660
"""How long a drain may take before the manager kills: the longest one and a minute."""
SERVICE_GRACE_S = 600
"""Drain after a signal of the manager, unless configured otherwise."""
CARRIED_PREFIX = "DARKBLOOM_"
NOT_CARRIED = frozenset({"DARKBLOOM_PROVIDER_LAUNCHER_FD", "DARKBLOOM_PROVIDER_READY_FILE"})
"""Variables of one process; a service that inherits them would be wrong."""
_GRACE = "DARKBLOOM_PROVIDER_DRAIN_GRACE_S"


@dataclass(frozen=True, kw_only=True, slots=True)
class ServicePlan:
    """One program that the service manager keeps for this user."""

    label: str
    description: str
    arguments: tuple[str, ...]
    """The program, absolute, and its arguments."""
    environment: Mapping[str, str]
    log: Path
    """Standard output and error are appended here."""
    keep_alive: bool
    """Whether the manager itself starts it again whenever it ends; else the watchdog decides."""


def provider_plan(
    home: Home, program: Program, environment: Mapping[str, str], arguments: Sequence[str]
) -> ServicePlan:
    """Return the plan of the agent.

    Args:
        home: its folder.
        program: how this installation is started.
        environment: of the command that installs; see `carried`.
        arguments: what follows `start --foreground`.
    """
    return ServicePlan(
        label=PROVIDER_LABEL,
        description="Darkbloom provider agent",
        arguments=(*program.agent, *arguments),
        environment={_GRACE: str(SERVICE_GRACE_S), **carried(home, environment)},
        log=home.log,
        keep_alive=False,
    )


def watchdog_plan(home: Home, program: Program, environment: Mapping[str, str]) -> ServicePlan:
    """Return the plan of the process that starts a crashed agent again."""
    return ServicePlan(
        label=WATCHDOG_LABEL,
        description="Darkbloom watchdog",
        arguments=program.watchdog,
        environment=carried(home, environment),
        log=home.watchdog_log,
        keep_alive=True,
    )


def carried(home: Home, environment: Mapping[str, str]) -> dict[str, str]:
    """Return every variable of ours that is set, so that the service is configured as its owner is.

    There is no silent list of what is left out: only what belongs to one process stays behind.
    """
    found = {
        name: value
        for name, value in sorted(environment.items())
        if name.startswith(CARRIED_PREFIX) and name not in NOT_CARRIED and value
    }
    return {**found, "DARKBLOOM_PROVIDER_HOME": os.path.abspath(home.root)}  # noqa: PTH100 - links stay
