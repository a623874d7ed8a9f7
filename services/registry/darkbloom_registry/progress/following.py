"""Replicas that follow the catalog: what they confirm, what is told of it, what is measured."""

from typing import final

import structlog
from darkbloom_mesh import telemetry
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import StoreUnavailableError
from darkbloom_mesh.telemetry import Metrics

from darkbloom_registry.errors import BuildNotFoundError
from darkbloom_registry.model import VersionState
from darkbloom_registry.model_states import ModelStage
from darkbloom_registry.ports import Store
from darkbloom_registry.progress.readers import (
    Progress,
    Propagation,
    Reader,
    held,
    newest_lives,
    progress_of,
)
from darkbloom_registry.rollouts import Rollout, overdue

GAUGES_S = 15.0
"""Between two measurements."""
_log = structlog.get_logger()


@final
class Following:
    """Answers from the store, so that every replica of the registry says the same."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def confirm(self, reader: Reader) -> None:
        """Note where a replica stands."""
        await self._store.put_reader(reader)

    async def leave(self, session: str) -> None:
        """Forget a replica that ends."""
        await self._store.remove_reader(session)

    async def readers(self) -> tuple[Reader, ...]:
        """Return the replicas whose confirmation still counts, the silent ones too."""
        return newest_lives(await self._store.readers(self._clock.now()))

    async def propagation(self, generation: int) -> Propagation:
        """Return who goes by a generation; 0 means the newest."""
        newest = await self._store.generation()
        readers = await self.readers()
        return Propagation(generation=generation or newest, newest=newest, readers=readers)

    async def progress(self, build: str) -> tuple[Progress, tuple[Rollout, ...]]:
        """Return how far a build is, and the live rollouts from or to it.

        Raises:
            BuildNotFoundError: there is no such build.
        """
        if await self._store.build(build) is None:
            raise BuildNotFoundError("no such build")
        states = await self._store.all_model_states(build)
        live = await self._store.live_rollouts()
        moving = tuple(one for one in live if build in (one.from_build, one.to_build))
        return progress_of(build, states, await self.readers()), moving

    async def check_hash(self, build: str, weight_hash: str) -> tuple[VersionState | None, bool]:
        """Return what a weight hash is to a build, and whether it is accepted now."""
        found = await self._store.build(build)
        if found is None:
            return None, False
        states = {v.state for v in found.versions if v.aggregate_sha256 == weight_hash}
        best = next((state for state in _BEST_FIRST if state in states), None)
        return best, found.listed and weight_hash in found.accepted_weight_hashes


_BEST_FIRST = (
    VersionState.ACTIVE,
    VersionState.RETAINED,
    VersionState.READY,
    VersionState.RETIRED,
)
"""Two versions may have the same bytes; the better state speaks for them."""


@final
class Gauges:
    """Publishes what can only be measured now and then; every replica measures the same store."""

    def __init__(self, store: Store, following: Following, metrics: Metrics, clock: Clock) -> None:
        self._store = store
        self._following = following
        self._clock = clock
        self._generation = metrics.gauge(telemetry.CATALOG_GENERATION)
        self._machines = metrics.gauge(telemetry.PREFETCH_PROVIDERS)
        self._converged = metrics.gauge(telemetry.ROLLOUT_CONVERGED)
        self._overdue = metrics.gauge(telemetry.ROLLOUT_OVERDUE)

    async def run(self) -> None:
        """Measure for ever."""
        while True:
            try:
                await self.measure()
            except StoreUnavailableError:
                _log.warning("catalog_not_measured")
            await self._clock.sleep(GAUGES_S)

    async def measure(self) -> None:
        """Measure once.

        Raises:
            StoreUnavailableError: the store is away.
        """
        catalog = await self._store.catalog()
        counts = await self._store.stage_counts()
        readers = await self._following.readers()
        live = await self._store.live_rollouts()
        self._generation.set(catalog.generation)
        self._machines.clear()
        for build in catalog.builds:
            for stage in ModelStage:
                count = counts.get((build.facts.id, stage), 0)
                self._machines.labels(build.facts.id, stage.value).set(count)
        self._converged.clear()
        self._overdue.clear()
        for rollout in live:
            share = held(rollout.to_build, readers).converged
            if share is not None:
                self._converged.labels(rollout.to_build).set(share)
            late = overdue(rollout, self._clock.now()).total_seconds()
            self._overdue.labels(rollout.to_build).set(late)
