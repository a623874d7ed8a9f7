"""Money in: deposits, Stripe's fees, refunds."""

from typing import Any

from darkbloom_billing.books import plans
from darkbloom_billing.books.base import Base, deposit_of, own_wallets, require_amount
from darkbloom_billing.books.core import Also, Command, body_of
from darkbloom_billing.books.draft import Draft
from darkbloom_billing.books.model import (
    EXPENSE,
    PAYABLE,
    STRIPE,
    Budget,
    FeePayer,
    Json,
    Outcome,
    Plan,
    revenue,
)
from darkbloom_billing.errors import BudgetExhaustedError
from darkbloom_billing.store.database import Connection


class Deposits(Base):
    """Facts at Stripe about payments: always bookable."""

    async def check_deposit(self, fee_micros: int) -> None:
        """Refuse a deposit whose Stripe fee the platform should bear and cannot.

        Ask before money is taken; a payment that happened is booked in any case.

        Raises:
            BudgetExhaustedError: `budget:fees` has less.
        """
        available = await self.free(Budget.FEES.path)
        if available < fee_micros:
            raise BudgetExhaustedError.of(Budget.FEES.value, fee_micros, available)

    async def deposit(
        self,
        payment_id: str,
        account_id: str,
        amount_micros: int,
        *,
        fee_line_micros: int = 0,
        also: Also | None = None,
    ) -> Outcome:
        """Book a payment (key `stripe:<payment_id>`): debts first, the rest is purchased credit.

        Args:
            payment_id: One per payment, for example the checkout session's id.
            account_id: Whose.
            amount_micros: For the wallet.
            fee_line_micros: What the consumer paid beside it for Stripe's fee.
            also: Side rows.

        Returns:
            `credited`, `repaid`.
        """
        require_amount(amount_micros)
        require_amount(fee_line_micros, zero=True)
        accounts = [STRIPE, PAYABLE, revenue(payment_id), *own_wallets(account_id)]
        body: dict[str, Json] = {
            "account_id": account_id,
            "payment_id": payment_id,
            "amount": amount_micros,
            "fee_line": fee_line_micros,
        }

        def plan(d: Draft) -> Plan:
            return plans.deposit(d, account_id, payment_id, amount_micros, fee_line_micros)

        command = self.simple(f"stripe:{payment_id}", "deposit", body, accounts, plan)
        return await self.run(command, also)

    async def stripe_fee(
        self, fee_id: str, amount_micros: int, *, payer: FeePayer, also: Also | None = None
    ) -> Outcome:
        """Book a fee that Stripe took (key `stripe-fee:<fee_id>`); always possible.

        Returns:
            `from_budget`, `expense`.
        """
        require_amount(amount_micros)
        command = self.simple(
            f"stripe-fee:{fee_id}",
            "stripe_fee",
            {"amount": amount_micros, "payer": payer.value},
            [STRIPE, PAYABLE, EXPENSE, Budget.FEES.path],
            lambda d: plans.stripe_fee(d, amount_micros, payer),
        )
        return await self.run(command, also)

    async def stripe_fee_returned(
        self, fee_id: str, amount_micros: int, *, also: Also | None = None
    ) -> Outcome:
        """Book a fee that Stripe gave back (key `stripe-fee-return:<fee_id>`).

        Returns:
            `returned`.
        """
        require_amount(amount_micros)
        command = self.simple(
            f"stripe-fee-return:{fee_id}",
            "stripe_fee_returned",
            {"amount": amount_micros},
            [STRIPE, PAYABLE, EXPENSE, revenue(fee_id)],
            lambda d: plans.stripe_fee_returned(d, fee_id, amount_micros),
        )
        return await self.run(command, also)

    async def refund(
        self,
        refund_id: str,
        payment_id: str,
        amount_micros: int,
        *,
        fee_line_micros: int = 0,
        also: Also | None = None,
    ) -> Outcome:
        """Book money that Stripe paid back (key `refund:<refund_id>`); always possible.

        Args:
            refund_id: Stripe's.
            payment_id: Of the deposit.
            amount_micros: Out of the wallet; what is spent becomes debt.
            fee_line_micros: Out of the consumer's line for the fee.
            also: Side rows.

        Returns:
            `from_credit`, `debt` (all that is owed now).

        Raises:
            NotFoundError: No such deposit.
        """
        require_amount(amount_micros)
        require_amount(fee_line_micros, zero=True)

        async def account(connection: Connection) -> str:
            return str((await deposit_of(connection, payment_id))["account_id"])

        command = Command(
            key=f"refund:{refund_id}",
            kind="refund",
            body={"payment_id": payment_id, "amount": amount_micros, "fee_line": fee_line_micros},
            accounts=lambda who: [STRIPE, PAYABLE, EXPENSE, revenue(payment_id), *own_wallets(who)],
            facts=account,
            plan=lambda d, who: plans.refund(d, who, payment_id, amount_micros, fee_line_micros),
        )
        return await self.run(command, also)

    async def refund_failed(self, refund_id: str, *, also: Also | None = None) -> Outcome:
        """Book a refund that came back (key `refund-failed:<refund_id>`): all is as before.

        Raises:
            NotFoundError: No such refund.
        """

        async def refunded(connection: Connection) -> tuple[str, dict[str, Any]]:
            body = await body_of(connection, f"refund:{refund_id}", "refund")
            return (await deposit_of(connection, body["payment_id"]))["account_id"], body

        command = Command(
            key=f"refund-failed:{refund_id}",
            kind="refund_failed",
            body={},
            accounts=lambda f: [
                STRIPE,
                PAYABLE,
                revenue(f[1]["payment_id"]),
                *own_wallets(f[0]),
            ],
            facts=refunded,
            plan=lambda d, f: plans.refund_failed(
                d, f[0], f[1]["payment_id"], f[1]["amount"], f[1]["fee_line"]
            ),
        )
        return await self.run(command, also)
