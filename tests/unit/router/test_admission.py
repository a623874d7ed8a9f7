"""How much fits: caps, budgets, the shared pool, memory; and every gate that a machine can shut."""

from dataclasses import replace
from typing import Any

import pytest
from darkbloom_router import admission
from darkbloom_router.conditions import View
from darkbloom_router.explaining import explain, explain_all
from darkbloom_router.gates import CHAIN, first_gate
from darkbloom_router.model import (
    Build,
    CapacityReport,
    Catalog,
    Demand,
    Gate,
    Hardware,
    OwnerPolicy,
    Rules,
    SlotReport,
    SlotState,
    TrustLevel,
)
from darkbloom_router.placement import audit

from tests.unit.router.fleets import (
    BUILD,
    DEMAND,
    FACTS,
    HASH,
    NOW,
    candidate,
    capacity,
    fleet,
    provider,
)

RULES = Rules()
OTHER = "org/other"


@pytest.mark.parametrize(
    ("memory_gb", "cap"), [(16, 2), (24, 2), (48, 4), (96, 6), (128, 8), (192, 12)]
)
def test_without_a_budget_memory_decides_how_many_may_run(memory_gb: float, cap: int) -> None:
    report = CapacityReport(sequence=1, total_memory_gb=memory_gb)
    assert provider(capacity=report).concurrency_cap == cap


def test_without_a_report_four_may_run_and_with_a_budget_twenty_four() -> None:
    assert provider(capacity=None).concurrency_cap == 4
    assert provider().concurrency_cap == 24


@pytest.mark.parametrize(
    ("solo", "base", "cap"),
    [
        (15.0, 8, 2),  # alone at the floor: one row, and a fifth more
        (21.0, 8, 2),
        (26.7, 8, 3),  # (26.7 / 15 - 1) / 0.39 = 2.0 rows
        (60.0, 24, 9),
        (500.0, 8, 10),  # never above 1.2 times what the engine allows
        (0.0, 8, 0),  # unknown
    ],
)
def test_the_quality_cap_keeps_each_row_at_its_pace(solo: float, base: int, cap: int) -> None:
    assert admission.quality_cap(solo, 15.0, 1.2, base) == cap


def test_the_quality_cap_shuts_the_door_before_the_engine_does() -> None:
    row, made = candidate(hardware=Hardware(memory_gb=64, memory_bandwidth_gbs=400))
    assert (row.base_cap, row.concurrency_cap) == (8, 2)
    made.rates.sample_solo(BUILD, "", b"m", 60.0)
    made.refresh(row.provider)
    assert row.concurrency_cap == 8
    unlimited = replace(RULES, quality_overcommit=0.0)
    row, _ = candidate(rules=unlimited)
    assert row.concurrency_cap == 8


def two_slots(**here: Any) -> CapacityReport:
    slots = {
        BUILD: SlotReport(
            build=BUILD,
            state=SlotState.IDLE,
            budget_max=here.pop("budget_max", 1000),
            kv_bytes_per_token=1000,
            **here,
        ),
        OTHER: SlotReport(
            build=OTHER, state=SlotState.RUNNING, budget_max=500, kv_bytes_per_token=2000
        ),
    }
    return CapacityReport(sequence=1, slots=slots, total_memory_gb=64.0)


def test_builds_share_the_pool_in_bytes() -> None:
    item = provider(capacity=two_slots())
    made = fleet()
    hashes = frozenset({HASH})
    made.set_catalog(
        Catalog(builds={name: Build(build=name, accepted_hashes=hashes) for name in (BUILD, OTHER)})
    )
    made.join(item, [FACTS, replace(FACTS, build=OTHER)])
    here, there = item.candidates[BUILD], item.candidates[OTHER]
    assert (here.room, there.room) == (1000, 500)
    made.debit(there, 500)
    assert (here.room, there.room) == (1000, 0), "each within its own grant"
    here.pending_tokens = 900
    made.refresh(item)
    assert here.room == 100


def test_a_cold_build_is_charged_to_the_pool_as_well() -> None:
    item = provider(capacity=replace(two_slots(), slots={BUILD: two_slots().slots[BUILD]}))
    made = fleet()
    hashes = frozenset({HASH})
    made.set_catalog(
        Catalog(builds={name: Build(build=name, accepted_hashes=hashes) for name in (BUILD, OTHER)})
    )
    made.join(item, [FACTS, replace(FACTS, build=OTHER)])
    warm, cold = item.candidates[BUILD], item.candidates[OTHER]
    made.debit(cold, 2)
    assert warm.room == 1000 - 2 * 400, "400 kB a token where nobody says how large one is"


@pytest.mark.parametrize(
    ("changes", "gigabytes"),
    [
        ({"free_for_load_gb": 21.0}, 20.0),  # idle: what it says, less the weights
        ({}, 59.0),  # idle, silent: total less weights and margin
        ({"gpu_active_gb": 10.0, "busy": 1}, 53.0),  # busy: what is not active, less the weights
    ],
)
def test_memory_decides_where_no_budget_is_reported(
    changes: dict[str, Any], gigabytes: float
) -> None:
    busy = changes.pop("busy", 0)
    report = CapacityReport(sequence=1, total_memory_gb=64.0, **changes)
    row, _ = candidate(capacity=report, inflight=busy)
    assert row.room == pytest.approx(gigabytes * 1e9 / admission.KV_BYTES_PER_TOKEN)


def test_the_largest_request_does_not_overflow() -> None:
    assert Demand(build=BUILD, prompt_tokens=1 << 24, output_bound=1 << 24).tokens == 1 << 24


def gate(demand: Demand = DEMAND, rules: Rules = RULES, **changes: Any) -> Gate:
    row, made = candidate(rules=rules, **changes)
    view = View(demand, rules, NOW)
    assert audit(made, BUILD, view)
    return first_gate(row, view)


def test_a_request_that_names_serials_reaches_those_machines_only() -> None:
    named = replace(DEMAND, serials=frozenset({"C02X"}))
    assert gate(named) is Gate.ALLOWLIST
    assert gate(named, serial="C02Y") is Gate.ALLOWLIST
    assert gate(named, serial="C02X") is Gate.ELIGIBLE


def test_a_dedicated_family_wants_its_own_machine_except_from_its_owner() -> None:
    gemma = "org/gemma-4-27b"
    made = fleet()
    hashes = frozenset({HASH})
    names = (BUILD, gemma)
    made.set_catalog(
        Catalog(builds={name: Build(build=name, accepted_hashes=hashes) for name in names})
    )
    both, alone = provider("both"), provider("alone")
    made.join(both, [replace(FACTS, build=name) for name in names])
    made.join(alone, [replace(FACTS, build=gemma)])
    demand = replace(DEMAND, build=gemma)
    shared = both.candidates[gemma]
    assert first_gate(shared, View(demand, RULES, NOW)) is Gate.DEDICATED
    assert first_gate(both.candidates[BUILD], View(DEMAND, RULES, NOW)) is Gate.ELIGIBLE
    assert first_gate(alone.candidates[gemma], View(demand, RULES, NOW)) is Gate.ELIGIBLE
    own = replace(demand, account_id="owner", policy=OwnerPolicy.PREFER)
    assert first_gate(shared, View(own, RULES, NOW)) is not Gate.DEDICATED
    for asked in (demand, own):
        assert audit(made, gemma, View(asked, RULES, NOW))
    switched_off = replace(RULES, dedicated=())
    assert first_gate(shared, View(demand, switched_off, NOW)) is not Gate.DEDICATED


def test_state_that_is_not_back_bars_the_owner_too() -> None:
    own = replace(DEMAND, account_id="owner", policy=OwnerPolicy.EXCLUSIVE)
    assert gate(restoring=True) is Gate.STATE_RESTORING
    assert gate(own, restoring=True) is Gate.STATE_RESTORING


def test_a_machine_without_a_feature_that_the_build_needs_lacks_a_trait() -> None:
    made = fleet()
    needy = Build(
        build=BUILD,
        accepted_hashes=frozenset({HASH}),
        required_capabilities=frozenset({"apple_m5"}),
    )
    made.set_catalog(Catalog(builds={BUILD: needy}))
    made.join(provider("old"), [FACTS])
    made.join(provider("new", runtime_capabilities=frozenset({"apple_m5"})), [FACTS])
    gates = {
        row.provider.provider_id: first_gate(row, View(DEMAND, RULES, NOW))
        for row in made.rows(BUILD)
    }
    assert gates == {"prov_old": Gate.TRAIT_FLOOR, "prov_new": Gate.ELIGIBLE}


def test_the_chain_has_all_twenty_seven_gates() -> None:
    assert {check.gate for check in CHAIN} == set(Gate) - {Gate.ELIGIBLE}
    assert len(CHAIN) == 27


def test_an_announced_drain_is_forgotten_and_a_fence_is_not() -> None:
    row, made = candidate()
    made.drains(row.provider, NOW, 150.0)
    assert first_gate(row, View(DEMAND, RULES, NOW + 149)) is Gate.OFFLINE
    made.advance(NOW + 150)
    assert first_gate(row, View(DEMAND, RULES, NOW + 150)) is Gate.ELIGIBLE
    row.provider.drain_fence = True
    made.refresh(row.provider)
    made.advance(NOW + 800)
    assert first_gate(row, View(DEMAND, RULES, NOW + 800)) is Gate.OFFLINE


def test_trust_runs_out_by_itself_in_the_groups_too() -> None:
    row, made = candidate(passed_at=NOW)
    assert made.capacity(BUILD, NOW + 899).routable == 1
    assert made.capacity(BUILD, NOW + 901).routable == 0, "the verdict ended"
    assert row.group is not None
    assert row.group.gate == Gate.CHALLENGE_STALE


def test_an_explanation_has_values_thresholds_and_a_remedy() -> None:
    row, made = candidate(passed_at=NOW - 17 * 60)
    found = explain(made, row.provider, BUILD, NOW, TrustLevel.HARDWARE)
    assert found.gate is Gate.CHALLENGE_STALE
    assert found.evidence == "challenge passed 17 min ago, limit 16 min"
    assert found.remedy
    assert explain_all(made, row.provider, NOW) == [found]
    unknown = explain(made, row.provider, "nobody/knows", NOW, TrustLevel.HARDWARE)
    assert unknown.gate is Gate.NOT_SERVING_MODEL
    busy, made = candidate(capacity=capacity(budget_used=9_900))
    short = explain(made, busy.provider, BUILD, NOW, TrustLevel.HARDWARE)
    assert short.evidence == "room for 100 tokens, 256 needed"
