"""The lane to the router: one per worker, found again when it is lost."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol, final

import structlog
from darkbloom.common.v1.frame_pb2 import Frame
from darkbloom.router.v1.gateway_lane_pb2 import LaneHello, LaneWelcome
from darkbloom_edge.offers import replica_tag
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.lane import Lane, LaneCall
from google.protobuf.message import DecodeError, Message

from darkbloom_gateway import kinds
from darkbloom_gateway.errors import LaneLostError
from darkbloom_gateway.mailbox import Mailbox

PREFIX_SHIFT = 40
"""Request streams are `prefix << 40 | counter`."""
WELCOME_S = 10.0
"""Longest wait for the router's answer to our hello."""
_COUNTER_MASK = (1 << PREFIX_SHIFT) - 1
_log = structlog.get_logger()


class LinkMetrics(Protocol):
    """What the link counts."""

    def lane_up(self) -> None:
        """A lane was welcomed."""
        ...

    def lane_ended(self, reason: str) -> None:
        """A lane that was welcomed ended."""
        ...

    def frame_ignored(self, reason: str) -> None:
        """A frame changed nothing."""
        ...


@final
class RouterLink:
    """Numbers request streams, hands frames to mailboxes, reconnects with full jitter.

    Invariant: a stream number is used once per lane; frames of a stream that nobody attached, or
    that belonged to an earlier lane, change nothing and are counted.

    Args:
        connect: opens a call.
        gateway: stable name of the process.
        worker: number of this worker.
        backoff: waits between tries.
        clock: time.
        metrics: counters.
        turned: called when the lane came up, stopped taking requests, or was lost.
    """

    def __init__(
        self,
        connect: Callable[[], LaneCall],
        *,
        gateway: str,
        worker: int,
        backoff: Backoff,
        clock: Clock,
        metrics: LinkMetrics,
        turned: Callable[[], None],
    ) -> None:
        self._turned = turned
        self._connect = connect
        self._hello = LaneHello(gateway=gateway, worker=worker)
        self._backoff = backoff
        self._clock = clock
        self._metrics = metrics
        self._lane: Lane | None = None
        self._welcomed = False
        self._prefix = 0
        self._counter = 0
        self._accepting = False
        self._streams: dict[int, Mailbox] = {}
        self.mailboxes: set[Mailbox] = set()
        """Everything that waits for this link."""
        self.tag = ""
        """Stands for the replica at the other end, in ids of offers."""
        self.initial_credit = 0
        """Chunk frames per attempt before the first credit."""

    @property
    def accepting(self) -> bool:
        """Whether new requests may be opened now."""
        return self._accepting

    @property
    def connected(self) -> bool:
        """Whether a welcomed lane is open, even if it takes no new requests."""
        return self._welcomed and self._lane is not None and self._lane.open

    def refuse_new(self) -> None:
        """Take no new request on this lane: its router is leaving."""
        self._accepting = False

    def join(self, mailbox: Mailbox, *, late: bool = False) -> int:
        """Give a mailbox its request stream; a late one joins also while the router is leaving.

        Raises:
            LaneLostError: there is no lane now.
        """
        if self._lane is None or not self._lane.open or not self._welcomed:
            raise LaneLostError
        if not self._accepting and not late:
            raise LaneLostError
        self._counter = (self._counter + 1) & _COUNTER_MASK
        stream = self._prefix << PREFIX_SHIFT | self._counter
        self.mailboxes.add(mailbox)
        self._streams[stream] = mailbox
        return stream

    def attach(self, stream: int, mailbox: Mailbox) -> None:
        """Route an attempt's frames to a mailbox."""
        self._streams[stream] = mailbox

    def leave(self, mailbox: Mailbox, streams: Sequence[int]) -> None:
        """Forget a request and its streams, unless a later lane gave their numbers to others."""
        self.mailboxes.discard(mailbox)
        for stream in streams:
            if self._streams.get(stream) is mailbox:
                del self._streams[stream]

    def send(self, kind: int, stream: int, message: Message) -> None:
        """Send a control frame; on a lost lane it goes nowhere."""
        if self._lane is not None:
            self._lane.send_control(kind, stream, message)

    def send_body(self, stream: int, payload: bytes) -> bool:
        """Send a sealed body; False where too many bodies wait."""
        return self._lane is not None and self._lane.send_body(stream, payload)

    def drop(self, stream: int) -> None:
        """Forget body parts of a stream that still wait."""
        if self._lane is not None:
            self._lane.drop_stream(stream)

    def close(self) -> None:
        """Half-close the lane; `run` is to be cancelled afterwards."""
        self._accepting = False
        if self._lane is not None:
            self._lane.close("drain")

    async def run(self) -> None:
        """Hold a lane open until cancelled."""
        while True:
            lane = Lane(self._connect(), on_frames=self._receive, name="router", clock=self._clock)
            self._lane = lane
            lane.send_control(kinds.LANE_HELLO, 0, self._hello)
            try:
                async with asyncio.TaskGroup() as tasks:
                    patience = tasks.create_task(self._expect_welcome(lane))
                    end = await lane.run()
                    patience.cancel()
            finally:
                welcomed = self._welcomed
                self._lose()
            if welcomed:
                self._metrics.lane_ended(end.reason)
                self._backoff.reset()
            _log.warning("router_lane_ended", reason=end.reason, clean=end.clean)
            await self._clock.sleep(self._backoff.next_s())

    async def _expect_welcome(self, lane: Lane) -> None:
        await self._clock.sleep(WELCOME_S)
        if not self._welcomed:
            lane.close("no_welcome")

    def _lose(self) -> None:
        self._accepting = False
        self._lane = None
        self._welcomed = False
        self._streams.clear()
        for mailbox in list(self.mailboxes):
            mailbox.lose()
        self.mailboxes.clear()
        self._turned()

    def _receive(self, frames: Sequence[Frame]) -> None:
        streams = self._streams
        for frame in frames:
            mailbox = streams.get(frame.stream)
            if mailbox is not None:
                mailbox.put(frame)
            elif frame.stream == 0:
                self._receive_own(frame)
            else:
                self._metrics.frame_ignored("unknown_stream")

    def _receive_own(self, frame: Frame) -> None:
        if frame.kind == kinds.GO_AWAY:
            self.refuse_new()
            return
        if frame.kind != kinds.LANE_WELCOME or self._welcomed:
            self._metrics.frame_ignored("unexpected_kind")
            return
        try:
            welcome = LaneWelcome.FromString(frame.payload)
        except DecodeError:
            self._metrics.frame_ignored("unreadable")
            return
        self._welcomed = True
        self._prefix = welcome.prefix
        self.tag = replica_tag(welcome.replica)
        self._counter = 0
        self.initial_credit = max(1, welcome.initial_credit)
        self._metrics.lane_up()
        self._accepting = True
        self._turned()
