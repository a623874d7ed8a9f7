"""This replica among the others: membership, leases, and a lane to everybody.

Valkey is asked every five seconds and never on the way of a request. Without it nothing changes
hands: leases cannot be taken, known peers stay, and only new streams wait for their claim.
"""

import asyncio
from collections.abc import Callable

import structlog
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import StoreUnavailableError

from darkbloom_router.provider import Provider
from darkbloom_router.replicas.asker import Peer
from darkbloom_router.replicas.leases import RENEW_S, Claim, Held, Leases
from darkbloom_router.replicas.members import Member, Members

_log = structlog.get_logger()
CLAIM_TRIES_S = 1.0
LEAVE_S = 2.0
MEET_S = 3.0
"""Longest that a new replica takes no requests because it does not know everybody yet."""
_MEET_POLL_S = 0.01


class Cluster:
    """Membership and ownership of one replica.

    Args:
        leases: Who holds which identity.
        members: Who is there.
        dial: Makes a peer of a member.
        clock: Time.
        fenced: Called for a provider whose identity another replica holds now.
        met: Called once, when this replica knows the providers of all others, or has waited for
            that in vain: a request that came before would be told that nobody is there.
    """

    def __init__(
        self,
        leases: Leases,
        members: Members,
        dial: Callable[[Member], Peer],
        clock: Clock,
        fenced: Callable[[Provider], None],
        met: Callable[[], None],
    ) -> None:
        self.store_ok = True
        self._met = met
        self._leases = leases
        self._members = members
        self._dial = dial
        self._clock = clock
        self._fenced = fenced
        self._peers: dict[Member, tuple[Peer, asyncio.Task[None]]] = {}
        self._held: dict[bytes, Provider] = {}
        self._former: dict[Provider, str] = {}
        """Sessions that do not know yet that an identity of theirs has moved here."""

    @property
    def peers(self) -> list[Peer]:
        """The other replicas, connected or not."""
        return [peer for peer, _ in self._peers.values()]

    @property
    def size(self) -> int:
        """How many replicas there are, this one included."""
        return len(self._peers) + 1

    @property
    def leads(self) -> bool:
        """Whether this replica does what only one should."""
        return self._members.leads(self._peers)

    async def claim(self, provider: Provider) -> None:
        """Take the identity of a stream that has proven it; waits for the store, for ever.

        The caller ends this when the stream ends.
        """
        while True:
            try:
                claim = await self._leases.claim(provider.identity_key)
            except StoreUnavailableError:
                self._store(ok=False)
                await self._clock.sleep(CLAIM_TRIES_S)
                continue
            self._store(ok=True)
            self._take(provider, claim)
            return

    def announce(self, provider: Provider) -> None:
        """Tell whoever held an identity before that it is ours now; the last word of a claim."""
        former = self._former.pop(provider, "")
        for peer in self.peers:
            if former and peer.member.session == former:
                peer.superseded(provider.identity_key, provider.epoch)

    def superseded(self, identity_key: bytes, epoch: int) -> None:
        """Stop giving work to a stream whose identity has been granted elsewhere."""
        provider = self._held.get(identity_key)
        if provider is not None and provider.epoch < epoch:
            del self._held[identity_key]
            self._fenced(provider)

    def left(self, provider: Provider) -> None:
        """Let the lease of an ended stream run out; a new claim does not wait for it."""
        self._former.pop(provider, None)
        if self._held.get(provider.identity_key) is provider:
            del self._held[provider.identity_key]

    async def run(self) -> None:
        """Keep membership and leases until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            await self._beat(tasks)
            await self._meet()
            while True:
                await self._renew()
                await self._clock.sleep(RENEW_S)
                await self._beat(tasks)

    async def leave(self) -> None:
        """Leave the list of members, so that nobody dials any more."""
        try:
            async with asyncio.timeout(LEAVE_S):
                await self._members.leave()
        except (StoreUnavailableError, TimeoutError):
            _log.warning("replica_not_delisted")

    async def _meet(self) -> None:
        until = self._clock.monotonic() + MEET_S
        while not all(peer.described for peer in self.peers):
            if self._clock.monotonic() >= until:
                _log.warning("replicas_not_met", peers=len(self._peers))
                break
            await self._clock.sleep(_MEET_POLL_S)
        self._met()

    async def _beat(self, tasks: asyncio.TaskGroup) -> None:
        try:
            members = set(await self._members.beat())
        except StoreUnavailableError:
            self._store(ok=False)
            return
        self._store(ok=True)
        for member in members - self._peers.keys():
            peer = self._dial(member)
            task = tasks.create_task(peer.run(), name=f"peer.{member.replica}")
            self._peers[member] = peer, task
        for member in self._peers.keys() - members:
            peer, task = self._peers[member]
            # One that cannot reach the store is no less a peer while its lane lives.
            if not peer.connected:
                del self._peers[member]
                task.cancel()

    async def _renew(self) -> None:
        held = [Held(key, provider.epoch) for key, provider in self._held.items()]
        if not held:
            return
        try:
            lost = await self._leases.renew(held)
        except StoreUnavailableError:
            self._store(ok=False)
            return
        for lease in lost:
            provider = self._held.get(lease.identity_key)
            if provider is not None and provider.epoch == lease.epoch:
                del self._held[lease.identity_key]
                self._fenced(provider)

    def _take(self, provider: Provider, claim: Claim) -> None:
        self._held[provider.identity_key] = provider
        provider.epoch = claim.epoch
        if claim.former:
            self._former[provider] = claim.former

    def _store(self, *, ok: bool) -> None:
        if ok is not self.store_ok:
            self.store_ok = ok
            _log.warning("replica_store", reachable=ok)
