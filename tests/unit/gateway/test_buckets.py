from darkbloom_gateway.buckets import Bucket, Charge, LocalBuckets
from hypothesis import given
from hypothesis import strategies as st


def test_a_burst_passes_and_then_the_rate() -> None:
    buckets, charge = LocalBuckets(), Charge(Bucket("a", 2.0, 3))

    taken = [buckets.take(charge, 0).allowed for _ in range(4)]

    assert taken == [True, True, True, False]
    assert buckets.take(charge, 0).wait_s == 0.5
    assert buckets.take(charge, 0.5).allowed
    assert not buckets.take(charge, 0.5).allowed


def test_a_keys_limit_is_checked_before_its_accounts_is_charged() -> None:
    buckets = LocalBuckets()
    charge = Charge(Bucket("a", 1.0, 5), Bucket("k", 1.0, 1))

    assert buckets.take(charge, 0).remaining == 4
    refused = buckets.take(charge, 0)

    assert (refused.allowed, refused.dimension, refused.limit) == (False, "key", 1)
    assert buckets.take(Charge(Bucket("a", 1.0, 5)), 0).remaining == 3


def test_the_triple_is_written_as_others_do() -> None:
    buckets, charge = LocalBuckets(), Charge(Bucket("a", 2.0, 3))

    assert dict(buckets.take(charge, 0).headers()) == {
        b"x-ratelimit-limit-requests": b"3",
        b"x-ratelimit-remaining-requests": b"2",
        b"x-ratelimit-reset-requests": b"500ms",
    }


@given(st.lists(st.floats(0, 10), max_size=50), st.integers(1, 5))
def test_never_more_pass_than_burst_and_rate_allow(gaps: list[float], burst: int) -> None:
    buckets, charge, now, passed = LocalBuckets(), Charge(Bucket("a", 0.5, burst)), 0.0, 0
    for gap in gaps:
        now += gap
        passed += buckets.take(charge, now).allowed
    assert passed <= burst + now * 0.5 + 1e-6
