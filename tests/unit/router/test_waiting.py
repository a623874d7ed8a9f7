"""Lines that are fair, looked through when it helps, and honest about when to come again."""

from typing import Any, cast

import pytest
from darkbloom_mesh.testing import FakeClock
from darkbloom_router import refusals
from darkbloom_router.model import Demand, Gate, OwnerPolicy
from darkbloom_router.queueing import Passes, ServiceTimes, Trigger
from darkbloom_router.refusals import Reason
from darkbloom_router.retry_after import RouteTime, feasible_after_s, late_s, retry_after_s
from darkbloom_router.timers import Timers
from darkbloom_router.waiting import Waiting
from hypothesis import given
from hypothesis import strategies as st

BUILD = "b"


def test_an_account_gets_a_quarter_of_a_line() -> None:
    line: Waiting[int] = Waiting(32)
    joined = [line.join(BUILD, number, 0.0, "greedy") for number in range(32)]
    assert sum(joined) == 8
    assert line.join(BUILD, 99, 0.0, "other")


def test_a_late_account_does_not_wait_behind_all_of_an_early_one() -> None:
    line: Waiting[str] = Waiting(32)
    for number in range(4):
        line.join(BUILD, f"early-{number}", 0.0, "early", 100)
    line.join(BUILD, "late-0", 1.0, "late", 100)
    assert line.line(BUILD).index("late-0") == 1


def test_who_asks_for_more_is_served_less_often() -> None:
    line: Waiting[str] = Waiting(64)
    for number in range(8):
        line.join(BUILD, f"large-{number}", 0.0, "large", 1000)
        line.join(BUILD, f"small-{number}", 0.0, "small", 250)
    served = [name.split("-")[0] for name in line.line(BUILD)[:5]]
    assert served.count("small") == 4


def test_a_machine_that_comes_free_prefers_its_owners_requests() -> None:
    line: Waiting[str] = Waiting(32)
    line.join(BUILD, "stranger", 0.0, "stranger")
    line.join(BUILD, "owner", 1.0, "owner")
    assert line.line(BUILD) == ["stranger", "owner"]
    assert line.line(BUILD, "owner") == ["owner", "stranger"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5000), st.booleans())))
def test_nobody_is_lost_or_served_twice_and_one_account_keeps_its_order(
    steps: list[tuple[str, int, bool]],
) -> None:
    line: Waiting[int] = Waiting(16)
    inside: dict[int, str] = {}
    for number, (account, work, leave) in enumerate(steps):
        if leave and inside:
            head = line.line(BUILD)[0]
            assert line.leave(BUILD, head, served=True)
            del inside[head]
        elif line.join(BUILD, number, float(number), account, work):
            inside[number] = account
        order = line.line(BUILD)
        assert sorted(order) == sorted(inside)
        assert line.depth(BUILD) == len(inside) <= 16
        for name in "abc":
            mine = [waiter for waiter in order if inside[waiter] == name]
            assert mine == sorted(mine)
            assert len(mine) <= 4


def test_a_full_line_gives_up_who_would_be_served_last() -> None:
    line: Waiting[str] = Waiting(8)
    for number in range(4):
        line.join(BUILD, f"small-{number}", 0.0, f"account-{number}", 100)
        line.join(BUILD, f"large-{number}", 0.0, f"account-{number}", 5000 + number)
    assert not line.join(BUILD, "new", 1.0, "newcomer", 100)
    assert line.last(BUILD, "newcomer", 100, share=2) == "large-3"
    assert line.last(BUILD, "newcomer", 9000, share=2) is None, "he would be the last himself"
    assert line.last(BUILD, "account-0", 100, share=2) is None, "his share of the line is full"


def test_who_left_unserved_has_cost_his_account_nothing() -> None:
    line: Waiting[str] = Waiting(8)
    line.join(BUILD, "stays", 0.0, "other", 500)
    line.join(BUILD, "gone", 0.0, "mine", 10_000)
    line.leave(BUILD, "gone")
    line.join(BUILD, "again", 1.0, "mine", 100)
    assert line.line(BUILD) == ["again", "stays"]


class Lines:
    """A line that counts how often it is looked through."""

    def __init__(self, waiting: int) -> None:
        self.clock = FakeClock()
        self.timers = Timers(self.clock)
        self.waiting = waiting
        self.runs: list[str] = []
        self.passes = Passes(self.timers, self.serve, lambda _build: self.waiting)

    def serve(self, _build: str, owner: str) -> None:
        self.runs.append(owner)
        if owner == "again":
            self.passes.run(BUILD, Trigger.IDLE)


async def test_heartbeats_after_a_fruitless_pass_share_one_trailing_pass() -> None:
    lines = Lines(waiting=3)
    for _ in range(50):
        lines.passes.run(BUILD, Trigger.HEARTBEAT)
    assert len(lines.runs) == 1
    lines.passes.run(BUILD, Trigger.IDLE, "owner")
    assert lines.runs[1:] == ["owner"], "a freed place does not wait"
    await lines.clock.advance(0.05)
    lines.timers.fire()
    assert len(lines.runs) == 3


def test_a_pass_that_is_asked_for_during_a_pass_follows_it() -> None:
    lines = Lines(waiting=1)
    lines.passes.run(BUILD, Trigger.KICK, "again")
    assert lines.runs == ["again", ""]


def test_an_empty_line_is_not_looked_through() -> None:
    lines = Lines(waiting=0)
    lines.passes.run(BUILD, Trigger.KICK)
    assert not lines.runs


def test_a_wait_is_known_from_how_long_places_are_taken() -> None:
    times = ServiceTimes()
    assert times.wait_s(BUILD, 0, 4) is None
    times.add(BUILD, 8.0)
    assert times.wait_s(BUILD, 0, 4) == 2.0
    assert times.wait_s(BUILD, 3, 4) == 8.0
    assert times.wait_s(BUILD, 3, 0) is None


def test_come_again_grows_with_the_line_and_in_distress() -> None:
    assert [retry_after_s(waiting) for waiting in (0, 1, 4, 50)] == [2, 3, 12, 30]
    slow = RouteTime()
    for _ in range(30):
        slow.add(3.0)
    assert retry_after_s(0, slow.seconds) == 15
    assert retry_after_s(0, 0.9) == 2
    assert retry_after_s(50, 100.0) == 60


def test_a_machines_own_word_and_a_missed_deadline_are_bounded() -> None:
    assert [feasible_after_s(value) for value in (0.1, 7.2, 900.0)] == [2, 8, 30]
    assert [late_s(best, 1000.0) for best in (900.0, 5500.0, 1e6)] == [2, 5, 30]


PUBLIC = Demand(build=BUILD)


@pytest.mark.parametrize(
    ("gates", "status", "reason"),
    [
        ({Gate.MODEL_TOO_LARGE: 3}, 503, Reason.MODEL_TOO_LARGE),
        ({Gate.MODEL_TOO_LARGE: 3, Gate.NO_HEADROOM: 1}, 429, Reason.MACHINE_BUSY),
        ({Gate.CAPACITY_COOLDOWN: 1}, 429, Reason.MACHINE_BUSY),
        ({Gate.OFFLINE: 2}, 429, Reason.MACHINE_BUSY),
        ({Gate.TTFT_CEILING: 2}, 429, Reason.TTFT_TOO_SLOW),
        ({Gate.NOT_SERVING_MODEL: 9}, 429, Reason.NO_PROVIDER),
        ({Gate.UNTRUSTED: 1, Gate.STATE_RESTORING: 4}, 429, Reason.NO_PROVIDER),
        ({}, 429, Reason.NO_PROVIDER),
        ({Gate.VISION: 2, Gate.TRAIT_FLOOR: 1}, 503, Reason.NO_PROVIDER),
    ],
)
def test_who_failed_where_decides_the_answer(
    gates: dict[Gate, int], status: int, reason: Reason
) -> None:
    refusal = refusals.for_gates(gates, PUBLIC)
    assert (refusal.http_status, refusal.reason) == (status, reason)
    assert (refusal.retry_after_s is None) is (status == 503)


def test_every_429_says_when_to_come_again_and_a_missing_model_does_not() -> None:
    found = [value for value in vars(refusals).values() if isinstance(value, refusals.Refusal)]
    assert all(item.retry_after_s for item in found if item.http_status == 429)
    assert refusals.DRAINING.retry_after_s == 3
    own = Demand(build=BUILD, policy=OwnerPolicy.EXCLUSIVE)
    assert refusals.for_gates({}, own).retry_after_s == 30
    assert refusals.for_gates({Gate.NOT_SERVING_MODEL: 1}, own).retry_after_s == 15
    assert cast("Any", refusals.UNAVAILABLE).retry_after_s is None


def test_a_line_may_be_longer_where_many_machines_serve_it() -> None:
    line: Waiting[str] = Waiting(2)
    assert all(line.join("b", f"w{i}", 0.0, f"a{i}", depth=5) for i in range(5))
    assert not line.join("b", "late", 0.0, "late", depth=5)


def test_a_line_is_as_long_as_machines_serve_in_eight_seconds() -> None:
    times = ServiceTimes()
    assert times.depth("b", 100) == 0
    times.add("b", 12.0)
    assert times.depth("b", 100) == 67
    assert times.depth("b", 100_000) == 8192
