"""The composition root of one worker."""

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version as version_of
from typing import TypeVar, cast

from darkbloom.router.v1.gateway_lane_service_pb2_grpc import GatewayLaneServiceStub
from darkbloom_edge.signatures import Ed25519Signer
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.channel import channel
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.confirming import Confirmations
from darkbloom_mesh.lane import LaneCall
from darkbloom_mesh.options import MAX_LANE_BYTES
from darkbloom_mesh.serve import Service

from darkbloom_gateway.arrivals import Arrivals
from darkbloom_gateway.auth import Authenticator
from darkbloom_gateway.batching import Outbox
from darkbloom_gateway.buckets import Rate
from darkbloom_gateway.cached import Cached
from darkbloom_gateway.clients import FleetClient
from darkbloom_gateway.confidential.desk import Build, EvidenceDesk
from darkbloom_gateway.confidential.quotes import TsmReports
from darkbloom_gateway.config import GatewayConfig
from darkbloom_gateway.confirming import CatalogStanding
from darkbloom_gateway.counting import COUNT_PATH, CountTokens
from darkbloom_gateway.end_to_end.answering import (
    ANSWER_PATH,
    DECLINE_PATH,
    Answers,
    Declines,
    Desk,
)
from darkbloom_gateway.end_to_end.asking import OFFERS_PATH, Offers
from darkbloom_gateway.end_to_end.slots import Slots, ValkeySlots
from darkbloom_gateway.exhibits import Exhibits
from darkbloom_gateway.fleet_drain import FleetDrain, ValkeyDrainFlag
from darkbloom_gateway.gate import Gate
from darkbloom_gateway.guards import Guards
from darkbloom_gateway.hints import SECRET_BYTES
from darkbloom_gateway.http import DIALECTS, ROUTES, endpoint_word, make_app
from darkbloom_gateway.inference import Inference
from darkbloom_gateway.install import Manifests
from darkbloom_gateway.key_uses import KeyUses
from darkbloom_gateway.keys import KeyCache
from darkbloom_gateway.ledger import Ledger
from darkbloom_gateway.limits import RateLimiter
from darkbloom_gateway.link import RouterLink
from darkbloom_gateway.links import Router, RouterLinks
from darkbloom_gateway.listener import Listener, make_listener
from darkbloom_gateway.mailbox import ring_alarms
from darkbloom_gateway.media.fetcher import make_fetcher
from darkbloom_gateway.meters import Meters
from darkbloom_gateway.neighbours import dial
from darkbloom_gateway.news import CatalogNews, KeyNews, TrustNews
from darkbloom_gateway.owners import Owners
from darkbloom_gateway.parting import Parting
from darkbloom_gateway.ports import PriceList
from darkbloom_gateway.receipts import ReceiptPress
from darkbloom_gateway.recount import Recounts
from darkbloom_gateway.replays import Replays, ValkeyMarks
from darkbloom_gateway.routers import Parts, make_routers
from darkbloom_gateway.routes.plane import ControlPlane
from darkbloom_gateway.sealed import SealedRequests
from darkbloom_gateway.sealing_ring import SealingRing
from darkbloom_gateway.shell import Shell
from darkbloom_gateway.shortfall import Shortfalls
from darkbloom_gateway.spans import Spans
from darkbloom_gateway.stage import CatalogShelf, Stage
from darkbloom_gateway.standings import Standings
from darkbloom_gateway.store import SnapshotFile, ValkeyBuckets
from darkbloom_gateway.tokenizers import Tokenizers
from darkbloom_gateway.verdicts import VerdictDesk
from darkbloom_gateway.wire import App

T = TypeVar("T")
PRICES_S = 60.0
FLEET_S = 2.0
KEYS_S = 30.0
STALE_S = 600.0
FLUSH_S = 10.0
"""How long a stopping gateway waits for billing to take releases and receipts."""
GATHER_S = 0.1
"""Between deliveries of receipts and releases, which nobody waits for."""


def make_backoff() -> Backoff:
    """Return waits that are short enough for a router that restarts."""
    return Backoff(secrets.SystemRandom().random, first_s=0.25, cap_s=5.0)


def _source_key(config: GatewayConfig) -> bytes:
    """Return a secret of all gateways of this mesh, or of this one where they share none."""
    token = config.mesh_token()
    if token is not None:
        return token.reveal().encode()
    return config.admin_hash() or secrets.token_bytes(32)


class Worker:
    """Everything that one worker process runs, wired; `start` spawns it on a service.

    Args:
        config: what the environment says.
        service: owns tasks, metrics and the end.
        number: of this worker.
        clock: time.
    """

    def __init__(
        self, config: GatewayConfig, service: Service, *, number: int, clock: Clock
    ) -> None:
        self._config = config
        self._service = service
        self._clock = clock
        self._number = number
        self._neighbours = near = dial(config, service, clock)
        self.meters = Meters(service.metrics)
        self.gate = Gate(config.max_inflight)
        self.meters.follow(lambda: self.gate.inflight)
        self.shelf = CatalogShelf()
        self.links = RouterLinks(config.routers, self._open_router, secrets.randbelow, clock)

        buckets, marks = ValkeyBuckets(config.redis_url), ValkeyMarks(config.redis_url)
        flag = ValkeyDrainFlag(config.redis_url)
        for store in (buckets, marks, flag):
            service.on_close(store.close)
        self.limiter = RateLimiter(buckets, clock=clock)
        self.fleet_drain = FleetDrain(flag, self.gate, clock)
        self.ring = SealingRing(config.sealing_keys_file, clock)
        self.replays = Replays(
            marks,
            clock,
            window_s=config.sealed_replay_s,
            on_alone=lambda: self.meters.sealed("unshared"),
        )

        self._releases = self._outbox(near.billing.release, "releases")
        self._receipts = self._outbox(near.billing.record_receipts, "receipts")
        self.ledger = Ledger(near.billing, releases=self._releases, receipts=self._receipts)
        self.key_uses = KeyUses(near.identity.record_key_uses, clock)
        self.authenticator = Authenticator(
            near.billing,
            near.identity,
            KeyCache(config.key_cache_s),
            clock,
            admin_hash=config.admin_hash(),
            on_use=self.key_uses.note,
        )
        self.press = ReceiptPress(Ed25519Signer.generate())
        desk = VerdictDesk(
            floor=config.trust_floor, development=config.environment == "development"
        )
        self.trust = TrustNews(
            near.attestation,
            desk,
            self.press,
            gateway=f"{config.name}/{number}",
            clock=clock,
            pins=config.pins(),
        )
        self.catalog = CatalogNews(
            near.registry,
            self.shelf,
            clock,
            SnapshotFile(config.state_dir, number) if config.state_dir is not None else None,
        )
        owners = Owners(near.billing, clock)
        self.keys = KeyNews(near.billing, self.authenticator, owners, clock)
        prices = self._kept(near.billing.prices, PRICES_S)
        manifests = Manifests(near.registry, clock)
        self.tokenizers = Tokenizers(
            config.tokenizers_dir, manifests, lambda: self.shelf.catalog, clock
        )
        self.recounts = Recounts(self.tokenizers, self.meters, secrets.token_bytes)
        self._agents = self._kept(near.attestation.releases, KEYS_S)
        self.stage = self._make_stage(owners, prices, desk)
        self.plane = self._make_plane(owners, prices, manifests)

    def _outbox(self, deliver: Callable[[Sequence[T]], Awaitable[None]], what: str) -> Outbox[T]:
        """Return what is owed to billing, and nobody waits for."""
        return Outbox(
            deliver,
            backoff=make_backoff(),
            clock=self._clock,
            on_dropped=lambda: self.meters.dropped(what),
            gather_s=GATHER_S,
        )

    def _kept(self, ask: Callable[[], Awaitable[T]], fresh_s: float) -> Cached[T]:
        """Return an answer that outlives who gave it, for ten minutes."""
        return Cached(ask, clock=self._clock, fresh_s=fresh_s, stale_s=STALE_S)

    def _make_stage(
        self, owners: Owners, prices: Cached[PriceList], verdicts: VerdictDesk
    ) -> Stage:
        """Return the collaborators of the token path."""
        config = self._config
        return Stage(
            config=config,
            clock=self._clock,
            links=self.links,
            ledger=self.ledger,
            limiter=self.limiter,
            tiers=config.tiers(),
            owners=owners,
            shortfalls=Shortfalls(self._neighbours.billing, prices),
            verdicts=verdicts,
            shelf=self.shelf,
            tokenizers=self.tokenizers,
            fetcher=make_fetcher(
                self._service.on_close,
                enabled=config.remote_media,
                blocked=config.blocked_hosts(),
                ours=config.blocked_networks(),
            ),
            recounts=self.recounts,
            press=self.press,
            meters=self.meters,
            spans=Spans(enabled=config.otlp_endpoint is not None),
            hint_secret=config.hint_secret() or secrets.token_bytes(SECRET_BYTES),
            entropy=secrets.token_bytes,
            refresh_keys=self.trust.refresh,
        )

    def _make_plane(
        self, owners: Owners, prices: Cached[PriceList], manifests: Manifests
    ) -> ControlPlane:
        """Return the collaborators of all other routes."""
        config, clock, attestation = self._config, self._clock, self._neighbours.attestation
        return ControlPlane(
            authenticator=self.authenticator,
            guards=Guards(
                self.limiter,
                financial=Rate(config.financial_rate, config.financial_burst),
                address=Rate(config.address_rate, config.address_burst),
                proxies=config.proxies,
                clock=clock,
                meters=self.meters,
            ),
            billing=self._neighbours.billing,
            shelf=self.shelf,
            gate=self.gate,
            prices=prices,
            owners=owners,
            machines=Cached(self.links.everybody, clock=clock, fresh_s=FLEET_S),
            providers=Cached(self.links.providers, clock=clock, fresh_s=FLEET_S),
            capacity=Cached(self.links.capacity, clock=clock, fresh_s=FLEET_S),
            verdict_keys=self._kept(attestation.verdict_keys, KEYS_S),
            receipt_keys=self._kept(attestation.receipt_keys, FLEET_S),
            standings=Standings(self.links.explain, clock),
            exhibits=Exhibits(attestation.public_evidence, clock),
            manifests=manifests,
            models_url=config.models_url,
            source_key=_source_key(config),
            issuer=config.name,
            version=version_of("darkbloom-gateway"),
            commit=config.build_commit,
        )

    def _confirmations(self) -> Confirmations:
        standing = CatalogStanding(
            self._neighbours.registry,
            self.shelf,
            self._service.metrics,
            session=secrets.token_hex(16),
            replica=f"{self._config.name}/{self._number}",
        )
        return Confirmations(standing.say, standing.generation, self._clock)

    def _open_router(self, address: str, turned: Callable[[], None]) -> Router:
        """Make the lane to one replica, and its reads; each replica has a connection of its own."""
        token = self._config.mesh_token()
        opened = channel(
            address,
            mesh_token=token,
            room="gateway",
            max_message_bytes=MAX_LANE_BYTES,
            own_connection=True,
            tls=self._service.tls,
            peer="router",
        )
        lanes = GatewayLaneServiceStub(opened)
        link = RouterLink(
            lambda: cast("LaneCall", lanes.Connect()),
            gateway=self._config.name,
            worker=self._number,
            backoff=make_backoff(),
            clock=self._clock,
            metrics=self.meters,
            turned=turned,
        )
        return Router(link, FleetClient(opened, timeout_s=self._config.rpc_s), opened.close)

    def application(self) -> Shell:
        """Return the whole ASGI application."""
        sealed = SealedRequests(
            self.stage,
            self.authenticator,
            self.gate,
            ring=self.ring,
            replays=self.replays,
            entropy=secrets.token_bytes,
        )
        hot: dict[tuple[str, str], App] = {
            ("POST", path): sealed(
                Inference(dialect, endpoint_word(path), self.stage, self.authenticator, self.gate)
            )
            for path, dialect in DIALECTS.items()
        }
        counting = CountTokens(self.stage, self.authenticator, self.gate)
        hot["POST", COUNT_PATH] = sealed(counting)
        hot |= self._end_to_end()
        return Shell(
            make_app(
                hot,
                self.plane,
                self.health_reason,
                *make_routers(self._parts()),
            ),
            hot=hot,
            routes=ROUTES,
            cors_origin=self._config.cors_origin,
            arrivals=Arrivals(
                self._config.arrivals(),
                proxies=self._config.proxies,
                monotonic=self._clock.monotonic,
            ),
            meters=self.meters,
            entropy=secrets.token_bytes,
        )

    def _parts(self) -> Parts:
        return Parts(
            config=self._config,
            plane=self.plane,
            neighbours=self._neighbours,
            clock=self._clock,
            ring=self.ring,
            fleet_drain=self.fleet_drain,
            evidence=self._evidence_desk(),
            agents=self._agents,
        )

    def _evidence_desk(self) -> EvidenceDesk:
        config = self._config
        return EvidenceDesk(
            TsmReports(config.quote_reports_dir, secrets.token_bytes),
            ring=self.ring,
            press=self.press,
            build=Build(
                gateway=f"{config.name}/{self._number}",
                environment=config.environment,
                version=self.plane.version,
                commit=None if config.build_commit == "unknown" else config.build_commit,
                image_digest=config.image_digest or None,
            ),
            clock=self._clock,
        )

    def _end_to_end(self) -> dict[tuple[str, str], App]:
        """Return the endpoints of end-to-end mode."""
        store = ValkeySlots(self._config.redis_url)
        self._service.on_close(store.close)
        slots = Slots(store, self._clock)
        desk = Desk(self.stage, self.authenticator, self.gate, slots)
        return {
            ("POST", OFFERS_PATH): Offers(self.stage, self.authenticator, self.gate, slots),
            ("POST", ANSWER_PATH): Answers(desk),
            ("POST", DECLINE_PATH): Declines(desk),
        }

    def health_reason(self) -> str | None:
        """Say why this worker cannot serve, or nothing."""
        if self.shelf.catalog is None:
            return "no catalog yet"
        if not self.trust.ready:
            return "attestation has not answered yet"
        if not self.links.accepting:
            return "no router"
        if not self.fleet_drain.looked:
            return "the drain flag was not looked at yet"
        return None

    def start(self) -> None:
        """Spawn everything that runs in the background."""
        spawn, backoff = self._service.spawn, make_backoff
        self.catalog.restore()
        spawn(self.ledger.run_holds(), name="holds")
        spawn(self._releases.run(), name="releases")
        spawn(self._receipts.run(), name="receipts")
        spawn(self.limiter.run(), name="limits")
        spawn(self.fleet_drain.run(), name="drain")
        spawn(self.links.run(), name="routers")
        spawn(ring_alarms(self.links, self._clock), name="alarms")
        spawn(self.keys.run(backoff), name="keys")
        spawn(self.key_uses.run(), name="key_uses")
        spawn(self.ring.run(), name="sealing_keys")
        spawn(self.catalog.run(backoff), name="catalog")
        confirmations = self._confirmations()
        self._service.on_close(confirmations.leave)
        spawn(confirmations.run(), name="catalog_confirmations")
        spawn(self.tokenizers.run(), name="tokenizers")
        spawn(self.recounts.run(), name="recounts")
        spawn(self.trust.run_keys(backoff), name="trust")
        spawn(self.trust.run_revocations(backoff), name="revocations")

    async def drain(self, listener: Listener) -> None:
        """Refuse new requests, let answers end, deliver what is owed, stop listening."""
        self.gate.leaving = True
        await self._clock.sleep(self._config.drain_linger_s)
        await self.gate.hushed(self._clock)
        listener.should_exit = True
        await listener.finished.wait()
        # What billing does not take now its sweeper and its audit will find.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                await self.ledger.flushed()
        self.links.close()


def attach(
    service: Service, config: GatewayConfig, public: socket.socket, *, number: int, clock: Clock
) -> Worker:
    """Hang one worker and its listener on a service that is then waited for."""
    worker = Worker(config, service, number=number, clock=clock)
    listener = make_listener(Parting(worker.application(), worker.gate), config)
    host, port = public.getsockname()[:2]
    service.announce("http", f"{host}:{port}")
    service.ready_if(lambda: worker.health_reason() is None)
    service.on_drain(lambda: worker.drain(listener))
    worker.start()
    service.spawn(listener.serve(sockets=[public]), name="http")
    return worker


async def serve(config: GatewayConfig, public: socket.socket, *, number: int = 0) -> int:
    """Run one worker on a bound socket until it is told to stop; returns the exit code."""
    clock = config.clock()
    version = version_of("darkbloom-gateway")
    async with Service(config, room="gateway", version=version, clock=clock) as service:
        attach(service, config, public, number=number, clock=clock)
        return await service.wait()
