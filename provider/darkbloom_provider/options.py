"""How one run of the agent differs from what is configured: the flags of `start`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from darkbloom_provider.schedule import Schedule


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalEndpoint:
    """Where the owner's own programs may ask."""

    host: str = "127.0.0.1"
    port: int = 8000
    """0 picks one."""
    authenticated: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What `start` was told."""

    local: LocalEndpoint | None = None
    """Serve the owner's programs too."""
    network: bool = True
    """Dial the router; without it the machine answers only its owner, and needs no account."""
    replace_s: float | None = None
    """How long to wait for a running agent to drain and hand over; None refuses to start."""
    force: bool = False
    """End the running agent's work at once."""
    schedule: Callable[[], Schedule] = Schedule
    """Read anew at each boundary."""
