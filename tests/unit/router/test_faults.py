"""What is remembered of failures, for how long, and what lifts it."""

import pytest
from darkbloom_router import failures
from darkbloom_router.conditions import View
from darkbloom_router.faults.memory import IDLE_S, FaultMemory
from darkbloom_router.faults.node import NodeFaults, Outcome
from darkbloom_router.faults.pair import CLAMP_MOST_S, PairFaults
from darkbloom_router.fleet import Fleet
from darkbloom_router.gates import first_gate
from darkbloom_router.health import Health
from darkbloom_router.model import Beat, Blame, Gate, Rules
from darkbloom_router.placement import choose
from darkbloom_router.provider import Candidate
from darkbloom_router.tally import tally

from tests.unit.router.fleets import BUILD, DEMAND, NOW, candidate, capacity, fleet, provider

RULES = Rules()
TEXT = 0


def gate(row: Candidate, now: float) -> Gate:
    return first_gate(row, View(DEMAND, RULES, now))


def test_two_strikes_in_a_minute_shut_one_shape_for_five_minutes() -> None:
    pair = PairFaults()
    pair.strike(TEXT, 0.0)
    assert not pair.error_shapes(0.0)
    pair.strike(TEXT, 59.0)
    assert pair.error_shapes(60.0) == 1 << TEXT
    assert pair.error_shapes(358.0)
    assert not pair.error_shapes(359.5)


def test_strikes_of_two_shapes_or_two_minutes_shut_nothing() -> None:
    pair = PairFaults()
    pair.strike(0, 0.0)
    pair.strike(1, 1.0)
    pair.strike(0, 62.0)
    assert not pair.error_shapes(62.0)


def test_five_faults_in_a_row_open_the_breaker_and_the_next_doubles() -> None:
    node = NodeFaults()
    for turn in range(5):
        assert not node.breaker.shut(float(turn))
        node.note(Outcome.FAULT, float(turn))
    assert node.breaker.until == 4.0 + 60
    node.note(Outcome.FAULT, 10.0)
    assert node.breaker.until == 64.0, "one outage counts once"
    node.note(Outcome.FAULT, 65.0)
    assert node.breaker.until == 65.0 + 120
    for turn in range(9):
        node.note(Outcome.FAULT, node.breaker.until + turn)
    assert node.breaker.until - 300 <= node.events[-1][0]


def test_a_success_between_faults_keeps_the_breaker_closed() -> None:
    node = NodeFaults()
    for turn in range(12):
        node.note(Outcome.FAULT if turn % 4 else Outcome.SUCCESS, float(turn))
    assert not node.breaker.shut(12.0)


def test_four_of_five_attempts_failing_is_not_above_four_fifths() -> None:
    node = NodeFaults()
    for turn in range(40):
        node.note(Outcome.SUCCESS if turn % 5 == 4 else Outcome.FAULT, float(turn))
    assert not node.breaker.shut(40.0)


def test_ten_refusals_for_want_of_room_in_a_row_eject() -> None:
    node = NodeFaults()
    for turn in range(10):
        node.note(Outcome.FULL, float(turn))
    assert node.ejection.shut(10.0)
    assert not node.breaker.shut(10.0)


def test_a_tenth_of_successes_ejects_and_a_long_memory_does_not() -> None:
    node = NodeFaults()
    for turn in range(14):
        node.note(Outcome.FAULT if turn % 7 else Outcome.SUCCESS, turn * 45.0)
    assert not node.ejection.shut(14 * 45.0), "older than ten minutes"
    for turn in range(8):
        node.note(Outcome.FAULT, 700.0 + turn)
    assert node.ejection.shut(708.0)


def test_a_capacity_refusal_clamps_until_a_heartbeat_shows_room_and_one_gets_in() -> None:
    pair = PairFaults()
    pair.full(0.0)
    assert pair.no_room(1.0)
    pair.shows(1023, 2.0)
    assert pair.no_room(2.0)
    pair.shows(1024, 3.0)
    assert not pair.no_room(3.0)
    pair.sent(4.0)
    assert pair.no_room(5.0), "one at a time finds out"
    pair.accepted(6.0)
    assert not pair.clamped(6.0)


def test_a_clamp_fails_open_after_five_minutes() -> None:
    pair = PairFaults()
    pair.full(0.0)
    assert pair.clamped(CLAMP_MOST_S - 1)
    assert not pair.clamped(CLAMP_MOST_S)


def test_five_refusals_cool_a_pair_down_and_one_probe_at_a_time_ends_it() -> None:
    pair = PairFaults()
    for turn in range(5):
        assert not pair.cooling(float(turn))
        pair.full(float(turn))
    assert pair.cooling(123.0)
    assert not pair.cooling(124.5), "a probe may pass"
    pair.sent(125.0)
    assert pair.cooling(126.0), "and only one"
    assert not pair.cooling(156.0), "unless it said nothing for thirty seconds"
    pair.sent(156.0)
    pair.full(157.0)
    assert pair.cooldown.until == 157.0 + 240, "the next sentence is twice as long"
    pair.sent(398.0)
    pair.accepted(399.0)
    assert not pair.probing
    assert not pair.cooling(399.0)


def test_an_accept_in_between_starts_the_count_anew() -> None:
    pair = PairFaults()
    for turn in range(4):
        pair.full(float(turn))
    pair.accepted(4.0)
    pair.full(5.0)
    assert not pair.cooling(6.0)


def test_the_capacity_rate_counts_from_eight_outcomes_above_a_quarter() -> None:
    pair = PairFaults()
    for turn in range(7):
        (pair.full if turn < 3 else pair.accepted)(float(turn))
    assert pair.rate(7.0) == 0
    pair.accepted(7.0)
    assert pair.rate(8.0) == 3 / 8
    pair.accepted(8.0)
    pair.accepted(9.0)
    pair.accepted(10.0)
    pair.accepted(11.0)
    assert pair.rate(12.0) == 0, "a quarter is not above a quarter"
    assert pair.rate(400.0) == 0


def failing(made: Fleet, row: Candidate, times: int, blame: Blame = Blame.MACHINE) -> Health:
    health = Health(made)
    for turn in range(times):
        health.failed(row, blame, turn % 16, NOW + turn / 100)
    return health


def test_faults_survive_a_reconnect_of_the_same_identity() -> None:
    row, made = candidate()
    failing(made, row, 5)
    assert gate(row, NOW + 1) is Gate.BREAKER
    made.leave(row.provider)
    again = provider("one", provider_id="prov_again", joined_at=NOW + 2)
    made.join(again, [row.facts])
    [back] = made.rows(BUILD)
    assert gate(back, NOW + 3) is Gate.BREAKER
    made.advance(NOW + 100)
    assert gate(back, NOW + 100) is Gate.ELIGIBLE


def test_a_broken_stream_counts_once_and_another_version_is_forgiven() -> None:
    made = fleet()
    health = Health(made)
    now = NOW
    for turn in range(2):
        item = provider("one", provider_id=f"prov_{turn}", joined_at=now)
        made.join(item, [candidate()[0].facts])
        made.leave(item)
        health.lost(item, [(BUILD, TEXT)] * 20, now + 1)
        now += 10
    same = provider("one", joined_at=now)
    made.join(same, [candidate()[0].facts])
    [row] = made.rows(BUILD)
    assert row.pair is not None
    assert len(row.pair.strikes) == 2
    assert gate(row, now) is Gate.ERROR_COOLDOWN
    made.leave(same)

    newer = provider("one", version="1.0.1", joined_at=now + 1)
    made.join(newer, [row.facts])
    [row] = made.rows(BUILD)
    assert gate(row, now + 1) is Gate.ELIGIBLE


def test_a_genuine_fault_is_not_forgiven_by_a_new_version() -> None:
    row, made = candidate(joined_at=NOW)
    failing(made, row, 5)
    made.leave(row.provider)
    newer = provider("one", version="1.0.1", joined_at=NOW + 1)
    made.join(newer, [row.facts])
    [row] = made.rows(BUILD)
    assert gate(row, NOW + 1) is Gate.BREAKER


def test_forgiveness_comes_once_in_ten_minutes() -> None:
    memory = FaultMemory()
    memory.arrived(b"k", "1", 0.0)
    for turn in range(2):
        memory.flushed(b"k", {BUILD: {TEXT}}, 1.0 + turn)
    memory.arrived(b"k", "2", 3.0)
    faults = memory.of(b"k", 4.0)
    assert not faults.pair(BUILD).error_shapes(4.0)
    for turn in range(2):
        memory.flushed(b"k", {BUILD: {TEXT}}, 5.0 + turn)
    memory.arrived(b"k", "3", 7.0)
    assert faults.pair(BUILD).error_shapes(8.0)


def test_the_memory_is_bounded_and_forgets_who_is_gone_and_quiet() -> None:
    memory = FaultMemory(limit=10)
    for index in range(100):
        memory.of(str(index).encode(), float(index))
    assert len(memory) == 10
    assert memory.sweep(99.0 + IDLE_S, set()) == 9
    assert memory.sweep(100.0 + IDLE_S, {b"99"}) == 0
    assert memory.sweep(100.0 + IDLE_S, set()) == 1


def test_a_sentence_outlives_the_idle_time() -> None:
    memory = FaultMemory()
    hold = memory.of(b"k", 0.0).node.ejection
    for turn in range(5):
        hold.trip(turn * 1000.0, 60, 600)
    assert memory.sweep(IDLE_S + 1, set()) == 0
    assert memory.sweep(5000.0, set()) == 1


def test_faults_move_with_a_better_name_and_the_worse_wins() -> None:
    memory = FaultMemory()
    for turn in range(5):
        memory.of(b"session", 0.0).node.note(Outcome.FAULT, float(turn))
    memory.of(b"session", 0.0).pair(BUILD).failed_load(50.0)
    memory.of(b"key", 0.0).pair(BUILD).failed_load(10.0)
    memory.move(b"session", b"key")
    found = memory.find(b"key")
    assert found is not None
    assert memory.find(b"session") is None
    assert found.node.breaker.shut(10.0)
    assert found.pair(BUILD).load_until == 170.0
    memory.move(b"key", b"key")
    assert memory.find(b"key") is found


@pytest.mark.parametrize(
    ("blame", "times", "expected"),
    [
        (Blame.LOAD, 1, Gate.DISPATCH_LOAD_COOLDOWN),
        (Blame.MACHINE, 2, Gate.ELIGIBLE),
        (Blame.MACHINE, 17, Gate.ERROR_COOLDOWN),
        (Blame.MACHINE, 5, Gate.BREAKER),
        (Blame.FULL, 1, Gate.FREE_MEMORY),
        (Blame.FULL, 5, Gate.CAPACITY_COOLDOWN),
        (Blame.LATE, 20, Gate.ELIGIBLE),
        (Blame.NOBODY, 20, Gate.ELIGIBLE),
    ],
)
def test_what_failed_decides_which_gate_shuts(blame: Blame, times: int, expected: Gate) -> None:
    row, made = candidate()
    failing(made, row, times, blame)
    assert gate(row, NOW + 1) is expected


def test_ejection_shows_where_the_breaker_has_run_out() -> None:
    row, made = candidate()
    failing(made, row, 8)
    assert row.provider.faults is not None
    row.provider.faults.node.breaker.clear()
    assert gate(row, NOW + 1) is Gate.EJECTION


def test_who_never_failed_has_no_entry() -> None:
    row, made = candidate()
    health = Health(made)
    health.accepted(row, NOW)
    health.succeeded(row, NOW)
    health.failed(row, Blame.NOBODY, TEXT, NOW)
    health.lost(row.provider, [], NOW)
    assert len(made.faults) == 0


def test_the_cooldown_opens_by_itself_when_its_time_is_over() -> None:
    row, made = candidate()
    failing(made, row, 1, Blame.LOAD)
    view = View(DEMAND, RULES, NOW + 60)
    assert tally(made, BUILD, view)[0] == {Gate.DISPATCH_LOAD_COOLDOWN: 1}
    later = View(DEMAND, RULES, NOW + 121)
    assert choose(made, BUILD, later, lambda _: 0).candidate is row


def test_a_fleet_of_nobody_but_the_sick_still_serves() -> None:
    row, made = candidate()
    failing(made, row, 8)
    choice = choose(made, BUILD, View(DEMAND, RULES, NOW + 1), lambda _: 0)
    assert choice.candidate is row
    assert choice.sick


def test_the_sick_are_left_alone_while_somebody_is_merely_full() -> None:
    made = fleet(provider("sick"), provider("full", inflight=24))
    [sick] = [row for row in made.rows(BUILD) if row.provider.provider_id == "prov_sick"]
    failing(made, sick, 8)
    choice = choose(made, BUILD, View(DEMAND, RULES, NOW + 1), lambda _: 0)
    assert choice.candidate is None
    assert choice.tally == {Gate.BREAKER: 1, Gate.NO_HEADROOM: 1}


def test_a_heartbeat_with_room_lets_one_request_find_out() -> None:
    row, made = candidate()
    health = failing(made, row, 1, Blame.FULL)
    made.beat(row.provider, Beat(capacity=capacity(9)), NOW + 5)
    choice = choose(made, BUILD, View(DEMAND, RULES, NOW + 6), lambda _: 0)
    assert choice.candidate is row
    made.debit(row, DEMAND.tokens)
    assert choose(made, BUILD, View(DEMAND, RULES, NOW + 6), lambda _: 0).candidate is None
    health.accepted(row, NOW + 7)
    assert choose(made, BUILD, View(DEMAND, RULES, NOW + 7), lambda _: 0).candidate is row


def test_sentences_are_reported_once_each() -> None:
    row, made = candidate()
    heard: list[tuple[str, str]] = []
    health = Health(made, lambda build, kind: heard.append((build, kind)))
    for turn in range(10):
        health.failed(row, Blame.MACHINE, TEXT, NOW + turn)
    assert heard == [(BUILD, "error_cooldown"), (BUILD, "breaker"), (BUILD, "ejection")]


def test_what_is_neutral_feeds_no_memory() -> None:
    for code, detail in (
        (failures.Code.CAPACITY, failures.Detail.DRAINING),
        (failures.Code.TEMPLATE_RENDER, failures.Detail.JINJA_TEMPLATE),
        (failures.Code.GENERATION_FAILURE, failures.Detail.TOOL_NONCOMPLIANCE),
        (failures.Code.INVALID_MEDIA, 0),
        (failures.Code.MEDIA_TOO_LARGE, 0),
        (failures.Code.UNSUPPORTED_MEDIA, 0),
    ):
        assert failures.judge(code, detail, 400).blame is Blame.NOBODY
    assert failures.judge(failures.Code.INTERNAL_FAILURE, 0, 500).blame is Blame.MACHINE
