"""What the environment says: `DARKBLOOM_ATTESTATION_*`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from darkbloom_mesh.config import RoomConfig, Secret, Setting


@dataclass(frozen=True, kw_only=True)
class AttestationConfig(RoomConfig):
    """Configuration of attestation."""

    database_url: Annotated[
        Secret, Setting("PostgreSQL; schema `attestation` is ours", env="DATABASE_URL")
    ]
    """Where all evidence is."""
    key_dir: Annotated[
        Path,
        Setting("verdict keys, `<time>.key` 0600; must hold one, development makes the first"),
    ]
    """Holds what signs verdicts and revocations."""
    listen: Annotated[str, Setting("host:port of the internal gRPC listener; port 0 picks one")] = (
        "127.0.0.1:7103"
    )
    """Internal: callers bring the mesh token."""
    app_id: Annotated[
        str, Setting("`<TeamID>.<bundle id>` whose App Attest keys count; unset counts none")
    ] = ""
    """Without it nobody is `hardware` by App Attest."""
    app_attest_environment: Annotated[
        Literal["production", "development"],
        Setting("environment of App Attest keys that count: `production` or `development`"),
    ] = "production"
    """Keys of the other environment are refused."""
    mdm_url: Annotated[
        str | None, Setting("address of the device management server; unset asks no device")
    ] = None
    """A MicroMDM; its callbacks come through the gateway."""
    mdm_api_key: Annotated[Secret | None, Setting("its API key; needed with its address")] = None
    """Presented as HTTP Basic."""
    evidence_retention_days: Annotated[
        int, Setting("days that evidence behind a receipt is kept", minimum=1)
    ] = 90
    """Challenges, verdicts, revocations and registrations older than this are deleted."""
    registry_target: Annotated[
        str | None,
        Setting("registry's address, whose catalog revisions are logged; unset logs none"),
    ] = None
    """Followed; attestation waits for nothing there."""
    release_keys_file: Annotated[
        Path | None,
        Setting("pinned keys of whoever signs releases, JSON id to base64; production needs it"),
    ] = None
    """Without it production blesses nothing, and development takes unsigned releases."""
