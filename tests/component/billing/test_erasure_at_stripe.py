"""What Stripe keeps of an erased account is deleted there: at least once, and never given up."""

from collections.abc import Mapping
from typing import Any

from darkbloom.billing.v1 import payment_service_pb2 as pb
from darkbloom_billing.books.outbox import put

from tests.component.billing.till import Till, till
from tests.component.billing.world import CONSUMER

_OWED = "SELECT count(*) FROM billing.outbox WHERE kind LIKE 'erase.%' AND done_at IS NULL"
_ERROR = "SELECT error FROM billing.outbox WHERE key = $1 AND done_at IS NULL"


async def owe(t: Till, kind: str, key: str) -> None:
    """Write the job as a scrub does, with the newest things at Stripe."""

    async def work(connection: Any) -> None:
        payload: Mapping[str, Any] = {"erasure_id": "erase_1"}
        await put(connection, f"erase.{kind}", key, payload, now=t.clock.now())

    await t.books.database.run(work)


async def test_a_customer_goes_with_its_cards(url: str) -> None:
    async with till(url) as t:
        wanted = pb.CreateCardSetupRequest(
            request_id="setup", account_id=CONSUMER, email="ann@example.com"
        )
        await t.payments.CreateCardSetup(wanted, timeout=30)
        customers = await t.stripe.objects("customer")
        assert customers
        for customer in customers:
            await owe(t, "stripe_customer", customer["id"])
        await t.until(_OWED, 0)
        assert await t.stripe.objects("customer") == []
        # Gone already, here by another key of the same customer: as good as done.
        await owe(t, "stripe_customer", "cus_gone")
        await t.until(_OWED, 0)


async def test_a_connected_account_goes_once_its_money_has_left(url: str) -> None:
    async with till(url) as t:
        await t.earn(10_000_000)
        account = await t.onboarded()
        await t.withdraw()
        await t.deliver()
        await owe(t, "stripe_account", account)
        await t.until(_ERROR, "STRIPE_FAILED", account)
        await t.stripe.do("sweep", account=account)
        await t.until(_OWED, 0, nudge_s=5)
        assert await t.stripe.objects("account") == []


async def test_a_stripe_that_is_away_is_asked_again(url: str) -> None:
    async with till(url) as t:
        account = await t.onboarded()
        await t.stripe.do("fault", path="/v1/accounts", method="DELETE", kind="error")
        await owe(t, "stripe_account", account)
        await t.until(_OWED, 0, nudge_s=5)
        assert await t.stripe.objects("account") == []
