"""Referral rewards: exact, capped, and no way to pump them."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from darkbloom_billing.programmes.model import Caps, Paid, Spend
from darkbloom_billing.programmes.rewards import hour_of, month_of, reward, share
from hypothesis import given
from hypothesis import strategies as st

CAPS = Caps(share_percent=5, month_micros=10**12, referrer_micros=10**12)
NOTHING = Paid(month_micros=0, referrer_micros=0)
PLENTY = 10**12
PAIR = ("ada", "bob")


def spend(referrer: str, payer: str, payee: str, micros: int, *, linked: bool = False) -> Spend:
    return Spend(
        request_id="r",
        referrer_id=referrer,
        payer_id=payer,
        payee_id=payee,
        purchased_micros=micros,
        linked=linked,
    )


@dataclass
class Person:
    """Money that somebody can spend or cash; purchased money is spent first."""

    purchased: int = 0
    earned: int = 0
    paid_in: int = 0

    def pay(self, micros: int) -> tuple[int, int]:
        """Spend up to that much; return (charged, of it purchased)."""
        bought = min(micros, self.purchased)
        rest = min(micros - bought, self.earned)
        self.purchased -= bought
        self.earned -= rest
        return bought + rest, bought


@dataclass
class Pair:
    """Two accounts of one person; each has named the other as its referrer."""

    people: dict[str, Person] = field(default_factory=lambda: {name: Person() for name in PAIR})
    strangers: int = 0

    def gain(self) -> int:
        return sum(p.purchased + p.earned - p.paid_in for p in self.people.values())

    def serve(self, payer: str, payee: str, micros: int) -> None:
        referrer = PAIR[1 - PAIR.index(payer)]
        charged, bought = self.people[payer].pay(micros)
        if payee in self.people:
            self.people[payee].earned += charged
        else:
            self.strangers += charged
        brought = reward(
            [spend(referrer, payer, payee, bought)], CAPS, NOTHING, budget_micros=PLENTY
        )
        if brought is not None:
            # The worst case: it matures at once.
            self.people[referrer].earned += brought.paid_micros


steps = st.lists(
    st.tuples(
        st.sampled_from(["deposit", "serve", "stranger"]),
        st.sampled_from(PAIR),
        st.integers(min_value=1, max_value=10**9),
    ),
    max_size=60,
)


@given(steps)
def test_two_accounts_never_gain_whatever_they_do_with_their_money(
    history: list[tuple[str, str, int]],
) -> None:
    pair = Pair()
    for what, who, micros in history:
        if what == "deposit":
            pair.people[who].purchased += micros
            pair.people[who].paid_in += micros
        else:
            other = PAIR[1 - PAIR.index(who)] if what == "serve" else "stranger"
            pair.serve(who, other, micros)
        assert pair.gain() <= 0


@given(st.integers(min_value=1, max_value=10**15))
def test_a_share_is_a_twentieth_rounded_down(micros: int) -> None:
    assert share(spend("a", "b", "c", micros), 5) == micros // 20


@pytest.mark.parametrize(
    "one",
    [
        spend("a", "a", "c", 100),
        spend("a", "b", "a", 100),
        spend("a", "b", "b", 100),
        spend("a", "b", "c", 100, linked=True),
        spend("a", "b", "c", 0),
    ],
)
def test_what_is_not_between_three_strangers_or_not_bought_brings_nothing(one: Spend) -> None:
    assert reward([one], CAPS, NOTHING, budget_micros=PLENTY) is None


@given(
    st.lists(st.integers(min_value=1, max_value=10**6), min_size=1, max_size=20),
    st.integers(min_value=0, max_value=10**5),
    st.integers(min_value=0, max_value=10**5),
    st.integers(min_value=0, max_value=10**5),
    st.integers(min_value=0, max_value=2 * 10**5),
)
def test_no_cap_is_ever_passed(
    spends: list[int], budget: int, month: int, referrer: int, before: int
) -> None:
    caps = Caps(share_percent=5, month_micros=month, referrer_micros=referrer)
    paid = Paid(month_micros=before, referrer_micros=before)
    found = reward(
        [spend("a", "b", "c", micros) for micros in spends], caps, paid, budget_micros=budget
    )
    assert found is not None
    assert found.earned_micros == sum(micros // 20 for micros in spends)
    assert 0 <= found.paid_micros <= min(found.earned_micros, budget)
    assert found.paid_micros == 0 or before + found.paid_micros <= min(month, referrer)


def test_hours_and_months_begin_where_they_should() -> None:
    at = datetime(2026, 5, 31, 23, 59, 59, 5, UTC)
    assert hour_of(at) == datetime(2026, 5, 31, 23, tzinfo=UTC)
    assert month_of(at) == datetime(2026, 5, 1, tzinfo=UTC)
