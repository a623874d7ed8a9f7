"""The composition root: `neighbours`, then the `core` that decides, then the `streams` that speak.

Here they meet the service: its listeners, its health, its background work and its end.
"""

import secrets
from functools import partial
from importlib.metadata import version

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
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.confirming import Confirmations
from darkbloom_mesh.options import MAX_LANE_BYTES
from darkbloom_mesh.serve import Service

from darkbloom_router import stores
from darkbloom_router.alive import Alive
from darkbloom_router.config import RouterConfig
from darkbloom_router.confirming import CatalogStanding
from darkbloom_router.core import Core, make_core, make_state, make_tools, new_id
from darkbloom_router.fleet_reads import FleetReads
from darkbloom_router.holdings import count as count_holdings
from darkbloom_router.model_reports import ModelReports
from darkbloom_router.neighbours import Neighbours, dial
from darkbloom_router.own_prices import OwnPriceWatch
from darkbloom_router.replicas.holder import PeerLanes
from darkbloom_router.replicas.join import new_member
from darkbloom_router.server import (
    FleetServer,
    GatewayLaneServer,
    PeerLaneServer,
    ProviderLinkServer,
)
from darkbloom_router.streams import Streams, asker_parts, make_peers, make_streams
from darkbloom_router.timers import Timers
from darkbloom_router.upkeep import Router
from darkbloom_router.warm import wiring as warming
from darkbloom_router.watches import CatalogFile, CatalogWatch, RevocationWatch

RECORDS_SCHEMA = "routing"
_log = structlog.get_logger()


async def serve(config: RouterConfig) -> int:
    """Run the router until it is told to stop; returns its exit code."""
    async with Service(config, room="router", version=version("darkbloom-router")) as service:
        await build(config, service, config.clock())
        return await service.wait()


async def build(config: RouterConfig, service: Service, clock: Clock) -> Router:
    """Make every part, bind the listeners and start the background work."""
    neighbours = dial(config, service, clock)
    tools = make_tools(config, service.metrics, clock)
    state = make_state(config, tools)
    core = make_core(config, tools, state, neighbours.ledger)
    stores.record(config, service, core)
    warm = warming.keeper(config, tools, state)
    core.dispatcher.wire(core.closing.free, sign=warm.pool.note, waits=warm.kick)
    streams = make_streams(config, core, neighbours, warm)
    router = _router(config, core, streams, neighbours)

    backoff = partial(Backoff, secrets.SystemRandom().random)
    catalog = CatalogWatch(
        neighbours.to_registry,
        CatalogFile(config.state_dir / "catalog.pb" if config.state_dir else None),
        tools.timers,
        clock,
        backoff(),
        router.apply_catalog,
    )
    await catalog.load()
    member = new_member(config.replica, config.advertise)
    state.replicas.lanes = make_peers(core, streams, member)
    _listen(config, service, router, state.replicas.lanes, tools.timers)
    stores.join(config, service, router, member, asker_parts(core, streams, member))
    service.ready_if(
        lambda: catalog.known and streams.gateways.admits and not core.dispatcher.draining
    )
    service.on_drain(router.drain)
    revocations = RevocationWatch(
        neighbours.to_attestation, tools.timers, clock, backoff(), streams.trust.revoked
    )
    prices = OwnPriceWatch(neighbours.to_billing, tools.timers, clock, backoff(), state.prices)
    for name, work in (
        ("timers", tools.timers.run()),
        ("settlements", core.desk.run()),
        ("reports", streams.reports.run()),
        ("catalog", catalog.run()),
        ("revocations", revocations.run()),
        ("own_prices", prices.run()),
        ("model_reports", _model_reports(config, neighbours, router, backoff()).run()),
        ("confirmations", _confirmations(config, service, neighbours, router, catalog).run()),
        ("sweeps", router.sweep()),
        ("gauges", router.gauge()),
        ("renewals", router.renew()),
        ("alive", Alive(state.fleet, neighbours.attestation, clock).run()),
        ("warm_pool", warm.run(clock)),
        ("presence", state.replicas.publisher.run()),
    ):
        service.spawn(work, name=name)
    return router


def _router(config: RouterConfig, core: Core, streams: Streams, neighbours: Neighbours) -> Router:
    """Return what the periodic work and the end of a router need of it."""
    tools, state = core.tools, core.state
    return Router(
        clock=tools.clock,
        fleet=state.fleet,
        requests=state.requests,
        dispatcher=core.dispatcher,
        closing=core.closing,
        losses=core.losses,
        links=streams.links,
        lanes=streams.gateways,
        replicas=state.replicas,
        ledger=neighbours.ledger,
        meter=tools.meter,
        health=state.health,
        drain_grace_s=config.drain_grace_s,
        renew_interval_s=config.renew_interval_s,
        hold_lease_s=config.hold_lease_s,
        seen=core.ends.seen,
    )


def _model_reports(
    config: RouterConfig, neighbours: Neighbours, router: Router, backoff: Backoff
) -> ModelReports:
    return ModelReports(
        neighbours.to_registry,
        router.seen,
        router.clock,
        backoff,
        session=new_id("seen"),
        timeout_s=config.call_timeout_s,
        downloads=router.links.downloads,
        granted=router.links.granted,
    )


def _confirmations(
    config: RouterConfig,
    service: Service,
    neighbours: Neighbours,
    router: Router,
    catalog: CatalogWatch,
) -> Confirmations:
    standing = CatalogStanding(
        neighbours.to_registry,
        session=new_id("read"),
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
