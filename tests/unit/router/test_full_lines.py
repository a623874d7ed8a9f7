"""A line in a full fleet: who is let in, who must leave, and that looking at it costs little."""

from tests.unit.router.desk import Desk


def full_desk() -> tuple[Desk, list[int]]:
    desk = Desk("a", inflight=24)
    streams = [desk.open(account_id=f"acct_{index}", output_bound=4000) for index in range(32)]
    assert desk.line.length("org/small") == 32
    return desk, streams


def refused(desk: Desk, streams: list[int]) -> list[int]:
    return [stream for stream in streams if desk.refusal(stream) is not None]


def test_a_newcomer_who_asks_for_little_takes_the_place_of_who_would_be_served_last() -> None:
    desk, streams = full_desk()
    small = desk.open(account_id="newcomer", output_bound=10)
    assert desk.refusal(small) is None
    [left] = refused(desk, streams)
    said = desk.refusal(left)
    assert said is not None
    assert (said.http_status, said.code) == (429, "queue_full")
    assert said.retry_after.seconds >= 2
    assert desk.line.length("org/small") == 32


def test_a_newcomer_who_asks_for_more_than_everybody_is_refused_himself() -> None:
    desk, streams = full_desk()
    large = desk.open(account_id="newcomer", output_bound=9000)
    assert desk.refusal(large) is not None
    assert not refused(desk, streams)


def test_a_pass_over_a_full_fleet_decides_nothing() -> None:
    desk, _ = full_desk()
    before = desk.sample("routing_scan_seconds_count", model="org/small")
    for _ in range(50):
        desk.dispatcher.drain_line("org/small")
    assert desk.sample("routing_scan_seconds_count", model="org/small") == before > 0


def test_room_that_no_stranger_gets_costs_no_decision() -> None:
    desk, _ = full_desk()
    desk.join("private", private_only=True)
    sick = desk.join("sick")
    found = sick.faults = desk.fleet.faults.of(sick.stable_id, desk.timers.now())
    found.pair("org/small").errors_until[0] = desk.timers.now() + 300
    desk.fleet.refresh(sick)
    before = desk.sample("routing_scan_seconds_count", model="org/small")
    desk.dispatcher.drain_line("org/small")
    assert desk.sample("routing_scan_seconds_count", model="org/small") == before
    assert desk.line.length("org/small") == 32


def test_a_place_that_comes_free_goes_to_the_first_in_line() -> None:
    desk, streams = full_desk()
    machine = desk.providers["a"]
    machine.inflight = 0
    desk.fleet.refresh(machine)
    desk.dispatcher.drain_line("org/small")
    offered = [stream for stream in streams if desk.offers(stream)]
    assert offered[:1] == streams[:1]
