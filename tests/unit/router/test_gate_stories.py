"""Each gate, made to happen to a request: its machine gets nothing and is counted there."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from darkbloom.router.v1 import gateway_lane_pb2 as gw
from darkbloom_router.entry import DispatchLimits
from darkbloom_router.failures import Code, Detail
from darkbloom_router.model import (
    Admission,
    Beat,
    Blame,
    Build,
    Catalog,
    Gate,
    OwnerPolicy,
    Rules,
    SlotState,
    Thermal,
    TrustLevel,
)
from darkbloom_router.provider import Provider
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.router.desk import Desk
from tests.unit.router.fleets import BUILD, CATALOG, FACTS, HASH, capacity, verdict

AT_ONCE = DispatchLimits(queue_before_shed=False)
GEMMA = "org/gemma-4-27b"
TWO_BUILDS = Catalog(
    generation=1,
    builds={name: Build(build=name, accepted_hashes=frozenset({HASH})) for name in (BUILD, GEMMA)},
)
TOO_LARGE = replace(FACTS, size_bytes=40_000_000_000)
Change = Callable[[Desk, Provider], None]


@dataclass
class Story:
    """What befalls the machine, and what is asked of it."""

    befall: Change
    asked: dict[str, Any] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)
    catalog: Catalog = CATALOG
    also_full: bool = False
    """Another machine is full: the sick are asked where nobody else could ever serve."""


def is_(**state: Any) -> Change:
    """Let a machine be so."""

    def change(desk: Desk, machine: Provider) -> None:
        for name, value in state.items():
            setattr(machine, name, value)
        desk.fleet.refresh(machine)

    return change


def with_facts(**facts: Any) -> Change:
    """Let its inventory say so."""
    return lambda desk, machine: desk.fleet.set_models(machine, [replace(FACTS, **facts)]) and None


def reports(**slot: Any) -> Change:
    """Let its engine report so."""
    return is_(capacity=capacity(99, **slot))


def failed(times: int, blame: Blame) -> Change:
    """Let it have failed before."""

    def change(desk: Desk, machine: Provider) -> None:
        for _ in range(times):
            desk.ends.health.failed(machine.candidates[BUILD], blame, 0, desk.timers.now())

    return change


def told(code: int, detail: int = 0, *, times: int = 1) -> Change:
    """Let requests before this one have heard so from it."""

    def change(desk: Desk, machine: Provider) -> None:
        for _ in range(times):
            _, attempt = desk.dispatched()
            assert attempt.provider is machine
            desk.error(attempt, code, detail, 503)

    return change


def broke_often(desk: Desk, machine: Provider) -> None:
    """Let a machine have failed so often that the machine rests, not only one shape."""
    desk.fleet.faults.error_hold_s = 0
    failed(5, Blame.MACHINE)(desk, machine)


def ejected(desk: Desk, machine: Provider) -> None:
    """Let it have failed for longer than its breaker holds."""
    broke_often(desk, machine)
    failed(3, Blame.MACHINE)(desk, machine)
    assert machine.faults is not None
    machine.faults.node.breaker.clear()
    desk.fleet.refresh(machine)


def shares_a_dedicated_build(desk: Desk, machine: Provider) -> None:
    desk.fleet.set_models(machine, [replace(FACTS, build=name) for name in (BUILD, GEMMA)])


def cold_and_too_large(desk: Desk, machine: Provider) -> None:
    machine.capacity = None
    desk.fleet.set_models(machine, [TOO_LARGE])


def nothing(_desk: Desk, _machine: Provider) -> None:
    """Leave it as it is."""


STORIES = {
    Gate.ALLOWLIST: Story(nothing, {"provider_serials": ["C02X"]}),
    Gate.EXCLUDED: Story(nothing),
    Gate.NOT_SERVING_MODEL: Story(
        lambda desk, machine: desk.fleet.set_models(machine, []) and None
    ),
    Gate.DEDICATED: Story(shares_a_dedicated_build, {"build": GEMMA}, catalog=TWO_BUILDS),
    Gate.DISPATCH_LOAD_COOLDOWN: Story(told(Code.MODEL_UNAVAILABLE, Detail.MODEL_LOAD)),
    Gate.ERROR_COOLDOWN: Story(told(Code.GENERATION_FAILURE, times=2)),
    Gate.CAPACITY_COOLDOWN: Story(failed(5, Blame.FULL)),
    Gate.BREAKER: Story(broke_often, also_full=True),
    Gate.EJECTION: Story(ejected, also_full=True),
    Gate.OFFLINE: Story(told(Code.CAPACITY, Detail.DRAINING)),
    Gate.UNTRUSTED: Story(is_(untrusted="violation")),
    Gate.STATE_RESTORING: Story(is_(restoring=True)),
    Gate.PRIVATE_ONLY: Story(is_(private_only=True)),
    Gate.UNLINKED: Story(is_(account_id="")),
    Gate.TRUST_FLOOR: Story(is_(verdict=verdict(level=TrustLevel.SELF_SIGNED))),
    Gate.RUNTIME_UNVERIFIED: Story(is_(version="0.9.0"), rules=Rules(min_version="1.0.0")),
    Gate.PRIVATE_TEXT: Story(is_(encryption_key=b"")),
    Gate.CHALLENGE_STALE: Story(is_(passed_at=None)),
    Gate.TRAIT_FLOOR: Story(
        nothing, {"traits": gw.Traits(requires_tool_constraint=True, tools=True)}
    ),
    Gate.VISION: Story(with_facts(vision=False), {"traits": gw.Traits(requires_vision=True)}),
    Gate.SLOT_CRASHED: Story(reports(state=SlotState.CRASHED)),
    Gate.SLOT_RELOADING: Story(reports(state=SlotState.RELOADING)),
    Gate.NO_HEADROOM: Story(reports(max_concurrency=1, running=1)),
    Gate.THERMAL_CRITICAL: Story(is_(beat=Beat(thermal=Thermal.CRITICAL))),
    Gate.MODEL_TOO_LARGE: Story(cold_and_too_large),
    Gate.FREE_MEMORY: Story(reports(budget_used=9_900)),
    Gate.TTFT_CEILING: Story(nothing, {"deadline_s": 0.5}, rules=Rules(ttft_ceiling=True)),
}


def test_every_gate_has_its_story() -> None:
    assert set(STORIES) == set(Gate) - {Gate.ELIGIBLE}


@pytest.mark.parametrize("gate", STORIES, ids=lambda gate: gate.name.lower())
def test_each_gate_keeps_a_machine_out_of_a_real_decision(gate: Gate) -> None:
    story = STORIES[gate]
    desk = Desk("sick", rules=story.rules, limits=AT_ONCE, catalog=story.catalog)
    machine = desk.providers["sick"]
    story.befall(desk, machine)
    expected = {gate: 1}
    if story.also_full:
        desk.join("full", inflight=24)
        expected[Gate.NO_HEADROOM] = 1

    stream = desk.open(**story.asked)
    if gate is Gate.EXCLUDED:
        # It says no to this request itself, and its stream goes on.
        desk.decline(desk.offers(stream)[-1], gw.DECLINE_REASON_PRICE)
    assert gates_of(desk, stream) == expected
    assert machine.inflight == 0


def gates_of(desk: Desk, stream: int) -> dict[Gate, int]:
    refused = desk.refusal(stream)
    assert refused is not None
    return {Gate(item.reason): item.providers for item in refused.gates}


OF_ONE_MACHINE = [
    gate
    for gate in STORIES
    if gate not in {Gate.ALLOWLIST, Gate.TRAIT_FLOOR, Gate.TTFT_CEILING, Gate.EXCLUDED}
]
"""Gates that the request does not shut by itself, at every machine."""


@pytest.mark.parametrize("gate", OF_ONE_MACHINE, ids=lambda gate: gate.name.lower())
def test_a_request_goes_to_the_machine_whose_gates_are_open(gate: Gate) -> None:
    story = STORIES[gate]
    desk = Desk("sick", rules=story.rules, limits=AT_ONCE, catalog=story.catalog)
    story.befall(desk, desk.providers["sick"])
    well = desk.join("well")
    if gate is Gate.DEDICATED:
        desk.fleet.set_models(well, [replace(FACTS, build=GEMMA)])
    stream = desk.open(**story.asked)
    assert desk.attempt(desk.offers(stream)[-1]).provider is well


STATES = st.fixed_dictionaries(
    {},
    optional={
        "untrusted": st.sampled_from(["", "violation"]),
        "private_only": st.booleans(),
        "account_id": st.sampled_from(["", "owner", "consumer"]),
        "encryption_key": st.sampled_from([b"", b"K" * 32]),
        "stale": st.booleans(),
        "without": st.booleans(),
        "level": st.sampled_from(list(TrustLevel)),
        "admission": st.sampled_from(list(Admission)),
        "inflight": st.sampled_from([0, 24]),
    },
)


@given(
    st.lists(STATES, min_size=1, max_size=5),
    st.sampled_from(list(OwnerPolicy)),
    st.sampled_from(list(TrustLevel)),
)
def test_no_request_reaches_a_machine_without_the_build_the_floor_or_a_fresh_challenge(
    states: list[dict[str, Any]], policy: OwnerPolicy, floor: TrustLevel
) -> None:
    desk = Desk(limits=AT_ONCE)
    now = desk.timers.now()
    for index, state in enumerate(states):
        known = dict(state)
        stale, without = known.pop("stale", False), known.pop("without", False)
        level = known.pop("level", TrustLevel.HARDWARE)
        admission = known.pop("admission", Admission.PUBLIC)
        made = desk.join(str(index))
        for name, value in known.items():
            setattr(made, name, value)
        made.verdict = verdict(level=level, admission=admission, expires_at=now + 900)
        made.passed_at = now - 961 if stale else now
        if without:
            desk.fleet.set_models(made, [])
        desk.fleet.refresh(made)

    stream = desk.open(owner_policy=int(policy), trust_floor=floor.word)
    if (refused := desk.refusal(stream)) is not None:
        # Everybody was looked at, and nobody counted twice.
        assert sum(item.providers for item in refused.gates) == len(states)
        return
    chosen = desk.attempt(desk.offers(stream)[-1]).provider
    own = policy is not OwnerPolicy.PUBLIC and chosen.account_id == "consumer"
    assert BUILD in chosen.candidates
    assert chosen.passed_at is not None
    assert now - chosen.passed_at <= 960
    assert not chosen.untrusted
    assert chosen.encryption_key
    assert own or chosen.level >= TrustLevel.HARDWARE
    assert not chosen.owner_only or chosen.account_id == "consumer"
    assert own or policy is not OwnerPolicy.EXCLUSIVE


def test_an_idle_fleet_whose_rates_are_guesses_is_not_refused() -> None:
    in_a_hurry = {"deadline_s": 0.5}
    for rules, refused in ((Rules(), False), (Rules(ttft_ceiling=True), True)):
        desk = Desk("measured", rules=rules, limits=AT_ONCE)
        assert (desk.refusal(desk.open(**in_a_hurry)) is not None) is refused
    # Nobody has measured this one: no forecast is credible, so none refuses.
    desk = Desk(rules=Rules(ttft_ceiling=True), limits=AT_ONCE)
    made = desk.join("guessed")
    made.capacity = capacity(2, decode_tps=0.0, prefill_tps=0.0)
    desk.fleet.refresh(made)
    assert desk.offers(desk.open(**in_a_hurry))
