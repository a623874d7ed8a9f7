"""What the router asks for when it sends a stream away."""

from typing import NamedTuple

from darkbloom.router.v1.provider_link_pb2 import GoAway
from google.protobuf.duration_pb2 import Duration

DEFAULT_GRACE_S = 600.0
MAX_GRACE_S = 3600.0
MAX_RECONNECT_S = 60.0


class Hint(NamedTuple):
    """What the router asked for when it sent us away."""

    grace_s: float = DEFAULT_GRACE_S
    """Time to finish what runs here."""
    reconnect_after_s: float = 0.0
    """Wait before a stream is opened elsewhere."""
    superseded: bool = False
    """A newer stream of the same identity has taken over."""


def hint_of(message: GoAway) -> Hint:
    """Read a farewell; what it does not say has its default."""
    return Hint(
        grace_s=bounded_s(message.grace, 0, MAX_GRACE_S)
        if message.HasField("grace")
        else DEFAULT_GRACE_S,
        reconnect_after_s=bounded_s(message.reconnect_after, 0, MAX_RECONNECT_S),
        superseded=message.reason == "superseded",
    )


def bounded_s(span: Duration, least: float, most: float) -> float:
    """Return a span of the router in seconds; nonsense becomes the nearest sense."""
    return min(max(span.seconds + span.nanos / 1e9, least), most)
