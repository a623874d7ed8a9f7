"""A lane: one long-lived stream of frame batches, the same at both of its ends (docs/wire.md §2).

    lane = Lane(stub.Connect(), on_frames=self.receive, name="router")
    lane.send_control(FrameKind.FRAME_KIND_LANE_HELLO, 0, LaneHello(...))
    end = await lane.run()          # reads and writes until the end, then says why it ended

A server's handler passes its context as the call, awaits `run()` and returns. One reader task and
one writer task touch the call and nothing else does. Everything that sends is synchronous, may be
called from `on_frames`, and never waits: bounds, not back-pressure, keep memory in check. No timer
delays a frame; the writer takes whatever waits, control first. A message costs as much as dozens of
frames, so before each one the writer lets the loop turn a few times: what other requests are about
to send joins it. Idle turns take microseconds, and under load they halved the cost of a request.

How a lane ends. `close()` writes what waits (bodies excepted) and half-closes. A control or data
queue that overflows, a write that takes longer than `stall_s` and a peer that is silent for
`silence_s` cut the call as a whole; a pending read or write alone is never cancelled while the call
lives, because in grpc.aio that breaks the stream. An exception of `on_frames` ends the lane and is
raised by `run()`.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from darkbloom.common.v1.frame_pb2 import Frame, FrameBatch, FrameKind
from google.protobuf.message import Message

from darkbloom_mesh.clock import Clock, SystemClock
from darkbloom_mesh.errors import MeshError, from_rpc_error
from darkbloom_mesh.lane_outbox import BATCH_FRAMES, LaneLimits, Outbox, OutboxOverflowError

_PING = FrameKind.FRAME_KIND_PING
_PONG = FrameKind.FRAME_KIND_PONG
_DELIVERED = frozenset(FrameKind.values()) - {FrameKind.FRAME_KIND_UNSPECIFIED, _PING, _PONG}


class LaneCall(Protocol):
    """What a client call and a servicer context have in common."""

    async def read(self) -> Any:
        """Return the next batch, or `grpc.aio.EOF`."""
        ...

    async def write(self, message: FrameBatch, /) -> None:
        """Hand one batch to the transport."""
        ...


@dataclass(frozen=True)
class LaneEnd:
    """Why a lane ended."""

    reason: str
    """`peer_closed`, `peer_lost`, `overflow`, `stalled`, `silent`, `unreadable`, or what was given
    to `close()`."""
    clean: bool
    """Whether one side closed it on purpose."""
    error: MeshError | None = None
    """At a client: what the server ended the call with, where that was not OK."""


@dataclass(slots=True)
class LaneStats:
    """Counters of one lane, for metrics."""

    frames_in: int = 0
    frames_out: int = 0
    batches_in: int = 0
    batches_out: int = 0
    unknown_kinds: int = 0


class Lane:
    """One end of a lane; see the module's text for how it sends, receives and ends.

    Args:
        call: The client call, or the context of a server's handler.
        on_frames: Called once per received batch, in order, with its frames; must not block.
        limits: Bounds and periods.
        name: For logs; never an id of a person.
        clock: Time for pings and watchdogs.
    """

    def __init__(
        self,
        call: LaneCall,
        *,
        on_frames: Callable[[Sequence[Frame]], None],
        limits: LaneLimits | None = None,
        name: str = "lane",
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.stats = LaneStats()
        self.rtt_s: float | None = None
        self._call = call
        self._on_frames = on_frames
        self._limits = limits or LaneLimits()
        self._clock = clock or SystemClock()
        self._outbox = Outbox(self._limits)
        self._wake = asyncio.Event()
        self._ended = asyncio.Event()
        self._end: LaneEnd | None = None
        self._failure: BaseException | None = None
        self._closing = False
        self._heard_at = self._clock.monotonic()
        self._writing_since: float | None = None
        self._ping_nonce = 0
        self._ping_sent_at: float | None = None

    @property
    def open(self) -> bool:
        """Whether frames sent now can still reach the peer."""
        return self._end is None and not self._closing

    def send_control(self, kind: int, stream: int, message: Message | bytes) -> None:
        """Send a control frame; it overtakes data and bodies."""
        payload = message if isinstance(message, bytes) else message.SerializeToString()
        self._send_control(Frame(stream=stream, kind=kind, payload=payload))

    def send_ordered(self, kind: int, stream: int, message: Message | bytes) -> bool:
        """Send a control frame behind the chunks of its stream, as a terminal must be."""
        payload = message if isinstance(message, bytes) else message.SerializeToString()
        return self.send_frame(Frame(stream=stream, kind=kind, payload=payload))

    def send_frame(self, frame: Frame) -> bool:
        """Send a frame untouched, in order with the chunks of its stream.

        Returns False where the stream has `stream_frames` waiting, which means that its credits
        were exceeded: end that stream. On a lane that has ended frames go nowhere.
        """
        if not self.open:
            return True
        try:
            taken = self._outbox.add_data(frame)
        except OutboxOverflowError:
            self._finish(LaneEnd("overflow", clean=False))
            return True
        self._wake.set()
        return taken

    def send_chunk(
        self, kind: int, stream: int, sequence: int, payload: bytes, tokens: int
    ) -> bool:
        """Send a sealed chunk; returns as `send_frame` does."""
        frame = Frame(stream=stream, kind=kind, sequence=sequence, payload=payload, tokens=tokens)
        return self.send_frame(frame)

    def send_body(self, stream: int, payload: bytes) -> bool:
        """Send a sealed body as parts of 64 KiB, in turn with other bodies.

        Returns False where `body_bytes` are already waiting: the caller answers overloaded.
        """
        return self._took_body(self.open and self._outbox.add_body(stream, payload))

    def send_body_part(self, frame: Frame) -> bool:
        """Relay one part of a body untouched; returns as `send_body` does."""
        return self._took_body(self.open and self._outbox.add_body_part(frame))

    def drop_stream(self, stream: int) -> None:
        """Forget chunks and body parts of a stream that wait; call before sending its cancel."""
        self._outbox.drop(stream)

    def close(self, reason: str) -> None:
        """Write what waits, half-close, and let `run()` return; again does nothing."""
        if not self.open:
            return
        self._closing = True
        self._outbox.clear_bodies()
        self._end = LaneEnd(reason, clean=True)
        self._wake.set()
        self._ended.set()

    async def run(self) -> LaneEnd:
        """Read and write until the lane ends; call once.

        Raises:
            Exception: What `on_frames` raised.
        """
        async with asyncio.TaskGroup() as tasks:
            reader = tasks.create_task(self._read(), name=f"{self.name}.read")
            writer = tasks.create_task(self._write(), name=f"{self.name}.write")
            keeper = tasks.create_task(self._keep(), name=f"{self.name}.keep")
            await self._ended.wait()
            keeper.cancel()
            if self._closing:
                await asyncio.wait({writer}, timeout=self._limits.linger_s)
                await self._half_close(reader, writer)
            self._hang_up(reader, writer)
        if self._failure is not None:
            raise self._failure
        return self._end or LaneEnd("peer_lost", clean=False)

    def _send_control(self, frame: Frame) -> None:
        if not self.open:
            return
        try:
            self._outbox.add_control(frame)
        except OutboxOverflowError:
            self._finish(LaneEnd("overflow", clean=False))
            return
        self._wake.set()

    def _took_body(self, taken: bool) -> bool:
        if taken:
            self._wake.set()
        return taken or not self.open

    def _finish(self, end: LaneEnd) -> None:
        if self._end is None:
            self._end = end
        self._ended.set()
        self._wake.set()

    async def _read(self) -> None:
        try:
            while (batch := await self._call.read()) is not grpc.aio.EOF:
                if not isinstance(batch, FrameBatch) or len(batch.frames) > BATCH_FRAMES:
                    self._finish(LaneEnd("unreadable", clean=False))
                    return
                self._heard_at = self._clock.monotonic()
                if not self._receive(batch):
                    return
        except grpc.aio.AioRpcError as error:
            self._finish(LaneEnd("peer_lost", clean=False, error=from_rpc_error(error)))
        except Exception:  # noqa: BLE001 - the library's ways to say that the call is over
            self._finish(LaneEnd("peer_lost", clean=False))
        else:
            self._closing = True
            self._finish(LaneEnd("peer_closed", clean=True))
        finally:
            # A call that somebody else cancelled raises nothing but the cancellation.
            self._finish(LaneEnd("peer_lost", clean=False))

    def _receive(self, batch: FrameBatch) -> bool:
        """Deliver one batch; False where the receiver failed and the lane must end."""
        frames: Sequence[Frame] = batch.frames
        self.stats.batches_in += 1
        self.stats.frames_in += len(frames)
        known = [frame for frame in frames if frame.kind in _DELIVERED]
        if len(known) != len(frames):
            self._receive_special(frame for frame in frames if frame.kind not in _DELIVERED)
        if not known:
            return True
        try:
            self._on_frames(known)
        except Exception as error:  # noqa: BLE001 - kept, and raised by run()
            self._failure = error
            self._finish(LaneEnd("failed", clean=False))
            return False
        return True

    def _receive_special(self, frames: Any) -> None:
        for frame in frames:
            if frame.kind == _PING:
                self._send_control(Frame(kind=_PONG, payload=frame.payload))
            elif frame.kind != _PONG:
                self.stats.unknown_kinds += 1
            elif self._ping_sent_at is not None and frame.payload == _ping(self._ping_nonce):
                self.rtt_s = self._clock.monotonic() - self._ping_sent_at
                self._ping_sent_at = None

    async def _write(self) -> None:
        try:
            while self._end is None or self._closing:
                if not self._outbox.waiting:
                    if self._closing:
                        return
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                await self._gather()
                batch = self._outbox.take()
                if batch is None:
                    continue
                self._writing_since = self._clock.monotonic()
                await self._call.write(batch)
                self._writing_since = None
                self.stats.batches_out += 1
                self.stats.frames_out += len(batch.frames)
        except Exception:  # noqa: BLE001 - the reader learns why the call is over
            self._writing_since = None

    async def _gather(self) -> None:
        """Let others add to the next batch."""
        for _ in range(self._limits.gather_turns):
            if self._closing or self._outbox.full:
                return
            await asyncio.sleep(0)  # noqa: TID251 - a turn of the loop, no time

    async def _keep(self) -> None:
        """Ping, and notice a peer that is silent or does not read."""
        limits, clock = self._limits, self._clock
        tick_s = min(limits.ping_interval_s, limits.silence_s, limits.stall_s) / 2
        pinged_at = self._heard_at = clock.monotonic()
        while True:
            await clock.sleep(tick_s)
            now = clock.monotonic()
            if self._writing_since is not None and now - self._writing_since >= limits.stall_s:
                self._finish(LaneEnd("stalled", clean=False))
            if now - self._heard_at >= limits.silence_s:
                self._finish(LaneEnd("silent", clean=False))
            if now - pinged_at >= limits.ping_interval_s:
                pinged_at = self._ping_sent_at = now
                self._ping_nonce = self._ping_nonce % 127 + 1
                self._send_control(Frame(kind=_PING, payload=_ping(self._ping_nonce)))

    async def _half_close(self, reader: asyncio.Task[None], writer: asyncio.Task[None]) -> None:
        """At a client: say that nothing follows and read on until the server has answered."""
        done_writing = getattr(self._call, "done_writing", None)
        if done_writing is None or not writer.done():
            return
        try:
            async with asyncio.timeout(self._limits.linger_s):
                await done_writing()
        except asyncio.CancelledError:
            # That of a call that ended meanwhile is no cancellation of ours.
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            return
        except Exception:  # noqa: BLE001 - the call is over already
            return
        await asyncio.wait({reader}, timeout=self._limits.linger_s)

    def _hang_up(self, reader: asyncio.Task[None], writer: asyncio.Task[None]) -> None:
        """Cut the call as a whole.

        A client cancels the call, and its pending operations end with it. A server has no such
        method: there the call ends when the handler returns, so the tasks may be let go. Its status
        must not look like a clean end.
        """
        set_code = getattr(self._call, "set_code", None)
        if set_code is not None and self._end is not None and not self._end.clean:
            set_code(grpc.StatusCode.UNAVAILABLE)
        cancel = getattr(self._call, "cancel", None)
        if cancel is not None:
            cancel()
        reader.cancel()
        writer.cancel()


def _ping(nonce: int) -> bytes:
    """Encode the ping message: field 1, a varint of one byte."""
    return bytes((0x08, nonce))
