"""The way of one payment through the whole mesh, and back out when its holder disputes it."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from darkbloom.billing.v1 import account_service_pb2, price_service_pb2
from darkbloom.billing.v1 import payment_service_pb2 as pb
from darkbloom.billing.v1.account_service_pb2_grpc import AccountServiceStub
from darkbloom.billing.v1.payment_service_pb2_grpc import PaymentServiceStub
from darkbloom.billing.v1.price_service_pb2_grpc import PriceServiceStub
from darkbloom_local.mesh import Mesh
from darkbloom_local.models import SCRIPTED
from darkbloom_local.seeds import CONSUMER, GRANT_MICROS, PROVIDER
from darkbloom_mesh.clock import SystemClock

from tests.mesh.harness import PATIENCE_S, QUICK, Consumer, Fleet, script

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="module")]

BILLING = {
    **QUICK["billing"],
    "DARKBLOOM_BILLING_MATURATION_S": "0.1",
    "DARKBLOOM_BILLING_MATURATION_PERIOD_S": "0.2",
    "DARKBLOOM_BILLING_STRIPE_POLL_S": "0.2",
}
PRICE = 10_000_000_000
TOKENS = 1_200
COST = TOKENS * PRICE // 1_000_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def paying(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    async with Mesh(
        tmp_path_factory.mktemp("paying"),
        environment={**QUICK, "billing": BILLING},
        local_stripe=True,
        durable=False,
    ) as mesh:
        await Fleet(mesh).wait_routable()
        yield mesh


async def play(mesh: Mesh, name: str, **given: Any) -> Any:
    """Be the customer, the bank or the owner at the local Stripe."""
    async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
        response = await http.post(f"{mesh.stripe_url}/control/{name}", json=given)
    assert response.is_success, response.text
    return response.json()


async def until(check: Any) -> Any:
    """Wait for what nothing announces; returns what the check returned."""
    clock = SystemClock()
    ends = clock.monotonic() + PATIENCE_S
    while not (found := await check()):
        assert clock.monotonic() < ends, "it did not happen in time"
        await clock.sleep(0.05)
    return found


async def test_a_dollar_goes_in_is_spent_is_earned_and_paid_out_and_then_disputed(
    paying: Mesh,
) -> None:
    consumer, billing = Consumer(paying), paying.channel("billing.grpc")
    accounts, payments = AccountServiceStub(billing), PaymentServiceStub(billing)
    await PriceServiceStub(billing).SetPrice(
        price_service_pb2.SetPriceRequest(
            request_id="dear", build=SCRIPTED, input_micros=1, output_micros=PRICE
        ),
        timeout=PATIENCE_S,
    )

    # Top up: the webhook comes over HTTP, signed.
    made = await consumer.post({"amount_usd": "20.00"}, path="/v1/billing/stripe/create-session")
    assert made.status_code == 200, made.text
    await play(paying, "pay", session=made.json()["stripe_session"])

    async def topped_up() -> bool:
        return await consumer.balance() == GRANT_MICROS + 20_000_000

    await until(topped_up)

    # Spend: promotional money first, then two dollars of the deposit.
    body = {"model": SCRIPTED, "messages": script(tokens=TOKENS), "max_tokens": TOKENS}
    answer = await consumer.post(body)
    assert answer.status_code == 200, answer.text

    async def matured() -> bool:
        request = account_service_pb2.GetBalanceRequest(account_id=PROVIDER)
        found = await accounts.GetBalance(request, timeout=PATIENCE_S)
        return found.withdrawable_micros == COST

    await until(matured)

    # Withdraw, and let the bank pay.
    started = await payments.StartOnboarding(
        pb.StartOnboardingRequest(account_id=PROVIDER), timeout=PATIENCE_S
    )
    name = started.account.stripe_account_id
    await play(paying, "onboard", account=name)
    sent = await payments.CreateWithdrawal(
        pb.CreateWithdrawalRequest(
            request_id="out",
            account_id=PROVIDER,
            amount_micros=COST,
            method=pb.WITHDRAWAL_METHOD_STANDARD,
        ),
        timeout=PATIENCE_S,
    )
    assert sent.withdrawal.status == pb.WITHDRAWAL_STATUS_TRANSFERRED
    payout = await play(paying, "sweep", account=name)
    await play(paying, "payout", account=name, payout=payout["id"], status="paid")

    async def paid() -> bool:
        request = pb.ListWithdrawalsRequest(account_id=PROVIDER)
        found = await payments.ListWithdrawals(request, timeout=PATIENCE_S)
        return found.withdrawals[0].status == pb.WITHDRAWAL_STATUS_PAID

    await until(paid)

    # The card's holder disputes all of it, and wins: what is spent is a debt, and freezes.
    (charge,) = (await play(paying, "state", kind="charge"))["objects"]
    dispute = await play(paying, "dispute", charge=charge["id"])
    await play(paying, "close_dispute", dispute=dispute["id"], status="lost")

    async def frozen() -> bool:
        request = account_service_pb2.GetBalanceRequest(account_id=CONSUMER)
        found = await accounts.GetBalance(request, timeout=PATIENCE_S)
        return found.frozen and found.debt_micros > 0

    await until(frozen)
    refused = await consumer.post(body)
    assert refused.status_code in {402, 403}, refused.text
    assert (await paying.audit())["ledger_violations"] == 0
