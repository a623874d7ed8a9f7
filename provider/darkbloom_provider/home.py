"""Where the agent keeps its files: one folder, private to its owner."""

from __future__ import annotations

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
    def models(self) -> Path:
        """Model store, unless configured elsewhere."""
        return self.root / "models"

    def create(self) -> None:
        """Make the folder if needed and close it to others."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
