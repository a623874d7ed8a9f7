"""What the owner may set: `DARKBLOOM_PROVIDER_*`; flags of `start` win over it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from darkbloom_mesh.config import CommonConfig, Setting

from darkbloom_provider.home import Home


@dataclass(frozen=True, kw_only=True)
class ProviderConfig(CommonConfig):
    """The agent's configuration."""

    home: Annotated[Path, Setting("folder of identity, state and models; made private")] = Path(
        "~/.darkbloom"
    )
    coordinator: Annotated[str, Setting("host:port of the router's provider listener")] = (
        "127.0.0.1:8443"
    )
    coordinator_tls: Annotated[
        bool, Setting("dial with TLS; only development may switch it off")
    ] = True
    engine: Annotated[
        Literal["mlx", "scripted"], Setting("`scripted` serves only builds of `dev/`")
    ] = "mlx"
    models_dir: Annotated[Path | None, Setting("model store; unset: `models` in the home")] = None
    models: Annotated[
        tuple[str, ...], Setting("build ids to serve; unset: every model in the store")
    ] = ()
    name: Annotated[str, Setting("what the owner calls this machine")] = ""
    private_only: Annotated[bool, Setting("serve only the owner's requests")] = False
    heartbeat_interval_s: Annotated[
        float, Setting("seconds between heartbeats", minimum=0.1, maximum=60)
    ] = 5.0
    kv_budget_gb: Annotated[
        float | None, Setting("memory for running requests; unset: by the memory rule", minimum=0)
    ] = None
    max_concurrency: Annotated[
        int, Setting("requests that one model answers at a time", minimum=1, maximum=256)
    ] = 8
    script: Annotated[str, Setting("JSON directive of the scripted engine, for tests and load")] = (
        ""
    )

    @property
    def folders(self) -> Home:
        """The home, with `~` expanded."""
        return Home(root=self.home.expanduser())

    @property
    def store_root(self) -> Path:
        """Where models are kept."""
        return self.models_dir.expanduser() if self.models_dir else self.folders.models

    def problems(self) -> Iterator[str]:
        """Refuse a plaintext link outside development."""
        yield from super().problems()
        if not self.coordinator_tls and self.environment != "development":
            yield "DARKBLOOM_PROVIDER_COORDINATOR_TLS: only DARKBLOOM_ENV=development may be false"
