"""Invites and referrals over the wire."""

import asyncio
from datetime import timedelta

import pytest
from darkbloom.billing.v1 import programme_service_pb2 as pb
from darkbloom.common.v1.error_reason_pb2 import ErrorReason as reasons  # noqa: N813 - as elsewhere
from darkbloom_billing.books import Books
from darkbloom_billing.convert import timestamp
from darkbloom_billing.programmes.model import Caps
from darkbloom_billing.programmes.referral_store import PostgresReferrals
from darkbloom_billing.programmes.referrals import Referrals
from darkbloom_mesh.errors import MeshError, NotFoundError, PreconditionError, from_rpc_error
from darkbloom_mesh.testing import FakeClock
from grpc.aio import AioRpcError

from tests.component.billing.operating import Staff, staff
from tests.component.billing.world import (
    CONSUMER,
    PROVIDER,
    START,
    World,
    open_database,
    request_id,
    world,
)

REFERRER = "acct_referrer"
CAPS = Caps(share_percent=5, month_micros=10**9, referrer_micros=10**8)


async def refusal(call: object) -> str:
    with pytest.raises(AioRpcError) as caught:
        await call  # type: ignore[misc] - a call of a stub
    error = from_rpc_error(caught.value)
    assert isinstance(error, PreconditionError), error
    assert error.reason == reasons.ERROR_REASON_PROGRAMME_REFUSED
    return error.metadata["darkbloom-refusal"]


async def fault(call: object) -> MeshError:
    with pytest.raises(AioRpcError) as caught:
        await call  # type: ignore[misc] - a call of a stub
    return from_rpc_error(caught.value)


async def test_an_invite_pays_once_per_account_from_its_budget(url: str) -> None:
    async with world(url) as w:
        s = await staff(w)
        await w.account(CONSUMER)
        await s.fund("invite", 5_000_000)
        code = await s.invite(2_000_000, max_uses=2)
        assert code.startswith("INV-")
        assert len(code) == 12
        paid = await s.redeem(CONSUMER, f" {code.lower()} ")
        assert (paid.credited_micros, paid.balance_micros) == (2_000_000, 2_000_000)
        assert await refusal(s.redeem(CONSUMER, code)) == "invite_redeemed"
        assert await w.balance(CONSUMER) == (2_000_000, 0, 0)
        await w.sound()


async def test_the_last_use_of_an_invite_is_given_once_to_many_at_a_time(url: str) -> None:
    async with world(url) as w:
        s = await staff(w)
        people = [f"acct_{n}" for n in range(8)]
        for person in people:
            await w.account(person)
        await s.fund("invite", 100_000_000)
        code = await s.invite(1_000_000, max_uses=3)
        answers = await asyncio.gather(
            *(s.redeem(person, code) for person in people), return_exceptions=True
        )
        paid = [a for a in answers if isinstance(a, pb.RedeemInviteResponse)]
        assert len(paid) == 3
        refused = [from_rpc_error(a) for a in answers if isinstance(a, AioRpcError)]
        assert {e.metadata["darkbloom-refusal"] for e in refused} == {"invite_exhausted"}
        assert sum([(await w.balance(person))[0] for person in people]) == 3_000_000
        await w.sound()


async def test_each_reason_against_an_invite_is_said(url: str) -> None:
    clock = FakeClock(START)
    async with world(url, clock=clock, referral_period_s=1e9) as w:
        s = await staff(w)
        await w.account(CONSUMER)
        await s.fund("invite", 1_000_000)
        assert isinstance(await fault(s.redeem(CONSUMER, "INV-NOBODY")), NotFoundError)
        assert (await fault(s.redeem(CONSUMER, "-"))).metadata == {"darkbloom-field": "code"}

        soon = timestamp(START + timedelta(hours=1))
        late = await s.invite(1, code="late", expire_time=soon)
        clock.jump(3_600)
        assert await refusal(s.redeem(CONSUMER, late)) == "invite_expired"

        dear = await s.invite(1_000_001, code="dear")
        assert await refusal(s.redeem(CONSUMER, dear)) == "budget_short"
        assert isinstance(await fault(s.redeem("acct_nobody", dear)), NotFoundError)
        assert await w.balance(CONSUMER) == (0, 0, 0)


async def test_codes_have_one_form_and_one_owner(url: str) -> None:
    async with world(url) as w:
        s = await staff(w)
        for person in (CONSUMER, REFERRER):
            await w.account(person)
        assert (await s.register(REFERRER, "sun-set")).code == "SUN-SET"
        assert (await s.register(REFERRER, "other")).code == "SUN-SET"
        assert await refusal(s.register(CONSUMER, "Sun-Set")) == "code_taken"
        for bad in ("ab", "-abc", "abc-", "a" * 21, "a b", "straße", ""):
            assert (await fault(s.register(CONSUMER, bad))).metadata == {"darkbloom-field": "code"}


async def test_a_referrer_is_named_once_and_never_oneself(url: str) -> None:
    async with world(url) as w:
        s = await staff(w)
        for person in (CONSUMER, REFERRER, PROVIDER):
            await w.account(person)
        await s.register(REFERRER, "first")
        await s.register(PROVIDER, "second")
        assert await refusal(s.apply(REFERRER, "FIRST")) == "self_referral"
        assert isinstance(await fault(s.apply(CONSUMER, "third")), NotFoundError)
        for _ in range(2):
            assert (await s.apply(CONSUMER, "first")).code == "FIRST"
        assert await refusal(s.apply(CONSUMER, "second")) == "referrer_fixed"
        view = await s.referral(CONSUMER)
        assert (view.code, view.referred_by, view.share_percent) == ("", "FIRST", 5)
        assert (await s.referral(REFERRER)).referred_count == 1


async def spend(w: World) -> int:
    """One request of the consumer, answered by the provider; return what it cost."""
    name = request_id()
    (held,) = await w.hold(w.order(name))
    assert held.hold.request_id == name
    (settled,) = await w.settle(w.settlement(name))
    assert settled.charge_micros > 0
    return settled.charge_micros


async def pay(w: World, caps: Caps = CAPS) -> None:
    """Run the job as billing does, at the world's time."""
    database = await open_database(w.url)
    try:
        job = Referrals(Books(database, w.clock), PostgresReferrals(database), w.clock, caps=caps)
        await job.pay()
        await job.pay()
    finally:
        await database.close()


async def referred(w: World, *, deposit: int = 50_000_000, budget: int = 50_000_000) -> Staff:
    """A consumer with purchased money whom the referrer has brought."""
    s = await staff(w)
    await w.people(0)
    await w.account(REFERRER)
    await s.fund("referral", budget)
    await s.register(REFERRER, "friend")
    await s.apply(CONSUMER, "friend")
    if deposit:
        await s.deposit(CONSUMER, deposit)
    await pay(w)
    return s


async def test_purchased_spend_brings_five_percent_once_and_it_matures(url: str) -> None:
    clock = FakeClock(START)
    async with world(url, clock=clock, referral_period_s=1e9) as w:
        s = await referred(w)
        charges = [await spend(w) for _ in range(3)]
        await pay(w)
        assert (await s.referral(REFERRER)).reward_micros == 0
        clock.jump(2 * 3_600)
        await pay(w)
        clock.jump(3_600)
        await pay(w)

        earned = sum(charge * 5 // 100 for charge in charges)
        view = await s.referral(REFERRER)
        assert (view.reward_micros, view.maturing_micros) == (earned, earned)
        assert view.qualifying_micros == sum(charges)
        account = await s.view(REFERRER)
        assert (account.maturing_micros, account.earned_micros) == (earned, 0)
        await w.sound()


async def test_promotional_spend_brings_nothing(url: str) -> None:
    clock = FakeClock(START)
    async with world(url, clock=clock, referral_period_s=1e9) as w:
        s = await referred(w, deposit=0)
        await w.account(CONSUMER, 5_000_000)
        await spend(w)
        clock.jump(2 * 3_600)
        await pay(w)
        assert (await s.referral(REFERRER)).reward_micros == 0


async def test_a_provider_who_is_the_referrer_or_shares_a_card_brings_nothing(url: str) -> None:
    clock = FakeClock(START)
    async with world(url, clock=clock, referral_period_s=1e9) as w:
        s = await referred(w)
        await s.register(PROVIDER, "maker")
        database = await open_database(w.url)
        try:
            books = Books(database, clock)
            for person in (REFERRER, PROVIDER):
                await books.add_fingerprint(person, "card", b"c" * 32)
        finally:
            await database.close()
        await spend(w)
        clock.jump(2 * 3_600)
        await pay(w)
        assert (await s.referral(REFERRER)).reward_micros == 0
        assert (await s.referral(PROVIDER)).reward_micros == 0


@pytest.mark.parametrize(
    ("caps", "budget"),
    [
        (Caps(share_percent=5, month_micros=7, referrer_micros=10**8), 10**8),
        (Caps(share_percent=5, month_micros=10**8, referrer_micros=7), 10**8),
        (CAPS, 7),
    ],
)
async def test_caps_and_the_budget_cut_rewards_off(url: str, caps: Caps, budget: int) -> None:
    clock = FakeClock(START)
    async with world(url, clock=clock, referral_period_s=1e9) as w:
        s = await referred(w, budget=budget)
        for _ in range(2):
            await spend(w)
            clock.jump(2 * 3_600)
            await pay(w, caps)
        assert (await s.referral(REFERRER)).reward_micros == 7
        await w.sound()
