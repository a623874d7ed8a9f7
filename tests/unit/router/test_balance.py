"""A replica gives up what it holds beyond its share, slowly, and never swings."""

from collections.abc import Sequence

import pytest
from darkbloom_mesh.testing import FakeClock
from darkbloom_router.replicas.balance import TOO_MANY, Balance, surplus
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("mine", "leaving", "others", "found"),
    [
        (200, 0, [], 0),
        (200, 0, [0], 75),
        (150, 50, [0], 25),
        (125, 75, [0], 0),
        (100, 0, [100], 0),
        (126, 0, [74], 1),
        (1, 0, [0], 0),
        (0, 0, [0], 0),
        (3, 0, [0, 0], 1),
    ],
)
def test_what_is_beyond_a_quarter_above_the_mean_is_surplus(
    mine: int, leaving: int, others: Sequence[int], found: int
) -> None:
    assert surplus(mine, leaving, others) == found


@given(st.lists(st.integers(0, 500), min_size=2, max_size=6))
def test_a_fleet_that_sheds_comes_to_rest(counts: list[int]) -> None:
    """Each round everybody's surplus lands on the emptiest replica; soon nobody has any."""
    for _ in range(20):
        moved = 0
        for index, mine in enumerate(counts):
            count = surplus(mine, 0, counts[:index] + counts[index + 1 :])
            counts[index] -= count
            moved += count
        if not moved:
            break
        for _ in range(moved):
            counts[counts.index(min(counts))] += 1
    mean = sum(counts) / len(counts)
    assert all(count <= TOO_MANY * mean + 1 for count in counts)


@pytest.mark.parametrize(("per_s", "after_ten"), [(5.0, 50), (0.5, 5), (0.0, 0), (100.0, 75)])
async def test_a_surplus_leaves_no_faster_than_allowed(per_s: float, after_ten: int) -> None:
    held, asked = [200, 0], list[int]()

    def shed(count: int) -> None:
        asked.append(count)
        held[0] -= count
        held[1] += count

    balance = Balance(lambda: (held[0], held[1]), lambda: [0], shed, FakeClock(), per_s=per_s)
    for _ in range(10):
        balance.step()
    assert sum(asked) == after_ten
    assert all(count <= max(1, per_s) for count in asked)
