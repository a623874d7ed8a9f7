"""What needs a store: the other replicas through Valkey, decision records in PostgreSQL.

A router without the one is alone, without the other keeps no records.
"""

import secrets
from dataclasses import replace
from functools import partial

from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.channel import channel
from darkbloom_mesh.serve import Service

from darkbloom_router.config import RouterConfig
from darkbloom_router.core import Core
from darkbloom_router.records.scribe import Scribe
from darkbloom_router.records.store import PostgresRecords
from darkbloom_router.records.writing import RecordQueue
from darkbloom_router.replicas.asker import AskerParts
from darkbloom_router.replicas.balance import Balance
from darkbloom_router.replicas.join import make_cluster
from darkbloom_router.replicas.members import Member
from darkbloom_router.replicas.queue import SharedQueue
from darkbloom_router.replicas.store import open_store
from darkbloom_router.upkeep import Router

_DAY_S = 86_400.0


def join(
    config: RouterConfig, service: Service, router: Router, member: Member, asker: AskerParts
) -> None:
    """Become one of many, where there is a store to meet in."""
    if config.redis_url is None:
        router.lanes.admit()
        return
    store = open_store(config.redis_url.reveal())
    service.on_close(store.aclose)
    cluster = make_cluster(
        store,
        replace(member, address=config.advertise or service.listeners["internal"]),
        asker,
        dial=partial(
            channel,
            mesh_token=config.mesh_token(),
            room="router",
            tls=service.tls,
            peer="router",
        ),
        clock=router.clock,
        uniform=secrets.SystemRandom().random,
        fenced=router.links.superseded,
        met=router.lanes.admit,
    )
    router.replicas.cluster = cluster
    line = router.dispatcher.line
    queue = router.replicas.queue = SharedQueue(
        store, member.session, line.ages, router.dispatcher.drain_line, router.clock
    )
    line.others = queue
    service.spawn(queue.run(), name="queue")
    balance = Balance(
        lambda: router.links.held,
        router.replicas.held_elsewhere,
        lambda count: router.links.shed(count, config.drain_grace_s),
        router.clock,
        per_s=config.rebalance_per_s,
    )
    service.spawn(balance.run(), name="balance")
    service.spawn(cluster.run(), name="cluster")


def record(config: RouterConfig, service: Service, core: Core) -> None:
    """Keep decision records, where there is a database for them."""
    if config.database_url is None:
        return
    store = PostgresRecords(config.database_url.reveal(), config.replica)
    service.on_close(store.close)
    backoff = Backoff(secrets.SystemRandom().random, first_s=1.0, cap_s=30.0)
    keep_s = config.record_days * _DAY_S
    clock, meter = core.tools.clock, core.tools.meter
    queue = RecordQueue(
        store, clock, backoff, dropped=meter.unrecorded, wrote=meter.recorded, keep_s=keep_s
    )
    scribe = Scribe(queue.add, clock.monotonic, lambda: clock.now().timestamp())
    core.offers.chosen, core.ends.over = scribe.chosen, scribe.ended
    core.dispatcher.last_words.scribe = scribe
    service.spawn(queue.run(), name="records")
