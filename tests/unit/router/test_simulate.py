"""The fleet simulator, small: what it finds is true of the router, and repeats."""

import json

import pytest
from darkbloom_router.simulate.__main__ import main
from darkbloom_router.simulate.engine import Engine, Row
from darkbloom_router.simulate.ledger import gini, percentile
from darkbloom_router.simulate.report import MEASURED
from darkbloom_router.simulate.virtual_time import VirtualClock, VirtualTimers

SMALL = ["--providers", "200", "--minutes", "3", "--churn", "0.05", "--load", "0.5", "--json"]


def simulated(capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, object]:
    assert main([*SMALL, *more]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_a_small_fleet_serves_everybody_in_time(capsys: pytest.CaptureFixture[str]) -> None:
    found = simulated(capsys)
    assert found["served_ratio"] >= 0.99
    assert found["uptime"] >= 0.995
    assert found["lost_after_commit"] == 0
    assert found["waited_past_deadline"] == 0


def test_the_same_seed_gives_the_same_result(capsys: pytest.CaptureFixture[str]) -> None:
    brief = ["--providers", "60", "--minutes", "0.5", "--builds", "5", "--churn", "0.5"]
    first, again = (simulated(capsys, *brief, "--seed", "3") for _ in range(2))
    other = simulated(capsys, *brief, "--seed", "4")
    for found in (first, again, other):
        for name in MEASURED:
            del found[name]
    assert first == again
    assert first["received"] != other["received"]


def test_an_overloaded_fleet_refuses_and_lets_nobody_wait_too_long(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = simulated(capsys, "--providers", "60", "--minutes", "1", "--load", "2.0")
    assert found["refusals"]
    assert 0.3 < found["served_ratio"] < 0.9
    assert found["waited_past_deadline"] == 0


def row(stream: int, output: int) -> Row:
    return Row(
        stream=stream,
        request_id="r",
        build="b",
        prompt=100,
        output=output,
        tokens=200,
        solo_tps=10.0,
        prefill_tps=100.0,
    )


def test_rows_share_the_rate_of_a_machine() -> None:
    timers = VirtualTimers(VirtualClock())
    ended: dict[int, float] = {}
    engine = Engine(timers, lambda _: None, lambda one: ended.update({one.stream: timers.now()}))
    engine.add(row(1, 100))
    timers.run_until(100)
    assert ended[1] == pytest.approx(11.0)  # a second to read, ten to write
    engine.add(row(2, 100))
    engine.add(row(3, 100))
    timers.run_until(200)
    assert 11 < ended[2] - 100 < 11 * 1.39 + 2
    assert ended[3] > ended[2]


def test_a_dropped_row_never_ends() -> None:
    timers = VirtualTimers(VirtualClock())
    ended: list[int] = []
    engine = Engine(timers, lambda _: None, lambda one: ended.append(one.stream))
    first, second, third = row(1, 10), row(2, 10), row(3, 10)
    for one in (first, second, third):
        engine.add(one)
    engine.drop(third)
    timers.run_until(1.5)
    engine.drop(first)
    timers.run_until(100)
    assert ended == [2]
    assert engine.running == engine.waiting == 0


def test_inequality_is_none_where_all_earn_the_same() -> None:
    assert gini([5.0] * 9) == pytest.approx(0.0)
    assert gini([0.0] * 99 + [1.0]) == pytest.approx(0.99)
    assert gini([]) == 0.0


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([], 0.5) == 0.0
