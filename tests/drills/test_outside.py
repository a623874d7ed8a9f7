"""The judgement of a restore finds each thing that can be wrong with one."""

from typing import Any

import pytest

from tests.drills.outside import deviations, undone

SOUND: dict[str, Any] = {
    "sound": True,
    "exit": 0,
    "heads_equal": 2,
    "heads_given_up": [3],
    "erasures": {"erased": 1},
    "audit": {"violations": []},
}


def test_a_restore_that_does_everything_is_no_deviation() -> None:
    assert deviations(SOUND, before=1, after=3) == []
    assert undone(gone=(0, 403), came_back=1, stays=(0, 403)) == []


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"sound": False}, "recover found something"),
        ({"exit": 1}, "recover found something"),
        ({"audit": {"violations": [{}]}}, "recover found something"),
        # Without `--heads`, or with those of another mesh.
        ({"heads_equal": 0, "heads_given_up": []}, "of 3 copies of heads"),
        ({"heads_equal": 1}, "of 3 copies of heads"),
        ({"heads_equal": 3, "heads_given_up": []}, "of 3 copies of heads"),
        # Without `--erasures`, or with a directory that lacks the record.
        ({"erasures": {}}, "one account was to be erased again"),
        ({"erasures": {"pending": 1}}, "one account was to be erased again"),
    ],
    ids=["unsound", "code", "audit", "no-heads", "one-less", "none-given-up", "none", "pending"],
)
def test_what_recover_left_out_is_found(said: dict[str, Any], found: str) -> None:
    (odd,) = deviations(SOUND | said, before=1, after=3)
    assert odd.startswith(found)


def test_who_was_not_erased_or_not_brought_back_or_is_still_there_is_found() -> None:
    for gone, came_back, stays in (
        ((1, 403), 1, (0, 403)),
        ((0, 200), 1, (0, 403)),
        ((0, 403), 0, (0, 403)),
        ((0, 403), 1, (1, 403)),
        ((0, 403), 1, (0, 200)),
    ):
        assert len(undone(gone=gone, came_back=came_back, stays=stays)) == 1
