"""Lanes over real loopback gRPC, both ends in this process."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from darkbloom.common.v1.error_reason_pb2 import ErrorReason
from darkbloom.common.v1.frame_pb2 import Frame, FrameBatch, FrameKind
from darkbloom_mesh.body import BodyAssembler
from darkbloom_mesh.errors import OverloadedError, PreconditionError
from darkbloom_mesh.lane import Lane, LaneEnd
from darkbloom_mesh.lane_outbox import LaneLimits
from darkbloom_mesh.testing import FakeClock, no_leaked_tasks, serve_ephemeral

CANCEL = FrameKind.FRAME_KIND_CANCEL
CHUNK = FrameKind.FRAME_KIND_CHUNK
FINAL = FrameKind.FRAME_KIND_CHUNK_FINAL
TERMINAL = FrameKind.FRAME_KIND_TERMINAL
BODY_PART = FrameKind.FRAME_KIND_BODY_PART
METHOD = "/test.LaneService/Connect"


class Inbox:
    """Collects what a lane delivers and lets a test wait for it."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.batches: list[list[Frame]] = []
        self._changed = asyncio.Event()

    def receive(self, frames: Sequence[Frame]) -> None:
        """Take one batch; what a lane is given as `on_frames`."""
        self.frames.extend(frames)
        self.batches.append(list(frames))
        self._changed.set()

    async def until(self, done: Callable[[list[Frame]], bool]) -> list[Frame]:
        """Wait until `done` says so of everything that came."""
        async with asyncio.timeout(30):
            while not done(self.frames):
                self._changed.clear()
                await self._changed.wait()
        return self.frames

    def of(self, stream: int) -> list[Frame]:
        """Return the frames of one stream."""
        return [frame for frame in self.frames if frame.stream == stream]


class Pair:
    """A client lane and the server's end of it."""

    client: Lane
    server: Lane
    call: grpc.aio.StreamStreamCall[Any, Any]
    client_end: asyncio.Task[LaneEnd]
    server_end: asyncio.Future[LaneEnd]

    def __init__(self) -> None:
        self.at_client = Inbox()
        self.at_server = Inbox()


def lane_registrar(handler: Callable[[Any, Any], Any]) -> Callable[[grpc.aio.Server], None]:
    def register(server: grpc.aio.Server) -> None:
        method = grpc.stream_stream_rpc_method_handler(
            handler, FrameBatch.FromString, FrameBatch.SerializeToString
        )
        generic = grpc.method_handlers_generic_handler("test.LaneService", {"Connect": method})
        server.add_generic_rpc_handlers((generic,))

    return register


@asynccontextmanager
async def dialled(target: str) -> AsyncIterator[grpc.aio.StreamStreamCall[Any, Any]]:
    async with grpc.aio.insecure_channel(target) as opened:
        yield opened.stream_stream(
            METHOD,
            request_serializer=FrameBatch.SerializeToString,
            response_deserializer=FrameBatch.FromString,
        )()


@asynccontextmanager
async def pair(
    *,
    client_limits: LaneLimits | None = None,
    server_limits: LaneLimits | None = None,
    client_clock: FakeClock | None = None,
    on_server: Callable[[Sequence[Frame]], None] | None = None,
    on_client: Callable[[Sequence[Frame]], None] | None = None,
) -> AsyncIterator[Pair]:
    made, connected = Pair(), asyncio.Event()
    made.server_end = asyncio.get_running_loop().create_future()

    async def handler(_requests: object, context: Any) -> None:
        receive = on_server or made.at_server.receive
        made.server = Lane(context, on_frames=receive, limits=server_limits, name="server")
        connected.set()
        end = await made.server.run()
        made.server_end.set_result(end)

    async with (
        no_leaked_tasks(),
        serve_ephemeral(lane_registrar(handler)) as target,
        dialled(target) as call,
        asyncio.TaskGroup() as tasks,
    ):
        made.call = call
        made.client = Lane(
            call,
            on_frames=on_client or made.at_client.receive,
            limits=client_limits,
            name="client",
            clock=client_clock,
        )
        made.client_end = tasks.create_task(made.client.run())
        async with asyncio.timeout(30):
            await connected.wait()
        yield made
        made.client.close("test_over")


async def ended(future: asyncio.Future[LaneEnd]) -> LaneEnd:
    async with asyncio.timeout(30):
        return await asyncio.shield(future)


async def test_frames_arrive_in_order_both_ways() -> None:
    async with pair() as lanes:
        for sequence in range(60):
            assert lanes.client.send_chunk(CHUNK, 7, sequence, b"up", sequence)
            assert lanes.server.send_chunk(CHUNK, 9, sequence, b"down", sequence)
        up = await lanes.at_server.until(lambda frames: len(frames) == 60)
        down = await lanes.at_client.until(lambda frames: len(frames) == 60)
        assert [frame.sequence for frame in up] == list(range(60))
        assert [frame.tokens for frame in down] == list(range(60))
        assert {frame.payload for frame in up} == {b"up"}


async def test_what_waits_together_travels_together() -> None:
    async with pair() as lanes:
        for stream in range(1, 201):
            lanes.client.send_chunk(CHUNK, stream, 0, b"x" * 100, 1)
        await lanes.at_server.until(lambda frames: len(frames) == 200)
        assert len(lanes.at_server.batches) == 1


async def test_control_overtakes_data_and_an_ordered_frame_does_not() -> None:
    async with pair() as lanes:
        lanes.server.send_chunk(CHUNK, 1, 0, b"a", 1)
        lanes.server.send_chunk(FINAL, 1, 1, b"b", 2)
        lanes.server.send_ordered(TERMINAL, 1, b"signed")
        lanes.server.send_control(CANCEL, 2, b"")
        frames = await lanes.at_client.until(lambda frames: len(frames) == 4)
        assert [frame.kind for frame in frames] == [CANCEL, CHUNK, FINAL, TERMINAL]


async def test_a_16_mib_body_in_transit_delays_neither_chunks_nor_a_cancel() -> None:
    body = bytes(range(256)) * (16 * 4096)
    assembler = BodyAssembler(len(body), hashlib.sha256(body).digest(), len(body))
    async with pair() as lanes:
        assert lanes.client.send_body(1, body)
        await lanes.at_server.until(lambda frames: len(frames) >= 3)
        lanes.client.send_chunk(CHUNK, 2, 0, b"neighbour", 1)
        lanes.client.send_control(CANCEL, 3, b"")
        await lanes.at_server.until(lambda _: bool(lanes.at_server.of(3) and lanes.at_server.of(2)))
        sent_before = len(lanes.at_server.of(1))
        assert sent_before < 200
        await lanes.at_server.until(lambda _: len(lanes.at_server.of(1)) == 256)
        for part in lanes.at_server.of(1):
            complete = assembler.add(part.sequence, part.payload)
        assert complete
        assert assembler.join() == body


async def test_a_cancelled_request_stops_its_body_and_leaves_its_neighbours_whole() -> None:
    async with pair() as lanes:
        lanes.client.send_body(1, bytes(4 * 1024 * 1024))
        lanes.client.send_body(2, bytes(1024 * 1024))
        await lanes.at_server.until(lambda _: len(lanes.at_server.of(1)) >= 2)
        lanes.client.drop_stream(1)
        lanes.client.send_control(CANCEL, 1, b"")
        await lanes.at_server.until(lambda _: len(lanes.at_server.of(2)) == 16)
        mine = lanes.at_server.of(1)
        assert mine[-1].kind == CANCEL
        assert len(mine) < 64


async def test_bytes_are_relayed_untouched_between_two_lanes() -> None:
    async with pair() as far:

        def relay(frames: Sequence[Frame]) -> None:
            for frame in frames:
                far.client.send_frame(frame)

        async with pair(on_server=relay) as near:
            sealed = [bytes([n]) * n for n in range(50)]
            for sequence, payload in enumerate(sealed):
                near.client.send_chunk(CHUNK, 2**63 + 5, sequence, payload, sequence)
            frames = await far.at_server.until(lambda frames: len(frames) == 50)
            assert [frame.payload for frame in frames] == sealed
            assert {frame.stream for frame in frames} == {2**63 + 5}


async def test_many_streams_keep_their_own_order() -> None:
    async with pair(server_limits=LaneLimits(stream_frames=100)) as lanes:
        for sequence in range(50):
            for stream in range(1, 201):
                assert lanes.server.send_chunk(CHUNK, stream, sequence, b"x", 0)
        await lanes.at_client.until(lambda frames: len(frames) == 10_000)
        for stream in range(1, 201):
            assert [f.sequence for f in lanes.at_client.of(stream)] == list(range(50))


async def test_unknown_kinds_are_counted_and_not_delivered() -> None:
    async with pair() as lanes:
        for kind in (0, 9, 222, 4_000_000_000):
            lanes.client.send_frame(Frame(stream=1, kind=kind))
        lanes.client.send_frame(Frame(stream=1, kind=CHUNK))
        frames = await lanes.at_server.until(bool)
        assert [frame.kind for frame in frames] == [CHUNK]
        assert lanes.server.stats.unknown_kinds == 4


async def test_a_client_that_closes_sends_what_waits_and_both_ends_are_clean() -> None:
    async with pair() as lanes:
        lanes.client.send_ordered(TERMINAL, 1, b"last words")
        lanes.client.close("draining")
        assert await ended(lanes.server_end) == LaneEnd("peer_closed", clean=True)
        assert await ended(lanes.client_end) == LaneEnd("draining", clean=True)
        assert [frame.payload for frame in lanes.at_server.frames] == [b"last words"]
        assert not lanes.client.open
        assert lanes.client.send_chunk(CHUNK, 1, 0, b"into the void", 0)


async def test_a_server_that_closes_sends_what_waits_and_both_ends_are_clean() -> None:
    async with pair() as lanes:
        lanes.server.send_control(CANCEL, 1, b"")
        lanes.server.close("rebalance")
        assert await ended(lanes.client_end) == LaneEnd("peer_closed", clean=True)
        assert await ended(lanes.server_end) == LaneEnd("rebalance", clean=True)
        assert [frame.kind for frame in lanes.at_client.frames] == [CANCEL]


async def test_a_call_cut_from_outside_ends_the_lane() -> None:
    async with pair() as lanes:
        lanes.call.cancel()
        assert await ended(lanes.client_end) == LaneEnd("peer_lost", clean=False)


async def test_a_full_control_queue_closes_the_lane() -> None:
    async with pair(client_limits=LaneLimits(control_frames=10)) as lanes:
        for _ in range(11):
            lanes.client.send_control(CANCEL, 1, b"")
        assert (await ended(lanes.client_end)).reason == "overflow"
        assert not lanes.client.open


async def test_an_overflow_at_the_server_does_not_look_clean_to_the_client() -> None:
    async with pair(server_limits=LaneLimits(data_frames=10)) as lanes:
        for stream in range(11):
            lanes.server.send_chunk(CHUNK, stream, 0, b"x", 0)
        assert (await ended(lanes.server_end)).reason == "overflow"
        end = await ended(lanes.client_end)
        assert (end.reason, end.clean) == ("peer_lost", False)


async def test_more_chunks_than_its_share_are_refused_to_one_stream_only() -> None:
    async with pair(client_limits=LaneLimits(stream_frames=2)) as lanes:
        answers = [lanes.client.send_chunk(CHUNK, 1, n, b"x", 0) for n in range(3)]
        assert answers == [True, True, False]
        assert lanes.client.send_chunk(CHUNK, 2, 0, b"x", 0)
        await lanes.at_server.until(lambda frames: len(frames) == 3)


async def test_an_error_of_the_receiver_reaches_the_other_end_as_its_status() -> None:
    def refuse(_frames: Sequence[Frame]) -> None:
        raise PreconditionError(
            "first frame is not a register", reason=ErrorReason.ERROR_REASON_HANDSHAKE
        )

    async with pair(on_server=refuse) as lanes:
        lanes.client.send_control(CANCEL, 0, b"")
        end = await ended(lanes.client_end)
        assert end.reason == "peer_lost"
        assert isinstance(end.error, PreconditionError)
        assert end.error.reason == ErrorReason.ERROR_REASON_HANDSHAKE
        assert end.error.message == "first frame is not a register"


async def test_an_error_of_the_clients_receiver_is_raised_by_run() -> None:
    def fail(_frames: Sequence[Frame]) -> None:
        raise OverloadedError("no")

    async def fails() -> None:
        async with pair(on_client=fail) as lanes:
            lanes.server.send_control(CANCEL, 0, b"")
            await asyncio.wait({lanes.client_end}, timeout=30)

    with pytest.raises(ExceptionGroup) as caught:
        await fails()
    assert caught.group_contains(OverloadedError)


async def test_a_batch_with_too_many_frames_ends_the_lane() -> None:
    async with pair() as lanes:
        flood = FrameBatch(frames=[Frame(stream=n, kind=CHUNK) for n in range(257)])
        lanes.client._outbox.take = lambda: flood  # type: ignore[method-assign]
        lanes.client.send_control(CANCEL, 1, b"")
        assert (await ended(lanes.server_end)).reason == "unreadable"


async def test_a_ping_measures_the_round_trip() -> None:
    clock = FakeClock()
    async with pair(client_clock=clock) as lanes:
        await clock.advance(10)
        lanes.client.send_control(CANCEL, 1, b"")
        await lanes.at_server.until(bool)
        lanes.server.send_control(CANCEL, 1, b"")
        await lanes.at_client.until(bool)
        assert lanes.client.rtt_s == 0
        assert lanes.at_server.frames[0].kind == CANCEL


@asynccontextmanager
async def mute_server() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A peer that connects, never reads and never writes."""
    let_go = asyncio.Event()

    async def handler(_requests: object, _context: Any) -> None:
        await let_go.wait()

    async with serve_ephemeral(lane_registrar(handler)) as target:
        yield target, let_go
        let_go.set()


async def test_a_silent_peer_is_given_up_after_30_seconds() -> None:
    clock = FakeClock()
    async with no_leaked_tasks(), mute_server() as (target, _), dialled(target) as call:
        lane = Lane(call, on_frames=Inbox().receive, clock=clock)
        async with asyncio.TaskGroup() as tasks:
            end = tasks.create_task(lane.run())
            await call.wait_for_connection()
            await clock.advance(29)
            assert not end.done()
            await clock.advance(6)
            assert (await ended(end)).reason == "silent"


async def test_a_write_that_stalls_closes_its_lane_and_no_other() -> None:
    clock = FakeClock()
    limits = LaneLimits(silence_s=1000, stall_s=30, ping_interval_s=1000)
    async with mute_server() as (target, _), dialled(target) as call, pair() as healthy:
        lane = Lane(call, on_frames=Inbox().receive, clock=clock, limits=limits)
        async with asyncio.TaskGroup() as tasks:
            end = tasks.create_task(lane.run())
            await call.wait_for_connection()
            lane.send_body(1, bytes(32 * 1024 * 1024))
            async with asyncio.timeout(30):
                out, rounds_without_progress = 0, 0
                while rounds_without_progress < 50:  # then the transport takes no more
                    progress = lane.stats.frames_out > out
                    rounds_without_progress = 0 if progress else rounds_without_progress + 1
                    out = lane.stats.frames_out
                    seen = len(healthy.at_server.frames)
                    healthy.client.send_chunk(CHUNK, 1, 0, b"neighbour", 0)
                    await healthy.at_server.until(lambda frames, n=seen: len(frames) > n)
            assert lane._writing_since is not None
            await clock.advance(60)
            assert (await ended(end)).reason == "stalled"
        seen = len(healthy.at_server.frames)
        healthy.client.send_chunk(CHUNK, 1, 0, b"still here", 0)
        await healthy.at_server.until(lambda frames: len(frames) > seen)


async def test_an_unthrottled_writer_to_a_stalled_reader_overflows_alone() -> None:
    limits = LaneLimits(data_frames=1000, stream_frames=10**9)
    async with mute_server() as (target, _), dialled(target) as call, pair() as healthy:
        lane = Lane(call, on_frames=Inbox().receive, limits=limits)
        async with asyncio.TaskGroup() as tasks:
            end = tasks.create_task(lane.run())
            await call.wait_for_connection()
            rounds = 0
            while lane.open:
                rounds += 1
                for sequence in range(500):
                    lane.send_chunk(CHUNK, 1, sequence, b"x" * 1000, 0)
                seen = len(healthy.at_server.frames)
                healthy.client.send_chunk(CHUNK, 1, 0, b"neighbour", 0)
                await healthy.at_server.until(lambda frames, n=seen: len(frames) > n)
            assert (await ended(end)).reason == "overflow"
            assert len(healthy.at_server.frames) == rounds


async def test_a_task_that_is_cancelled_takes_its_lane_along() -> None:
    async with pair() as lanes:
        lanes.client_end.cancel()
        await asyncio.wait({lanes.client_end}, timeout=30)
        assert lanes.call.cancelled()
