"""How a machine leaves in order: no new work, every terminal settled, then it is told that it may.

Not to be confused with a router's own drain, which asks its machines to go elsewhere.
"""

from functools import partial

from darkbloom.common.v1.frame_pb2 import FrameKind
from darkbloom.router.v1.provider_link_pb2 import ProviderDrain, ProviderDrainAck
from darkbloom_mesh.lane import Lane

from darkbloom_router.link_parts import LinkParts
from darkbloom_router.provider import Provider

_MAX_DRAIN_ID = 64
_DRAIN_POLL_S = 0.25


class Going:
    """The end of one stream, as its machine wants it."""

    def __init__(self, parts: LinkParts, lane: Lane) -> None:
        self._parts = parts
        self._lane = lane
        self._drain_id = ""
        """What is still to be acknowledged."""
        self.announced = False
        """The machine has said that it leaves: its going is no loss."""

    def take(self, provider: Provider, payload: bytes) -> None:
        """Take a PROVIDER_DRAIN; raises `DecodeError`."""
        message = ProviderDrain.FromString(payload)
        if not 0 < len(message.drain_id) <= _MAX_DRAIN_ID:
            self._parts.meter.ignored("provider", "malformed")
            return
        self.announced = True
        provider.drain_fence = True
        self._parts.fleet.refresh(provider)
        waiting, self._drain_id = self._drain_id, message.drain_id
        if not waiting:
            self._acknowledge(provider)

    def _acknowledge(self, provider: Provider) -> None:
        """Say that every terminal is settled, once that is so."""
        parts = self._parts
        if not provider.connected:
            return
        if parts.closing.open_for(provider) or parts.replicas.carriage.of_provider(provider):
            parts.timers.after(_DRAIN_POLL_S, partial(self._acknowledge, provider))
            return
        message = ProviderDrainAck(drain_id=self._drain_id)
        self._lane.send_control(FrameKind.FRAME_KIND_PROVIDER_DRAIN_ACK, 0, message)
        self._drain_id = ""
