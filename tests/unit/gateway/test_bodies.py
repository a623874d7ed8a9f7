"""Fields of control-plane bodies: exact money, one error per field."""

from decimal import Decimal
from typing import Any

import pytest
from darkbloom_gateway.errors import ApiError
from darkbloom_gateway.routes import bodies
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(min_value=1, max_value=100_000_000))
def test_every_cent_is_exact_in_and_out(cents: int) -> None:
    written = f"{cents // 100}.{cents % 100:02d}"
    micros = bodies.usd({"amount_usd": written}, "amount_usd")
    assert micros == cents * 10_000
    assert bodies.usd2(micros) == written
    assert Decimal(bodies.usd6(micros)) == Decimal(written)


@pytest.mark.parametrize(
    "value",
    [
        "1.155",
        "-1",
        "1e3",
        "",
        " 1",
        "NaN",
        "0.00",
        "0",
        "1.",
        ".5",
        "1000000.01",
        "\uff11",
        1.15,
        1,
        None,
    ],
)
def test_what_is_not_dollars_names_its_field(value: Any) -> None:
    with pytest.raises(ApiError) as caught:
        bodies.usd({"amount_usd": value}, "amount_usd")
    assert (caught.value.http_status, caught.value.param) == (400, "amount_usd")


@pytest.mark.parametrize("value", [1, True, None, "", "x" * 201, "a\x00b", "\ud800"])
def test_what_is_not_a_text_names_its_field(value: Any) -> None:
    with pytest.raises(ApiError) as caught:
        bodies.text({"code": value}, "code")
    assert caught.value.param == "code"


@pytest.mark.parametrize(
    "value", ["2026-01-31", "x", 5, "2026-01-31T12:00:00", "0001-01-01T00:00:00+10:00"]
)
def test_what_is_not_a_time_with_a_zone_names_its_field(value: Any) -> None:
    with pytest.raises(ApiError) as caught:
        bodies.moment({"expires_at": value}, "expires_at")
    assert caught.value.param == "expires_at"


@pytest.mark.parametrize("value", [True, 1.0, "1", 0, 11, None])
def test_what_is_not_a_number_in_range_names_its_field(value: Any) -> None:
    with pytest.raises(ApiError) as caught:
        bodies.integer({"max_uses": value}, "max_uses", least=1, most=10)
    assert caught.value.param == "max_uses"


def test_an_absent_field_takes_its_default() -> None:
    assert bodies.integer({}, "max_uses", least=1, most=10, default=1) == 1
    assert bodies.text({"note": None}, "note", default="") == ""
    assert bodies.moment({}, "expires_at") is None
