"""When the first content would come, what that is worth, and who is chosen for it."""

from dataclasses import astuple, fields, replace
from typing import Any

import pytest
from darkbloom_router import cost
from darkbloom_router.conditions import View
from darkbloom_router.fleet import Fleet
from darkbloom_router.forecast import Credence, Doubt, forecast
from darkbloom_router.gates import first_gate
from darkbloom_router.hints import TTL_S, HintMemory
from darkbloom_router.model import (
    Beat,
    Build,
    Catalog,
    Demand,
    Gate,
    OwnerPolicy,
    Rules,
    Selection,
    SlotState,
)
from darkbloom_router.placement import Path, audit, choose
from darkbloom_router.provider import Candidate
from darkbloom_router.rates import FleetRates
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.router.fleets import BUILD, DEMAND, FACTS, HASH, NOW, capacity, fleet, provider

RULES = Rules(selection=Selection.FIRST_CONTENT)
LEFT_MS = 10_000.0


def first(_count: int) -> int:
    return 0


def measured(**changes: Any) -> tuple[Candidate, Fleet]:
    """Return a machine whose capacity has just come by heartbeat."""
    made = fleet(provider(capacity=None), rules=RULES)
    [row] = made.rows(BUILD)
    made.beat(row.provider, Beat(capacity=capacity(5, **changes)), NOW)
    return row, made


def test_a_forecast_is_the_sum_of_its_parts_and_what_a_scan_adds_up() -> None:
    row, made = measured()
    made.debit(row, 900, 400)
    found = forecast(row, DEMAND, NOW, LEFT_MS)
    assert found.base == 150
    assert found.ahead == pytest.approx(400)
    assert found.prompt == pytest.approx(100)
    assert found.first_token == pytest.approx(20)
    assert found.expected == pytest.approx(670)
    assert found.total == pytest.approx(row.rank_ms + row.prompt_ms * DEMAND.prompt_tokens)
    assert found.careful == pytest.approx(1000 + 400 + 125 + 33 * 20)


@pytest.mark.parametrize(
    ("doubt", "slot", "demand", "left_ms", "later_s"),
    [
        (Doubt.NONE, {}, {}, LEFT_MS, 0),
        (Doubt.DEADLINE, {}, {}, None, 0),
        (Doubt.VISION, {}, {"vision": True}, LEFT_MS, 0),
        (Doubt.PROMPT, {}, {"prompt_tokens": 0}, LEFT_MS, 0),
        (Doubt.LOAD, {"state": SlotState.IDLE_SHUTDOWN}, {}, LEFT_MS, 0),
        (Doubt.CAPACITY_STALE, {}, {}, LEFT_MS, 5.1),
        (Doubt.PERFORMANCE_MISSING, {"prefill_tps": 0.0}, {}, LEFT_MS, 0),
        (Doubt.PERFORMANCE_STALE, {"stepped_ago_s": 121.0}, {}, LEFT_MS, 0),
    ],
)
def test_each_doubt_makes_a_forecast_unknown(
    doubt: Doubt,
    slot: dict[str, Any],
    demand: dict[str, Any],
    left_ms: float | None,
    later_s: float,
) -> None:
    row, made = measured(**slot)
    made.debit(row, 1)
    found = forecast(row, replace(DEMAND, **demand), NOW + later_s, left_ms)
    assert found.doubt is doubt
    assert found.credence is (Credence.UNKNOWN if doubt else Credence.FEASIBLE)


def test_no_capacity_a_refusal_since_or_hidden_work_are_doubts_too() -> None:
    made = fleet(provider(capacity=None), rules=RULES)
    [row] = made.rows(BUILD)
    assert forecast(row, DEMAND, NOW, LEFT_MS).doubt is Doubt.CAPACITY_MISSING
    row, made = measured()
    made.faults.of(row.provider.stable_id, NOW).pair(BUILD).refused_at = NOW + 1
    row.provider.faults = made.faults.find(row.provider.stable_id)
    made.refresh(row.provider)
    assert forecast(row, DEMAND, NOW + 2, LEFT_MS).doubt is Doubt.CAPACITY_BEFORE_REFUSAL
    row, made = measured()
    row.provider.inflight = 1
    made.refresh(row.provider)
    assert forecast(row, DEMAND, NOW, LEFT_MS).doubt is Doubt.COMPETING


def test_a_credible_forecast_past_the_deadline_is_late_and_the_ceiling_shuts() -> None:
    row, made = measured()
    assert forecast(row, DEMAND, NOW, 1000).credence is Credence.LATE
    view = View(DEMAND, RULES, NOW, deadline=NOW + 1)
    assert first_gate(row, view) is Gate.ELIGIBLE
    hard = replace(RULES, ttft_ceiling=True)
    assert first_gate(row, replace(view, rules=hard)) is Gate.TTFT_CEILING
    own = replace(DEMAND, account_id="owner", policy=OwnerPolicy.PREFER)
    assert first_gate(row, View(own, hard, NOW, deadline=NOW + 1)) is Gate.ELIGIBLE
    made.rules = hard
    choice = choose(made, BUILD, View(DEMAND, hard, NOW, deadline=NOW + 1), first)
    assert choice.candidate is None
    assert choice.tally == {Gate.TTFT_CEILING: 1}
    assert audit(made, BUILD, View(DEMAND, hard, NOW, deadline=NOW + 1))


def test_an_idle_machine_without_evidence_is_tried_after_five_minutes() -> None:
    row, _ = measured(decode_tps=0.0)
    assert forecast(row, DEMAND, NOW, LEFT_MS).credence is Credence.UNKNOWN
    row.provider.capacity_at = NOW + 400
    assert forecast(row, DEMAND, NOW + 400, LEFT_MS).credence is Credence.FEASIBLE


def test_rows_of_other_builds_slow_a_prompt_down() -> None:
    row, made = measured()
    alone = forecast(row, DEMAND, NOW, LEFT_MS).prompt
    other = replace(capacity(6).slots[BUILD], build="org/other", running=2)
    crowded = replace(capacity(6), slots={**capacity(6).slots, "org/other": other})
    made.beat(row.provider, Beat(capacity=crowded), NOW)
    assert forecast(row, DEMAND, NOW, LEFT_MS).prompt == pytest.approx(alone * (1 + 0.39 * 2))


def test_the_feasible_come_before_the_unknown_and_the_late_last() -> None:
    names = ("feasible", "stale", "late")
    made = fleet(*(provider(name, capacity=None) for name in names), rules=RULES)
    rows = {row.provider.provider_id: row for row in made.rows(BUILD)}
    for name in names:
        slow = {"prefill_tps": 20.0} if name == "late" else {}
        slow = {"prefill_tps": 300.0} if name == "feasible" else slow
        at = NOW - 10 if name == "stale" else NOW
        made.beat(rows[f"prov_{name}"].provider, Beat(capacity=capacity(5, **slow)), at)
    view = View(DEMAND, RULES, NOW, deadline=NOW + 3)
    seen: list[Candidate] = []
    for _ in names:
        choice = choose(made, BUILD, replace(view, excluded=[row.provider for row in seen]), first)
        assert choice.candidate is not None
        seen.append(choice.candidate)
    assert [row.provider.provider_id for row in seen] == [f"prov_{name}" for name in names]


def test_near_ties_of_first_content_go_to_the_least_promised_work() -> None:
    made = fleet(provider("a", capacity=None), provider("b", capacity=None), rules=RULES)
    rows = made.rows(BUILD)
    for row in rows:
        made.beat(row.provider, Beat(capacity=capacity(5, prefill_tps=20_000.0)), NOW)
    taken = made.debit(rows[0], 200, 10)
    view = View(DEMAND, RULES, NOW, deadline=NOW + 60)
    assert choose(made, BUILD, view, first).candidate is rows[1]
    made.began(taken)
    assert rows[0].pending_prompt == 0
    made.credit(taken)
    assert rows[0].provider.service_ms == 0


def test_slow_machines_serve_only_when_nobody_keeps_the_pace() -> None:
    made = fleet(provider("slow"), provider("quick"), rules=RULES)
    slow, quick = made.rows(BUILD)
    made.beat(slow.provider, Beat(capacity=capacity(5, decode_tps=16.0)), NOW)
    made.beat(quick.provider, Beat(capacity=capacity(5, decode_tps=30.0, prefill_tps=500.0)), NOW)
    view = View(DEMAND, RULES, NOW)
    assert choose(made, BUILD, view, first).candidate is quick
    only = replace(view, excluded=[quick.provider])
    assert choose(made, BUILD, only, first).candidate is slow


def test_a_small_build_leaves_the_large_machine_alone_within_a_quarter_of_the_price() -> None:
    made = fleet(
        provider("large", capacity=replace(capacity(), total_memory_gb=192.0)),
        provider("small", capacity=replace(capacity(), total_memory_gb=16.0)),
    )
    large, _small = made.rows(BUILD)
    parts = cost.cost(large, DEMAND, NOW)
    rest = sum(getattr(parts, item.name) for item in fields(parts)) - parts.size_tier
    assert parts.size_tier == pytest.approx(min(190 * 40, rest / 4))
    assert parts.total == pytest.approx(sum(astuple(parts)))
    long = replace(DEMAND, prompt_tokens=cost.LONG_PROMPT_TOKENS)
    assert cost.cost(large, long, NOW).size_tier == 0


def test_machines_kept_for_the_largest_build_serve_others_last() -> None:
    made = fleet(
        provider("large", capacity=replace(capacity(), total_memory_gb=192.0)),
        provider("small", capacity=replace(capacity(decode_tps=20.0), total_memory_gb=16.0)),
    )
    made.reserve_gb = 128.0
    view = View(DEMAND, Rules(), NOW)
    choice = choose(made, BUILD, view, first)
    assert choice.candidate is not None
    assert choice.candidate.provider.provider_id == "prov_small"
    alone = replace(view, excluded=[choice.candidate.provider])
    assert choose(made, BUILD, alone, first).candidate is not None


def test_machines_are_kept_only_while_a_larger_build_is_asked_for() -> None:
    hashes = frozenset({HASH})
    small = Build(build=BUILD, accepted_hashes=hashes, min_ram_gb=16)
    large = Build(build="org/large", accepted_hashes=hashes, min_ram_gb=128)
    made = Fleet(Rules())
    made.set_catalog(Catalog(builds={BUILD: small, "org/large": large}))
    made.join(provider(), [FACTS])
    made.keep_large_machines(lambda build: int(build != BUILD))
    assert made.reserve_gb == 0, "nothing else is asked for"
    made.debit(made.rows(BUILD)[0], 10)
    made.keep_large_machines(lambda build: int(build != BUILD))
    assert made.reserve_gb == 128
    made.keep_large_machines(lambda _build: 0)
    assert made.reserve_gb == 0


@given(st.lists(st.floats(1, 500), min_size=1, max_size=30), st.data())
def test_medians_follow_every_change(values: list[float], data: Any) -> None:
    rates = FleetRates()
    known = dict.fromkeys(range(len(values)), 0.0)
    for index, value in enumerate(values):
        rates.replace(BUILD, "M4", 0.0, value)
        known[index] = value
    gone = data.draw(st.sets(st.integers(0, len(values) - 1)))
    for index in gone:
        rates.replace(BUILD, "M4", known.pop(index), 0.0)
    left = sorted(known.values())
    assert rates.decode(BUILD, "M4") == (left[len(left) // 2] if left else 0.0)


def test_solo_rates_prefer_the_own_family_then_the_slowest_then_fewer_samples() -> None:
    rates = FleetRates({BUILD: 33.0})
    assert rates.solo(BUILD, "M4") == 33.0
    rates.sample_solo(BUILD, "M1", b"a", 12.0)
    assert rates.solo(BUILD, "M4") == 12.0
    for index in range(5):
        rates.sample_solo(BUILD, "M2", bytes([index]), 20.0 + index)
    assert rates.solo(BUILD, "M4") == 22.0
    assert rates.solo(BUILD, "M2") == 22.0
    for index in range(50):
        rates.sample_solo(BUILD, "M2", b"liar", 500.0 + index)
    assert rates.solo(BUILD, "M2") <= 24.0, "a machine counts once"


KEYS = (b"a" * 16, b"b" * 16)


def hinted(made: Fleet, account: str = "consumer", now: float = NOW) -> Path:
    hints = HintMemory()
    keep = made.rows(BUILD)[1].provider
    hints.note("consumer", BUILD, KEYS, 3000, keep.identity_key, NOW)
    demand = replace(DEMAND, prompt_tokens=3000, account_id=account)
    hint = hints.find(account, BUILD, KEYS[:1] if now > NOW else KEYS, 3000, now)
    choice = choose(made, BUILD, View(demand, Rules(), now), first, hint=hint)
    if choice.path is Path.PREFIX_AFFINITY:
        assert choice.candidate is not None
        assert choice.candidate.provider is keep
        assert 0 < choice.hint_ms <= 1000
    return choice.path


def test_a_prefix_hint_decides_among_equals_for_its_account_only() -> None:
    made = fleet(provider("a"), provider("b"))
    assert hinted(made) is Path.PREFIX_AFFINITY
    assert hinted(made, "somebody else") is not Path.PREFIX_AFFINITY
    assert hinted(made, now=NOW + TTL_S) is not Path.PREFIX_AFFINITY


def test_a_hint_opens_no_gate_and_does_not_outweigh_a_busy_machine() -> None:
    busy = provider("b", capacity=capacity(running=3))
    assert hinted(fleet(provider("a"), busy)) is Path.UNIQUE_MIN
    shut = provider("b", untrusted="violation")
    assert hinted(fleet(provider("a"), shut)) is Path.UNIQUE_MIN


def test_a_reported_miss_drops_a_hint_for_its_whole_life() -> None:
    hints = HintMemory()
    hints.note("consumer", BUILD, KEYS, 100, b"machine", 0.0)
    hints.miss("consumer", BUILD, KEYS, b"machine", 1.0)
    hints.note("consumer", BUILD, KEYS, 100, b"machine", 2.0)
    assert hints.find("consumer", BUILD, KEYS, 100, 3.0) is None
    hints.note("consumer", BUILD, KEYS, 100, b"another", 4.0)
    found = hints.find("consumer", BUILD, KEYS, 100, 5.0)
    assert found is not None
    assert found.identity == b"another"


def test_the_longest_known_prefix_counts_and_memory_is_bounded() -> None:
    hints = HintMemory(limit=3)
    hints.note("consumer", BUILD, KEYS, 1000, b"m", 0.0)
    longer = (*KEYS, b"c" * 16)
    found = hints.find("consumer", BUILD, longer, 1500, 15.0)
    assert found is not None
    assert (found.tokens, found.weight) == (1000, 0.5)
    hints.note("consumer", BUILD, (b"d" * 16, b"e" * 16), 10, b"m", 1.0)
    assert len(hints) == 3


@given(st.integers(0, 100_000), st.floats(0.01, 1000), st.floats(0, 1e6), st.floats(0, 1))
def test_a_hint_is_never_worth_more_than_its_bounds(
    tokens: int, prompt_ms: float, price_ms: float, weight: float
) -> None:
    hints = HintMemory()
    hints.note("c", BUILD, KEYS, tokens, b"m", 0.0)
    hint = hints.find("c", BUILD, KEYS, tokens, TTL_S * (1 - weight) * 0.999)
    assert hint is not None
    credit = hint.credit_ms(prompt_ms, price_ms)
    assert 0 <= credit <= min(1000, price_ms * 0.35, tokens * prompt_ms) + 1e-6


def test_a_demand_without_deadline_is_ranked_all_the_same() -> None:
    row, made = measured()
    choice = choose(made, BUILD, View(Demand(build=BUILD), RULES, NOW), first)
    assert choice.candidate is row
    priced, expected = choice.breakdown(DEMAND, NOW, None)
    assert priced.total > 0
    assert expected.doubt is Doubt.DEADLINE
    assert FACTS.build == BUILD
