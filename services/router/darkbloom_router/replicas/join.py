"""Makes this router one of many: store, leases, members and a dialler for every other replica."""

import secrets
from collections.abc import Callable

import grpc
from darkbloom.router.v1.peer_lane_pb2 import PeerHello, PeerWelcome
from darkbloom.router.v1.peer_lane_service_pb2_grpc import PeerLaneServiceStub
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.lane import LaneCall
from redis.asyncio import Redis

from darkbloom_router.provider import Provider
from darkbloom_router.replicas.asker import AskerParts, Peer
from darkbloom_router.replicas.cluster import Cluster
from darkbloom_router.replicas.leases import Leases
from darkbloom_router.replicas.members import Member, Members

_PEER_FIRST_S, _PEER_CAP_S = 0.1, 2.0


def new_member(replica: str, address: str) -> Member:
    """Return this process as others will know it."""
    return Member(replica, f"{replica}/{secrets.token_hex(8)}", address)


def hello(member: Member) -> PeerHello:
    """Return the first frame of our lanes."""
    return PeerHello(replica=member.replica, session=member.session)


def welcome(member: Member) -> PeerWelcome:
    """Return our answer to a hello."""
    return PeerWelcome(replica=member.replica, session=member.session)


def make_cluster(
    store: Redis,
    member: Member,
    parts: AskerParts,
    *,
    dial: Callable[[str], grpc.aio.Channel],
    clock: Clock,
    uniform: Callable[[], float],
    fenced: Callable[[Provider], None],
    met: Callable[[], None],
) -> Cluster:
    """Return membership and ownership of this replica; run it afterwards."""

    def peer(other: Member) -> Peer:
        channel = dial(other.address)

        def connect() -> LaneCall:
            stub: PeerLaneServiceStub = PeerLaneServiceStub(channel)
            return stub.Connect()

        backoff = Backoff(uniform, first_s=_PEER_FIRST_S, cap_s=_PEER_CAP_S)
        return Peer(other, connect, parts, backoff, close=channel.close)

    return Cluster(Leases(store, member.session), Members(store, member), peer, clock, fenced, met)
