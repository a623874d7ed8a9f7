"""Where the agent keeps its files: one folder, private to its owner."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Home:
    """Paths below the agent's folder (spec: provider section 4)."""

    root: Path
    """The folder, mode 0700."""

    @property
    def identity_key(self) -> Path:
        """P-256 key in PEM, mode 0600; used where there is no Secure Enclave."""
        return self.root / "identity.pem"

    @property
    def login(self) -> Path:
        """Provider token of the owner's account, mode 0600."""
        return self.root / "login.json"

    @property
    def lock(self) -> Path:
        """Held by the running agent for its whole life; contains its process id."""
        return self.root / "provider.pid"

    @property
    def state(self) -> Path:
        """Snapshot that `status` and `doctor` read."""
        return self.root / "daemon-state.json"

    @property
    def cache(self) -> Path:
        """What may be thrown away: the system's folder for caches, unless this is no usual home."""
        usual = Path("~/Library/Caches/darkbloom").expanduser()
        if sys.platform == "darwin" and self.root == Path("~/.darkbloom").expanduser():
            return usual
        return self.root / "cache"

    @property
    def cache_key(self) -> Path:
        """Root key of the prefix cache, mode 0600; used where there is no Secure Enclave."""
        return self.root / "prefix-cache.key"

    @property
    def wrapped_cache_key(self) -> Path:
        """The same, wrapped by the Secure Enclave, mode 0600."""
        return self.root / "prefix-cache.wrapped"

    @property
    def terminals(self) -> Path:
        """Signed terminals that the router has not acknowledged, mode 0600."""
        return self.root / "terminals.journal"

    @property
    def manifest_keys(self) -> Path:
        """Keys that may sign manifests, per gateway, as they were first seen."""
        return self.root / "manifest-keys.json"

    @property
    def models(self) -> Path:
        """Model store, unless configured elsewhere."""
        return self.root / "models"

    @property
    def log(self) -> Path:
        """What the background service writes; ids, counts and reasons, never content."""
        return self.root / "provider.log"

    @property
    def watchdog_log(self) -> Path:
        """What the watchdog writes."""
        return self.root / "watchdog.log"

    @property
    def watchdog_state(self) -> Path:
        """Crashes and restarts that the watchdog has seen."""
        return self.root / "watchdog-state.json"

    @property
    def intent(self) -> Path:
        """Whether the owner wants the agent to run."""
        return self.root / "service.json"

    @property
    def control(self) -> Path:
        """Socket through which the owner's other commands talk to the running agent, 0600."""
        return self.root / "agent.sock"

    @property
    def local_key(self) -> Path:
        """Key of the local endpoint, 0600."""
        return self.root / "local_token"

    @property
    def local_record(self) -> Path:
        """Where the local endpoint listens, while it does, 0600."""
        return self.root / "local.json"

    @property
    def app(self) -> Path:
        """Versions of this program that `update` has installed."""
        return self.root / "app"

    def create(self) -> None:
        """Make the folder if needed and close it to others."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
