"""Money out while Stripe refuses and nobody can tell: it waits for a person, and is paid once."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import psycopg
from darkbloom.billing.v1 import payment_service_pb2 as pb
from darkbloom.billing.v1.payment_service_pb2_grpc import PaymentServiceStub
from darkbloom_local.mesh import Mesh
from darkbloom_local.seeds import PROVIDER

from tests.drills.desk import Desk
from tests.drills.drill import Drill, Outcome
from tests.drills.load import grown, steady
from tests.drills.stage import Stage
from tests.drills.toll import Ledger
from tests.mesh.harness import CALL_S, PATIENCE_S, QUICK, Consumer, metric, until

_FAILED = pb.WITHDRAWAL_STATUS_FAILED
_LEFT = pb.WITHDRAWAL_STATUS_TRANSFERRED
_PAID = pb.WITHDRAWAL_STATUS_PAID
_CLIENTS = 3
_DEPOSIT = 20_000_000
_OUT = 5_000_000
_FORGED = 'darkbloom_billing_stripe_events_total{outcome="forged"}'
_AGED = """
    UPDATE billing.withdrawal
    SET created_at = created_at - interval '13 hours', next_at = now() - interval '1 second'
    WHERE request_id = 'doubtful'
"""
"""Passes the half day after which billing asks a person."""


async def play(stage: Stage) -> Outcome:
    """Forge a webhook, let a withdrawal become doubtful, end it by evidence, pay the next one."""
    odd: list[str] = []
    billing = {**QUICK["billing"], "DARKBLOOM_BILLING_STRIPE_POLL_S": "0.2"}
    async with stage.mesh(environment={"billing": billing}, local_stripe=True) as mesh:
        desk = await Desk(mesh, stage.home).register("ada", "grace")
        account = await _prepared(mesh, desk)
        payments = PaymentServiceStub(mesh.channel("billing.grpc"))
        ledger = await Ledger.begin(mesh)
        async with steady(mesh, clients=_CLIENTS, tokens=12) as load:
            await until(grown(load, _CLIENTS), "answers before")
            stage.progress("somebody forges a webhook")
            odd += await _forged(mesh)

            stage.progress("Stripe breaks off, then refuses: nobody can tell whether money left")
            begun = stage.clock.monotonic()
            await _at_stripe(mesh, "fault", path="/v1/transfers", kind="cut", when="before")
            refuse = {"path": "/v1/transfers", "kind": "refuse", "code": "blocked"}
            await _at_stripe(mesh, "fault", **refuse, times=999)
            made = await _withdraw(payments, "doubtful")
            await _aged(mesh)
            await until(_waits(desk, made.withdrawal_id), "it waits for a person")

            stage.progress("nothing is at Stripe, so its refusal is the evidence")
            if (await _at_stripe(mesh, "state", kind="transfer"))["objects"]:
                odd.append("money left after all")
            words = ("withdrawals", "resolve", made.withdrawal_id, "--refused", "req_drill0001")
            await desk.does("ada", *words)
            await until(_ended(payments, made.withdrawal_id, _FAILED), "it has ended")
            if await _waits(desk, made.withdrawal_id)():
                odd.append("a withdrawal that was resolved still waits for a person")

            stage.progress("Stripe is well: the next one leaves, and arrives")
            await _at_stripe(mesh, "heal")
            sent = await _withdraw(payments, "good")
            await until(_ended(payments, sent.withdrawal_id, _LEFT), "it left")
            payout = await _at_stripe(mesh, "sweep", account=account)
            await _at_stripe(mesh, "payout", account=account, payout=payout["id"], status="paid")
            await until(_ended(payments, sent.withdrawal_id, _PAID), "it arrived")
            recovery_s = stage.clock.monotonic() - begun
            left = (await _at_stripe(mesh, "state", kind="transfer"))["objects"]
            if len(left) != 1 or sent.withdrawal_id == made.withdrawal_id:
                odd.append(f"{len(left)} transfers left for one withdrawal that succeeded")
            await until(grown(load, _CLIENTS), "answers afterwards")
        toll = await ledger.toll(load.answers)
    return Outcome(
        lost_requests=len(load.lost),
        lost_micros=toll.lost_micros,
        recovery_s=recovery_s,
        unexpected=[*odd, *toll.unexpected, *(one.told() for one in load.lost)],
        facts={**load.facts(), "transfers": len(left)},
    )


async def _prepared(mesh: Mesh, desk: Desk) -> str:
    """Give Stripe a deposit and the provider's owner a reward; return his account at Stripe."""
    asked = await Consumer(mesh).post(
        {"amount_usd": "20.00"}, path="/v1/billing/stripe/create-session"
    )
    assert asked.status_code == 200, asked.text
    before = await Consumer(mesh).balance()
    await _at_stripe(mesh, "pay", session=asked.json()["stripe_session"])

    async def topped_up() -> bool:
        return await Consumer(mesh).balance() == before + _DEPOSIT

    await until(topped_up, "the deposit is booked")
    await _at_stripe(mesh, "fund", amount=2_000)
    for budget in ("capital", "promo"):
        proposed = await desk.does("ada", "budgets", "propose", budget, "--usd", "10.00")
        await desk.does("grace", "budgets", "approve", proposed["funding"]["funding_id"])
    await desk.does("ada", "reward", PROVIDER, "--usd", "10.00")
    started = await PaymentServiceStub(mesh.channel("billing.grpc")).StartOnboarding(
        pb.StartOnboardingRequest(account_id=PROVIDER), timeout=PATIENCE_S
    )
    account = str(started.account.stripe_account_id)
    await _at_stripe(mesh, "onboard", account=account)
    return account


async def _at_stripe(mesh: Mesh, name: str, **given: Any) -> Any:
    """Be the customer, the bank, the owner, or an accident at the local Stripe."""
    async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
        response = await http.post(f"{mesh.stripe_url}/control/{name}", json=given)
    assert response.is_success, response.text
    return response.json()


async def _forged(mesh: Mesh) -> list[str]:
    """Step 1: what is not signed is refused, and counted as forged."""
    before = await metric(mesh, "billing", _FORGED)
    async with httpx.AsyncClient(timeout=CALL_S) as http:
        answer = await http.post(
            f"{mesh.url}/v1/billing/stripe/webhook",
            content=b'{"id": "evt_forged", "object": "event"}',
            headers={"stripe-signature": f"t=1,v1={'0' * 64}"},
        )
    odd = []
    if answer.status_code != 400:
        odd.append(f"a forged webhook is answered with {answer.status_code}")
    if await metric(mesh, "billing", _FORGED) != before + 1:
        odd.append("a forged webhook is not counted as forged")
    return odd


async def _withdraw(payments: PaymentServiceStub, name: str) -> pb.Withdrawal:
    request = pb.CreateWithdrawalRequest(
        request_id=name,
        account_id=PROVIDER,
        amount_micros=_OUT,
        method=pb.WITHDRAWAL_METHOD_STANDARD,
    )
    made: pb.Withdrawal = (await payments.CreateWithdrawal(request, timeout=PATIENCE_S)).withdrawal
    return made


async def _aged(mesh: Mesh) -> None:
    async with await psycopg.AsyncConnection.connect(mesh.database_url) as connection:
        done = await connection.execute(_AGED)
        assert done.rowcount == 1


def _waits(desk: Desk, withdrawal_id: str) -> Callable[[], Awaitable[bool]]:
    async def listed() -> bool:
        return withdrawal_id in str(await desk.does("ada", "withdrawals", "manual"))

    return listed


def _ended(payments: PaymentServiceStub, name: str, status: int) -> Callable[[], Awaitable[bool]]:
    async def reached() -> bool:
        request = pb.ListWithdrawalsRequest(account_id=PROVIDER)
        rows = (await payments.ListWithdrawals(request, timeout=PATIENCE_S)).withdrawals
        return any((row.withdrawal_id, row.status) == (name, status) for row in rows)

    return reached


DRILL = Drill(
    name="payouts",
    claim="a withdrawal in doubt waits for a person and ends by evidence; the next is paid once",
    runbooks=("payouts", "operators"),
    limit_s=180,
    play=play,
)
