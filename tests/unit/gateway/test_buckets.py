import math

import pytest
from darkbloom_gateway.buckets import Charge, Decision, Dimension, LocalBuckets, Meter, Rate
from hypothesis import given
from hypothesis import strategies as st


def one(name: str, per_s: float, burst: int, owner: str = "account") -> Meter:
    return Meter(name, (Rate(per_s, burst), None, None), owner)


def ask(*meters: Meter, tokens: tuple[int, int] = (0, 0)) -> Charge:
    return Charge(meters, (1, *tokens))


def allowed(decision: Decision) -> bool:
    return decision.refused is None


def test_a_burst_passes_and_then_the_rate() -> None:
    buckets, charge = LocalBuckets(), ask(one("a", 2.0, 3))

    assert [allowed(buckets.take(charge, 0)) for _ in range(4)] == [True, True, True, False]
    refused = buckets.take(charge, 0).refused
    assert refused is not None
    assert refused.wait_s == 0.5
    assert allowed(buckets.take(charge, 0.5))
    assert not allowed(buckets.take(charge, 0.5))


def test_a_keys_limit_is_checked_before_its_accounts_is_charged() -> None:
    buckets = LocalBuckets()
    account, key = one("a", 1.0, 5), one("a:k", 1.0, 1, "key")

    assert buckets.take(ask(key, account), 0).gauges[0].remaining == 0
    refused = buckets.take(ask(key, account), 0).refused

    assert refused is not None
    assert (refused.owner, refused.limit) == ("key", 1)
    assert buckets.take(ask(account), 0).gauges[0].remaining == 3


def test_a_request_that_finds_no_tokens_costs_no_request() -> None:
    buckets = LocalBuckets()
    meter = Meter("a", (Rate(1.0, 5), Rate(10.0, 100), Rate(1.0, 50)))

    assert allowed(buckets.take(ask(meter, tokens=(100, 10)), 0))
    refused = buckets.take(ask(meter, tokens=(30, 10)), 0).refused
    assert refused is not None
    assert (refused.dimension, refused.wait_s) == (Dimension.INPUT_TOKENS, 3.0)
    last = buckets.take(ask(meter, tokens=(0, 0)), 0)

    assert [gauge.remaining for gauge in last.gauges] == [3, 0, 40]


def test_a_correction_gives_back_no_more_than_the_burst_and_may_leave_debt() -> None:
    buckets = LocalBuckets()
    meter = Meter("a", (None, None, Rate(1.0, 50)))
    buckets.take(Charge((meter,), (1, 0, 20)), 0)

    buckets.take(Charge((meter,), (0, 0, -90), forced=True), 0)
    assert buckets.take(Charge((meter,), (1, 0, 50)), 0).gauges[0].remaining == 0
    buckets.take(Charge((meter,), (0, 0, 7), forced=True), 0)

    refused = buckets.take(Charge((meter,), (1, 0, 1)), 0).refused
    assert refused is not None
    assert refused.wait_s == 8.0


def test_the_triples_are_written_as_others_do() -> None:
    buckets = LocalBuckets()
    meter = Meter("a", (Rate(2.0, 3), None, Rate(0.1, 100)))

    assert dict(buckets.take(ask(meter, tokens=(5, 40)), 0).headers()) == {
        b"x-ratelimit-limit-requests": b"3",
        b"x-ratelimit-remaining-requests": b"2",
        b"x-ratelimit-reset-requests": b"500ms",
        b"x-ratelimit-limit-output-tokens": b"100",
        b"x-ratelimit-remaining-output-tokens": b"60",
        b"x-ratelimit-reset-output-tokens": b"400s",
    }


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 6)), max_size=50), st.integers(1, 5))
def test_never_more_pass_than_burst_and_rate_allow(
    asked: list[tuple[float, int]], burst: int
) -> None:
    buckets, now, passed = LocalBuckets(), 0.0, 0
    meter = Meter("a", (None, Rate(0.5, burst), None))
    for gap, amount in asked:
        now += gap
        if allowed(buckets.take(Charge((meter,), (1, amount, 0)), now)):
            passed += amount
    assert passed <= burst + now * 0.5 + 1e-6


@given(st.integers(1, 5), st.floats(0.001, 100))
def test_whoever_waits_as_long_as_he_is_told_passes(burst: int, per_s: float) -> None:
    buckets, charge = LocalBuckets(), ask(one("a", per_s, burst))
    for _ in range(burst):
        assert allowed(buckets.take(charge, 0))
    refused = buckets.take(charge, 0).refused
    assert refused is not None

    assert refused.wait_s == pytest.approx(1 / per_s)
    assert allowed(buckets.take(charge, math.nextafter(refused.wait_s, math.inf) + 1e-9))
