"""Machines that lose their replica come back: who asks meanwhile waits, and not for ever."""

from darkbloom_router.returning import RETURN_S

from tests.unit.router.desk import Desk

BUILD = "org/small"


def orphaned_desk() -> Desk:
    desk = Desk("a")
    desk.dispatcher.returning.lost([BUILD])
    desk.fleet.leave(desk.providers["a"])
    return desk


async def test_a_request_is_served_by_who_comes_back() -> None:
    desk = orphaned_desk()
    stream = desk.open()
    assert desk.refusal(stream) is None
    desk.join("a2")
    desk.dispatcher.drain_line(BUILD)
    assert desk.offers(stream)


async def test_after_a_while_nobody_is_on_the_way_any_more() -> None:
    desk = orphaned_desk()
    stream = desk.open()
    await desk.pass_time(RETURN_S / 2)
    assert desk.refusal(stream) is None
    await desk.pass_time(RETURN_S / 2 + 0.1)
    said = desk.refusal(stream)
    assert said is not None
    assert said.http_status == 429
    late = desk.open()
    assert desk.refusal(late) is not None


async def test_a_machine_that_left_by_itself_is_not_awaited() -> None:
    desk = Desk("a")
    desk.fleet.leave(desk.providers["a"])
    assert desk.refusal(desk.open()) is not None
