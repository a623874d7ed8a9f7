"""All provider streams of one replica."""

from collections.abc import Collection, Iterable

from darkbloom_mesh.lane import LaneCall

from darkbloom_router.door import Door
from darkbloom_router.downloads import Downloads
from darkbloom_router.errors import LinkOverloadedError, TryLaterError
from darkbloom_router.link_parts import LinkParts
from darkbloom_router.provider import Provider
from darkbloom_router.provider_link import ProviderLink, supersede

MAX_SPREAD_S = 10.0
"""Longest time over which the providers of a leaving replica dial others."""


class ProviderLinks:
    """All provider streams of this replica."""

    def __init__(self, parts: LinkParts) -> None:
        self._parts = parts
        self._links: set[ProviderLink] = set()
        self._door = Door(parts.limits.registrations_per_s, parts.timers.now)

    def __len__(self) -> int:
        return len(self._links)

    @property
    def downloads(self) -> Downloads:
        """Who may fetch what."""
        return self._parts.downloads

    async def serve(self, call: LaneCall) -> None:
        """Live through one stream.

        Raises:
            HandshakeError: The first frame was missing, late or malformed.
            ProtocolUnsupportedError: Another major version is spoken.
            DistrustedError: Too many challenges went unanswered.
            TryLaterError: A neighbour is away, or this replica is leaving.
            LinkOverloadedError: No more links fit, too many come at once, or the lane's bounds were
                broken.
        """
        parts = self._parts
        if parts.dispatcher.draining:
            raise TryLaterError("this replica is leaving")
        if len(self._links) >= parts.limits.max_links:
            parts.meter.stream_refused("full")
            raise LinkOverloadedError("too many providers are connected")
        if not self._door.admits():
            parts.meter.stream_refused("pace")
            raise LinkOverloadedError("too many providers register at once")
        link = ProviderLink(parts, call)
        self._links.add(link)
        parts.meter.stream_opened()
        reason = "failed"
        try:
            reason = await link.live()
        finally:
            self._links.discard(link)
            parts.meter.stream_closed(reason)

    def catalog_changed(self) -> None:
        """Tell every provider what the catalog now wants of it."""
        for link in self._links:
            link.send_desired()

    def machines(self) -> Iterable[tuple[Provider, Iterable[str]]]:
        """Yield every provider with the builds that it is wanted to hold."""
        for link in self._links:
            if link.current and link.provider is not None:
                yield link.provider, link.desired

    def granted(self, machines: Collection[bytes]) -> None:
        """Tell providers that may fetch now what is wanted of them."""
        for link in self._links:
            if link.provider is not None and link.provider.stable_id in machines:
                link.send_desired()

    def go_away(self, reason: str, grace_s: float) -> None:
        """Ask every provider to open a stream elsewhere, within a tenth of the grace."""
        for link in self._links:
            link.go_away(reason, grace_s, min(MAX_SPREAD_S, grace_s / 10))

    def fence(self) -> None:
        """Give nobody more work: who has not found another replica by now finishes what runs."""
        for link in self._links:
            link.fence()

    @property
    def held(self) -> tuple[int, int]:
        """How many providers are here to stay, and how many were asked to leave and have not."""
        stays = sum(link.stays for link in self._links)
        return stays, sum(link.current for link in self._links) - stays

    def shed(self, count: int, grace_s: float) -> int:
        """Ask so many idle providers to move to another replica; returns how many were asked."""
        idle = [link for link in self._links if link.stays and link.idle][:count]
        for link in idle:
            link.go_away("rebalance", grace_s, 0.0)
        return len(idle)

    def superseded(self, provider: Provider) -> None:
        """Give a stream no more work: another replica has been granted its identity."""
        supersede(self._parts, provider)

    def close(self, reason: str) -> None:
        """End every stream after what waits has been written."""
        for link in list(self._links):
            link.close(reason)

    def sweep(self) -> None:
        """Evict who has been silent for too long."""
        silent = self._parts.fleet.silent(self._parts.timers.now())
        for link in list(self._links):
            if link.provider in silent:
                link.refuse(TryLaterError("no heartbeat came for too long"))
