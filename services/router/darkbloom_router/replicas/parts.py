"""The replica's own side of being one of many, as the rest of the router sees it."""

from dataclasses import dataclass

from darkbloom.common.v1.frame_pb2 import Frame, FrameKind
from darkbloom.router.v1.provider_link_pb2 import Terminal

from darkbloom_router import convert
from darkbloom_router.model import Lesson, Signed
from darkbloom_router.provider import Candidate, Provider
from darkbloom_router.replicas.carried import Carriage
from darkbloom_router.replicas.cluster import Cluster
from darkbloom_router.replicas.holder import PeerLanes, relay
from darkbloom_router.replicas.publisher import Publisher
from darkbloom_router.replicas.queue import SharedQueue


@dataclass(slots=True)
class Replicas:
    """What this replica carries for others, and who they are; alone it carries nothing."""

    carriage: Carriage
    publisher: Publisher
    cluster: Cluster | None = None
    lanes: PeerLanes | None = None
    queue: SharedQueue | None = None

    @property
    def carrying(self) -> bool:
        """Whether attempts of others run on providers here."""
        return len(self.carriage) > 0

    @property
    def has_others(self) -> bool:
        """Whether providers have somewhere else to go.

        A replica whose lane is down this moment counts: it may have been restarted just before.
        """
        return self.cluster is not None and any(not peer.leaving for peer in self.cluster.peers)

    def held_elsewhere(self) -> list[int]:
        """Return how many providers each replica holds that stays and can be asked now."""
        if self.cluster is None:
            return []
        return [peer.holding for peer in self.cluster.peers if peer.connected and not peer.leaving]

    def freed(self, provider: Provider) -> None:
        """Tell the others at once of a place for which somebody waits there."""
        queue = self.queue
        if queue is not None and any(queue.elsewhere(build) for build in provider.candidates):
            self.publisher.hurry()

    @property
    def store_ok(self) -> bool:
        """Whether leases and members can be read now; alone there is nothing to read."""
        return self.cluster is None or self.cluster.store_ok

    @property
    def leads(self) -> bool:
        """Whether this replica does what only one should, such as loading builds."""
        return self.cluster is None or self.cluster.leads

    async def claim(self, provider: Provider) -> None:
        """Make a stream the holder of its identity, mesh-wide where there are others."""
        if self.cluster is not None:
            await self.cluster.claim(provider)

    def announce(self, provider: Provider) -> None:
        """Tell the others that a stream has its identity now, and may be given work.

        Its description goes first: whoever held it before stops, and has nobody else meanwhile.
        """
        if self.cluster is not None:
            self.publisher.flush()
            self.cluster.announce(provider)

    def left(self, provider: Provider, *, clean: bool) -> list[tuple[str, int]]:
        """Note that a stream has ended, in order or not.

        Returns:
            Build and shape of each request of others that it had been sent.
        """
        self.publisher.left(provider, clean=clean)
        carried = self.carriage.of_provider(provider)
        for item in carried:
            self.carriage.drop(item)
        if self.cluster is not None:
            self.cluster.left(provider)
        return [(item.candidate.build.build, item.shape) for item in carried if item.sent]

    def cut(self, provider: Provider) -> None:
        """Let no more of the bodies of others through to a provider that has lost its trust."""
        for item in self.carriage.of_provider(provider):
            item.cut = True
            item.lane.drop_stream(item.stream)

    def superseded(self, identity_key: bytes, epoch: int) -> None:
        """Take note that another replica has been granted an identity."""
        if self.cluster is not None:
            self.cluster.superseded(identity_key, epoch)

    def relay(self, provider: Provider, frame: Frame) -> bool:
        """Pass a frame on to the replica whose attempt it is."""
        return relay(self.carriage, provider, frame)

    def caught(self, provider: Provider, reason: str) -> None:
        """Tell the holder of a provider that it broke the envelope."""
        if self.cluster is not None:
            for peer in self.cluster.peers:
                peer.distrust(provider, reason)

    def taught(self, candidate: Candidate, lesson: Lesson, shape: int) -> None:
        """Tell the holder of a machine what an attempt has taught about it."""
        if self.cluster is not None:
            for peer in self.cluster.peers:
                peer.taught(candidate, lesson, shape)

    def elsewhere(self, provider: Provider, terminal: Signed) -> None:
        """Show a terminal that nobody here knows to the others."""
        if self.lanes is not None:
            message = Terminal(terminal=convert.signed_document(terminal))
            payload = message.SerializeToString()
            frame = Frame(kind=FrameKind.FRAME_KIND_TERMINAL, payload=payload)
            self.lanes.resent(provider, frame)

    async def leave(self) -> None:
        """Stop being asked, once nobody here is needed any more."""
        if self.cluster is not None:
            await self.cluster.leave()
        if self.lanes is not None:
            self.lanes.close("drain")
