"""The fleet simulator, small: what it finds is true of the router, and repeats."""

import json
from typing import Any

import pytest
from darkbloom_router.model import CapacityReport
from darkbloom_router.simulate.__main__ import main
from darkbloom_router.simulate.engine import Engine, Row
from darkbloom_router.simulate.ledger import gini, percentile
from darkbloom_router.simulate.report import MEASURED, figures
from darkbloom_router.simulate.run import run
from darkbloom_router.simulate.scenario import Scenario
from darkbloom_router.simulate.virtual_time import VirtualClock, VirtualTimers

SMALL_S = 180
SMALL = ["--providers", "200", "--minutes", "3", "--churn", "0.05", "--load", "0.5", "--json"]

YEAR_S = 365 * 86_400


def simulated(capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    assert main([*SMALL, *more]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_a_small_fleet_serves_everybody_in_time(capsys: pytest.CaptureFixture[str]) -> None:
    found = simulated(capsys)
    assert found["served_ratio"] >= 0.99
    assert found["uptime"] >= 0.995
    assert found["lost_after_commit"] == 0
    assert found["waited_past_deadline"] == 0
    # Groups and prepared numbers say what the whole chain says.
    assert found["audits_agreed"] >= 1
    assert found["audits_disagreed"] == 0
    assert 0 <= found["queued_ratio"] < 1
    assert found["open_mean_s"] > found["ttft_p50_ms"] / 1000
    said, asked = found["messages_per_s"], found["received"] / (SMALL_S - 1)
    # Open, sealed and closed; offered, begun and its end. A machine says that it takes it, two
    # chunks and a terminal.
    for name, least in (("gateway_in", 2), ("gateway_out", 3), ("provider_in", 3)):
        assert least * asked < said[name] < 2 * least * asked
    assert said["provider_out"] >= asked
    # Who says nothing new still beats, and is still told of.
    assert said["told"] >= said["beats"] >= 200 / 5 * 0.9
    # The bar is 1 ms at the 99th; caches are shared with whatever else runs here.
    assert found["decision_p50_ms"] <= 1
    assert found["decision_p99_ms"] <= 4


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
    found = simulated(capsys, "--providers", "100", "--minutes", "1.5", "--load", "1.5")
    assert found["refusals"]
    assert 0.60 <= found["served_ratio"] < 0.95
    assert found["uptime"] >= 0.995
    assert found["waited_past_deadline"] == 0
    assert found["audits_disagreed"] == 0


def test_a_comparison_tells_how_two_runs_differ(capsys: pytest.CaptureFixture[str]) -> None:
    brief = ["--providers", "150", "--minutes", "0.3", "--load", "0.7"]
    found = simulated(capsys, *brief, "--compare", "scan")
    first, second = found["first"], found["second"]
    assert (first["scan"], second["scan"]) == ("sample", "full")
    assert first["received"] == second["received"]
    expected = first["ttft_p95_ms"] / second["ttft_p95_ms"]
    assert found["ratios"]["ttft_p95_ms"] == pytest.approx(expected, abs=1e-4)


def test_demand_that_moves_on_reaches_other_builds(capsys: pytest.CaptureFixture[str]) -> None:
    brief = ["--providers", "40", "--minutes", "0.6", "--builds", "4", "--load", "0.3"]
    still = simulated(capsys, *brief)
    moving = simulated(capsys, *brief, "--shift", "0.2", "--cold", "1.0")
    assert moving["cold_loads"] > still["cold_loads"]
    assert moving["waited_past_deadline"] == 0


def ages(capacity: CapacityReport | None) -> dict[str, float]:
    """Return how long ago each build worked; what never did is as old as a year, however old."""
    slots = capacity.slots if capacity else {}
    return {name: min(slot.stepped_ago_s or 0.0, YEAR_S) for name, slot in slots.items()}


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


def test_heartbeats_that_say_nothing_new_change_nothing_but_their_time() -> None:
    def found(*, every_beat: bool) -> dict[str, Any]:
        scenario = Scenario(
            providers=80,
            minutes=0.5,
            builds=6,
            churn=0.5,
            load=0.25,
            seed=5,
            liars=0.2,
            slow_beats=0.2,
            cold=0.4,
            breaks=0.01,
            every_beat=every_beat,
        )
        outcome = run(scenario, lambda *_: None)
        figures_of = {
            name: value for name, value in figures(outcome, 0, 0).items() if name not in MEASURED
        }
        return figures_of | {
            "ttft_s": outcome.ledger.ttft_s,
            "earned": outcome.ledger.earned,
            "heard": [
                (provider.beat_at, provider.capacity_at, ages(provider.capacity))
                for provider in outcome.core.fleet.providers.values()
            ],
            "sequences": [
                provider.capacity.sequence
                for provider in outcome.core.fleet.providers.values()
                if provider.capacity
            ],
            "prepared": [
                (row.rank_ms, row.room, row.median_tps, row.quality_cap, row.group)
                for provider in outcome.core.fleet.providers.values()
                for row in provider.candidates.values()
            ],
        }

    briefly, wholly = found(every_beat=False), found(every_beat=True)
    sequences = [sum(each.pop("sequences")) for each in (briefly, wholly)]
    assert briefly == wholly
    # Else nothing was left out and the comparison was of a thing with itself.
    assert sequences[0] < sequences[1]
