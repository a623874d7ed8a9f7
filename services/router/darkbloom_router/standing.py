"""What a provider hears about its own standing: which gates are shut, and what helps."""

from darkbloom.common.v1.frame_pb2 import FrameKind
from darkbloom_mesh.lane import Lane

from darkbloom_router import convert
from darkbloom_router.explaining import explain_all
from darkbloom_router.fleet import Fleet
from darkbloom_router.model import Gate
from darkbloom_router.provider import Provider

RETELL_S = 60.0
"""Between two tellings of the same, while any gate is shut."""


class Standing:
    """Tells one provider why it is or is not routed, when that has changed.

    Args:
        fleet: Where it stands.
        lane: Its stream.
    """

    def __init__(self, fleet: Fleet, lane: Lane) -> None:
        self._fleet = fleet
        self._lane = lane
        self._told: tuple[tuple[str, Gate], ...] = ()
        self._told_at = float("-inf")

    def tell(self, provider: Provider, now: float) -> None:
        """Say which gates are shut, if that is news or a minute old."""
        found = explain_all(self._fleet, provider, now)
        gates = tuple((item.build, item.gate) for item in found)
        overdue = now - self._told_at >= RETELL_S and not all(item.eligible for item in found)
        if gates == self._told and not overdue:
            return
        self._told, self._told_at = gates, now
        message = convert.routing_status(found)
        self._lane.send_control(FrameKind.FRAME_KIND_ROUTING_STATUS, 0, message)
