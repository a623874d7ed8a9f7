"""The composition root: keys, store, feed, servicer, listener."""

import secrets
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version

from darkbloom.attestation.v1 import attestation_service_pb2, log_service_pb2
from darkbloom.attestation.v1.attestation_service_pb2_grpc import (
    add_AttestationServiceServicer_to_server,
)
from darkbloom.attestation.v1.log_service_pb2_grpc import add_LogServiceServicer_to_server
from darkbloom_edge.apple.app_attest import AppAttestPolicy
from darkbloom_edge.apple.authenticator import Environment
from darkbloom_edge.apple.roots import AppleRoots, apple_roots
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.channel import channel
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.postgres import Database
from darkbloom_mesh.serve import Service
from darkbloom_mesh.telemetry import PUSH_CERTIFICATE_EXPIRY

from darkbloom_attestation.apns.budget import PushBudget
from darkbloom_attestation.apns.client import ApnsClient
from darkbloom_attestation.apns.model import PushMode
from darkbloom_attestation.apns.ports import Pusher
from darkbloom_attestation.apns.service import CodeIdentity
from darkbloom_attestation.apple import PinnedVerifier
from darkbloom_attestation.config import AttestationConfig
from darkbloom_attestation.examine import Examiner
from darkbloom_attestation.feed import RevocationFeed
from darkbloom_attestation.hardware import Hardware
from darkbloom_attestation.issue import Issuer
from darkbloom_attestation.judging import Judging
from darkbloom_attestation.keyring import load_keyring, load_release_keys
from darkbloom_attestation.mdm.asker import Asker
from darkbloom_attestation.mdm.client import MicroMdm
from darkbloom_attestation.mdm.push_certificate import PushCertificate
from darkbloom_attestation.meter import Meter
from darkbloom_attestation.offering import Offering
from darkbloom_attestation.postures import Postures
from darkbloom_attestation.releases import Releases
from darkbloom_attestation.retention import Retention
from darkbloom_attestation.server import AttestationServer
from darkbloom_attestation.store import PostgresStore
from darkbloom_attestation.transparency.catalog import CatalogWatch
from darkbloom_attestation.transparency.log import TransparencyLog
from darkbloom_attestation.transparency.server import LogServer
from darkbloom_attestation.transparency.tables import PostgresLog

ROOM = "attestation"
_DAY_S = 86_400

_SERVICES = (
    attestation_service_pb2.DESCRIPTOR.services_by_name["AttestationService"],
    log_service_pb2.DESCRIPTOR.services_by_name["LogService"],
)


async def serve(
    config: AttestationConfig,
    clock: Clock | None = None,
    *,
    roots: AppleRoots | None = None,
    pusher: Pusher | None = None,
) -> int:
    """Run attestation until it is told to stop; return the exit code.

    Args:
        config: what the environment says; it cannot name a root.
        clock: another one for tests.
        roots: others than Apple's pinned ones, for tests that mint their own evidence.
        pusher: another way to Apple's push service, for tests.

    Raises:
        KeyDirectoryError: there is no usable key to sign with.
        BlankStoreError: the database knows nobody.
    """
    async with Service(config, room=ROOM, version=version("darkbloom-attestation")) as service:
        clock = clock or config.clock()
        development = config.environment == "development"
        keyring = load_keyring(config.key_dir, now=clock.now(), create=development)
        database = await Database.connect(config.database_url.reveal())
        service.on_close(database.close)
        await database.require(ROOM)

        store = PostgresStore(database)
        feed = RevocationFeed(store, clock, Backoff(secrets.SystemRandom().random))
        await feed.load()
        service.on_drain(feed.close)
        service.spawn(feed.follow(), name="feed")
        retention = Retention(database, clock, keep_s=config.evidence_retention_days * _DAY_S)
        service.spawn(retention.run(), name="retention")

        issuer = Issuer(keyring.signer)
        await store.put_verdict_keys(keyring.published)
        log = TransparencyLog(PostgresLog(database), store, keyring.signer, clock)
        _watch_catalog(config, service, store, clock)
        examiner = Examiner(PinnedVerifier(roots or apple_roots(), _app_of(config)), issuer)
        hardware = Hardware(examiner, issuer)
        offering = Offering(store, clock, held=Meter(service.metrics).held)
        service.spawn(offering.run(), name="offers")
        server = AttestationServer(
            judging=Judging(store, issuer, hardware, clock, development=development),
            codes=_codes_of(config, service, store, issuer, clock, pusher),
            postures=Postures(store, issuer, examiner, hardware, clock),
            asker=_asker_of(config, service, store, clock),
            releases=Releases(
                store,
                issuer,
                clock,
                development=development,
                release_keys=_release_keys(config),
            ),
            offering=offering,
            store=store,
            feed=feed,
            verdict_keys=keyring.published,
            clock=clock,
            metrics=service.metrics,
        )
        service.add_listener(
            "grpc",
            config.listen,
            registrars=[
                partial(add_AttestationServiceServicer_to_server, server),
                partial(add_LogServiceServicer_to_server, LogServer(log)),
            ],
            mesh_token=config.mesh_token(),
            connection_age_s=config.connection_age_s,
            reflection=[one.full_name for one in _SERVICES],
        )
        return await service.wait()


def _release_keys(config: AttestationConfig) -> Mapping[str, bytes] | None:
    """Return the keys that releases must be signed with; None: development, they need not be."""
    if config.release_keys_file is not None:
        return load_release_keys(config.release_keys_file)
    return None if config.environment == "development" else {}


def _watch_catalog(
    config: AttestationConfig, service: Service, store: PostgresStore, clock: Clock
) -> None:
    """Follow the registry's catalog, where there is a registry."""
    if config.registry_target is None:
        return
    registry = channel(
        config.registry_target,
        mesh_token=config.mesh_token(),
        room=ROOM,
        tls=service.tls,
        peer="registry",
    )
    service.on_close(partial(registry.close, None))
    watch = CatalogWatch(registry, store, clock, Backoff(secrets.SystemRandom().random))
    service.spawn(watch.run(), name="catalog")


def _codes_of(
    config: AttestationConfig,
    service: Service,
    store: PostgresStore,
    issuer: Issuer,
    clock: Clock,
    pusher: Pusher | None,
) -> CodeIdentity:
    codes = CodeIdentity(
        store,
        issuer,
        clock,
        pusher=pusher or _pusher(config, service, clock),
        budget=PushBudget(config.apns_per_minute, secrets.SystemRandom().random),
        mode=PushMode(config.apns_mode),
        development=config.environment == "development",
        pushed=Meter(service.metrics).pushed,
    )
    service.spawn(codes.run(), name="apns")
    return codes


def _asker_of(
    config: AttestationConfig, service: Service, store: PostgresStore, clock: Clock
) -> Asker | None:
    if config.mdm_url is None or config.mdm_api_key is None:
        return None

    manager = MicroMdm(config.mdm_url, config.mdm_api_key)
    service.on_close(manager.close)
    heard = Meter(service.metrics).device
    asker = Asker(store, manager, clock, secrets.token_bytes, heard)
    service.spawn(asker.run(), name="mdm")
    expiry = service.metrics.gauge(PUSH_CERTIFICATE_EXPIRY)
    certificate = PushCertificate(manager, clock, expiry.set)
    service.spawn(certificate.run(), name="mdm-certificate")
    return asker


def _pusher(config: AttestationConfig, service: Service, clock: Clock) -> Pusher | None:
    credentials = config.push_credentials(clock)
    if credentials is None:
        return None
    client = ApnsClient(credentials, topic=config.apns_topic, clock=clock)
    service.on_close(client.close)

    return client


def _app_of(config: AttestationConfig) -> AppAttestPolicy | None:
    if not config.app_id:
        return None

    return AppAttestPolicy.for_app(
        config.app_id, environment=Environment(config.app_attest_environment)
    )


def migrate(config: AttestationConfig, *, new: bool = False) -> int:
    """Bring the schema to its newest revision; return the exit code.

    Args:
        config: What the environment says.
        new: Fill a blank database in production too.
    """
    # Half of a room's start would be alembic and sqlalchemy, which no server needs.
    from darkbloom_mesh.migrate import migrate as migrate_schema

    new = new or config.environment == "development"
    migrate_schema(config.database_url, package=__package__, schema=ROOM, new=new)
    return 0
