"""What the environment says: `DARKBLOOM_ATTESTATION_*`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from darkbloom_mesh.clock import Clock, SystemClock
from darkbloom_mesh.config import RoomConfig, Secret, Setting

from darkbloom_attestation.apns.credentials import ProviderToken
from darkbloom_attestation.errors import PushKeyError


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
    apns_key_file: Annotated[
        Path | None, Setting("Apple's `.p8` key that signs pushes; unset: nobody is pushed")
    ] = None
    """All four of these, or none."""
    apns_key_id: Annotated[str, Setting("id of that key, 10 letters and digits")] = ""
    """As Apple shows it."""
    apns_team_id: Annotated[str, Setting("id of the team, 10 letters and digits")] = ""
    """As Apple shows it."""
    apns_topic: Annotated[str, Setting("bundle id of the app that gets the pushes")] = ""
    """Only a process signed for it receives them."""
    apns_mode: Annotated[
        Literal["background", "alert"],
        Setting("`background` is throttled by the system, `alert` is shown nowhere"),
    ] = "background"
    """Both carry the same challenge."""
    apns_per_minute: Annotated[
        int, Setting("pushes of all devices in any minute, of each replica", minimum=1)
    ] = 600
    """Each device has a budget of its own besides."""
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

    def problems(self) -> Iterator[str]:
        """Refuse half a configuration of pushes, and a key that cannot sign."""
        yield from super().problems()
        texts = (self.apns_key_id, self.apns_team_id, self.apns_topic)
        if self.apns_key_file is None and not any(texts):
            return
        if self.apns_key_file is None or not all(texts):
            yield "DARKBLOOM_ATTESTATION_APNS_*: key file, key id, team id and topic go together"
            return
        try:
            self.push_credentials(SystemClock())
        except PushKeyError as error:
            yield f"DARKBLOOM_ATTESTATION_APNS_KEY_FILE: {error}"

    def push_credentials(self, clock: Clock) -> ProviderToken | None:
        """Return what signs pushes; None where nobody is pushed.

        Raises:
            PushKeyError: the key cannot be read or used.
        """
        if self.apns_key_file is None:
            return None
        try:
            pem = self.apns_key_file.read_bytes()
        except OSError as error:
            raise PushKeyError(f"cannot be read ({error.strerror})") from None

        return ProviderToken.load(
            pem, key_id=self.apns_key_id, team_id=self.apns_team_id, clock=clock
        )
