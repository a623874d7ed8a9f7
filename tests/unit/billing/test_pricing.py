"""Costs and price rows."""

from datetime import UTC, datetime, timedelta

import pytest
from darkbloom_billing.model import PriceRow, PriceVersion
from darkbloom_billing.pricing import (
    MAX_PRICE_MICROS,
    MAX_TOKENS,
    OFFER_SLACK,
    PriceBook,
    cost,
    default_cache_read,
    fallback,
    worst_case,
)
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 5, 1, tzinfo=UTC)
prices = st.integers(1, MAX_PRICE_MICROS).flatmap(
    lambda inp: st.builds(
        row,
        st.just("p"),
        st.just(inp),
        st.integers(1, MAX_PRICE_MICROS),
        st.integers(0, inp),
        st.integers(0, 10_000),
    )
)
counts = st.integers(-5, MAX_TOKENS)


def row(name: str, inp: int, out: int, cached: int = 0, minimum: int = 0) -> PriceRow:
    return PriceRow(
        price_id=name,
        build="b",
        input_micros=inp,
        output_micros=out,
        cache_read_micros=cached,
        minimum_charge_micros=minimum,
    )


def version(name: str, at: datetime, sequence: int = 1) -> PriceVersion:
    return PriceVersion(row=row(name, 1, 1), effective_at=at, sequence=sequence)


@pytest.mark.parametrize(
    ("prompt", "cached", "completion", "expected"),
    [
        (1000, 0, 500, 50 + 100),
        (1000, 400, 500, 30 + 10 + 100),
        (1000, 5000, 0, 25),
        (19, 0, 0, 0),
        (-3, 2, -9, 0),
    ],
)
def test_each_term_is_floored_alone(
    prompt: int, cached: int, completion: int, expected: int
) -> None:
    price = row("p", 50_000, 200_000, 25_000)
    assert cost(price, prompt=prompt, cached=cached, completion=completion) == expected


def test_the_minimum_is_charged_for_little() -> None:
    assert cost(fallback("b"), prompt=1, cached=0, completion=1) == 100


def test_cached_input_costs_half_where_nothing_is_set() -> None:
    assert fallback("b").cache_read_micros == 25_000
    assert default_cache_read(3) == 1


@given(prices, counts, counts, counts, st.integers(1, MAX_TOKENS), st.integers(1, MAX_TOKENS))
def test_no_cost_within_the_bounds_is_above_the_worst_case(
    price: PriceRow, prompt: int, cached: int, completion: int, prompt_bound: int, output_bound: int
) -> None:
    prompt, completion = min(prompt, prompt_bound), min(completion, output_bound)
    most = worst_case(price, prompt_bound=prompt_bound, output_bound=output_bound)
    charged = cost(price, prompt=prompt, cached=cached, completion=completion)
    assert 0 <= charged <= most < 2**62


@given(prices, counts, counts, counts, st.integers(0, 1000))
def test_a_cost_never_falls_when_more_is_delivered(
    price: PriceRow, prompt: int, cached: int, completion: int, more: int
) -> None:
    less = cost(price, prompt=prompt, cached=cached, completion=completion)
    assert cost(price, prompt=prompt, cached=cached, completion=completion + more) >= less


def test_the_latest_row_that_has_begun_is_in_force() -> None:
    hour = timedelta(hours=1)
    book = PriceBook([version("later", NOW + hour), version("first", NOW - hour)])
    assert book.in_force("b", NOW - 2 * hour) == fallback("b")
    assert book.in_force("b", NOW).price_id == "first"
    assert book.in_force("b", NOW + hour).price_id == "later"
    assert [price.price_id for price in book.current(NOW)] == ["first"]


def test_of_two_rows_at_one_time_the_later_written_counts() -> None:
    book = PriceBook([version("new", NOW, 2), version("old", NOW, 1)])
    assert book.in_force("b", NOW).price_id == "new"


def test_an_offer_may_name_rows_of_the_life_of_the_hold_only() -> None:
    second = timedelta(seconds=1)
    versions = [
        version("ancient", NOW - timedelta(days=2)),
        version("slack", NOW - timedelta(days=1)),
        version("held", NOW - second),
        version("during", NOW + second),
        version("future", NOW + timedelta(days=1)),
    ]
    book = PriceBook(versions)

    def offered(name: str) -> bool:
        return book.offered(name, "b", since=NOW, until=NOW + 2 * second) is not None

    allowed = [version.row.price_id for version in versions if offered(version.row.price_id)]
    assert allowed == ["slack", "held", "during"]
    assert second < OFFER_SLACK
    assert book.offered("held", "other", since=NOW, until=NOW) is None
