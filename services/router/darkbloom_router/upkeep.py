"""What the router does now and then, and how it leaves."""

from collections.abc import Callable
from dataclasses import dataclass

import structlog
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError

from darkbloom_router import figures
from darkbloom_router.closing import Closing
from darkbloom_router.dispatch import Dispatcher
from darkbloom_router.fleet import Fleet
from darkbloom_router.gateway_lane import GatewayLanes
from darkbloom_router.health import Health
from darkbloom_router.losses import Losses
from darkbloom_router.meter import Meter
from darkbloom_router.model import Catalog
from darkbloom_router.observations import Observations
from darkbloom_router.ports import Ledger
from darkbloom_router.provider_links import ProviderLinks
from darkbloom_router.queueing import Trigger
from darkbloom_router.replicas.parts import Replicas
from darkbloom_router.requests import Requests

_log = structlog.get_logger()
_SWEEP_S = 30.0
_GAUGES_S = 15.0
_RENEW_BATCH = 64
_RENEW_RETRY_S = 30.0
_DRAIN_POLL_S = 0.1
_MOVING = 0.6
"""Part of the patience of a drain in which providers may move with what they are given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """A running router, as its periodic work and its end see it."""

    clock: Clock
    fleet: Fleet
    requests: Requests
    dispatcher: Dispatcher
    closing: Closing
    losses: Losses
    links: ProviderLinks
    lanes: GatewayLanes
    replicas: Replicas
    ledger: Ledger
    meter: Meter
    health: Health
    drain_grace_s: float
    renew_interval_s: float
    hold_lease_s: float
    seen: Observations

    def apply_catalog(self, catalog: Catalog) -> None:
        """Route by another catalog from now on."""
        self.meter.catalog = catalog.builds
        self.meter.generation(catalog.generation)
        self.seen.turn(catalog)
        self.links.downloads.turn(catalog)
        self.fleet.set_catalog(catalog)
        self.links.catalog_changed()
        for provider in list(self.fleet.providers.values()):
            self.dispatcher.drain_lines(provider, Trigger.KICK)

    def holds(self) -> set[str]:
        """Return the requests whose holds must not lapse."""
        return self.requests.ids() | self.closing.holds()

    async def sweep(self) -> None:
        """Evict silent providers for ever."""
        while True:
            await self.clock.sleep(_SWEEP_S)
            self.links.sweep()
            self.health.sweep(self.clock.monotonic())

    async def gauge(self) -> None:
        """Publish what can only be measured now and then, for ever."""
        while True:
            await self.clock.sleep(_GAUGES_S)
            depths = self.dispatcher.line.depths()
            self.meter.lines(depths)
            self.meter.store(reachable=self.replicas.store_ok)
            self.fleet.keep_large_machines(self.dispatcher.line.depth)
            now = self.clock.monotonic()
            self.fleet.advance(now)
            self.meter.fleet(figures.of_fleet(self.fleet.providers.values(), now))
            self.meter.capacity(
                {
                    build: figures.of_build(self.fleet.index(build), depths.get(build, (0, 0.0))[0])
                    for build in self.fleet.catalog.builds
                }
            )

    async def renew(self) -> None:
        """Keep the holds of running requests from lapsing, for ever."""
        while True:
            await self.clock.sleep(self.renew_interval_s)
            waiting = sorted(self.holds())
            while waiting:
                batch, waiting = waiting[:_RENEW_BATCH], waiting[_RENEW_BATCH:]
                try:
                    ended = await self.ledger.renew(batch, self.hold_lease_s)
                except MeshError as error:
                    _log.warning("holds_not_renewed", reason=error.reason_name)
                    waiting = batch + waiting
                    await self.clock.sleep(min(_RENEW_RETRY_S, self.renew_interval_s))
                    continue
                if ended:
                    _log.warning("holds_ended_early", holds=len(ended))

    async def drain(self) -> None:
        """Leave: nothing new, let the running finish, hand in all money, close the lanes."""
        self.dispatcher.draining = True
        self.replicas.publisher.leave()
        self.links.go_away("drain", self.drain_grace_s)
        self.lanes.go_away("drain", self.drain_grace_s)
        # Half of the grace belongs to requests, the rest to billing and to the last frames.
        begun_at, half = self.clock.monotonic(), self.drain_grace_s / 2
        await self._until(begun_at + half * _MOVING, lambda: self._busy() or self._moving())
        # Who has not moved by now gets no more work, so that nothing is cut in the middle.
        self.links.fence()
        await self._until(begun_at + half, self._busy)
        self.lanes.close("drain")
        self.losses.everything()
        await self.closing.flush()
        self.links.close("drain")
        await self.replicas.leave()

    async def _until(self, end: float, needed: Callable[[], bool]) -> None:
        while needed() and self.clock.monotonic() < end:
            await self.clock.sleep(_DRAIN_POLL_S)

    def _busy(self) -> bool:
        """Say whether requests still need this replica, ours or others'."""
        return bool(self.requests) or self.replicas.carrying

    def _moving(self) -> bool:
        """Say whether providers are here that can move."""
        return len(self.links) > 0 and self.replicas.has_others
