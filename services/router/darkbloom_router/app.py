"""The composition root: every part of the router, made and wired in one place."""

import secrets
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import grpc
import structlog
from darkbloom.router.v1 import fleet_service_pb2, gateway_lane_service_pb2
from darkbloom.router.v1.fleet_service_pb2_grpc import add_FleetServiceServicer_to_server
from darkbloom.router.v1.gateway_lane_service_pb2_grpc import (
    add_GatewayLaneServiceServicer_to_server,
)
from darkbloom.router.v1.provider_link_service_pb2_grpc import (
    add_ProviderLinkServiceServicer_to_server,
)
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.channel import channel
from darkbloom_mesh.clock import Clock, SystemClock
from darkbloom_mesh.credits import WINDOW
from darkbloom_mesh.errors import MeshError
from darkbloom_mesh.lane import Lane
from darkbloom_mesh.options import MAX_LANE_BYTES
from darkbloom_mesh.serve import Service

from darkbloom_router.attempts import Attempts
from darkbloom_router.challenges import ChallengeTimes
from darkbloom_router.clients import AttestationClient, LedgerClient, LinksClient
from darkbloom_router.closing import Closing
from darkbloom_router.config import RouterConfig
from darkbloom_router.dispatch import Dispatcher, DispatchLimits
from darkbloom_router.fleet import Fleet
from darkbloom_router.fleet_reads import FleetReads
from darkbloom_router.gateway_lane import GatewayLanes
from darkbloom_router.meter import Meter
from darkbloom_router.model import Catalog, Rules, TrustLevel
from darkbloom_router.provider_link import LinkLimits, LinkParts, ProviderLinks
from darkbloom_router.queueing import LineLimits
from darkbloom_router.relay import Relay, RelayLimits
from darkbloom_router.reports import Reports
from darkbloom_router.server import FleetServer, GatewayLaneServer, ProviderLinkServer
from darkbloom_router.settlement import SettlementDesk
from darkbloom_router.spans import Spans
from darkbloom_router.timers import Timers
from darkbloom_router.trust import Trust
from darkbloom_router.watches import CatalogFile, CatalogWatch, RevocationWatch

_log = structlog.get_logger()
_SWEEP_S = 30.0
_GAUGES_S = 15.0
_RENEW_BATCH = 64
_RENEW_RETRY_S = 30.0
_DRAIN_POLL_S = 0.1
_LATE_SLACK_S = 60.0


async def serve(config: RouterConfig) -> int:
    """Run the router until it is told to stop; returns its exit code."""
    async with Service(config, room="router", version=version("darkbloom-router")) as service:
        await Router.build(config, service, SystemClock())
        return await service.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """The parts that periodic work and drain touch."""

    config: RouterConfig
    clock: Clock
    fleet: Fleet
    dispatcher: Dispatcher
    closing: Closing
    links: ProviderLinks
    lanes: GatewayLanes
    ledger: LedgerClient
    meter: Meter

    @classmethod
    async def build(cls, config: RouterConfig, service: Service, clock: Clock) -> "Router":
        """Make every part, bind the listeners and start the background work."""
        token = config.mesh_token()
        dial = partial(channel, mesh_token=token, room="router")
        attestation_channel = dial(config.attestation_target)
        billing_channel = dial(config.billing_target)
        registry_channel = dial(config.registry_target)
        for opened in (attestation_channel, billing_channel, registry_channel):
            service.on_close(partial(_close, opened))

        uniform = secrets.SystemRandom().random
        meter, timers = Meter(service.metrics), Timers(clock)
        fleet = Fleet(_rules(config))
        attempts = Attempts(WINDOW)
        ledger = LedgerClient(billing_channel, config.call_timeout_s)
        attestation = AttestationClient(attestation_channel, clock, config.call_timeout_s)
        desk = SettlementDesk(
            ledger,
            clock,
            Backoff(uniform, first_s=0.2, cap_s=10.0),
            limit=config.settlement_limit,
            count=meter.settled,
        )
        dispatcher = Dispatcher(
            fleet,
            attempts,
            timers,
            meter,
            Spans(clock, enabled=config.otlp_endpoint is not None),
            limits=DispatchLimits(
                max_attempts=config.max_attempts,
                default_deadline_s=config.default_deadline_s,
                orphan_s=config.break_settle_delay_s,
                line=LineLimits(depth=config.queue_depth, wait_s=config.queue_wait_s),
            ),
            new_id=_new_id,
            pick=secrets.randbelow,
            unix_now=lambda: clock.now().timestamp(),
        )
        closing = Closing(
            attempts,
            desk,
            timers,
            meter,
            lane_of=partial(_lane_of, fleet, dispatcher),
            gone=dispatcher.gone,
            delay_s=config.break_settle_delay_s,
            lease_s=config.hold_lease_s + _LATE_SLACK_S,
        )
        dispatcher.wire(closing)
        reports = Reports(attestation, clock, Backoff(uniform), meter, _new_id)
        trust = Trust(fleet, dispatcher, meter, reports.add)
        relay = Relay(
            attempts,
            dispatcher,
            closing,
            trust,
            timers,
            meter,
            RelayLimits(
                max_body_bytes=config.max_body_bytes,
                accept_s=config.accept_timeout_s,
                content_s=config.content_timeout_s,
                silence_s=config.silence_timeout_s,
            ),
        )
        links = ProviderLinks(
            LinkParts(
                fleet=fleet,
                dispatcher=dispatcher,
                closing=closing,
                relay=relay,
                trust=trust,
                timers=timers,
                clock=clock,
                meter=meter,
                attestation=attestation,
                links=LinksClient(billing_channel, config.call_timeout_s),
                limits=LinkLimits(
                    max_links=config.max_providers,
                    heartbeat_s=config.heartbeat_s,
                    challenges=ChallengeTimes(
                        interval_s=config.challenge_interval_s,
                        answer_s=config.challenge_answer_s,
                    ),
                ),
                initial_credit=WINDOW,
                new_id=_new_id,
                uniform=uniform,
            )
        )
        lanes = GatewayLanes(
            dispatcher,
            relay,
            timers,
            clock,
            meter,
            replica=config.replica,
            initial_credit=WINDOW,
        )
        router = cls(
            config=config,
            clock=clock,
            fleet=fleet,
            dispatcher=dispatcher,
            closing=closing,
            links=links,
            lanes=lanes,
            ledger=ledger,
            meter=meter,
        )
        catalog = CatalogWatch(
            registry_channel,
            CatalogFile(config.state_dir / "catalog.pb" if config.state_dir else None),
            timers,
            clock,
            Backoff(uniform),
            router.apply_catalog,
        )
        revocations = RevocationWatch(
            attestation_channel, timers, clock, Backoff(uniform), trust.revoked
        )
        await catalog.load()

        service.add_listener(
            "public",
            config.public_listen,
            registrars=[
                partial(add_ProviderLinkServiceServicer_to_server, ProviderLinkServer(links))
            ],
            mesh_token=None,
            max_message_bytes=MAX_LANE_BYTES,
        )
        reads = FleetReads(fleet, dispatcher, timers, clock.now().timestamp() - clock.monotonic())
        service.add_listener(
            "internal",
            config.internal_listen,
            registrars=[
                partial(add_GatewayLaneServiceServicer_to_server, GatewayLaneServer(lanes)),
                partial(add_FleetServiceServicer_to_server, FleetServer(reads)),
            ],
            mesh_token=token,
            reflection=[
                gateway_lane_service_pb2.DESCRIPTOR.services_by_name[
                    "GatewayLaneService"
                ].full_name,
                fleet_service_pb2.DESCRIPTOR.services_by_name["FleetService"].full_name,
            ],
            max_message_bytes=MAX_LANE_BYTES,
        )
        service.ready_if(lambda: catalog.known and not dispatcher.draining)
        for name, work in (
            ("timers", timers.run()),
            ("settlements", desk.run()),
            ("reports", reports.run()),
            ("catalog", catalog.run()),
            ("revocations", revocations.run()),
            ("sweeps", router.sweep()),
            ("gauges", router.gauge()),
            ("renewals", router.renew()),
        ):
            service.spawn(work, name=name)
        service.on_drain(router.drain)
        return router

    def apply_catalog(self, catalog: Catalog) -> None:
        """Route by another catalog from now on."""
        self.meter.catalog = catalog.builds
        self.fleet.set_catalog(catalog)
        self.links.catalog_changed()
        for provider in list(self.fleet.providers.values()):
            self.dispatcher.drain_lines(provider)

    async def sweep(self) -> None:
        """Evict silent providers for ever."""
        while True:
            await self.clock.sleep(_SWEEP_S)
            self.links.sweep()

    async def gauge(self) -> None:
        """Publish what can only be measured now and then, for ever."""
        while True:
            await self.clock.sleep(_GAUGES_S)
            self.meter.lines(self.dispatcher.line.depths())
            counts: dict[tuple[str, str], int] = {}
            for provider in self.fleet.providers.values():
                key = (provider.status, provider.level.word)
                counts[key] = counts.get(key, 0) + 1
            self.meter.fleet(counts)

    async def renew(self) -> None:
        """Keep the holds of running requests from lapsing, for ever."""
        while True:
            await self.clock.sleep(self.config.renew_interval_s)
            waiting = sorted(self.dispatcher.holds())
            while waiting:
                batch, waiting = waiting[:_RENEW_BATCH], waiting[_RENEW_BATCH:]
                try:
                    ended = await self.ledger.renew(batch, self.config.hold_lease_s)
                except MeshError as error:
                    _log.warning("holds_not_renewed", reason=error.reason_name)
                    waiting = batch + waiting
                    await self.clock.sleep(min(_RENEW_RETRY_S, self.config.renew_interval_s))
                    continue
                if ended:
                    _log.warning("holds_ended_early", holds=len(ended))

    async def drain(self) -> None:
        """Leave: nothing new, let the running finish, hand in all money, close the lanes."""
        grace_s = self.config.drain_grace_s
        self.dispatcher.draining = True
        self.links.go_away("drain", grace_s)
        self.lanes.go_away("drain", grace_s)
        patience = self.clock.monotonic() + grace_s / 2
        while self.dispatcher.live and self.clock.monotonic() < patience:
            await self.clock.sleep(_DRAIN_POLL_S)
        self.lanes.close("drain")
        self.dispatcher.hurry()
        await self.closing.flush()
        self.links.close("drain")


def _rules(config: RouterConfig) -> Rules:
    return Rules(
        min_trust=TrustLevel.parse_floor(config.min_trust),
        development=config.environment == "development",
        challenge_max_age_s=config.challenge_max_age_s,
        min_version=config.min_version,
    )


def _new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(16)}"


def _lane_of(fleet: Fleet, dispatcher: Dispatcher, identity_key: bytes) -> Lane | None:
    provider = fleet.by_identity(identity_key)
    return dispatcher.lanes.get(provider) if provider else None


async def _close(opened: grpc.aio.Channel) -> None:
    await opened.close()
