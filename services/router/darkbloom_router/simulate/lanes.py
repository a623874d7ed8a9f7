"""A lane without a wire: frames arrive at once, as objects."""

from collections.abc import Callable
from dataclasses import dataclass

from darkbloom.common.v1.frame_pb2 import Frame
from darkbloom_mesh.lane import Lane
from google.protobuf.message import Message

Control = Callable[[int, int, Message | bytes], None]
"""Takes kind, stream and message of a control frame."""
Data = Callable[[Frame], None]


@dataclass(slots=True)
class Carried:
    """Messages on all lanes. An answer is two chunks here, however many tokens it has."""

    gateway_in: int = 0
    """From gateways."""
    gateway_out: int = 0
    provider_in: int = 0
    """From providers, heartbeats left out."""
    provider_out: int = 0
    beats: int = 0
    told: int = 0
    """What one other replica would be told: each machine's state after each quarter of a second in
    which it has changed.
    """


class SimulatedLane(Lane):
    """The router's end of a lane; whoever is modelled at the other end gets what is sent.

    There is no stream under it, so nothing of what a lane keeps for one is made.

    Args:
        control: Takes control frames.
        data: Takes frames of chunks.
    """

    def __init__(self, control: Control, data: Data) -> None:
        self._control = control
        self._data = data
        self.closed = ""

    @property
    def open(self) -> bool:
        """Whether anybody is at the other end."""
        return not self.closed

    def send_control(self, kind: int, stream: int, message: Message | bytes) -> None:
        """Hand a control frame over."""
        self._control(kind, stream, message)

    def send_ordered(self, kind: int, stream: int, message: Message | bytes) -> bool:
        """Hand a control frame over, in order with chunks."""
        self._control(kind, stream, message)
        return True

    def send_frame(self, frame: Frame) -> bool:
        """Hand a frame over."""
        self._data(frame)
        return True

    def send_body_part(self, frame: Frame) -> bool:
        """Hand part of a body over."""
        self._data(frame)
        return True

    def drop_stream(self, stream: int) -> None:
        """Do nothing: nothing waits here."""

    def close(self, reason: str) -> None:
        """End the lane."""
        self.closed = self.closed or reason
