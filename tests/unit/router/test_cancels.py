"""Cancels are sent after the record is gone, and again while the stream lives on."""

from darkbloom.router.v1 import provider_link_pb2 as pl
from darkbloom_router.cancels import MAX_PER_PROVIDER, MAX_TRACKED
from darkbloom_router.failures import Code

from tests.unit.router.desk import Desk, K


async def test_a_zombie_is_told_again_at_a_growing_distance() -> None:
    desk = Desk("a")
    _, attempt = desk.dispatched()
    desk.hang_up(attempt)
    assert len(desk.cancelled(attempt)) == 1

    told_at = []
    for second in range(1, 80):
        await desk.pass_time(1)
        before = len(desk.cancelled(attempt))
        desk.chunk(attempt, second)
        if len(desk.cancelled(attempt)) > before:
            told_at.append(second)
    assert told_at == [1, 4, 14, 44, 74]
    assert {one.reason for one in desk.cancelled(attempt)} == {pl.CANCEL_REASON_CLIENT_GONE}


async def test_a_stream_that_has_ended_is_forgotten() -> None:
    desk = Desk("a")
    _, attempt = desk.dispatched()
    desk.hang_up(attempt)
    desk.terminal(attempt)
    assert len(desk.cancels) == 0


def test_a_chunk_that_nobody_asked_for_is_cancelled_at_once() -> None:
    desk = Desk("a")
    _, attempt = desk.dispatched()
    attempt.stream += 99
    desk.chunk(attempt)
    desk.chunk(attempt)
    assert len(desk.cancelled(attempt)) == 1


def test_the_record_is_gone_before_the_provider_hears_of_it() -> None:
    desk = Desk("a", "b")
    _, attempt = desk.dispatched()
    lane, known = desk.lanes[attempt.provider], []
    send = lane.send_control

    def watched(kind: int, stream: int, message: object) -> None:
        if kind == K.FRAME_KIND_CANCEL:
            known.append(stream in desk.attempts.by_stream)
        send(kind, stream, message)

    lane.send_control = watched
    desk.hang_up(attempt)
    assert known == [False]


def test_who_said_that_it_failed_is_not_told_to_stop() -> None:
    desk = Desk("a", "b")
    _, attempt = desk.dispatched()
    desk.error(attempt, Code.GENERATION_FAILURE)
    assert not desk.cancelled(attempt)


def test_one_that_invents_streams_does_not_push_out_the_others() -> None:
    desk = Desk("a", "b")
    _, attempt = desk.dispatched()
    desk.hang_up(attempt)
    other = next(one for one in desk.providers.values() if one is not attempt.provider)
    for stream in range(2 * MAX_TRACKED):
        desk.cancels.stray(other, desk.lanes[other], 1 << 63 | 1000 + stream)
    assert len(desk.cancels) == 1 + MAX_PER_PROVIDER


def test_a_lost_connection_leaves_nothing() -> None:
    desk = Desk("a")
    _, attempt = desk.dispatched()
    desk.hang_up(attempt)
    desk.losses.provider(attempt.provider, clean=False)
    assert len(desk.cancels) == 0
