"""The composition root: store, feed, servicer, listener."""

import asyncio
import secrets
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from importlib.metadata import version

from darkbloom.registry.v1 import registry_service_pb2
from darkbloom.registry.v1.registry_service_pb2_grpc import add_RegistryServiceServicer_to_server
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError
from darkbloom_mesh.serve import Service

from darkbloom_registry.admission import Admission
from darkbloom_registry.approvals import Approvals
from darkbloom_registry.changes import Scope
from darkbloom_registry.config import RegistryConfig
from darkbloom_registry.feed import CatalogFeed
from darkbloom_registry.keys import PublishingKeys
from darkbloom_registry.names.naming import Naming
from darkbloom_registry.progress.following import Following, Gauges
from darkbloom_registry.publishing import Publishing
from darkbloom_registry.rendering import ProcessRenderer
from darkbloom_registry.rolling import Rolling
from darkbloom_registry.server import RegistryServer
from darkbloom_registry.store import PostgresStore

ROOM = "registry"

_SERVICE = registry_service_pb2.DESCRIPTOR.services_by_name["RegistryService"]


async def serve(config: RegistryConfig, clock: Clock | None = None) -> int:
    """Run the registry until it is told to stop; return the exit code."""
    async with Service(config, room=ROOM, version=version("darkbloom-registry")) as service:
        clock = clock or config.clock()
        store = await PostgresStore.connect(config.database_url.reveal())
        service.on_close(store.close)
        feed = CatalogFeed(store, clock, Backoff(secrets.SystemRandom().random))
        await feed.load()
        service.on_drain(feed.close)
        service.spawn(feed.follow(), name="feed")

        rolling = Rolling(
            store,
            clock,
            config.rollout_period_s,
            downloads_at_once=config.downloads_at_once,
        )
        service.spawn(rolling.run(), name="rollouts")
        following = Following(store, clock)
        gauges = Gauges(store, following, service.metrics, clock)
        service.spawn(gauges.run(), name="gauges")
        development = config.environment == "development"
        server = RegistryServer(
            store,
            Publishing(store, clock, ProcessRenderer(), development=development),
            Naming(store, clock),
            feed,
            service.metrics,
            config.signer(),
            rolling=rolling,
            following=following,
            admission=Admission(
                store,
                development=development,
                approvals=Approvals(store, clock) if config.two_keys else None,
            ),
            clock=clock,
        )
        service.add_listener(
            "grpc",
            config.listen,
            registrars=[partial(add_RegistryServiceServicer_to_server, server)],
            mesh_token=config.mesh_token(),
            connection_age_s=config.connection_age_s,
            reflection=[_SERVICE.full_name],
        )
        return await service.wait()


def make_key(
    config: RegistryConfig, label: str, scopes: Sequence[str], *, replace: bool = False
) -> int:
    """Make a publishing key and print it; only its hash is kept. Return the exit code."""
    key = f"dbp-{secrets.token_hex(32)}"
    wanted = [Scope(scope) for scope in scopes]
    code = _with_keys(config, lambda keys: keys.keep(key, label, wanted, replace=replace))
    if code == 0:
        sys.stdout.write(f"{key}\n")
    return code


def revoke_key(config: RegistryConfig, label: str) -> int:
    """Accept the key of a label no more; return the exit code."""
    return _with_keys(config, lambda keys: keys.revoke(label))


def _with_keys(
    config: RegistryConfig, work: Callable[[PublishingKeys], Coroutine[None, None, None]]
) -> int:
    async def done() -> None:
        store = await PostgresStore.connect(config.database_url.reveal())
        try:
            await work(PublishingKeys(store, config.clock()))
        finally:
            await store.close()

    try:
        asyncio.run(done())
    except MeshError as error:
        sys.stderr.write(f"{ROOM}: {error.message}\n")
        return 1
    return 0


def migrate(config: RegistryConfig, *, new: bool = False) -> int:
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
