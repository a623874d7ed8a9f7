"""What waits to be written on a lane, and in which order it goes.

Three queues, all bounded: control frames, data frames (chunks, relayed untouched), and bodies in
parts. One batch takes control first, then data, then at most one body part, so that neither a
16 MiB body nor a flood of chunks delays a cancel. Bodies take turns, part by part.
"""

from collections import deque
from dataclasses import dataclass, field

from darkbloom.common.v1.frame_pb2 import Frame, FrameBatch, FrameKind

from darkbloom_mesh.body import PART_BYTES
from darkbloom_mesh.errors import InvalidArgumentError

BATCH_FRAMES = 256
BATCH_BYTES = 256 * 1024
FRAME_BYTES = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class LaneLimits:
    """Bounds and periods of one lane."""

    control_frames: int = 4096
    """Control frames waiting; one more closes the lane."""
    data_frames: int = 16_384
    """Data frames waiting over all streams; one more closes the lane."""
    data_bytes: int = 64 * 1024 * 1024
    """Payload bytes of control and data waiting; more closes the lane."""
    stream_frames: int = 64
    """Data frames waiting of one stream; more is refused: its credits were exceeded."""
    body_bytes: int = 64 * 1024 * 1024
    """Body bytes waiting over all streams; a body beyond is refused."""
    ping_interval_s: float = 10.0
    """Between pings."""
    silence_s: float = 30.0
    """Without a single frame from the peer, the line is dead."""
    stall_s: float = 30.0
    """Longest time that one write may take."""
    linger_s: float = 5.0
    """Longest time for a clean close."""
    gather_turns: int = 12
    """Turns of the loop that the writer waits for company before each batch; see `lane`."""


class OutboxOverflowError(Exception):
    """A bound of the whole lane is reached: its peer does not keep up."""


@dataclass(slots=True)
class _Body:
    parts: deque[Frame | memoryview] = field(default_factory=deque)
    sequence: int = 0


class Outbox:
    """The queues of one lane; used from its loop only."""

    def __init__(self, limits: LaneLimits) -> None:
        self._limits = limits
        self._control: deque[Frame] = deque()
        self._data: deque[Frame] = deque()
        self._bytes = 0
        self._per_stream: dict[int, int] = {}
        self._bodies: dict[int, _Body] = {}
        self._turns: deque[int] = deque()
        self._body_bytes = 0

    def add_control(self, frame: Frame) -> None:
        """Queue a control frame.

        Raises:
            InvalidArgumentError: The frame is larger than a lane carries.
            OutboxOverflowError: Too many wait.
        """
        if len(self._control) >= self._limits.control_frames:
            raise OutboxOverflowError("control queue is full")
        self._weigh(frame)
        self._control.append(frame)

    def add_data(self, frame: Frame) -> bool:
        """Queue a frame behind the data of its stream; False where that stream has its share.

        Raises:
            InvalidArgumentError: The frame is larger than a lane carries.
            OutboxOverflowError: Too much waits over all streams.
        """
        stream = frame.stream
        waiting = self._per_stream.get(stream, 0)
        if waiting >= self._limits.stream_frames:
            return False
        if len(self._data) >= self._limits.data_frames:
            raise OutboxOverflowError("data queue is full")
        self._weigh(frame)
        self._per_stream[stream] = waiting + 1
        self._data.append(frame)
        return True

    def add_body(self, stream: int, payload: bytes) -> bool:
        """Queue a whole body to go in parts; False where no room is left for it."""
        view = memoryview(payload)
        parts = [view[at : at + PART_BYTES] for at in range(0, len(view), PART_BYTES)]
        return self._add_parts(stream, parts, len(view))

    def add_body_part(self, frame: Frame) -> bool:
        """Queue one part of a relayed body; False where no room is left for it."""
        return self._add_parts(frame.stream, [frame], len(frame.payload))

    def drop(self, stream: int) -> None:
        """Forget the data and the body of a stream; its control frames still go."""
        if self._per_stream.pop(stream, 0):
            gone = [frame for frame in self._data if frame.stream == stream]
            self._bytes -= sum(len(frame.payload) for frame in gone)
            self._data = deque(frame for frame in self._data if frame.stream != stream)
        if body := self._bodies.pop(stream, None):
            self._body_bytes -= sum(map(_size, body.parts))
            self._turns.remove(stream)

    def clear_bodies(self) -> None:
        """Forget every body: the lane is closing and nobody will read the rest."""
        self._bodies.clear()
        self._turns.clear()
        self._body_bytes = 0

    @property
    def waiting(self) -> bool:
        """Whether anything waits."""
        return bool(self._control or self._data or self._turns)

    @property
    def full(self) -> bool:
        """Whether a batch would leave something behind, so that waiting for more is idle."""
        return len(self._control) + len(self._data) >= BATCH_FRAMES

    def take(self) -> FrameBatch | None:
        """Return the next batch, or None where nothing waits."""
        if not self.waiting:
            return None
        control, data, turns = self._control, self._data, self._turns
        frames: list[Frame] = []
        # A waiting body keeps its place in the batch, so that chunks cannot starve it either.
        most, room = (
            (BATCH_FRAMES - 1, BATCH_BYTES - PART_BYTES) if turns else (BATCH_FRAMES, BATCH_BYTES)
        )
        room = self._move(control, frames, most, room)
        if not control:
            moved = len(frames)
            room = self._move(data, frames, most, room)
            self._settle(frames[moved:])
        if turns and room >= 0:
            frames.append(self._next_part())
        return FrameBatch(frames=frames)

    def _move(self, queue: deque[Frame], frames: list[Frame], most: int, room: int) -> int:
        """Move what fits; a frame larger than a batch goes alone. Returns the room left."""
        while queue and len(frames) < most:
            size = len(queue[0].payload)
            if size > room and frames:
                break
            frames.append(queue.popleft())
            self._bytes -= size
            room -= size
        return room

    def _settle(self, sent: list[Frame]) -> None:
        counts = self._per_stream
        if not self._data:
            counts.clear()
            return
        for frame in sent:
            left = counts[frame.stream] - 1
            if left:
                counts[frame.stream] = left
            else:
                del counts[frame.stream]

    def _weigh(self, frame: Frame) -> None:
        size = len(frame.payload)
        if size > FRAME_BYTES:
            raise InvalidArgumentError("frame is larger than a lane carries", "payload")
        if self._bytes + size > self._limits.data_bytes:
            raise OutboxOverflowError("too many bytes wait")
        self._bytes += size

    def _add_parts(self, stream: int, parts: list[Frame] | list[memoryview], size: int) -> bool:
        if self._body_bytes + size > self._limits.body_bytes:
            return False
        if not parts:
            return True
        body = self._bodies.get(stream)
        if body is None:
            body = self._bodies[stream] = _Body()
            self._turns.append(stream)
        body.parts.extend(parts)
        self._body_bytes += size
        return True

    def _next_part(self) -> Frame:
        stream = self._turns.popleft()
        body = self._bodies[stream]
        part = body.parts.popleft()
        self._body_bytes -= _size(part)
        if isinstance(part, memoryview):
            kind = FrameKind.FRAME_KIND_BODY_PART
            part = Frame(stream=stream, kind=kind, sequence=body.sequence, payload=bytes(part))
            body.sequence += 1
        if body.parts:
            self._turns.append(stream)
        else:
            del self._bodies[stream]
        return part


def _size(part: Frame | memoryview) -> int:
    return len(part) if isinstance(part, memoryview) else len(part.payload)
