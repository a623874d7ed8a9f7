"""Pseudonyms, chosen names and the words of a statement."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from darkbloom_billing.reports.model import Movement
from darkbloom_billing.reports.names import chosen_name, pseudonym
from darkbloom_billing.reports.statement import entry
from darkbloom_billing.reports.words import ADJECTIVES, ANIMALS
from darkbloom_mesh.errors import InvalidArgumentError
from hypothesis import given
from hypothesis import strategies as st

KEY = b"k" * 32
MOVEMENT = Movement(
    wallet="promo",
    version=2,
    transfer_id=7,
    debit=True,
    mode="pending",
    code="hold",
    debit_class="user_promo",
    credit_class="user_charge",
    amount=100,
    pending_amount=0,
    debits=0,
    credits=1000,
    pending_debits=100,
    pending_credits=0,
    idem_key="hold:req_1:2",
    event_kind="hold",
    occurred_at=datetime(2026, 5, 1, tzinfo=UTC),
)


def test_one_byte_chooses_one_word() -> None:
    assert len(set(ADJECTIVES)) == len(ADJECTIVES) == 256
    assert len(set(ANIMALS)) == len(ANIMALS) == 256
    assert not set(ADJECTIVES) & set(ANIMALS)
    assert all(word.isascii() and word.isalpha() and word.islower() for word in ADJECTIVES)


@given(st.text(min_size=1, max_size=40))
def test_a_pseudonym_is_stable_and_depends_on_the_key(account_id: str) -> None:
    name = pseudonym(KEY, account_id)
    adjective, animal, number = name.split("-")
    assert adjective in ADJECTIVES
    assert animal in ANIMALS
    assert (len(number), number.isdigit()) == (4, True)
    assert name == pseudonym(KEY, account_id)


def test_without_the_key_nobody_can_match_a_pseudonym() -> None:
    names = {pseudonym(bytes([n]) * 32, "acct_1") for n in range(64)}
    assert len(names) > 60
    assert pseudonym(KEY, "") == "anon"


@pytest.mark.parametrize(
    "name", ["", "ab", "-abc", "abc-", "a b c", "x" * 33, "quiet-fox-0001", "Darkbloom-1", "é-é-é"]
)
def test_names_that_nobody_may_choose(name: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        chosen_name(name)
    assert caught.value.field == "name"


def test_a_chosen_name_is_unique_whatever_its_case() -> None:
    assert chosen_name("Busy_Mac") == ("Busy_Mac", "busy-mac")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, ("charge", -100, 0, "req_1")),
        ({"mode": "post", "amount": 30, "pending_amount": 100}, ("refund", 70, 30, "req_1")),
        ({"mode": "post", "amount": 100, "pending_amount": 100}, ("settlement", 0, 100, "req_1")),
        ({"mode": "void", "pending_amount": 100}, ("refund", 100, 0, "req_1")),
        (
            {"mode": "single", "code": "payout", "debit": False, "idem_key": "resolve:req_1"},
            ("payout", 100, 0, "req_1"),
        ),
        (
            {"mode": "single", "code": "grant", "debit": False, "idem_key": "invite:INV-1"},
            ("invite_credit", 100, 0, "invite:INV-1"),
        ),
        (
            {"mode": "single", "code": "dispute_open", "wallet": "maturing", "idem_key": "d:du_1"},
            ("dispute_hold", -100, 0, ""),
        ),
        ({"code": "withdrawal", "idem_key": "w:1"}, ("stripe_payout", -100, 0, "w:1")),
        (
            {"code": "withdrawal", "mode": "void", "pending_amount": 100, "idem_key": "w:1"},
            ("refund", 100, 0, "w:1"),
        ),
        (
            {"wallet": "debt", "mode": "single", "code": "refund", "idem_key": "r:1"},
            ("stripe_refund", 100, 0, "r:1"),
        ),
        ({"mode": "single", "code": "new_flow", "idem_key": "n:1"}, ("new_flow", -100, 0, "n:1")),
    ],
)
def test_a_movement_in_public_words(
    change: dict[str, object], expected: tuple[str, int, int, str]
) -> None:
    found = entry(replace(MOVEMENT, **change))  # type: ignore[arg-type]
    assert (found.type, found.amount_micros, found.settled_micros, found.reference) == expected


def test_an_entry_says_what_is_left() -> None:
    found = entry(MOVEMENT)
    assert (found.free_micros, found.held_micros, found.entry_id) == (900, 100, "7d")
    owed = entry(replace(MOVEMENT, wallet="debt", debits=50, credits=20, pending_debits=0))
    assert (owed.free_micros, owed.held_micros) == (30, 0)
