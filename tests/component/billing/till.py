"""Billing between a local Stripe and a real database, and the hands that move both."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from darkbloom.billing.v1 import payment_service_pb2 as pb
from darkbloom_billing.books import Books, Budget, FeePayer, Wallets
from darkbloom_billing.payments.acquirer import StripeAcquirer
from darkbloom_billing.payments.check import AssetCheck
from darkbloom_billing.payments.meters import PaymentMeters
from darkbloom_billing.payments.sdk import Stripe
from darkbloom_billing.payments.store.events import PostgresEvents
from darkbloom_billing.payments.store.payouts import PostgresPayouts
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.config import Secret
from darkbloom_mesh.testing import FakeClock

from tests.component.billing.world import CONSUMER, PROVIDER, START, World, open_database, world
from tests.stripe_local.running import API_KEY, Control, Webhook, local_stripe

SECRETS = {"payments": "whsec_pay", "transfers": "whsec_tr", "accounts": "whsec_acct"}
SOURCES = {"payments": 1, "transfers": 2, "accounts": 3}
_WAITING = """
    SELECT count(*) FROM billing.stripe_event WHERE state = 'waiting' AND problem = ''
"""
_names = itertools.count(1)


@dataclass(kw_only=True)
class Till:
    """One running billing that earns and pays at a local Stripe."""

    world: World
    stripe: Control
    books: Books
    clock: FakeClock
    closing: AsyncExitStack
    seen: list[Webhook] = field(default_factory=list)

    line = FeePayer.LINE

    @property
    def payments(self) -> Any:
        return self.world.payments

    async def deposit(self, micros: int = 10_000_000, name: str = "", **more: Any) -> pb.Deposit:
        """Open a session."""
        request = pb.CreateDepositRequest(
            request_id=name or f"dep{next(_names)}",
            account_id=CONSUMER,
            amount_micros=micros,
            **more,
        )
        response = await self.payments.CreateDeposit(request, timeout=30)
        made: pb.Deposit = response.deposit
        return made

    async def paid(self, micros: int = 10_000_000, **more: Any) -> tuple[pb.Deposit, str]:
        """Open a session, pay it, let billing hear of it; returns it and its charge."""
        opened = await self.deposit(micros)
        await self.stripe.do("pay", session=opened.stripe_session, **more)
        await self.deliver()
        charges = await self.stripe.objects("charge")
        return opened, charges[0]["id"]

    async def found(self, deposit: pb.Deposit) -> pb.Deposit:
        """Read a session again."""
        request = pb.GetDepositRequest(account_id=CONSUMER, session_id=deposit.session_id)
        response = await self.payments.GetDeposit(request, timeout=30)
        read: pb.Deposit = response.deposit
        return read

    async def deliver(self, *, times: int = 1, reverse: bool = False) -> None:
        """Bring what Stripe has to say to billing, and wait until it has acted."""
        webhooks = await self.stripe.take()
        self.seen += webhooks
        for webhook in [w for w in webhooks for _ in range(times)][:: -1 if reverse else 1]:
            await self.hand_in(webhook)
        await self.acted()

    async def hand_in(self, webhook: Webhook) -> pb.DeliverEventResponse:
        """Deliver one webhook."""
        source = webhook.url.rsplit("/", 1)[1]
        response: pb.DeliverEventResponse = await self.payments.DeliverEvent(
            pb.DeliverEventRequest(
                source=SOURCES[source],  # type: ignore[arg-type]  # an open enum
                payload=webhook.body,
                signature=webhook.signature,
            ),
            timeout=30,
        )
        return response

    async def acted(self) -> None:
        """Wait until every event acted, or was put off with a reason."""
        await self.until(_WAITING, 0, nudge_s=0)

    async def until(
        self, statement: str, expected: object, *arguments: object, nudge_s: float = 0.05
    ) -> None:
        """Wait until the database answers so."""
        clock = SystemClock()
        async with asyncio.timeout(60):
            while await self.value(statement, *arguments) != expected:
                # A loop that was busy when the clock was moved sleeps again from there.
                self.clock.jump(nudge_s)
                await clock.sleep(0.01)

    async def value(self, statement: str, *arguments: object) -> Any:
        """Return one value of the database."""

        async def work(connection: Any) -> Any:
            return await connection.fetchval(statement, *arguments)

        return await self.books.database.run(work)

    async def wallets(self, account_id: str = CONSUMER) -> Wallets:
        return await self.books.wallets(account_id)

    async def free(self, path: str) -> int:
        return await self.books.free(path)

    # -- money out ------------------------------------------------------------------------

    async def earn(self, micros: int, account_id: str = PROVIDER) -> None:
        """Let the owner pay capital in, at Stripe and in the books, and an account earn it."""
        name = f"earn{next(_names)}"
        await self.stripe.do("fund", amount=micros // 10_000)
        await self.books.fund_equity(name, 2 * micros, operator="ann")
        await self.books.top_up(name, micros)
        await self.books.fund_budget(name, Budget.BASE, micros, operators=("ann", "bob"))
        await self.books.reward(name, account_id, micros, budget=Budget.BASE)

    async def onboarded(self, **destination: Any) -> str:
        """Onboard the provider and let Stripe tell; returns Stripe's account id."""
        response = await self.payments.StartOnboarding(
            pb.StartOnboardingRequest(account_id=PROVIDER), timeout=30
        )
        name: str = response.account.stripe_account_id
        await self.stripe.do("onboard", account=name, **destination)
        await self.deliver()
        return name

    async def withdraw(
        self, micros: int = 5_000_000, name: str = "", method: int = 1
    ) -> pb.Withdrawal:
        """Withdraw earned money of the provider."""
        request = pb.CreateWithdrawalRequest(
            request_id=name or f"wd{next(_names)}",
            account_id=PROVIDER,
            amount_micros=micros,
            method=method,  # type: ignore[arg-type]  # an open enum
        )
        response = await self.payments.CreateWithdrawal(request, timeout=30)
        made: pb.Withdrawal = response.withdrawal
        return made

    def check(self) -> AssetCheck:
        """Return the daily comparison with Stripe's balance."""
        database = self.books.database
        client = Stripe(Secret(API_KEY), api_base=self.stripe.url, timeout_s=5)
        self.closing.push_async_callback(client.close)
        return AssetCheck(
            self.books,
            StripeAcquirer(client, success_url="http://localhost", cancel_url="http://localhost"),
            PostgresPayouts(database),
            PostgresEvents(database),
            self.clock,
            PaymentMeters(self.world.service.metrics),
        )

    async def latest(self) -> pb.Withdrawal:
        """Return the newest withdrawal."""
        response = await self.payments.ListWithdrawals(
            pb.ListWithdrawalsRequest(account_id=PROVIDER), timeout=30
        )
        made: pb.Withdrawal = response.withdrawals[0]
        return made


@asynccontextmanager
async def till(url: str, **settings: Any) -> AsyncIterator[Till]:
    """Run billing with a local Stripe whose clock is billing's."""
    clock = FakeClock(START)
    async with local_stripe(clock) as stripe, till_at(stripe, clock, url, **settings) as running:
        yield running


@asynccontextmanager
async def till_at(
    stripe: Control, clock: FakeClock, url: str, **settings: Any
) -> AsyncIterator[Till]:
    """Run billing with a local Stripe that is there already."""
    for source, secret in SECRETS.items():
        await stripe.do(
            "endpoint",
            url=f"http://test.invalid/{source}",
            secret=secret,
            connect=source == "accounts",
            events=["transfer.*"] if source == "transfers" else [],
        )
    configured = {
        "stripe_secret_key": Secret(API_KEY),
        "stripe_webhook_secret": Secret(SECRETS["payments"]),
        "stripe_connect_webhook_secret": Secret(SECRETS["transfers"]),
        "stripe_connect_accounts_webhook_secret": Secret(SECRETS["accounts"]),
        "stripe_api_base": stripe.url,
        "stripe_timeout_s": 20.0,
        "stripe_poll_s": 0.05,
        **settings,
    }
    async with world(url, clock=clock, **configured) as running:
        database = await open_database(url)
        async with AsyncExitStack() as closing:
            closing.push_async_callback(database.close)
            books = Books(database, clock)
            await running.people(0)
            yield Till(world=running, stripe=stripe, books=books, clock=clock, closing=closing)
