"""The memory rule, with the constants of the specification."""

import pytest
from darkbloom_edge.memory import (
    GIB,
    Memory,
    fits,
    free_for_load,
    hard_cap,
    kv_budget_bytes,
    kv_shares,
    min_ram_gb,
    required_bytes,
    resident_bytes,
)
from hypothesis import given
from hypothesis import strategies as st


def test_the_hard_cap_is_the_smaller_of_share_and_headroom() -> None:
    assert hard_cap(8 * GIB) == 6 * GIB
    assert hard_cap(64 * GIB) == int(0.9 * 64 * GIB)
    assert hard_cap(GIB) == 0


def test_a_load_needs_padded_weights_activations_and_minimum_kv() -> None:
    assert required_bytes(10 * GIB) == 12 * GIB + 11 * GIB // 2 + GIB


def test_pending_loads_and_the_operators_reserve_count() -> None:
    memory = Memory(physical=64 * GIB, available=60 * GIB, pending_loads=GIB, reserve=10 * GIB)

    assert free_for_load(memory) == 49 * GIB


@given(weights=st.integers(0, 500 * GIB))
def test_catalog_and_loader_agree_on_the_smallest_machine(weights: int) -> None:
    ram = min_ram_gb(weights) * GIB

    assert fits(weights, Memory(physical=ram, available=ram))
    smaller = ram - GIB
    assert not fits(weights, Memory(physical=smaller, available=smaller))


@given(
    budget=st.integers(0, 1 << 40),
    demands=st.dictionaries(
        st.text(max_size=4), st.tuples(st.integers(0, 1 << 20), st.integers(0, 1 << 20)), max_size=4
    ),
)
def test_shares_never_exceed_the_budget(budget: int, demands: dict[str, tuple[int, int]]) -> None:
    shares = kv_shares(budget, demands)

    assert shares.keys() == demands.keys()
    assert sum(shares.values()) <= budget


def test_one_build_gets_the_whole_budget_and_unknown_rates_equal_parts() -> None:
    assert kv_shares(100, {"a": (7, 9)}) == {"a": 100}
    assert kv_shares(100, {"a": (0, 9), "b": (5, 5)}) == {"a": 50, "b": 50}
    assert kv_shares(100, {"a": (3, 1), "b": (1, 1)}) == {"a": 75, "b": 25}


def test_what_weights_and_activations_leave_is_for_kv() -> None:
    resident = resident_bytes(10 * GIB)

    assert kv_budget_bytes(32 * GIB, resident) == hard_cap(32 * GIB) - 12 * GIB - 11 * GIB // 2
    assert kv_budget_bytes(8 * GIB, resident) == 0
    assert resident_bytes(0) == pytest.approx(0)
