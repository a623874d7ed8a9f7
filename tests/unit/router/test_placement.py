"""Price, choice and the books of the fleet."""

import sys
import time
from dataclasses import replace

import pytest
from darkbloom.router.v1 import gateway_lane_pb2, provider_link_pb2
from darkbloom_mesh.errors import InvalidArgumentError
from darkbloom_router import convert, cost
from darkbloom_router.conditions import View
from darkbloom_router.model import Beat, Catalog, Rules, SlotState, Thermal
from darkbloom_router.placement import Path, choose
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.router.fleets import (
    BUILD,
    CATALOG,
    DEMAND,
    FACTS,
    NOW,
    candidate,
    capacity,
    fleet,
    provider,
)

RULES = Rules()
VIEW = View(DEMAND, RULES, NOW)


def first(_count: int) -> int:
    return 0


def test_a_cost_is_the_sum_of_its_terms_and_what_a_scan_adds_up() -> None:
    row, _ = candidate(inflight=2, beat=Beat(pressure=0.5, thermal=Thermal.FAIR))
    parts = cost.cost(row, DEMAND, NOW)
    scanned = row.rank_ms + row.prompt_ms * 100 + row.output_ms * 200 + parts.size_tier
    assert parts.total == pytest.approx(scanned)
    assert parts.request == pytest.approx(100 / 1000 * 1000 + 200 / 50 * 1000)
    assert parts.pending == 1500
    assert parts.health == 4000 * 0.5 + 2000


def test_a_cold_provider_pays_for_its_load() -> None:
    assert cost.cost(candidate(capacity=None)[0], DEMAND, NOW).state == 30_000
    shut_down = capacity(state=SlotState.IDLE_SHUTDOWN)
    assert cost.cost(candidate(capacity=shut_down)[0], DEMAND, NOW).state == 20_000


def test_the_cheapest_wins() -> None:
    made = fleet(
        provider("slow", capacity=capacity(decode_tps=10.0)),
        provider("fast", capacity=capacity(decode_tps=100.0)),
    )
    choice = choose(made, BUILD, VIEW, first)
    assert choice.candidate is not None
    assert choice.candidate.provider.provider_id == "prov_fast"
    assert (choice.path, choice.priced) == (Path.UNIQUE_MIN, 2)


def test_near_ties_go_to_the_less_busy_and_then_at_random() -> None:
    made = fleet(provider("a"), provider("b"), provider("c"))
    rows = made.rows(BUILD)
    seen = {choose(made, BUILD, VIEW, lambda n, k=k: k % n).candidate for k in range(3)}
    assert len(seen) == 3
    assert choose(made, BUILD, VIEW, first).path is Path.RANDOM

    made.debit(rows[0], 10)
    made.debit(rows[1], 10)
    choice = choose(made, BUILD, View(DEMAND, Rules(near_tie_ms=10_000), NOW), first)
    assert choice.candidate is rows[2]
    assert choice.path is Path.TIE_QUEUE


def test_among_equals_a_machine_of_this_replica_goes_first() -> None:
    far, near, busy = provider("far", remote=True), provider("near"), provider("busy")
    made = fleet(far, near, busy)
    made.debit(busy.candidates[BUILD], 1)
    for last in (True, False):
        choice = choose(made, BUILD, VIEW, lambda count, last=last: count - 1 if last else 0)
        assert (choice.candidate and choice.candidate.provider, choice.path) == (near, Path.RANDOM)

    # One that is busier here is no reason to leave an idle one alone elsewhere.
    made.debit(near.candidates[BUILD], 1)
    choice = choose(made, BUILD, VIEW, lambda _count: 0)
    assert choice.candidate is far.candidates[BUILD]


def test_a_preference_narrows_and_never_empties() -> None:
    made = fleet(provider("a", version="1.0.0"), provider("b", version="1.0.1"))
    avoiding = View(replace(DEMAND, avoid_version="1.0.0"), RULES, NOW)
    choice = choose(made, BUILD, avoiding, first)
    assert choice.candidate is not None
    assert choice.candidate.provider.version == "1.0.1"
    alone = fleet(provider("a", version="1.0.0"))
    assert choose(alone, BUILD, avoiding, first).candidate is not None


def test_stale_prepared_state_never_wins() -> None:
    made = fleet(provider("a"), provider("b"))
    made.rows(BUILD)[0].provider.untrusted = "changed behind the fleet's back"
    choice = choose(made, BUILD, VIEW, first)
    assert choice.candidate is made.rows(BUILD)[1]
    assert choice.priced == 1


def test_nobody_is_an_answer() -> None:
    assert choose(fleet(), BUILD, VIEW, first).candidate is None


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=60))
def test_debits_and_credits_balance_and_caps_hold(steps: list[tuple[int, bool]]) -> None:
    made = fleet(*(provider(str(index)) for index in range(3)))
    taken = []
    for index, take in steps:
        if take:
            choice = choose(made, BUILD, VIEW, lambda n, index=index: index % n)
            if choice.candidate is not None:
                taken.append(made.debit(choice.candidate, DEMAND.tokens))
        elif taken:
            made.credit(taken.pop())
        for row in made.rows(BUILD):
            assert 0 <= row.inflight <= row.concurrency_cap
            assert row.pending_tokens <= 10_000
    for row in taken:
        made.credit(row)
    assert all(item.inflight == item.pending_tokens == 0 for item in made.providers.values())


@given(st.lists(st.tuples(st.sampled_from(["join", "leave", "models"]), st.integers(0, 5))))
def test_rows_always_hold_exactly_the_candidates(steps: list[tuple[str, int]]) -> None:
    made = fleet()
    known = {}
    for step, index in steps:
        if step == "join" and index not in known:
            known[index] = provider(str(index))
            made.join(known[index], [FACTS])
        elif step == "leave" and index in known:
            made.leave(known.pop(index))
        elif step == "models" and index in known:
            made.set_models(known[index], [])
        rows = made.rows(BUILD)
        assert [row.row for row in rows] == list(range(len(rows)))
        held = {id(item.candidates[BUILD]) for item in known.values() if item.candidates}
        assert {id(row) for row in rows} == held


def test_a_rejected_update_does_not_remove_the_build_that_was_fine() -> None:
    item = provider()
    made = fleet(item)
    [rejection] = made.set_models(item, [replace(FACTS, weight_hash="other")])
    assert "weight hash" in rejection.detail
    assert item.candidates[BUILD].facts == FACTS
    assert not made.set_models(item, [])
    assert not item.candidates


def test_a_catalog_without_the_build_takes_it_away_and_gives_it_back() -> None:
    item = provider()
    made = fleet(item)
    made.set_catalog(Catalog(generation=2))
    assert not made.rows(BUILD)
    made.set_catalog(CATALOG)
    assert [row.provider for row in made.rows(BUILD)] == [item]


def test_the_scripted_engine_cannot_pose_as_a_real_model() -> None:
    item = provider(backend="scripted")
    made = fleet()
    [rejection] = made.join(item, [FACTS])
    assert "scripted" in rejection.detail


def test_only_a_newer_sequence_refreshes_capacity() -> None:
    item = provider(capacity=None)
    made = fleet(item)
    assert made.beat(item, Beat(capacity=capacity(5)), NOW)
    assert not made.beat(item, Beat(capacity=capacity(5, running=3), pressure=1.0), NOW + 1)
    assert item.capacity is not None
    assert item.capacity.sequence == 5
    assert item.beat.pressure == 0
    assert item.beat_at == NOW + 1


def test_eviction_needs_two_sweeps_and_forgives() -> None:
    item = provider(beat_at=0.0)
    made = fleet(item)
    assert not made.silent(91)
    made.beat(item, Beat(), 100)
    assert not made.silent(150)
    assert not made.silent(191)
    assert made.silent(221) == [item]


NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


@given(NUMBERS, NUMBERS, st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1))
def test_a_lying_heartbeat_is_clamped(a: float, b: float, small: int, large: int) -> None:
    message = provider_link_pb2.Heartbeat()
    message.system.memory_pressure = a
    message.system.cpu_usage = b
    message.capacity.capacity_seq = large
    message.capacity.total_memory_gb = a
    message.capacity.gpu_memory_active_gb = b
    slot = message.capacity.slots.add(model=BUILD, num_running=small, max_concurrency=small)
    slot.active_token_budget_max = large
    slot.max_tokens_potential = large
    slot.observed_decode_tps = a
    slot.observed_prefill_tps = b
    beat = convert.beat(message)
    item = provider(capacity=None)
    made = fleet(item)
    made.beat(item, beat, NOW)
    [row] = made.rows(BUILD)

    assert 0 <= beat.pressure <= 1
    assert 0 <= beat.cpu <= 1
    assert 1 <= cost.decode_tps(row) <= 500
    assert 0 < row.output_ms <= 1000
    assert row.rank_ms >= 0
    assert row.room >= 0


@given(st.binary(max_size=200))
def test_arbitrary_bytes_decode_or_are_refused(data: bytes) -> None:
    for kind, read in (
        (provider_link_pb2.Heartbeat, convert.beat),
        (provider_link_pb2.ProviderModel, convert.model_facts),
        (provider_link_pb2.Hardware, convert.hardware),
        (gateway_lane_pb2.Open, convert.demand),
    ):
        try:
            read(kind.FromString(data))
        except (DecodeError, InvalidArgumentError):
            continue


def test_a_decision_over_a_thousand_providers_takes_less_than_a_millisecond(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = fleet(
        *(
            provider(str(index), capacity=capacity(decode_tps=20 + index * 37 % 100))
            for index in range(1000)
        )
    )
    taken = []
    spent = []
    for _ in range(400):
        # Processor time of this thread: the machine's other work is not what is measured.
        started = time.thread_time()
        choice = choose(made, BUILD, VIEW, lambda n: n // 2)
        if choice.candidate is not None:
            taken.append(made.debit(choice.candidate, DEMAND.tokens))
        spent.append(time.thread_time() - started)
    spent.sort()
    p50_ms, p99_ms = spent[200] * 1000, spent[395] * 1000
    with capsys.disabled():
        sys.stdout.write(f"\n1,000 providers: p50 {p50_ms:.3f} ms, p99 {p99_ms:.3f} ms\n")
    assert taken
    # The target is 1 ms at p99; caches are shared with whatever else runs here.
    assert p50_ms < 1
    assert p99_ms < 4
