"""Rings of machines: stable, nested, of the size that they say, and others for each release."""

import pytest
from darkbloom_edge.rings import STEPS, in_ring, is_mark, place

MARKS = [f"{number:016x}" for number in range(4000)]
ONE, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64

PLACES = dict(zip(MARKS, (96.42, 87.33, 2.1), strict=False))


def ring(code_release: str, percent: int) -> set[str]:
    return {mark for mark in MARKS if in_ring(code_release, percent, mark)}


def test_a_wider_ring_holds_every_narrower_one() -> None:
    rings = [ring(ONE, percent) for percent in STEPS]
    assert rings[0] < rings[1] < rings[2] == set(MARKS)
    assert rings[0] == ring(ONE, STEPS[0])


@pytest.mark.parametrize(("percent", "least", "most"), [(1, 20, 60), (10, 340, 460)])
def test_a_ring_has_about_the_size_that_it_says(percent: int, least: int, most: int) -> None:
    assert least <= len(ring(ONE, percent)) <= most


def test_each_release_begins_with_other_machines() -> None:
    assert len(ring(ONE, 1) & ring(OTHER, 1)) < len(ring(ONE, 1)) / 2


def test_places_are_the_same_everywhere_and_for_ever() -> None:
    assert [place(ONE, mark) for mark in MARKS[:3]] == [PLACES[mark] for mark in MARKS[:3]]


@pytest.mark.parametrize("mark", ["", "0" * 15, "0" * 17, "G" * 16, "A" * 16, "0" * 15 + "\n"])
def test_who_says_no_mark_gets_what_all_get(mark: str) -> None:
    assert not is_mark(mark)
    assert not in_ring(ONE, 10, mark)
    assert in_ring(ONE, 100, mark)
