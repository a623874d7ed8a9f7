"""The composition root: every part of the router, made and wired in one place."""

import secrets
from functools import partial
from importlib.metadata import version

import grpc
import structlog
from darkbloom.router.v1 import fleet_service_pb2, gateway_lane_service_pb2
from darkbloom.router.v1.fleet_service_pb2_grpc import add_FleetServiceServicer_to_server
from darkbloom.router.v1.gateway_lane_service_pb2_grpc import (
    add_GatewayLaneServiceServicer_to_server,
)
from darkbloom.router.v1.peer_lane_service_pb2_grpc import (
    add_PeerLaneServiceServicer_to_server,
)
from darkbloom.router.v1.provider_link_service_pb2_grpc import (
    add_ProviderLinkServiceServicer_to_server,
)
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.channel import channel
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.confirming import Confirmations
from darkbloom_mesh.credits import WINDOW
from darkbloom_mesh.options import MAX_LANE_BYTES
from darkbloom_mesh.serve import Service

from darkbloom_router import configured, stores
from darkbloom_router.alive import Alive
from darkbloom_router.attempts import Attempts
from darkbloom_router.cancels import Cancels
from darkbloom_router.challenges import ChallengeTimes
from darkbloom_router.clients import AttestationClient, LedgerClient, LinksClient
from darkbloom_router.closing import Closing
from darkbloom_router.config import RouterConfig
from darkbloom_router.confirming import CatalogStanding
from darkbloom_router.dispatch import Dispatcher
from darkbloom_router.dispatching import DispatchParts, make_dispatching
from darkbloom_router.downlink import Downlink, Patience
from darkbloom_router.ends import Ends
from darkbloom_router.fleet import Fleet
from darkbloom_router.fleet_reads import FleetReads
from darkbloom_router.gateway_lane import GatewayLanes
from darkbloom_router.health import Health
from darkbloom_router.hedging import HedgeLimits
from darkbloom_router.holdings import count as count_holdings
from darkbloom_router.link_parts import LinkLimits, LinkParts
from darkbloom_router.losses import Losses
from darkbloom_router.meter import Meter
from darkbloom_router.model_reports import ModelReports
from darkbloom_router.own_prices import OwnPrices, OwnPriceWatch
from darkbloom_router.provider import Provider
from darkbloom_router.provider_links import ProviderLinks
from darkbloom_router.queueing import Line, LineLimits, Trigger
from darkbloom_router.replicas.asker import AskerParts
from darkbloom_router.replicas.carried import Carriage
from darkbloom_router.replicas.holder import HolderParts, PeerLanes
from darkbloom_router.replicas.join import (
    hello,
    new_member,
    welcome,
)
from darkbloom_router.replicas.lane import ProviderLane
from darkbloom_router.replicas.parts import Replicas
from darkbloom_router.replicas.publisher import Publisher
from darkbloom_router.reports import Reports
from darkbloom_router.requests import Requests
from darkbloom_router.server import (
    FleetServer,
    GatewayLaneServer,
    PeerLaneServer,
    ProviderLinkServer,
)
from darkbloom_router.settlement import SettlementDesk
from darkbloom_router.spans import Spans
from darkbloom_router.timers import Timers
from darkbloom_router.trust import Trust
from darkbloom_router.upkeep import Router
from darkbloom_router.uplink import Uplink
from darkbloom_router.warm import wiring as warming
from darkbloom_router.watches import CatalogFile, CatalogWatch, RevocationWatch

GATHER_S = 0.1
"""Between deliveries of settlements, which nobody waits for."""
RECORDS_SCHEMA = "routing"
_LATE_SLACK_S = 60.0
_log = structlog.get_logger()


async def serve(config: RouterConfig) -> int:
    """Run the router until it is told to stop; returns its exit code."""
    async with Service(config, room="router", version=version("darkbloom-router")) as service:
        await build(config, service, config.clock())
        return await service.wait()


async def build(config: RouterConfig, service: Service, clock: Clock) -> Router:
    """Make every part, bind the listeners and start the background work."""
    dial = partial(channel, mesh_token=config.mesh_token(), room="router", tls=service.tls)
    to_attestation = dial(config.attestation_target, peer="attestation")
    to_billing = dial(config.billing_target, peer="billing")
    to_registry = dial(config.registry_target, peer="registry")
    for opened in (to_attestation, to_billing, to_registry):
        service.on_close(partial(_close, opened))
    attestation = AttestationClient(to_attestation, clock, config.call_timeout_s)
    ledger = LedgerClient(to_billing, config.call_timeout_s)
    accounts = LinksClient(to_billing, config.call_timeout_s)

    uniform = secrets.SystemRandom().random
    meter, timers = Meter(service.metrics), Timers(clock)
    spans = Spans(clock, enabled=config.otlp_endpoint is not None)
    fleet, attempts = configured.fleet(config), Attempts(WINDOW)
    lanes: dict[Provider, ProviderLane] = {}
    prices = OwnPrices()
    line = Line(
        timers,
        meter,
        LineLimits(depth=config.queue_depth, wait_s=config.queue_wait_s),
        fleet.has_machines,
    )
    requests = Requests(timers, line)
    desk = SettlementDesk(
        ledger,
        clock,
        Backoff(uniform, first_s=0.2, cap_s=10.0),
        limit=config.settlement_limit,
        count=meter.settled,
        gather_s=GATHER_S,
    )

    health = Health(fleet, meter.tripped)
    ends = Ends(fleet, requests, lanes, meter, spans, timers, health, Cancels(timers, meter))
    carriage = Carriage(fleet, attempts)
    replicas = _replicas(fleet, health, carriage, clock)
    closing = Closing(
        attempts,
        desk,
        timers,
        meter,
        lane_of=partial(_lane_of, fleet, lanes),
        gone=ends.gone,
        elsewhere=replicas.elsewhere,
        delay_s=config.break_settle_delay_s,
        lease_s=config.hold_lease_s + _LATE_SLACK_S,
    )
    offers, hedging, dispatcher = make_dispatching(
        DispatchParts(
            fleet=fleet,
            attempts=attempts,
            requests=requests,
            ends=ends,
            line=line,
            lanes=lanes,
            timers=timers,
            meter=meter,
            spans=spans,
            prices=prices,
            limits=configured.limits(config),
            hedges=HedgeLimits(enabled=config.hedging, after_s=config.hedge_after_s),
            new_id=_new_id,
            pick=secrets.randbelow,
            unix_now=lambda: clock.now().timestamp(),
        )
    )
    stores.record(config, service, offers, dispatcher, ends, meter, clock)
    ends.wire(closing, retry=dispatcher.retry, freed=partial(_freed, replicas, dispatcher))
    warm = warming.keeper(config, fleet, line, lanes, timers, meter, replicas)
    dispatcher.wire(closing.free, sign=warm.pool.note, waits=warm.kick)
    carriage.wire(partial(_freed, replicas, dispatcher))
    losses = Losses(attempts, requests, ends, closing, lanes, orphan_s=config.break_settle_delay_s)

    reports = Reports(attestation, clock, Backoff(uniform), meter, _new_id)
    trust = Trust(
        fleet,
        ends,
        losses,
        lanes,
        meter,
        report=reports.add,
        timers=timers,
        freed=partial(dispatcher.drain_lines, trigger=Trigger.CHALLENGE),
        caught=replicas.caught,
        cut=replicas.cut,
    )
    patience = Patience(
        accept_s=config.accept_timeout_s,
        content_s=config.content_timeout_s,
        preamble_s=config.preamble_timeout_s,
        silence_s=config.silence_timeout_s,
    )
    downlink = Downlink(
        attempts,
        ends,
        closing,
        trust,
        timers,
        meter,
        patience,
        relay=replicas.relay,
    )
    uplink = Uplink(
        attempts,
        dispatcher,
        ends,
        trust,
        timers,
        meter,
        patience,
        closing,
        hedging,
        max_body_bytes=config.max_body_bytes,
    )
    links = ProviderLinks(
        LinkParts(
            fleet=fleet,
            dispatcher=dispatcher,
            closing=closing,
            downlink=downlink,
            losses=losses,
            lanes=lanes,
            trust=trust,
            timers=timers,
            clock=clock,
            meter=meter,
            attestation=attestation,
            links=accounts,
            replicas=replicas,
            warm=warm,
            seen=ends.seen,
            limits=LinkLimits(
                max_links=config.max_providers,
                registrations_per_s=config.registrations_per_s,
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
    gateways = GatewayLanes(
        uplink, losses, timers, clock, meter, replica=config.replica, initial_credit=WINDOW
    )
    router = Router(
        clock=clock,
        fleet=fleet,
        requests=requests,
        dispatcher=dispatcher,
        closing=closing,
        losses=losses,
        links=links,
        lanes=gateways,
        replicas=replicas,
        ledger=ledger,
        meter=meter,
        health=health,
        drain_grace_s=config.drain_grace_s,
        renew_interval_s=config.renew_interval_s,
        hold_lease_s=config.hold_lease_s,
        seen=ends.seen,
    )

    catalog = CatalogWatch(
        to_registry,
        CatalogFile(config.state_dir / "catalog.pb" if config.state_dir else None),
        timers,
        clock,
        Backoff(uniform),
        router.apply_catalog,
    )
    revocations = RevocationWatch(to_attestation, timers, clock, Backoff(uniform), trust.revoked)
    price_watch = OwnPriceWatch(to_billing, timers, clock, Backoff(uniform), prices)
    await catalog.load()
    member = new_member(config.replica, config.advertise)
    replicas.lanes = PeerLanes(
        HolderParts(
            fleet=fleet,
            carriage=carriage,
            publisher=replicas.publisher,
            lanes=lanes,
            trust=trust,
            health=health,
            timers=timers,
            clock=clock,
            meter=meter,
            welcome=welcome(member),
            superseded=replicas.superseded,
        )
    )
    _listen(config, service, router, replicas.lanes, timers)
    asker = AskerParts(
        fleet=fleet,
        attempts=attempts,
        downlink=downlink,
        losses=losses,
        lanes=lanes,
        timers=timers,
        clock=clock,
        meter=meter,
        hello=hello(member),
        drain_lines=dispatcher.drain_lines,
        granted=offers.granted,
        orphaned=dispatcher.returning.lost,
        refused=offers.declined,
        terminal=downlink.stray,
    )
    stores.join(config, service, router, member, asker)
    service.ready_if(lambda: catalog.known and gateways.admits and not dispatcher.draining)
    service.on_drain(router.drain)
    for name, work in (
        ("timers", timers.run()),
        ("settlements", desk.run()),
        ("reports", reports.run()),
        ("catalog", catalog.run()),
        ("revocations", revocations.run()),
        ("own_prices", price_watch.run()),
        (
            "model_reports",
            ModelReports(
                to_registry,
                ends.seen,
                clock,
                Backoff(uniform),
                session=_new_id("seen"),
                timeout_s=config.call_timeout_s,
                downloads=router.links.downloads,
                granted=router.links.granted,
            ).run(),
        ),
        ("confirmations", _confirmations(config, service, to_registry, router, catalog).run()),
        ("sweeps", router.sweep()),
        ("gauges", router.gauge()),
        ("renewals", router.renew()),
        ("alive", Alive(fleet, attestation, clock).run()),
        ("warm_pool", warm.run(clock)),
        ("presence", replicas.publisher.run()),
    ):
        service.spawn(work, name=name)
    return router


def _confirmations(
    config: RouterConfig,
    service: Service,
    to_registry: grpc.aio.Channel,
    router: Router,
    catalog: CatalogWatch,
) -> Confirmations:
    standing = CatalogStanding(
        to_registry,
        session=_new_id("read"),
        replica=config.replica,
        holdings=lambda: count_holdings(router.links.machines()),
        timeout_s=config.call_timeout_s,
    )
    made = Confirmations(standing.say, lambda: catalog.generation, router.clock)
    service.on_close(made.leave)
    return made


def migrate(config: RouterConfig, *, new: bool = False) -> int:
    """Bring the schema of decision records to its newest revision; return the exit code.

    Args:
        config: What the environment says.
        new: Fill a blank database in production too.

    Raises:
        BlankStoreError: The schema is not there, and nobody said that the mesh is new.
    """
    # Half of a room's start would be alembic and sqlalchemy, which no server needs.
    from darkbloom_mesh.migrate import migrate as migrate_schema

    if config.database_url is None:
        _log.error("no_database", hint="set DATABASE_URL; without it nothing is recorded")
        return 2
    new = new or config.environment == "development"
    migrate_schema(config.database_url, package=__package__, schema=RECORDS_SCHEMA, new=new)
    return 0


def _listen(
    config: RouterConfig, service: Service, router: Router, peers: PeerLanes, timers: Timers
) -> None:
    """Bind the public listener for providers and the internal one for everybody else."""
    provider_link = ProviderLinkServer(router.links)
    service.add_listener(
        "public",
        config.public_listen,
        registrars=[partial(add_ProviderLinkServiceServicer_to_server, provider_link)],
        mesh_token=None,
        max_message_bytes=MAX_LANE_BYTES,
        public=True,
    )
    clock = router.clock
    unix_offset_s = clock.now().timestamp() - clock.monotonic()
    reads = FleetReads(router.fleet, router.dispatcher, timers, unix_offset_s)
    gateway_lane = gateway_lane_service_pb2.DESCRIPTOR.services_by_name["GatewayLaneService"]
    fleet_service = fleet_service_pb2.DESCRIPTOR.services_by_name["FleetService"]
    service.add_listener(
        "internal",
        config.internal_listen,
        registrars=[
            partial(add_GatewayLaneServiceServicer_to_server, GatewayLaneServer(router.lanes)),
            partial(add_PeerLaneServiceServicer_to_server, PeerLaneServer(peers)),
            partial(add_FleetServiceServicer_to_server, FleetServer(reads)),
        ],
        mesh_token=config.mesh_token(),
        reflection=[gateway_lane.full_name, fleet_service.full_name],
        max_message_bytes=MAX_LANE_BYTES,
    )


def _replicas(fleet: Fleet, health: Health, carriage: Carriage, clock: Clock) -> Replicas:
    """Return our side of being one of many, which hears of changes and lessons from now on."""
    made = Replicas(carriage, Publisher(carriage, clock))
    fleet.on_change, health.tell = made.publisher.changed, made.taught
    return made


def _freed(replicas: Replicas, dispatcher: Dispatcher, provider: Provider) -> None:
    """Give a free place to whoever has waited for it, here or at another replica."""
    replicas.freed(provider)
    dispatcher.drain_lines(provider, Trigger.IDLE)


def _new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(16)}"


def _lane_of(
    fleet: Fleet, lanes: dict[Provider, ProviderLane], provider: Provider
) -> ProviderLane | None:
    """Return a provider's lane, or that of the stream which has taken its identity over."""
    holder = fleet.by_identity(provider.identity_key)
    return lanes.get(provider) or (lanes.get(holder) if holder else None)


async def _close(opened: grpc.aio.Channel) -> None:
    await opened.close()
