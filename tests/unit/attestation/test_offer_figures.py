"""When machines of a release do so much worse than the rest that its offer is held."""

import pytest
from darkbloom_attestation.figures import Figures, why_held


@pytest.mark.parametrize(
    ("ring", "rest", "held"),
    [
        (Figures(), Figures(machines=1000), False),
        (Figures(machines=10), Figures(machines=990), False),
        (Figures(machines=1, bad=1, unrouted=1), Figures(machines=99), False),
        (Figures(machines=2, bad=2, unrouted=2), Figures(machines=98), True),
        (Figures(machines=100, bad=9, untrusted=9), Figures(machines=900), False),
        (Figures(machines=100, bad=10, untrusted=10), Figures(machines=900), True),
        (Figures(machines=100, bad=20, refused=20), Figures(machines=900, bad=90), False),
        (Figures(machines=100, bad=30, refused=30), Figures(machines=900, bad=90), True),
        (Figures(machines=10, bad=10, restarting=10), Figures(machines=90, bad=60), False),
        (Figures(machines=3, bad=2, returned=2), Figures(), True),
    ],
)
def test_a_release_is_held_only_where_it_is_worse_than_the_fleet(
    ring: Figures, rest: Figures, *, held: bool
) -> None:
    assert bool(why_held(ring, rest)) is held


def test_the_reason_says_what_was_seen_on_both_sides() -> None:
    ring = Figures(machines=5, bad=3, unrouted=2, returned=1)
    assert why_held(ring, Figures(machines=40, bad=1)) == (
        "3 of 5 machines do badly (2 unrouted, 1 returned), of the others 1 of 40"
    )
