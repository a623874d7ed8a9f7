"""Replicas over a real Valkey, cut off from it and from each other: one epoch of an identity works.

Real clusters, leases and the agent's real fence; only the lanes between replicas are replaced by
calls, so that a partition is a flag.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from darkbloom_mesh.errors import StoreUnavailableError
from darkbloom_mesh.testing import FakeClock
from darkbloom_provider.fence import Fence
from darkbloom_router.provider import Provider
from darkbloom_router.replicas.asker import Peer
from darkbloom_router.replicas.cluster import Cluster
from darkbloom_router.replicas.leases import Claim, Held, Leases, _key
from darkbloom_router.replicas.members import Member, Members
from darkbloom_router.replicas.store import open_store
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

NAMES = ("a", "b", "c")
AGENTS = (b"\x04" + b"1" * 64,)
REPLICAS = st.sampled_from(NAMES)
IDENTITIES = st.sampled_from(AGENTS)


class CutLeases(Leases):
    """Leases of a replica that may be cut off from the store."""

    cut = False

    async def claim(self, identity_key: bytes) -> Claim:
        if self.cut:
            raise StoreUnavailableError("cut off")
        return await super().claim(identity_key)

    async def renew(self, leases: Sequence[Held]) -> list[Held]:
        if self.cut:
            raise StoreUnavailableError("cut off")
        return await super().renew(leases)


class Wire:
    """The lane from one replica to another: calls, unless it is cut."""

    connected = True

    def __init__(self, world: "Epochs", to: str) -> None:
        self.member = world.members[to]
        self._world, self._to = world, to

    def superseded(self, identity_key: bytes, epoch: int) -> None:
        replica = self._world.replicas[self._to]
        if self._to not in self._world.deaf and replica.member == self.member:
            replica.cluster.superseded(identity_key, epoch)


class Replica:
    """One router process, as far as it holds identities."""

    def __init__(self, world: "Epochs", member: Member) -> None:
        self.member = member
        self.leases = CutLeases(world.store, member.session)
        self.cluster = Cluster(
            self.leases,
            Members(world.store, member),
            self._dial,
            world.clock,
            self._fenced,
            _unnoticed,
        )
        self.streams: dict[bytes, Provider] = {}
        """The newest stream of each agent here that has been granted its identity."""

    def working(self, identity: bytes) -> Provider | None:
        """Return the stream that this replica would send work on."""
        found = self.streams.get(identity)
        return found if found is not None and not found.drain_fence else None

    def _dial(self, _member: Member) -> Peer:
        raise AssertionError("the world wires replicas")

    def _fenced(self, provider: Provider) -> None:
        provider.drain_fence = True


class Epochs(RuleBasedStateMachine):
    """Agents claim here and there, replicas are cut off, die and come back, the store forgets."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.store = open_store(self.url)
        self.now(self.store.flushall())
        self.members = {name: Member(name, f"{name}/0", "127.0.0.1:1") for name in NAMES}
        self.replicas = {name: Replica(self, self.members[name]) for name in NAMES}
        self.deaf: set[str] = set()
        self.fences = {identity: Fence() for identity in AGENTS}
        self.granted: dict[bytes, list[int]] = {identity: [] for identity in AGENTS}
        self.waiting: list[tuple[str, Provider, asyncio.Task[None]]] = []
        self.streams = 0
        self.births = 0
        self._wire()

    def now(self, work: Any) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, 20.0))

    @rule(name=REPLICAS, identity=IDENTITIES)
    def an_agent_proves_itself(self, name: str, identity: bytes) -> None:
        """Open a stream and pass its challenge; the claim waits where the store is away."""
        self.streams += 1
        provider = Provider(f"prov_{self.streams}", identity, b"K" * 32)
        task = self.loop.create_task(self.replicas[name].cluster.claim(provider))
        if self.replicas[name].leases.cut:
            self.now(asyncio.sleep(0))  # noqa: TID251 - lets the claim fail and begin to wait
            self.waiting.append((name, provider, task))
        else:
            self.now(task)
            self._granted(name, provider)

    @rule(name=REPLICAS)
    def a_replica_renews(self, name: str) -> None:
        self.now(self.replicas[name].cluster._renew())

    @rule(name=REPLICAS, store=st.booleans(), peers=st.booleans())
    def a_replica_is_cut_off(self, name: str, store: bool, peers: bool) -> None:
        self.replicas[name].leases.cut = self.replicas[name].leases.cut or store
        if peers:
            self.deaf.add(name)

    @rule(name=REPLICAS)
    def it_is_back(self, name: str) -> None:
        self.replicas[name].leases.cut = False
        self.deaf.discard(name)
        self._grant_who_waited(name)

    @rule(name=REPLICAS)
    def a_replica_dies_and_starts_again(self, name: str) -> None:
        """Kill it: its streams are gone, its lease is not."""
        self.births += 1
        self.deaf.discard(name)
        for waiting in [item for item in self.waiting if item[0] == name]:
            self._give_up(waiting)
        self.members[name] = Member(name, f"{name}/{self.births}", "127.0.0.1:1")
        self.replicas[name] = Replica(self, self.members[name])
        self._wire()

    @rule(name=REPLICAS, identity=IDENTITIES)
    def a_stream_ends(self, name: str, identity: bytes) -> None:
        stream = self.replicas[name].streams.pop(identity, None)
        if stream is not None:
            self.replicas[name].cluster.left(stream)

    @rule(identity=IDENTITIES)
    def a_lease_runs_out(self, identity: bytes) -> None:
        self.now(self.store.delete(_key(identity)))

    @rule()
    def the_store_loses_its_memory(self) -> None:
        self.now(self.store.flushall())

    @rule()
    @precondition(lambda self: any(len(epochs) > 1 for epochs in self.granted.values()))
    def everything_heals(self) -> None:
        """Let everybody reach everybody, and renew: at most one replica still has an identity."""
        for name in NAMES:
            self.it_is_back(name)
        for _ in range(2):
            for name in NAMES:
                self.a_replica_renews(name)
        for identity in AGENTS:
            live = [
                stream.epoch
                for replica in self.replicas.values()
                if (stream := replica.working(identity)) is not None
            ]
            assert len(live) <= 1
            assert all(epoch == max(self.granted[identity]) for epoch in live)

    @invariant()
    def epochs_are_granted_upwards_and_once(self) -> None:
        for epochs in self.granted.values():
            assert epochs == sorted(set(epochs))

    @invariant()
    def work_is_done_under_the_newest_epoch_only(self) -> None:
        """Send requests as each replica believes; the agent's fence has the last word."""
        for replica in self.replicas.values():
            for identity, fence in self.fences.items():
                stream = replica.working(identity)
                if stream is not None and fence.admits(stream.epoch):
                    assert stream.epoch == max(self.granted[identity])

    def teardown(self) -> None:
        for waiting in list(self.waiting):
            self._give_up(waiting)
        self.now(self.store.aclose())
        self.loop.close()

    def _granted(self, name: str, provider: Provider) -> None:
        """Tell the agent, as the trust status that follows a claim does."""
        identity = provider.identity_key
        self.granted[identity].append(provider.epoch)
        older = self.replicas[name].streams.get(identity)
        if older is not None:
            older.drain_fence = True
        self.replicas[name].streams[identity] = provider
        assert self.fences[identity].admits(provider.epoch)
        self.replicas[name].cluster.announce(provider)

    def _grant_who_waited(self, name: str) -> None:
        for waiting in [item for item in self.waiting if item[0] == name]:
            self.waiting.remove(waiting)
            _, provider, task = waiting
            self.clock.jump(1.0)
            self.now(task)
            self._granted(name, provider)

    def _give_up(self, waiting: tuple[str, Provider, asyncio.Task[None]]) -> None:
        self.waiting.remove(waiting)
        waiting[2].cancel()
        self.now(asyncio.wait([waiting[2]]))

    def _wire(self) -> None:
        for name, replica in self.replicas.items():
            replica.cluster._peers = {
                self.members[other]: (cast("Peer", Wire(self, other)), cast("Any", None))
                for other in NAMES
                if other != name
            }


def _unnoticed() -> None:
    """Nobody waits until a replica here has met the others."""


def test_no_partition_and_no_interleaving_gives_two_live_epochs(valkey_url: str) -> None:
    machine = type("Machine", (Epochs,), {"url": valkey_url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
