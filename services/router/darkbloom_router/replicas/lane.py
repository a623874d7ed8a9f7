"""What dispatch needs of a provider's lane, and the stand-in for one that ends elsewhere.

Dispatch, credits and cancels do not know whether a provider's stream is here: they send frames to
`attempt.lane`. For a provider of another replica that is a `RemoteLane`, which puts them on the
peer lane under the same attempt stream; what belongs to the provider as a whole is wrapped.
"""

from typing import Protocol

from darkbloom.common.v1.frame_pb2 import Frame, FrameKind
from darkbloom.router.v1.peer_lane_pb2 import Forward, Unreserve
from darkbloom_mesh.lane import Lane
from google.protobuf.message import Message

_FORWARD = FrameKind.FRAME_KIND_FORWARD
_UNRESERVE = FrameKind.FRAME_KIND_UNRESERVE
LANE_LEVEL = frozenset({FrameKind.FRAME_KIND_TERMINAL_ACK, FrameKind.FRAME_KIND_LOAD_MODEL})
"""What other replicas may say to a provider as a whole."""
_UNRESERVED = Unreserve().SerializeToString()


class ProviderLane(Protocol):
    """What dispatch sends frames to."""

    def send_control(self, kind: int, stream: int, message: Message | bytes) -> None:
        """Send a control frame; it overtakes bodies."""
        ...

    def send_body_part(self, frame: Frame) -> bool:
        """Relay one part of a body; False where too many wait."""
        ...

    def drop_stream(self, stream: int) -> None:
        """Forget body parts of a stream that wait."""
        ...

    def close(self, reason: str) -> None:
        """End the stream in order."""
        ...


class RemoteLane:
    """The lane of a provider whose stream another replica holds.

    Args:
        provider_id: Whose.
        peer: Lane to its holder.
    """

    def __init__(self, provider_id: str, peer: Lane) -> None:
        self.provider_id = provider_id
        self.peer = peer

    def send_control(self, kind: int, stream: int, message: Message | bytes) -> None:
        """Send a control frame of an attempt, an acknowledgement, or a command to load.

        Everything else about a provider as a whole (challenges, trust, models) is its holder's.
        """
        if stream:
            self.peer.send_control(kind, stream, message)
        elif kind in LANE_LEVEL:
            payload = message if isinstance(message, bytes) else message.SerializeToString()
            frame = Frame(kind=kind, payload=payload)
            self.peer.send_control(_FORWARD, 0, Forward(provider_id=self.provider_id, frame=frame))

    def send_body_part(self, frame: Frame) -> bool:
        """Relay one part of a body."""
        return self.peer.send_body_part(frame)

    def drop_stream(self, stream: int) -> None:
        """Forget body parts that wait."""
        self.peer.drop_stream(stream)

    def unreserve(self, stream: int) -> None:
        """Give the place back at the holder."""
        self.peer.send_control(_UNRESERVE, stream, _UNRESERVED)

    def close(self, reason: str) -> None:
        """Do nothing: the provider's stream is not ours to end."""
