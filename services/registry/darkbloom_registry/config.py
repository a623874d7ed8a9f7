"""What the environment says: `DARKBLOOM_REGISTRY_*`."""

from dataclasses import dataclass
from typing import Annotated

from darkbloom_mesh.config import RoomConfig, Secret, Setting


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
