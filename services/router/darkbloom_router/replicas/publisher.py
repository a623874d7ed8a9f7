"""Tells other replicas about the providers here: everything at first, then what has changed."""

import asyncio
from dataclasses import dataclass, field

from darkbloom.common.v1.frame_pb2 import FrameKind
from darkbloom.router.v1.peer_lane_pb2 import Presence
from darkbloom.router.v1.provider_link_pb2 import Heartbeat, ModelsUpdate, Register
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.lane import Lane

from darkbloom_router.provider import Provider
from darkbloom_router.replicas import presence
from darkbloom_router.replicas.carried import Carriage
from darkbloom_router.replicas.presence import Said

FLUSH_S = 0.25
"""Between two messages: at most four changes a second are told of one provider."""
HURRY_S = 0.01
"""Between two messages where somebody waits for a place."""
BATCH = 32
"""Providers in one frame, which must stay below the largest."""
_PRESENCE = FrameKind.FRAME_KIND_PRESENCE


@dataclass(slots=True)
class _Asker:
    """What one asker has been told: the round in which each provider was last described."""

    told: dict[Provider, int] = field(default_factory=dict)


class Publisher:
    """Describes local providers to every subscribed peer lane.

    Nothing is computed when something changes but a set entry; the work is done four times a
    second, and costs what has changed.

    Args:
        carriage: What each asker carries itself.
        clock: Time.
    """

    def __init__(self, carriage: Carriage, clock: Clock) -> None:
        self._carriage = carriage
        self._clock = clock
        self._said: dict[Provider, Said] = {}
        self._dirty: set[Provider] = set()
        self._askers: dict[Lane, _Asker] = {}
        self._leaving = False
        self._round = 0
        self._flushed_at = float("-inf")
        self._changed = asyncio.Event()

    def joined(self, provider: Provider, message: Register) -> None:
        """Begin to speak of a provider."""
        inventory = ModelsUpdate(models=message.models)
        self._said[provider] = Said(presence.spare(message), inventory)
        self._touch(provider)

    def models(self, provider: Provider, message: ModelsUpdate) -> None:
        """Take a new inventory."""
        if said := self._said.get(provider):
            said.inventory, said.inventory_round = message, self._round + 1
            self._touch(provider)

    def beat(self, provider: Provider, message: Heartbeat) -> None:
        """Take a heartbeat."""
        if said := self._said.get(provider):
            said.heartbeat, said.heartbeat_round = message, self._round + 1
            self._touch(provider)

    def changed(self, provider: Provider) -> None:
        """Note that live state of a provider has changed."""
        if self._askers and provider in self._said:
            self._touch(provider)

    def left(self, provider: Provider, *, clean: bool) -> None:
        """Say at once that a provider is gone: requests may wait for that word."""
        if self._said.pop(provider, None) is None:
            return
        self._dirty.discard(provider)
        gone = Presence(gone_provider_ids=[provider.provider_id], clean=clean)
        for lane, asker in self._askers.items():
            if asker.told.pop(provider, None) is None:
                continue
            # Behind the chunks that it has still sent; a full stream 0 lets it overtake them.
            if not lane.send_ordered(_PRESENCE, 0, gone):
                lane.send_control(_PRESENCE, 0, gone)

    def leave(self) -> None:
        """Tell everybody that this replica is about to end."""
        self._leaving = True
        for lane in self._askers:
            lane.send_control(_PRESENCE, 0, Presence(leaving=True))

    def subscribe(self, lane: Lane) -> None:
        """Describe every provider to a new asker."""
        self._askers[lane] = _Asker()
        lane.send_control(_PRESENCE, 0, Presence(full=True, leaving=self._leaving))
        self._tell(lane, list(self._said))
        lane.send_control(_PRESENCE, 0, Presence(complete=True))

    def unsubscribe(self, lane: Lane) -> None:
        """Speak no more to an asker."""
        self._askers.pop(lane, None)

    def hurry(self) -> None:
        """Tell at once what has changed: somebody elsewhere waits for it."""
        if self._clock.monotonic() - self._flushed_at >= HURRY_S:
            self.flush()

    def flush(self) -> None:
        """Tell everybody what has changed."""
        if not self._dirty:
            return
        self._round += 1
        self._flushed_at = self._clock.monotonic()
        dirty, self._dirty = list(self._dirty), set()
        for lane in list(self._askers):
            self._tell(lane, dirty)

    async def run(self) -> None:
        """Flush soon after each change, for ever; nobody is woken while nobody asks."""
        while True:
            await self._changed.wait()
            await self._clock.sleep(FLUSH_S)
            self._changed.clear()
            self.flush()

    def _touch(self, provider: Provider) -> None:
        if self._askers:
            self._dirty.add(provider)
            self._changed.set()

    def _tell(self, lane: Lane, providers: list[Provider]) -> None:
        told = self._askers[lane].told
        now = self._clock.monotonic()
        for start in range(0, len(providers), BATCH):
            message = Presence()
            for provider in providers[start : start + BATCH]:
                message.providers.append(
                    presence.snapshot(
                        provider,
                        self._said[provider],
                        now,
                        carried=self._carriage.loads(lane, provider),
                        since_round=told.get(provider, -1),
                    )
                )
                told[provider] = self._round
            lane.send_control(_PRESENCE, 0, message)
