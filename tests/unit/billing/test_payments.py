"""Cents, fees, signatures and events of Stripe, without Stripe."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from darkbloom_billing.payments import events
from darkbloom_billing.payments.amounts import (
    CARD_FEE_BPS,
    fee_line,
    line_shares,
    quote,
    without_line,
)
from darkbloom_billing.payments.model import CENT_MICROS, EventSource, Method
from darkbloom_billing.payments.rail import connected
from darkbloom_billing.payments.signature import verify
from darkbloom_mesh.config import Secret
from hypothesis import given
from hypothesis import strategies as st

from tests.stripe_local.cards import fee
from tests.stripe_local.delivery import sign

NOW = datetime(2026, 5, 1, tzinfo=UTC)
SECRETS = (Secret("whsec_a"), Secret("whsec_b"))
AT = int(NOW.timestamp())
EVENT = {
    "id": "evt_1",
    "object": "event",
    "type": "charge.refunded",
    "created": AT,
    "pending_webhooks": 1,
    "data": {"object": {"id": "ch_1", "metadata": {"billing_session_id": "dep_1"}}},
}


@given(cents=st.integers(50, 1_000_000))
def test_the_line_covers_stripes_fee_and_not_two_cents_more(cents: int) -> None:
    line = fee_line(cents * CENT_MICROS) // CENT_MICROS
    assert 0 <= line - fee(cents + line) <= 1
    assert CARD_FEE_BPS


@given(
    cents=st.integers(100, 10_000_000),
    method=st.sampled_from(Method),
)
def test_a_quote_adds_up_and_its_net_is_whole_cents(cents: int, method: Method) -> None:
    made = quote(cents * CENT_MICROS, method)
    assert made.fee_micros + made.net_micros == made.amount_micros
    assert made.net_micros % CENT_MICROS == 0
    least = 0 if method is Method.STANDARD else max(cents * 150, 500_000)
    assert 0 <= made.fee_micros - least < CENT_MICROS


@given(st.lists(st.integers(1, 1000), min_size=1), st.integers(0, 1000))
def test_lines_of_refunds_add_up_to_the_line(refunds: list[int], line: int) -> None:
    total = sum(refunds)
    shares = line_shares(refunds, total, min(line, total))
    assert sum(shares) == min(line, total)
    assert all(0 <= share <= amount for share, amount in zip(shares, refunds, strict=True))


def test_each_valid_secret_signs_and_only_within_five_minutes() -> None:
    for secret in ("whsec_a", "whsec_b"):
        header = sign(b"body", secret, AT)
        assert verify(b"body", header, SECRETS, NOW)
        assert verify(b"body", header, SECRETS, NOW + timedelta(seconds=300))
        assert not verify(b"body", header, SECRETS, NOW + timedelta(seconds=301))
        assert not verify(b"body", header, SECRETS, NOW - timedelta(seconds=301))
        assert not verify(b"body!", header, SECRETS, NOW)
        assert not verify(b"body", header, (), NOW)
    assert not verify(b"body", sign(b"body", "whsec_c", AT), SECRETS, NOW)


def test_any_of_several_signatures_counts() -> None:
    good = sign(b"body", "whsec_a", AT).partition("v1=")[2]
    assert verify(b"body", f"t={AT},v1={'0' * 64},v0=x,v1={good}", SECRETS, NOW)


@given(st.text(max_size=200))
def test_any_other_header_is_refused_without_a_crash(header: str) -> None:
    assert not verify(b"body", header, SECRETS, NOW)


def test_the_same_event_has_the_same_hash_whoever_else_waits_for_it() -> None:
    first = events.read(json.dumps(EVENT).encode())
    again = events.read(json.dumps({**EVENT, "pending_webhooks": 0}).encode())
    other = events.read(json.dumps({**EVENT, "type": "charge.updated"}).encode())
    assert first is not None
    assert again is not None
    assert other is not None
    assert first.payload_hash == again.payload_hash != other.payload_hash
    assert (first.object_id, first.facts) == ("ch_1", {"session": "dep_1"})


@given(st.binary(max_size=200) | st.recursive(st.none(), st.lists).map(repr))
def test_what_is_no_event_is_nobody(body: bytes | str) -> None:
    assert events.read(body.encode() if isinstance(body, str) else body) is None


@pytest.mark.parametrize("missing", ["id", "object", "type", "created", "data"])
def test_an_event_without_a_field_is_nobody(missing: str) -> None:
    assert events.read(json.dumps({**EVENT, missing: None}).encode()) is None


def test_every_kind_that_acts_belongs_to_one_endpoint() -> None:
    kinds = [kind for source in EventSource for kind in events.ACTING[source]]
    assert len(kinds) == len(set(kinds))


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        ({}, "pending"),
        ({"details_submitted": True}, "restricted"),
        ({"details_submitted": True, "payouts_enabled": True}, "ready"),
        (
            {
                "payouts_enabled": True,
                "requirements": {"disabled_reason": "rejected.terms_of_service"},
            },
            "rejected",
        ),
    ],
)
def test_the_status_of_an_account_follows_what_stripe_says(
    facts: dict[str, object], status: str
) -> None:
    assert connected({"id": "acct_1", **facts}).status.value == status


@given(cents=st.integers(50, 1_000_000))
def test_an_amount_is_found_again_in_its_total(cents: int) -> None:
    micros = cents * CENT_MICROS
    assert without_line(micros + fee_line(micros)) == micros


def test_a_total_that_no_amount_has_is_told_apart() -> None:
    assert without_line(30_000) is None
    assert without_line(0) is None
