"""Where a drill is played: a directory of its own, seeded dice, a clock, a place to say things."""

import random  # noqa: TID251 - seeded: the same drill each time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkbloom_local.mesh import Mesh
from darkbloom_mesh.clock import Clock, SystemClock

from tests.mesh.harness import QUICK, Fleet

_PROVIDER = "provider"


def _silent(_text: str) -> None:
    """Say nothing."""


@dataclass(kw_only=True)
class Stage:
    """What one play is given."""

    home: Path
    """An empty directory; whoever made it removes it."""
    seed: int = 1
    progress: Callable[[str], None] = _silent
    """Tells whoever watches what happens now, in one line."""
    clock: Clock = field(default_factory=SystemClock)

    @property
    def dice(self) -> random.Random:
        """Dice that begin at the seed."""
        return random.Random(self.seed)

    @asynccontextmanager
    async def mesh(
        self,
        *,
        providers: int = 1,
        environment: Mapping[str, Mapping[str, str]] | None = None,
        **how: Any,
    ) -> AsyncIterator[Mesh]:
        """Run a mesh whose providers are routable; leaving it drains everything.

        Args:
            providers: How many agents with the scripted engine; `provider`, `provider-2` …
            environment: Variables by process name, over those that make the mesh quick.
            how: Everything else that `Mesh` takes, for example `routers=2`, `mtls=True`.
        """
        told: dict[str, Mapping[str, str]] = dict(QUICK)
        for number in range(2, 1 + int(how.get("routers", 1))):
            told[f"router-{number}"] = QUICK["router"]
        for name, variables in (environment or {}).items():
            told[name] = {**told.get(name, {}), **variables}
        how.setdefault("durable", False)
        how.setdefault("engine", "scripted" if providers else None)
        async with Mesh(self.home / "mesh", environment=told, **how) as found:
            for number in range(2, providers + 1):
                await found.start_provider(f"{_PROVIDER}-{number}", routable=False)
            if providers:
                await Fleet(found).wait_routable(providers)
            yield found
