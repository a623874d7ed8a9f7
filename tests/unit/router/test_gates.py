"""The gates, their order, and that prepared state never disagrees with the chain."""

from dataclasses import replace
from typing import Any

import pytest
from darkbloom.router.v1.gateway_lane_pb2 import RefusalReason
from darkbloom.router.v1.provider_link_pb2 import (
    FailureCode,
    FailureReason,
    GateReason,
    SlotState,
    ThermalState,
)
from darkbloom_router import failures, gates, model, refusals
from darkbloom_router.conditions import View
from darkbloom_router.gates import CHAIN, first_gate
from darkbloom_router.model import (
    Admission,
    Beat,
    Demand,
    Gate,
    OwnerPolicy,
    Privacy,
    Rules,
    Thermal,
    TrustLevel,
)
from darkbloom_router.placement import AUDITED, audit
from darkbloom_router.provider import Provider
from darkbloom_router.tally import tally, tally_each
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.router.fleets import (
    BUILD,
    DEMAND,
    FACTS,
    NOW,
    candidate,
    capacity,
    fleet,
    provider,
    verdict,
)

RULES = Rules()
DEVELOPMENT = verdict(level=TrustLevel.NONE, admission=Admission.DEVELOPMENT)
OWNER = verdict(level=TrustLevel.NONE, admission=Admission.OWNER)


def gate(demand: Demand = DEMAND, rules: Rules = RULES, excluded: Any = (), **changes: Any) -> Gate:
    facts = changes.pop("facts", FACTS)
    row, _ = candidate(rules=rules, facts=facts, **changes)
    hidden = {row.provider} if excluded else ()
    return first_gate(row, View(demand, rules, NOW, hidden))


def test_a_good_provider_is_eligible() -> None:
    assert gate() is Gate.ELIGIBLE


@pytest.mark.parametrize(
    ("expected", "changes"),
    [
        (Gate.OFFLINE, {"connected": False}),
        (Gate.OFFLINE, {"draining": True}),
        (Gate.OFFLINE, {"drain_fence": True}),
        (Gate.UNTRUSTED, {"untrusted": "violation"}),
        (Gate.PRIVATE_ONLY, {"private_only": True}),
        (Gate.PRIVATE_ONLY, {"verdict": OWNER}),
        (Gate.UNLINKED, {"account_id": ""}),
        (Gate.TRUST_FLOOR, {"verdict": verdict(level=TrustLevel.SELF_SIGNED)}),
        (Gate.TRUST_FLOOR, {"verdict": DEVELOPMENT}),
        (Gate.TRUST_FLOOR, {"verdict": None}),
        (Gate.RUNTIME_UNVERIFIED, {"runtime_verified": False}),
        (Gate.PRIVATE_TEXT, {"encryption_key": b""}),
        (Gate.PRIVATE_TEXT, {"backend": "proxy"}),
        (Gate.PRIVATE_TEXT, {"privacy": Privacy(inprocess=True, sip=True)}),
        (Gate.PRIVATE_TEXT, {"privacy": Privacy(sealed_chunks=True, sip=True)}),
        (Gate.PRIVATE_TEXT, {"privacy": Privacy(inprocess=True, sealed_chunks=True)}),
        (Gate.CHALLENGE_STALE, {"passed_at": None}),
        (Gate.CHALLENGE_STALE, {"passed_at": NOW - 961}),
        (Gate.CHALLENGE_STALE, {"verdict": verdict(expires_at=NOW)}),
        (Gate.SLOT_CRASHED, {"capacity": capacity(state=model.SlotState.CRASHED)}),
        (Gate.SLOT_RELOADING, {"capacity": capacity(state=model.SlotState.RELOADING)}),
        (Gate.NO_HEADROOM, {"inflight": 24}),
        (Gate.NO_HEADROOM, {"capacity": capacity(running=4, waiting=4)}),
        (Gate.THERMAL_CRITICAL, {"beat": Beat(thermal=Thermal.CRITICAL)}),
        (Gate.FREE_MEMORY, {"capacity": capacity(budget_used=9_800)}),
        (Gate.FREE_MEMORY, {"capacity": capacity(budget_max=0, kv_bytes_per_token=1)}),
    ],
)
def test_each_gate_shuts_for_its_own_reason(expected: Gate, changes: dict[str, Any]) -> None:
    assert gate(**changes) is expected


@pytest.mark.parametrize(
    ("expected", "demand", "changes"),
    [
        (Gate.ALLOWLIST, {"policy": OwnerPolicy.EXCLUSIVE}, {}),
        (Gate.TRAIT_FLOOR, {"tool_constraint": True}, {}),
        (Gate.TRAIT_FLOOR, {"native_media_tools": True}, {}),
        (Gate.TRAIT_FLOOR, {"tools": True}, {"facts": replace(FACTS, tools=False)}),
        (Gate.VISION, {"vision": True}, {"facts": replace(FACTS, vision=False)}),
        (Gate.FREE_MEMORY, {"output_bound": 10_000}, {}),
        (Gate.ELIGIBLE, {"tool_constraint": True}, {"constraint_builds": frozenset({BUILD})}),
    ],
)
def test_what_a_request_asks_can_shut_a_gate(
    expected: Gate, demand: dict[str, Any], changes: dict[str, Any]
) -> None:
    assert gate(replace(DEMAND, **demand), **changes) is expected


def test_a_provider_that_failed_the_request_is_excluded() -> None:
    assert gate(excluded=True) is Gate.EXCLUDED


def test_a_cold_build_that_never_fits_is_too_large() -> None:
    assert gate(capacity=None, facts=replace(FACTS, size_bytes=40_000_000_000)) is (
        Gate.MODEL_TOO_LARGE
    )


@pytest.mark.parametrize("policy", [OwnerPolicy.PREFER, OwnerPolicy.EXCLUSIVE])
def test_an_owner_relaxes_floor_and_privacy_of_the_own_machine_only(policy: OwnerPolicy) -> None:
    own = replace(DEMAND, account_id="owner", policy=policy)
    assert gate(own, verdict=OWNER, private_only=True) is Gate.ELIGIBLE
    assert gate(own, verdict=OWNER, runtime_verified=False) is Gate.RUNTIME_UNVERIFIED
    assert gate(own, verdict=OWNER, passed_at=None) is Gate.CHALLENGE_STALE


def test_development_admission_counts_in_development_only() -> None:
    changes = {"verdict": DEVELOPMENT, "privacy": Privacy(inprocess=True, sealed_chunks=True)}
    assert gate(**changes) is Gate.TRUST_FLOOR
    assert gate(rules=Rules(development=True), **changes) is Gate.ELIGIBLE


def test_a_request_can_raise_the_floor_and_never_lower_it() -> None:
    low = Rules(min_trust=TrustLevel.SELF_SIGNED)
    signed = verdict(level=TrustLevel.SELF_SIGNED)
    assert gate(replace(DEMAND, floor=TrustLevel.NONE), low, verdict=signed) is Gate.ELIGIBLE
    assert gate(DEMAND, low, verdict=signed) is Gate.TRUST_FLOOR
    assert gate(replace(DEMAND, floor=TrustLevel.NONE), RULES, verdict=signed) is (Gate.TRUST_FLOOR)


def test_an_unknown_floor_is_the_highest_and_an_unknown_level_the_lowest() -> None:
    assert TrustLevel.parse_floor("gold") is TrustLevel.HARDWARE
    assert TrustLevel.parse("gold") is TrustLevel.NONE
    assert Admission.parse("everybody") is Admission.NOBODY


def test_an_old_agent_is_connected_and_not_routed() -> None:
    rules = Rules(min_version="1.2.0")
    assert gate(rules=rules, version="1.10.0") is Gate.ELIGIBLE
    assert gate(rules=rules, version="1.1.9") is Gate.RUNTIME_UNVERIFIED
    assert gate(rules=rules, version="nonsense") is Gate.RUNTIME_UNVERIFIED


def test_the_chain_has_the_order_of_the_contract() -> None:
    order = [check.gate for check in CHAIN]
    place = [13.5 if found is Gate.UNLINKED else float(found) for found in order]
    assert place == sorted(place)
    assert len(set(order)) == len(order)


@pytest.mark.parametrize(
    ("ours", "theirs", "prefix"),
    [
        (Gate, GateReason, "GATE_REASON_"),
        (refusals.Reason, RefusalReason, "REFUSAL_REASON_"),
        (failures.Code, FailureCode, "FAILURE_CODE_"),
        (failures.Detail, FailureReason, "FAILURE_REASON_"),
        (Thermal, ThermalState, "THERMAL_STATE_"),
        (model.SlotState, SlotState, "SLOT_STATE_"),
    ],
)
def test_our_enums_have_the_numbers_of_the_contract(ours: Any, theirs: Any, prefix: str) -> None:
    values = {name.removeprefix(prefix): number for name, number in theirs.items()}
    values["ELIGIBLE"] = values["UNKNOWN"] = values["UNSPECIFIED"]
    for member in ours:
        assert values[member.name] == member.value


CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "connected": st.booleans(),
        "draining": st.booleans(),
        "untrusted": st.sampled_from(["", "violation"]),
        "private_only": st.booleans(),
        "account_id": st.sampled_from(["", "owner", "consumer"]),
        "runtime_verified": st.booleans(),
        "encryption_key": st.sampled_from([b"", b"K" * 32]),
        "passed_at": st.sampled_from([None, NOW - 1, NOW - 2000]),
        "inflight": st.integers(0, 30),
        "pending_tokens": st.integers(0, 12_000),
        "verdict": st.sampled_from([None, verdict(), DEVELOPMENT, OWNER]),
        "capacity": st.one_of(
            st.none(),
            st.builds(
                capacity,
                state=st.sampled_from(list(model.SlotState)),
                running=st.integers(0, 10),
                budget_max=st.sampled_from([0, 500, 10_000]),
                budget_used=st.integers(0, 10_000),
                kv_bytes_per_token=st.sampled_from([0, 1000]),
            ),
        ),
        "constraint_builds": st.sampled_from([frozenset(), frozenset({BUILD})]),
    },
)
DEMANDS = st.builds(
    Demand,
    build=st.just(BUILD),
    prompt_tokens=st.integers(0, 2000),
    output_bound=st.integers(1, 9000),
    account_id=st.sampled_from(["", "owner", "consumer"]),
    policy=st.sampled_from(list(OwnerPolicy)),
    floor=st.sampled_from(list(TrustLevel)),
    tools=st.booleans(),
    tool_constraint=st.booleans(),
    vision=st.booleans(),
)
FACTS_OF = st.builds(
    lambda tools, vision: replace(FACTS, tools=tools, vision=vision), st.booleans(), st.booleans()
)


@given(st.lists(CHANGES, max_size=6), DEMANDS, FACTS_OF, st.booleans(), st.data())
def test_groups_say_of_everybody_what_the_whole_chain_says(
    changes: list[dict[str, Any]], demand: Demand, facts: Any, development: bool, data: Any
) -> None:
    rules = Rules(development=development)
    providers = [provider(str(index), **change) for index, change in enumerate(changes)]
    made = fleet(*providers, rules=rules, facts=facts)
    made.join(provider("without"), [])
    excluded = {item for item in made.providers.values() if data.draw(st.booleans())}
    view = View(demand, rules, NOW, excluded)
    assert audit(made, BUILD, view)

    counts, passing = tally(made, BUILD, view)
    assert sum(counts.values()) + passing == len(made)
    assert (counts, passing) == tally_each(made, BUILD, view)


def test_a_large_fleet_is_audited_in_parts_and_nobody_is_left_out() -> None:
    parts = 3
    made = fleet(*(provider(str(index)) for index in range(parts * AUDITED - 1)))
    view = View(DEMAND, RULES, NOW)
    assert all(audit(made, BUILD, view, turn) for turn in range(parts))
    changed = list(made.providers.values())[AUDITED]
    changed.untrusted = "changed behind the fleet's back"
    found = [audit(made, BUILD, view, turn) for turn in range(2 * parts)]
    assert found.count(False) == 2
    changed.untrusted = ""
    [members] = made.index(BUILD).groups.values()
    members[0], members[-1] = members[-1], members[0]
    assert not all(audit(made, BUILD, view, turn) for turn in range(parts))


def test_a_provider_without_the_build_is_counted_once() -> None:
    without: Provider = provider("two")
    made = fleet(provider("one"))
    made.join(without, [])
    counts, passing = tally(made, BUILD, View(DEMAND, RULES, NOW))
    assert (dict(counts), passing) == ({Gate.NOT_SERVING_MODEL: 1}, 1)


def test_every_shut_gate_says_why_and_what_to_do() -> None:
    row, _ = candidate(
        connected=False,
        untrusted="violation",
        private_only=True,
        account_id="",
        runtime_verified=False,
        encryption_key=b"",
        passed_at=None,
        inflight=99,
    )
    for check in gates.failing(row, View(DEMAND, RULES, NOW)):
        assert check.evidence(row, View(DEMAND, RULES, NOW))
        assert check.remedy
