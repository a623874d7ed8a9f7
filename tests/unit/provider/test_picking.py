"""Choosing models by what they take of the memory."""

import pytest
from darkbloom_provider.picking import GIB, make_shelf, switched

SMALL, MIDDLE, LARGE = 1 * GIB, 8 * GIB, 40 * GIB


def shelf(memory_gb: int = 32, reserve_gb: int = 4):
    return make_shelf(
        [("org/middle", MIDDLE)],
        [("org/small", SMALL), ("org/middle", MIDDLE), ("org/large", LARGE)],
        physical_bytes=memory_gb * GIB,
        reserve_bytes=reserve_gb * GIB,
    )


def test_what_is_here_comes_first_and_what_cannot_fit_is_not_offered():
    assert [(one.id, one.here) for one in shelf().offers] == [
        ("org/middle", True),
        ("org/small", False),
    ]
    assert [one.id for one in shelf(96).offers] == ["org/middle", "org/small", "org/large"]
    assert shelf(8).offers == ()


def test_a_reserve_of_the_owner_takes_from_what_is_offered():
    assert [one.id for one in shelf(21).offers] == ["org/middle", "org/small"]
    assert [one.id for one in shelf(21, reserve_gb=8).offers] == ["org/small"]


def test_models_together_share_one_reserve_for_work():
    found = shelf()
    both = found.needs_bytes({"org/small", "org/middle"})
    alone = found.needs_bytes({"org/small"}) + found.needs_bytes({"org/middle"})
    assert found.needs_bytes(set()) == 0
    assert found.needs_bytes({"org/middle"}) < both < alone


def test_numbers_switch_and_letters_take_all_or_none():
    found = shelf()
    assert switched(found, frozenset(), "1") == {"org/middle"}
    assert switched(found, frozenset({"org/middle"}), "1, 2") == {"org/small"}
    assert switched(found, frozenset(), "A") == {"org/middle", "org/small"}
    assert switched(found, frozenset({"org/small"}), "n") == frozenset()


@pytest.mark.parametrize("typed", ["0", "3", "x", "1 -2", "²"])
def test_anything_else_is_refused_with_what_is_wanted(typed):
    with pytest.raises(ValueError, match="numbers from 1 to 2"):
        switched(shelf(), frozenset(), typed)
