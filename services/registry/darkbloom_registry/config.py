"""What the environment says: `DARKBLOOM_REGISTRY_*`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from darkbloom_edge.signatures import Ed25519Signer
from darkbloom_mesh.config import RoomConfig, Secret, Setting

from darkbloom_registry.signing_key import SigningKeyError, read_signing_key


@dataclass(frozen=True, kw_only=True)
class RegistryConfig(RoomConfig):
    """Configuration of the registry."""

    database_url: Annotated[
        Secret, Setting("PostgreSQL; schema `registry` is ours", env="DATABASE_URL")
    ]
    """Where everything durable is."""
    listen: Annotated[str, Setting("host:port of the internal gRPC listener; port 0 picks one")] = (
        "127.0.0.1:7104"
    )
    """Internal: callers bring the mesh token."""
    manifest_key_file: Annotated[
        Path | None,
        Setting("Ed25519 key that signs manifests, base64, mode 0600; unset: agents download none"),
    ] = None

    rollout_period_s: Annotated[
        float, Setting("between two looks at rollouts that nobody reports on", minimum=0.1)
    ] = 5.0

    downloads_at_once: Annotated[
        int,
        Setting("machines of the whole fleet that fetch at once; 0: as many as want", minimum=0),
    ] = 0

    two_keys: Annotated[
        bool, Setting("promotions, names and rollouts want the same call from two publishing keys")
    ] = False

    def problems(self) -> Iterator[str]:
        """Refuse a key file that cannot be used."""
        yield from super().problems()
        try:
            self.signer()
        except SigningKeyError as error:
            yield f"DARKBLOOM_REGISTRY_MANIFEST_KEY_FILE: {error}"

    def signer(self) -> Ed25519Signer | None:
        """Read the key; in development it is made where there is none. None: no file is set.

        Raises:
            SigningKeyError: It cannot be used.
        """
        if self.manifest_key_file is None:
            return None
        return read_signing_key(self.manifest_key_file, create=self.environment == "development")
