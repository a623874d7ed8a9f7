"""What the fleet measures: a rate that was asked for before is as true as one that was not."""

from darkbloom_router.rates import FleetRates
from hypothesis import given
from hypothesis import strategies as st

SAMPLES = st.lists(
    st.tuples(
        st.sampled_from(["small", "large"]),
        st.sampled_from(["M1", "M4"]),
        st.integers(0, 80),
        st.sampled_from([10.0, 11.0, 30.0]),
    ),
    max_size=150,
)


@given(SAMPLES)
def test_a_solo_rate_does_not_depend_on_who_asked_before(
    samples: list[tuple[str, str, int, float]],
) -> None:
    asked, silent = FleetRates({"small": 7.0}), FleetRates({"small": 7.0})
    kinds = [(build, family) for build in ("small", "large") for family in ("M1", "M4", "M9")]
    for build, family, machine, tps in samples:
        for rates in (asked, silent):
            rates.sample_solo(build, family, b"%d" % machine, tps)
        for kind in kinds:
            asked.solo(*kind)
    assert [asked.solo(*kind) for kind in kinds] == [silent.solo(*kind) for kind in kinds]


def test_a_build_that_left_the_catalog_is_forgotten_by_all() -> None:
    rates = FleetRates()
    rates.sample_solo("small", "M1", b"a", 10.0)
    assert rates.solo("small", "M1") == 10.0
    rates.forget({"large"})
    assert rates.solo("small", "M1") == 0.0
