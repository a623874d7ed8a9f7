import pytest
from darkbloom.common.v1.frame_pb2 import Frame, FrameKind
from darkbloom_mesh.body import PART_BYTES
from darkbloom_mesh.errors import InvalidArgumentError
from darkbloom_mesh.lane_outbox import (
    BATCH_BYTES,
    BATCH_FRAMES,
    FRAME_BYTES,
    LaneLimits,
    Outbox,
    OutboxOverflowError,
)
from hypothesis import given
from hypothesis import strategies as st

CANCEL = FrameKind.FRAME_KIND_CANCEL
CHUNK = FrameKind.FRAME_KIND_CHUNK
BODY_PART = FrameKind.FRAME_KIND_BODY_PART


def chunk(stream: int, sequence: int = 0, size: int = 10) -> Frame:
    return Frame(stream=stream, kind=CHUNK, sequence=sequence, payload=b"c" * size)


def control(stream: int) -> Frame:
    return Frame(stream=stream, kind=CANCEL)


def drained(outbox: Outbox) -> list[list[Frame]]:
    batches = []
    while (batch := outbox.take()) is not None:
        batches.append(list(batch.frames))
    return batches


def test_control_goes_before_data_and_data_before_a_body_part() -> None:
    outbox = Outbox(LaneLimits())
    outbox.add_body(1, b"b" * 10)
    outbox.add_data(chunk(2))
    outbox.add_control(control(3))
    (batch,) = drained(outbox)
    assert [frame.kind for frame in batch] == [CANCEL, CHUNK, BODY_PART]


def test_a_body_goes_one_part_a_batch_and_bodies_take_turns() -> None:
    outbox = Outbox(LaneLimits())
    outbox.add_body(1, bytes(3 * PART_BYTES - 1))
    outbox.add_body(2, bytes(2 * PART_BYTES))
    batches = drained(outbox)
    assert [[(f.stream, f.sequence) for f in batch] for batch in batches] == [
        [(1, 0)],
        [(2, 0)],
        [(1, 1)],
        [(2, 1)],
        [(1, 2)],
    ]
    assert len(batches[-1][0].payload) == PART_BYTES - 1


def test_chunks_cannot_starve_a_body() -> None:
    outbox = Outbox(LaneLimits(stream_frames=2000))
    for sequence in range(1000):
        outbox.add_data(chunk(1, sequence, size=2000))
    outbox.add_body(2, bytes(2 * PART_BYTES))
    for batch in drained(outbox)[:2]:
        assert batch[-1].kind == BODY_PART


def test_a_relayed_part_goes_untouched() -> None:
    outbox = Outbox(LaneLimits())
    part = Frame(stream=5, kind=BODY_PART, sequence=41, payload=b"sealed")
    outbox.add_body_part(part)
    assert drained(outbox) == [[part]]


def test_a_dropped_stream_leaves_only_its_control_frames() -> None:
    outbox = Outbox(LaneLimits())
    for stream in (1, 2, 1):
        outbox.add_data(chunk(stream))
    outbox.add_body(1, bytes(3 * PART_BYTES))
    outbox.add_body(2, b"b")
    outbox.drop(1)
    outbox.add_control(control(1))
    (batch,) = drained(outbox)
    assert [(f.stream, f.kind) for f in batch] == [(1, CANCEL), (2, CHUNK), (2, BODY_PART)]


def test_a_streams_share_is_bounded_and_comes_back_when_it_is_sent() -> None:
    outbox = Outbox(LaneLimits(stream_frames=2))
    assert [outbox.add_data(chunk(1)) for _ in range(3)] == [True, True, False]
    assert outbox.add_data(chunk(2))
    outbox.take()
    assert outbox.add_data(chunk(1))


def test_full_queues_overflow() -> None:
    outbox = Outbox(LaneLimits(control_frames=1, data_frames=1))
    outbox.add_control(control(1))
    outbox.add_data(chunk(1))
    with pytest.raises(OutboxOverflowError):
        outbox.add_control(control(1))
    with pytest.raises(OutboxOverflowError):
        outbox.add_data(chunk(2))


def test_too_many_waiting_bytes_overflow_and_sending_makes_room() -> None:
    outbox = Outbox(LaneLimits(data_bytes=100))
    outbox.add_data(chunk(1, size=100))
    with pytest.raises(OutboxOverflowError):
        outbox.add_data(chunk(2, size=1))
    outbox.take()
    assert outbox.add_data(chunk(1, size=100))
    outbox.drop(1)
    assert outbox.add_data(chunk(1, size=100))


def test_a_body_beyond_the_bound_is_refused_until_others_have_gone() -> None:
    outbox = Outbox(LaneLimits(body_bytes=PART_BYTES))
    assert outbox.add_body(1, bytes(PART_BYTES))
    assert not outbox.add_body(2, b"x")
    assert not outbox.add_body_part(Frame(stream=3, payload=b"x"))
    outbox.take()
    assert outbox.add_body(2, b"x")


def test_a_large_frame_travels_alone_and_a_larger_one_is_refused() -> None:
    outbox = Outbox(LaneLimits())
    outbox.add_data(chunk(1))
    outbox.add_data(chunk(1, size=FRAME_BYTES))
    outbox.add_data(chunk(1))
    assert [len(batch) for batch in drained(outbox)] == [1, 1, 1]
    with pytest.raises(InvalidArgumentError):
        outbox.add_data(chunk(1, size=FRAME_BYTES + 1))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["control", "data", "body", "drop", "take"]),
            st.integers(1, 4),
            st.integers(0, 200_000),
        ),
        max_size=60,
    )
)
def test_whatever_is_queued_comes_out_bounded_and_in_order(
    steps: list[tuple[str, int, int]],
) -> None:
    outbox, batches = Outbox(LaneLimits()), []
    bodies: dict[int, bytes] = {}
    for count, (step, stream, size) in enumerate(steps):
        if step == "control":
            outbox.add_control(Frame(stream=stream, kind=CANCEL, sequence=count))
        elif step == "data":
            outbox.add_data(chunk(stream, count, size))
        elif step == "body" and stream not in bodies:
            bodies[stream] = bytes([stream]) * size
            outbox.add_body(stream, bodies[stream])
        elif step == "drop":
            outbox.drop(stream)
        elif (batch := outbox.take()) is not None:
            batches.append(list(batch.frames))
    batches += drained(outbox)
    for batch in batches:
        size = sum(len(frame.payload) for frame in batch)
        assert len(batch) <= BATCH_FRAMES
        assert size <= BATCH_BYTES or len(batch) == 1
        assert sum(frame.kind == BODY_PART for frame in batch) <= 1
    frames = [frame for batch in batches for frame in batch]
    for stream in range(1, 5):
        for kind in (CANCEL, CHUNK, BODY_PART):
            sequences = [f.sequence for f in frames if (f.stream, f.kind) == (stream, kind)]
            assert sequences == sorted(sequences)
    assert outbox.take() is None
    assert outbox._bytes == outbox._body_bytes == 0
    assert not outbox._per_stream
