"""The provider of a local mesh, driven through its own command line."""

import base64
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkbloom_edge.manifest import MANIFEST_NAME, store_name

from darkbloom_local import models
from darkbloom_local.commands import json_object, output_of
from darkbloom_local.seeds import DevelopmentBuild
from darkbloom_local.wiring import Environment, Wiring


@dataclass(frozen=True, kw_only=True)
class ProviderSetup:
    """One provider: where it lives, what it runs, how it finds its router."""

    name: str
    """Process name; also the name of its home."""
    engine: str
    """`mlx` or `scripted`."""
    wiring: Wiring
    """The mesh that it joins."""
    cache: Path
    """Where downloads are kept."""

    @property
    def ready_file(self) -> Path:
        """Where it says that it is registered."""
        return self.wiring.state.path("run", f"{self.name}.json")

    @property
    def models_dir(self) -> Path:
        """The model store, shared by all providers of the mesh."""
        return self.wiring.state.directory("models")

    def argv(self, *arguments: str) -> list[str]:
        """Return a command line of the provider; `start` by default."""
        command = arguments or ("start", "--foreground", "--engine", self.engine)
        return [sys.executable, "-m", "darkbloom_provider", *command]

    def environment(self) -> dict[str, str]:
        """Return what the provider is told."""
        return {
            "DARKBLOOM_ENV": "development",
            "DARKBLOOM_PROVIDER_HOME": str(self.wiring.state.directory(self.name)),
            "DARKBLOOM_PROVIDER_MODELS_DIR": str(self.models_dir),
            "DARKBLOOM_PROVIDER_COORDINATOR": self.wiring.addresses("public"),
            "DARKBLOOM_PROVIDER_COORDINATOR_TLS": "false",
            "DARKBLOOM_PROVIDER_GATEWAY": f"http://{self.wiring.address('gateway.http')}",
            "DARKBLOOM_PROVIDER_READY_FILE": str(self.ready_file),
            "DARKBLOOM_PROVIDER_NAME": self.name,
        }

    async def identity(self, environment: Environment) -> bytes:
        """Return the provider's public identity key, 65 bytes; made on first use."""
        facts = await self._ask(environment, "identity", "--json")
        return base64.b64decode(facts["identity_key"])

    async def code_release(self, environment: Environment) -> Mapping[str, Any]:
        """Return what the provider measures of the tree that it runs from."""
        return await self._ask(environment, "code-release", "--json")

    async def prepare_models(
        self, environment: Environment, progress: Callable[[str], None]
    ) -> Sequence[DevelopmentBuild]:
        """Import the builds that this engine serves and describe them for the catalog."""
        if self.engine == "scripted":
            return [models.scripted_build(models.place_scripted(self.models_dir))]

        manifest = self.models_dir / store_name(models.SMOLLM2) / models.VERSION / MANIFEST_NAME
        if not manifest.exists():
            progress("model: SmolLM2-135M-Instruct, 90 MB the first time")
            source = await models.fetch_smollm2(self.cache, self.wiring.state.log("download"))
            arguments = ("models", "import", str(source), "--id", models.SMOLLM2)
            await output_of(self.argv(*arguments, "--version", models.VERSION), environment)
        templates = {
            name: (manifest.parent / name).read_bytes()
            for name in models.TEMPLATE_FILES
            if (manifest.parent / name).exists()
        }
        return [models.smollm2_build(manifest.read_bytes(), templates)]

    async def _ask(self, environment: Environment, *arguments: str) -> Mapping[str, Any]:
        return json_object(await output_of(self.argv(*arguments), environment))
