"""What the registry needs from its store."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from darkbloom_edge.manifest import Manifest

from darkbloom_registry.changes import Change, Recorded, Scope
from darkbloom_registry.model import (
    Alias,
    Build,
    BuildFacts,
    BuildStatus,
    Catalog,
    MarketplaceAlias,
    Rendering,
    Version,
)
from darkbloom_registry.model_states import ModelStage, ModelState
from darkbloom_registry.progress.readers import Reader
from darkbloom_registry.rollouts import Rollout


class Renderer(Protocol):
    """Renders chat templates where they can do no harm."""

    async def render(self, files: Mapping[str, bytes], *, vision: bool) -> Rendering:
        """Return what the template in these files makes of the fixtures.

        Raises:
            InvalidArgumentError: It does not compile, or works without end.
        """
        ...


class Writing(Protocol):
    """One exclusive write transaction; what it changed appears at one new generation."""

    @property
    def generation(self) -> int:
        """The generation before this transaction, or after `bump`."""
        ...

    async def build(self, build: str) -> Build | None:
        """Return a build, if there is one."""
        ...

    async def alias(self, alias_id: str) -> Alias | None:
        """Return an alias, if there is one."""
        ...

    async def add_build(self, facts: BuildFacts, create_time: datetime) -> None:
        """Write a new build without versions."""
        ...

    async def add_version(
        self,
        build: str,
        manifest: Manifest,
        data: bytes,
        register_time: datetime,
        sources: Sequence[str],
        template: Rendering | None,
    ) -> None:
        """Write a new ready version with the exact bytes of its manifest."""
        ...

    async def set_status(self, build: str, status: BuildStatus, deprecation_date: str) -> None:
        """Write the life of a build."""
        ...

    async def set_sources(self, build: str, version: str, sources: Sequence[str]) -> None:
        """Write where the files of a version are."""
        ...

    async def set_template(self, build: str, version: str, template: Rendering) -> None:
        """Write what the template of a version renders."""
        ...

    async def set_facts(self, facts: BuildFacts) -> None:
        """Write what is said about a build that is known."""
        ...

    async def set_states(self, build: str, versions: Sequence[Version]) -> None:
        """Write the states of these versions, in this order."""
        ...

    async def put_alias(self, alias: Alias) -> None:
        """Write an alias, new or not."""
        ...

    async def delete_alias(self, alias_id: str) -> None:
        """Forget a name of either kind."""
        ...

    async def name_taken(self, name: str) -> bool:
        """Return whether a name of either kind is called so."""
        ...

    async def marketplace_alias(self, alias_id: str) -> MarketplaceAlias | None:
        """Return a name for marketplaces, if there is one."""
        ...

    async def marketplace_aliases_of(self, source_model: str) -> Sequence[str]:
        """Return the names for marketplaces that follow a model."""
        ...

    async def put_marketplace_alias(self, alias: MarketplaceAlias) -> None:
        """Write a name for marketplaces, new or not."""
        ...

    async def rollout(self, rollout_id: str) -> Rollout | None:
        """Return a rollout, if there is one."""
        ...

    async def live_rollouts(self) -> Sequence[Rollout]:
        """Return those between two builds."""
        ...

    async def live_rollout(self, alias_id: str) -> Rollout | None:
        """Return the one that moves this alias, if there is one."""
        ...

    async def put_rollout(self, rollout: Rollout) -> None:
        """Write a rollout, new or not."""
        ...

    async def take_report(self, session: str, sequence: int, now: datetime) -> bool:
        """Note a report; False where it, or a later one, came before."""
        ...

    async def put_model_states(self, states: Sequence[ModelState]) -> None:
        """Write how far machines are with builds."""
        ...

    async def running_downloads(self, since: datetime) -> int:
        """Return how many machines said since then that they fetch."""
        ...

    async def granted_downloads(self, since: datetime) -> int:
        """Return how many were given leave since then."""
        ...

    async def put_grant(self, session: str, sequence: int, machines: int, now: datetime) -> None:
        """Write leave that is given."""
        ...

    async def label_known(self, label: str, *, active: bool) -> bool:
        """Return whether a key has this label; also one that was revoked, unless `active`."""
        ...

    async def put_key(self, digest: bytes, label: str, scopes: Sequence[Scope]) -> None:
        """Write a key; one of the same label is replaced."""
        ...

    async def revoke_key(self, label: str) -> None:
        """Accept the key of this label no more."""
        ...

    async def bump(self, change: Change) -> None:
        """Count one generation up, record what made it, and tell every watcher at commit."""
        ...


class Store(Protocol):
    """Where builds and aliases are kept."""

    def write(self) -> AbstractAsyncContextManager[Writing]:
        """Begin a write; others wait until it ends. Rolled back by an exception."""
        ...

    async def generation(self) -> int:
        """Return the newest generation."""
        ...

    async def catalog(self) -> Catalog:
        """Return the catalog and its generation, from one moment."""
        ...

    async def build(self, build: str) -> Build | None:
        """Return a build, if there is one."""
        ...

    async def rollout(self, rollout_id: str) -> Rollout | None:
        """Return a rollout, if there is one."""
        ...

    async def aliases(self, after: str, limit: int) -> Sequence[Alias]:
        """Return aliases whose id follows `after`, by id; inactive ones too."""
        ...

    async def marketplace_aliases(self, after: str, limit: int) -> Sequence[MarketplaceAlias]:
        """Return names for marketplaces whose id follows `after`, by id; inactive ones too."""
        ...

    async def rollouts(self, alias: str, before: str, limit: int) -> Sequence[Rollout]:
        """Return rollouts older than `before` (an id; empty: all), newest first."""
        ...

    async def model_states(
        self, build: str, after: tuple[str, str], limit: int
    ) -> Sequence[ModelState]:
        """Return states by build and machine, after a pair of those."""
        ...

    async def live_rollouts(self) -> Sequence[Rollout]:
        """Return those between two builds."""
        ...

    async def all_model_states(self, build: str) -> Sequence[ModelState]:
        """Return what every machine said last of a build."""
        ...

    async def stage_counts(self) -> dict[tuple[str, ModelStage], int]:
        """Return how many machines are at each stage of each build."""
        ...

    async def put_reader(self, reader: Reader) -> None:
        """Write where a replica stands; it moves no generation."""
        ...

    async def remove_reader(self, session: str) -> None:
        """Forget a replica that leaves."""
        ...

    async def readers(self, now: datetime) -> Sequence[Reader]:
        """Return replicas of the last day that have not left."""
        ...

    async def changes(self, before: int, limit: int) -> Sequence[Recorded]:
        """Return changes of generations below `before`, newest first."""
        ...

    async def builds(self, after: str, limit: int) -> Sequence[Build]:
        """Return builds whose id follows `after`, by id."""
        ...

    async def manifest(self, build: str, version: str) -> bytes | None:
        """Return the manifest of a version as registered; an empty version means the active one."""
        ...
