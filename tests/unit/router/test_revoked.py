"""A revoked verdict counts no more, whichever way it comes and whenever."""

import pytest
from darkbloom_router.revoked import KEPT_S, MAX_KEPT, RevokedVerdicts


def test_a_revoked_verdict_is_remembered_until_it_would_have_expired() -> None:
    revoked = RevokedVerdicts()
    revoked.add("ver_1", 0.0)
    assert "ver_1" in revoked
    revoked.add("ver_2", KEPT_S - 1)
    assert "ver_1" in revoked
    revoked.add("ver_3", KEPT_S + 1)
    assert "ver_1" not in revoked
    assert "ver_2" in revoked


def test_the_same_again_is_kept_longer() -> None:
    revoked = RevokedVerdicts()
    revoked.add("ver_1", 0.0)
    revoked.add("ver_1", KEPT_S - 1)
    revoked.add("ver_2", KEPT_S + 1)
    assert "ver_1" in revoked


@pytest.mark.parametrize("more", [1, 3])
def test_the_memory_is_bounded_and_forgets_the_oldest(more: int) -> None:
    revoked = RevokedVerdicts()
    for number in range(MAX_KEPT + more):
        revoked.add(f"ver_{number}", 0.0)
    assert len(revoked) == MAX_KEPT
    assert f"ver_{more - 1}" not in revoked
    assert f"ver_{more}" in revoked
