"""What a check is, and what all of them look at."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from pathlib import Path
from typing import Literal

import msgspec
from darkbloom_mesh.clock import Clock

from darkbloom_provider.account import Login
from darkbloom_provider.config import ProviderConfig
from darkbloom_provider.hardware import Hardware
from darkbloom_provider.mac.measuring import Runner
from darkbloom_provider.models.store import StoredModel
from darkbloom_provider.settings import Settings
from darkbloom_provider.state import AgentState

GIB = 1 << 30

Result = Literal["pass", "warn", "fail"]
Area = Literal[
    "machine", "settings", "attestation key", "models", "network", "account", "trust", "agent"
]
AREAS: tuple[Area, ...] = (
    "machine",
    "settings",
    "models",
    "network",
    "account",
    "agent",
    "attestation key",
    "trust",
)


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report."""

    name: str
    """Stable (spec: provider section 3.2)."""
    area: Area
    result: Result
    detail: str
    """What was seen."""
    fix: str = ""
    """What to do about it; empty where the check passes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """Everything that the checks look at, gathered once; nothing in it is changed."""

    settings: Settings
    environ: Mapping[str, str]
    hardware: Hardware
    clock: Clock
    zone: tzinfo
    """The owner's wall clock."""
    free_bytes: Callable[[Path], int]
    """Space left on the volume of a path that exists."""
    processes: Callable[[], list[str]]
    """Names of what else runs."""
    stored: tuple[StoredModel, ...]
    platform: str
    """As Python names it; `darwin` is a Mac."""
    tools: Runner
    """Runs one of a Mac's own tools."""
    login: Login | None = field(repr=False)
    login_problem: str = ""
    """Why a stored login cannot be read."""
    snapshot: AgentState | None
    """What the agent last wrote; None where it does not run."""
    awake: bool | None = None
    """Whether the running agent keeps this machine from sleeping; None where it does not say."""

    @property
    def config(self) -> ProviderConfig:
        """The configuration in force."""
        return self.settings.config

    @property
    def mac(self) -> bool:
        """Whether what only a Mac has is looked at."""
        return self.platform == "darwin"

    @property
    def gateway(self) -> str:
        """Where the account is; empty where nothing says so."""
        return self.config.gateway or (self.login.gateway if self.login else "")
