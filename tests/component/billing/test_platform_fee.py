"""The platform's share of a charge: set by an operator for a consumer, exact, and audited."""

import pytest
from darkbloom.billing.v1 import operator_service_pb2 as pb

from tests.component.billing.operating import CALL_S, Staff, name, staff
from tests.component.billing.world import CONSUMER, PROVIDER, World, owner, world

# 40 prompt tokens at 10 and 20 answer tokens at 20 micro-USD each.
CHARGE = 800


async def set_fee(s: Staff, percent: int) -> None:
    request = pb.UpdateAccountRequest(
        operator=s.alice,
        request_id=name(),
        account_id=CONSUMER,
        platform_fee_percent=percent,
    )
    await s.operators.UpdateAccount(request, timeout=CALL_S)


async def revenue(w: World) -> int:
    async with owner(w.url) as db:
        return int(
            await db.fetchval("SELECT sum(cr - dr) FROM ledger.account WHERE class = 'revenue'")
        )


@pytest.mark.parametrize(
    ("percent", "fee"), [(0, 0), (1, 8), (7, 56), (33, 264), (99, 792), (100, CHARGE)]
)
async def test_a_charge_is_split_in_the_same_event(url: str, percent: int, fee: int) -> None:
    async with world(url) as w:
        s = await staff(w)
        await w.people()
        await set_fee(s, percent)
        (held,) = await w.hold(w.order())
        settlement = w.settlement(held.request_id)
        (settled,) = await w.settle(settlement)
        assert (settled.charge_micros, settled.provider_credit_micros) == (CHARGE, CHARGE - fee)
        assert await w.maturing(PROVIDER) == CHARGE - fee
        assert await revenue(w) == fee
        (again,) = await w.settle(settlement)
        assert again.provider_credit_micros == CHARGE - fee
        assert await revenue(w) == fee
        await w.sound()


async def test_a_share_is_rounded_down_in_favour_of_the_provider(url: str) -> None:
    async with world(url) as w:
        s = await staff(w)
        await w.people()
        await w.price("odd", 1_000_000, 11_150_000)
        await set_fee(s, 7)
        (held,) = await w.hold(w.order())
        (settled,) = await w.settle(w.settlement(held.request_id))
        charge = 40 + 20 * 11_150_000 // 1_000_000
        assert settled.charge_micros == charge
        assert settled.provider_credit_micros == charge - charge * 7 // 100
        assert charge * 7 % 100
        await w.sound()


async def test_many_settlements_of_one_batch_share_accounts_of_revenue(url: str) -> None:
    async with world(url) as w:
        s = await staff(w)
        await w.people()
        await set_fee(s, 10)
        held = await w.hold(*(w.order() for _ in range(24)))
        ended = await w.settle(*(w.settlement(one.request_id) for one in held))
        assert {one.provider_credit_micros for one in ended} == {CHARGE - CHARGE // 10}
        assert await revenue(w) == 24 * (CHARGE // 10)
        async with owner(w.url) as db:
            used = await db.fetchval(
                "SELECT count(*) FROM ledger.account WHERE class = 'revenue' AND cr > 0"
            )
        assert used > 1
        await w.sound()


async def test_a_share_of_another_size_is_named_by_the_audit(url: str) -> None:
    async with world(url) as w:
        s = await staff(w)
        await w.people()
        await set_fee(s, 10)
        (held,) = await w.hold(w.order())
        await w.settle(w.settlement(held.request_id))
        async with owner(w.url) as db:
            await db.execute("ALTER TABLE ledger.event DISABLE TRIGGER USER")
            await db.execute(
                "UPDATE ledger.event SET result = result || '{\"fee_percent\": 11}' "
                "WHERE kind = 'settle'"
            )
            await db.execute("ALTER TABLE ledger.event ENABLE TRIGGER USER")
        assert "fee_differs" in {found.check for found in (await w.audit()).violations}
