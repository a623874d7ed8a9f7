"""Take a version from the store into a running shift: a new build, or a new version of one.

A new version of a build that serves is exchanged (spec: registry section 11): requests for it are
turned away, those that run end, the old one is unloaded, the new one loaded. Two copies are never
in memory at once. Where the new one does not load, the old one comes back.
"""

import asyncio
from collections.abc import Callable
from enum import StrEnum
from typing import Final, final

import structlog
from darkbloom_mesh.clock import Clock

from darkbloom_provider.engine.errors import EngineError, FailureCode
from darkbloom_provider.engine.interface import Engine
from darkbloom_provider.inventory import Inventory, build_of
from darkbloom_provider.loads import Loads
from darkbloom_provider.models.errors import ModelError
from darkbloom_provider.models.store import ModelStore, StoredModel

IDLE_CHECKS: Final = 120
IDLE_CHECK_S: Final = 0.5
"""How often, and how far apart, running requests are looked at before the exchange is put off."""

_log = structlog.get_logger()


class ExchangeFault(StrEnum):
    """Why a version is not served."""

    CORRUPT = "corrupt"
    BUSY = "busy"
    LOAD_FAILED = "load_failed"


class ExchangeError(Exception):
    """A version was not taken; what served before serves on, unless it does not load either."""

    def __init__(self, fault: ExchangeFault) -> None:
        super().__init__(fault.value)
        self.fault = fault


@final
class Exchange:
    """Changes what a shift serves, one version after the other.

    Args:
        store: where versions are.
        inventory: what is served.
        engine: has the builds in memory.
        loads: decides which.
        clock: of waits.
        uniform: randomness in [0, 1).
        jitter_s: longest random wait before an exchange, so that a fleet does not turn requests
            away at once.
        changed: called after each change of the inventory.
    """

    def __init__(
        self,
        *,
        store: ModelStore,
        inventory: Inventory,
        engine: Engine,
        loads: Loads,
        clock: Clock,
        uniform: Callable[[], float],
        jitter_s: float,
        changed: Callable[[], None],
    ) -> None:
        self._store = store
        self._inventory = inventory
        self._engine = engine
        self._loads = loads
        self._clock = clock
        self._uniform = uniform
        self._jitter_s = jitter_s
        self._changed = changed
        self._lock = asyncio.Lock()

    async def take(self, stored: StoredModel) -> None:
        """Serve a version; does nothing where it is served.

        Raises:
            ExchangeError: It is not served now, and why.
        """
        async with self._lock:
            before = self._inventory.get(stored.manifest.model_id)
            identity = stored.manifest.identity_sha256
            if before is not None and before.manifest.identity_sha256 == identity:
                return
            try:
                await asyncio.to_thread(self._store.verify, stored)
            except ModelError as error:
                _log.warning("model_corrupt", build=stored.manifest.model_id)
                raise ExchangeError(ExchangeFault.CORRUPT) from error
            if before is None:
                await self._add(stored)
            else:
                await self._replace(before, stored)
            await asyncio.to_thread(self._store.select, stored)
            self._inventory.mark(self._store)
        _log.info("model_taken", build=stored.manifest.model_id, version=stored.manifest.version)

    async def _add(self, stored: StoredModel) -> None:
        """Offer a build; one that is known not to load is never offered."""
        self._loads.offer(build_of(stored))
        try:
            await self._prove(stored)
        except ExchangeError:
            self._loads.withdraw(stored.manifest.model_id)
            raise
        self._inventory.put(stored)
        self._changed()

    async def _replace(self, before: StoredModel, stored: StoredModel) -> None:
        name = stored.manifest.model_id
        await self._clock.sleep(self._uniform() * self._jitter_s)
        self._inventory.shut(name)
        self._changed()
        try:
            await self._idle(name)
            warm = self._loads.warm(name)
            if warm:
                await self._engine.unload(name)
            self._loads.offer(build_of(stored))
            if warm:
                await self._prove(stored)
        except ExchangeError:
            await self._restore(before)
            raise
        except EngineError as error:
            await self._restore(before)
            raise ExchangeError(ExchangeFault.LOAD_FAILED) from error
        except asyncio.CancelledError:
            # Files and name go together, whatever was half done.
            self._loads.offer(build_of(before))
            raise
        self._inventory.put(stored)
        self._changed()

    async def _restore(self, before: StoredModel) -> None:
        """Serve the old version again; where it does not load now, the build stays shut."""
        name = before.manifest.model_id
        self._loads.offer(build_of(before))
        try:
            await self._loads.load(name)
        except EngineError as error:
            _log.error("model_lost", build=name, code=error.code.value)
            return
        self._inventory.put(before)
        self._changed()

    async def _idle(self, name: str) -> None:
        for _ in range(IDLE_CHECKS):
            if not self._busy(name):
                return
            await self._clock.sleep(IDLE_CHECK_S)
        raise ExchangeError(ExchangeFault.BUSY)

    def _busy(self, name: str) -> bool:
        return self._loads.held_by_request(name) or any(
            slot.model == name and (slot.num_running or slot.num_waiting)
            for slot in self._engine.slots()
        )

    async def _prove(self, stored: StoredModel) -> None:
        """Load it once, unless every slot is in use: then the first request will."""
        try:
            await self._loads.load(stored.manifest.model_id)
        except EngineError as error:
            if error.code is FailureCode.CAPACITY:
                return
            _log.warning("model_not_loadable", build=stored.manifest.model_id)
            raise ExchangeError(ExchangeFault.LOAD_FAILED) from error
