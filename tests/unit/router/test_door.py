"""The pace at which machines are let in."""

import pytest
from darkbloom_router.door import Door


class Now:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def now() -> Now:
    return Now()


def admitted(door: Door, tries: int) -> int:
    return sum(door.admits() for _ in range(tries))


def test_two_seconds_worth_may_come_at_once_and_no_more(now: Now) -> None:
    assert admitted(Door(50.0, now), 1000) == 100


def test_a_waiting_herd_comes_in_at_the_pace(now: Now) -> None:
    door = Door(50.0, now)
    admitted(door, 1000)

    came = []
    for _ in range(4):
        now.s += 1.0
        came.append(admitted(door, 1000))

    assert came == [50, 50, 50, 50]


def test_a_long_rest_saves_up_two_seconds_and_no_more(now: Now) -> None:
    door = Door(5.0, now)
    admitted(door, 100)
    now.s += 3600.0

    assert admitted(door, 100) == 10


def test_a_slow_pace_lets_in_one_by_one(now: Now) -> None:
    door = Door(0.1, now)
    assert admitted(door, 5) == 1

    now.s += 10.0
    assert admitted(door, 5) == 1


def test_no_pace_has_no_bound(now: Now) -> None:
    assert admitted(Door(0.0, now), 10_000) == 10_000
