"""The warm pool: targets by Little's law, commands in flight, whom to ask, and plans to swap."""

from collections import Counter
from dataclasses import replace
from math import inf

import pytest
from darkbloom_router.fleet import Fleet
from darkbloom_router.model import Beat, CapacityReport, Rules, SlotState, Thermal, Tiering
from darkbloom_router.provider import Provider
from darkbloom_router.warm.cold import Lacking, best, find
from darkbloom_router.warm.pending import AFTER_REFUSAL_S, REPEAT_S, LoadEnd, PendingLoads
from darkbloom_router.warm.pool import WarmPool, WarmRules
from darkbloom_router.warm.targets import (
    DWELL_S,
    Signal,
    Supply,
    Targets,
    loads_now,
    pressed,
    service_s,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.router.fleets import BUILD, NOW, capacity, fleet, provider

SUPPLY = Supply(
    warm=2,
    cold=10,
    running=8,
    waiting=0,
    places=16,
    rows=4.0,
    prefill_tps=512.0,
    decode_tps=25.6,
)
REJECTED = Counter({Signal.CAPACITY_REJECT: 1})


def cold(name: str, memory_gb: float = 64.0, **changes: object) -> Provider:
    report = CapacityReport(sequence=1, total_memory_gb=memory_gb, free_for_load_gb=memory_gb / 2)
    return provider(name, capacity=report, **changes)


def pool_of(*providers: Provider, queued: int = 0, rules: WarmRules | None = None) -> WarmPool:
    return WarmPool(fleet(*providers), lambda _: queued, rules)


# Targets


def test_without_pressure_the_target_is_what_is_warm() -> None:
    want = Targets().of(BUILD, Counter(), 0, SUPPLY, NOW)
    assert (want.target, want.pressed) == (2, False)


def test_a_single_refusal_is_pressure() -> None:
    want = Targets().of(BUILD, REJECTED, 0, SUPPLY, NOW)
    assert want.pressed
    assert want.target == 4  # 8 running, a little spilled: three machines' work, and one more


def test_a_request_takes_as_long_as_its_parts() -> None:
    assert service_s(512.0, 25.6) == pytest.approx(11.0)
    assert service_s(1e9, 1e9) == 0.5
    assert service_s(0.0, 10.0) == 120.0


@pytest.mark.parametrize(
    ("signals", "queued", "saturation", "expected"),
    [
        ({}, 0, 1.0, False),
        ({}, 1, 0.0, True),
        ({Signal.HEDGE_START: 1}, 0, 0.5, False),
        ({Signal.HEDGE_START: 2}, 0, 0.0, True),
        ({Signal.HEDGE_START: 1}, 0, 0.8, True),
        ({Signal.HEDGE_WIN: 1}, 0, 0.0, True),
        ({Signal.COLD_DISPATCH: 1}, 0, 0.0, True),
        ({Signal.TTFT_MISS: 1}, 0, 0.0, True),
    ],
)
def test_pressure_needs_a_sign(
    signals: dict[Signal, int], queued: int, saturation: float, expected: bool
) -> None:
    assert pressed(Counter(signals), queued, saturation) is expected


@given(
    warm=st.integers(0, 50),
    able=st.integers(0, 50),
    running=st.integers(0, 500),
    queued=st.integers(0, 500),
    rejects=st.integers(0, 100),
)
def test_a_target_is_never_more_than_could_be_warm(
    warm: int, able: int, running: int, queued: int, rejects: int
) -> None:
    supply = replace(SUPPLY, warm=warm, cold=able, running=running)
    signals = Counter({Signal.CAPACITY_REJECT: rejects})
    want = Targets().of(BUILD, signals, queued, supply, NOW)
    assert warm <= want.target <= warm + able
    if want.pressed and able:
        assert want.target > warm


def test_a_target_is_held_before_it_sinks() -> None:
    targets = Targets()
    high = targets.of(BUILD, REJECTED, 40, SUPPLY, NOW).target
    assert targets.of(BUILD, Counter(), 0, SUPPLY, NOW + DWELL_S - 1).target == high
    assert targets.of(BUILD, Counter(), 0, SUPPLY, NOW + DWELL_S + 1).target == 2


def test_the_least_number_of_machines_holds_without_demand() -> None:
    assert Targets({BUILD: 5}).of(BUILD, Counter(), 0, SUPPLY, NOW).target == 5


@pytest.mark.parametrize(
    ("gap", "pending", "expected"),
    [(0, 0, 0), (3, 0, 3), (6, 0, 4), (20, 0, 10), (100, 0, 16), (100, 10, 6), (5, 16, 0)],
)
def test_loads_start_by_halves(gap: int, pending: int, expected: int) -> None:
    assert loads_now(gap, pending) == expected


# Commands in flight


def test_a_command_is_not_repeated_while_it_runs() -> None:
    pending = PendingLoads()
    pending.sent("one", BUILD, NOW)
    assert pending.stands("one", BUILD, NOW + REPEAT_S - 1)
    assert pending.count(NOW) == 1
    assert not pending.stands("one", BUILD, NOW + REPEAT_S)


@pytest.mark.parametrize("end", [LoadEnd.DRAINING, LoadEnd.MEMORY])
def test_a_refusal_suppresses_for_half_a_minute(end: LoadEnd) -> None:
    pending = PendingLoads()
    pending.sent("one", BUILD, NOW)
    pending.ended("one", BUILD, end, NOW + 1)
    assert pending.count(NOW + 1) == 0
    assert pending.stands("one", BUILD, NOW + AFTER_REFUSAL_S)
    assert not pending.stands("one", BUILD, NOW + 1 + AFTER_REFUSAL_S)


def test_a_load_that_worked_or_a_machine_that_left_is_forgotten() -> None:
    pending = PendingLoads()
    for name in ("one", "two"):
        pending.sent(name, BUILD, NOW)
    pending.ended("one", BUILD, LoadEnd.LOADED, NOW + 5)
    pending.left("two")
    assert not pending.standing()


# Whom to ask


def lacking_of(made: Fleet, pending: PendingLoads | None = None) -> Counter[Lacking]:
    return find(made.index(BUILD), made.rules, pending or PendingLoads(), NOW)[1]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"untrusted": "lied"}, Lacking.OFFLINE),
        ({"restoring": True}, Lacking.RESTORING),
        ({"runtime_verified": False}, Lacking.TRUST),
        ({"passed_at": NOW - 10_000}, Lacking.CHALLENGE),
        ({"beat": Beat(thermal=Thermal.CRITICAL)}, Lacking.HOT),
        ({"inflight": 1}, Lacking.NOT_IDLE),
    ],
)
def test_who_cannot_load_says_why(changes: dict[str, object], reason: Lacking) -> None:
    assert lacking_of(fleet(cold("one", **changes))) == {reason: 1}


def test_a_machine_without_room_is_not_asked() -> None:
    report = CapacityReport(sequence=1, total_memory_gb=64.0, free_for_load_gb=0.5)
    found = lacking_of(fleet(provider("one", capacity=report)))
    assert found == {Lacking.NO_ROOM: 1}


def test_a_machine_that_loads_is_not_asked_again() -> None:
    pending = PendingLoads()
    pending.sent("prov_one", "another/build", NOW)
    assert lacking_of(fleet(cold("one")), pending) == {Lacking.PENDING: 1}


def test_the_smallest_machine_that_is_quick_enough_goes_first() -> None:
    made = fleet(cold("large", 512.0), cold("small", 16.0), cold("middle", 64.0))
    able = best(find(made.index(BUILD), made.rules, PendingLoads(), NOW)[0], made.rules, 9)
    assert [row.provider.provider_id for row in able] == ["prov_small", "prov_middle", "prov_large"]


def test_without_tiers_the_roomiest_goes_first() -> None:
    made = fleet(cold("small", 16.0), cold("large", 512.0), rules=Rules(tiering=Tiering.OFF))
    able = best(find(made.index(BUILD), made.rules, PendingLoads(), NOW)[0], made.rules, 9)
    assert able[0].provider.provider_id == "prov_large"


# Ticks and swaps


def test_a_tick_asks_cold_machines_once() -> None:
    pool = pool_of(provider("warm"), *(cold(f"c{i}") for i in range(6)))
    pool.note(BUILD, Signal.CAPACITY_REJECT)
    assert pool.due(set()) == [BUILD]
    found = pool.tick(BUILD, NOW)
    assert (found.warm, found.cold, found.pressed) == (1, 6, True)
    assert len(found.chosen) == found.target - 1 > 0
    for row in found.chosen:
        pool.asked(row, NOW)
    again = pool.tick(BUILD, NOW + 10)
    assert not again.chosen
    assert again.pending == len(found.chosen)


def test_a_load_that_shows_in_a_heartbeat_is_over() -> None:
    machine = cold("one")
    pool = pool_of(machine, rules=WarmRules(min_warm=((BUILD, 1),)))
    [row] = pool.tick(BUILD, NOW).chosen
    pool.asked(row, NOW)
    machine.capacity = capacity(2)
    found = pool.tick(BUILD, NOW + 10)
    assert (found.warm, found.pending) == (1, 0)


def test_a_swap_is_planned_where_somebody_waits_and_nobody_is_warm() -> None:
    pool = pool_of(cold("one"), queued=1)
    chosen = pool.swap([BUILD], NOW)
    assert chosen is not None
    pool.asked(chosen, NOW)
    assert pool.swap([BUILD], NOW + 1) is None


def test_swaps_are_planned_four_times_a_second_at_most() -> None:
    pool = pool_of(cold("one"), cold("two"))
    assert pool.swap([BUILD], NOW) is not None
    assert pool.swap([BUILD], NOW + 0.1) is None
    assert pool.swap([BUILD], NOW + 0.3) is not None


def test_nobody_is_swapped_for_a_build_that_somebody_holds() -> None:
    assert pool_of(provider("warm"), cold("one")).swap([BUILD], NOW) is None


def test_a_slot_that_is_shut_down_counts_as_cold() -> None:
    pool = pool_of(provider("one", capacity=capacity(state=SlotState.IDLE_SHUTDOWN)))
    found = pool.tick(BUILD, NOW)
    assert (found.warm, found.cold) == (0, 1)
    assert found.load < inf
