"""Plans of the books: pure, and never more than is there."""

import pytest
from darkbloom_billing.books import plans
from darkbloom_billing.books.draft import Draft
from darkbloom_billing.books.model import (
    PAYABLE,
    STRIPE,
    Funded,
    Leg,
    Pending,
    Share,
    Wallet,
    revenue,
)
from darkbloom_billing.errors import WithdrawalsStoppedError
from hypothesis import given
from hypothesis import strategies as st

CREDIT, EARNED, DEBT = (w.of("a") for w in (Wallet.CREDIT, Wallet.EARNED, Wallet.DEBT))
_amounts = st.integers(0, 10**12)


def draft(**free: int) -> Draft:
    named = {"stripe": STRIPE, "payable": PAYABLE, "credit": CREDIT, "earned": EARNED, "debt": DEBT}
    zero = dict.fromkeys([*named.values(), revenue("p"), "platform:stripe_fees"], 0)
    return Draft(zero | {named[name]: amount for name, amount in free.items()})


def test_assets_and_debts_grow_by_debit_and_the_rest_by_credit() -> None:
    d = draft(credit=5)
    d.move("deposit", STRIPE, CREDIT, 10)
    d.move("dispute", DEBT, STRIPE, 3)
    assert (d.free(STRIPE), d.free(CREDIT), d.free(DEBT)) == (7, 15, 3)
    assert d.plan.legs[0] == Leg(
        mode="single", code="deposit", debit=STRIPE, credit=CREDIT, amount=10
    )


def test_a_plan_cannot_take_what_is_not_there() -> None:
    for move in (
        lambda d: d.move("refund", CREDIT, STRIPE, 6),
        lambda d: d.reserve("withdrawal", EARNED, STRIPE, 1),
        lambda d: d.move("deposit", STRIPE, CREDIT, -1),
    ):
        with pytest.raises(ValueError, match="plan "):
            move(draft(credit=5))


def test_what_is_reserved_is_not_free_until_its_end() -> None:
    d = draft(earned=10, stripe=10)
    d.reserve("withdrawal", EARNED, STRIPE, 4)
    assert (d.free(EARNED), d.free(STRIPE)) == (6, 6)
    d.void(Pending(id=1, code="withdrawal", debit=EARNED, credit=STRIPE, amount=4))
    assert (d.free(EARNED), d.free(STRIPE)) == (10, 10)


def test_nothing_is_written_for_nothing() -> None:
    d = draft()
    d.move("deposit", STRIPE, CREDIT, 0)
    d.reserve("withdrawal", EARNED, STRIPE, 0)
    assert d.plan.legs == []


@given(amount=_amounts, line=_amounts, owed=_amounts, payable=_amounts, credit=_amounts)
def test_a_deposit_pays_stripe_then_debt_and_keeps_the_rest(
    amount: int, line: int, owed: int, payable: int, credit: int
) -> None:
    d = draft(debt=owed, payable=payable, credit=credit)
    plans.deposit(d, "a", "p", amount, line)
    assert d.free(STRIPE) - d.free(PAYABLE) == amount + line - payable
    assert min(d.free(STRIPE), d.free(PAYABLE)) == 0
    assert d.free(CREDIT) - d.free(DEBT) == credit + amount - owed
    assert min(d.free(CREDIT), d.free(DEBT)) == 0


@given(amount=_amounts, credit=_amounts, asset=_amounts, earned=_amounts)
def test_a_refund_is_always_bookable(amount: int, credit: int, asset: int, earned: int) -> None:
    d = draft(credit=credit, stripe=asset, earned=earned)
    plans.refund(d, "a", "p", amount, 0)
    assert d.free(STRIPE) - d.free(PAYABLE) == asset - amount
    assert d.free(CREDIT) + d.free(EARNED) - d.free(DEBT) == credit + earned - amount


_shares = st.lists(
    st.builds(
        Share,
        request_id=st.uuids().map(str),
        account_id=st.sampled_from("ab"),
        amount=st.integers(1, 10**9),
    ),
    max_size=8,
)


@given(shares=_shares, amount=_amounts)
def test_shares_lose_exactly_what_is_short_and_none_more_than_it_holds(
    shares: list[Share], amount: int
) -> None:
    taken = plans.take(shares, amount)
    assert sum(share.lost for share in taken) == min(amount, sum(s.amount for s in shares))
    assert all(0 <= share.lost <= share.amount for share in taken)


@given(
    amount=st.integers(1, 10**9),
    deposited=st.integers(1, 10**9),
    overlaps=st.lists(st.integers(0, 10**6), max_size=8),
)
def test_a_dispute_holds_at_most_what_it_disputes(
    amount: int, deposited: int, overlaps: list[int]
) -> None:
    funded = []
    for n, overlap in enumerate(overlaps):
        if sum(f.overlap for f in funded) + overlap <= deposited:
            funded.append(
                Funded(
                    request_id=str(n),
                    account_id="b",
                    overlap=overlap,
                    charge=overlap,
                    free=overlap,
                )
            )
    shares = plans.held_by(amount, deposited, funded)
    assert sum(share.amount for share in shares) <= amount
    assert all(share.amount > 0 for share in shares)


@given(_amounts, _amounts, _amounts, _amounts, _amounts)
def test_a_payout_that_has_left_is_always_bookable_and_what_is_missing_is_owed(
    net: int, earned: int, credit: int, stripe: int, debt: int
) -> None:
    d = draft(earned=earned, credit=credit, stripe=stripe, debt=debt)
    told = plans.withdraw_submit(d, "a", "p", net, 0, frozen=True, sound=False, left=True).result
    lacks = max(0, net - earned)
    assert told["shortfall"] == lacks
    paid = min(credit, debt + lacks)
    # What is earned beyond the payout pays the rest of what was owed.
    rest = min(max(0, earned - net), debt + lacks - paid)
    assert told["debt"] == d.free(DEBT) == debt + lacks - paid - rest
    assert (d.free(CREDIT), d.free(EARNED)) == (credit - paid, max(0, earned - net) - rest)
    reserved = {leg.credit: leg.amount for leg in d.plan.legs if leg.mode == "pending"}
    assert sum(reserved.values()) == net
    assert reserved.get(PAYABLE, 0) == max(0, net - stripe)


@given(_amounts, _amounts, _amounts, _amounts)
def test_what_a_payout_leaves_owing_keeps_its_asset_and_is_paid_when_it_arrives(
    left: int, stripe: int, deposited: int, net: int
) -> None:
    d = draft(earned=left + net, stripe=stripe)
    plans.withdraw_submit(d, "a", "p", left, 0, frozen=True, sound=False, left=True)
    pending = [
        Pending(id=n, code=leg.code, debit=leg.debit, credit=leg.credit, amount=leg.amount)
        for n, leg in enumerate(d.plan.legs)
        if leg.mode == "pending"
    ]
    leaving = sum(leg.amount for leg in pending if leg.credit == PAYABLE)
    plans.deposit(d, "a", "p", deposited, 0)
    spare = d.free(STRIPE) - leaving
    own = Draft(d.balances)
    try:
        plans.withdraw_submit(own, "a", "p", net, 0, frozen=False, sound=True, leaving=leaving)
        was = ""
    except WithdrawalsStoppedError as refused:
        was = refused.metadata["darkbloom-cause"]
    assert was == ("payable" if spare < 0 else "funds" if spare < net else "")
    # Whatever was let out leaves enough for what arrives.
    ended = Draft(own.balances if not was else d.balances)
    plans.withdraw_paid(ended, pending, keep_fee=True)
    assert min(ended.free(STRIPE), ended.free(PAYABLE)) == 0
    assert ended.free(PAYABLE) == max(0, -spare)
