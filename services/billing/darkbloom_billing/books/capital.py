"""The platform's own money: capital, budgets, what is owed to Stripe."""

from darkbloom_mesh.errors import ForbiddenError

from darkbloom_billing.books import plans
from darkbloom_billing.books.base import Base, require_amount
from darkbloom_billing.books.core import Also
from darkbloom_billing.books.model import (
    DISPUTED,
    EQUITY,
    OWNER,
    PAYABLE,
    STRIPE,
    Budget,
    Outcome,
    Source,
    StripePosition,
)


class Capital(Base):
    """What only operators and Stripe's balance move."""

    async def cover_payable(
        self, cover_id: str, amount_micros: int, *, source: Source, also: Also | None = None
    ) -> Outcome:
        """Pay what is owed to Stripe (key `cover:<cover_id>`).

        Returns:
            `payable` that is left.

        Raises:
            InsufficientFundsError: More than is owed, or than the source has.
        """
        require_amount(amount_micros)
        command = self.simple(
            f"cover:{cover_id}",
            "cover",
            {"amount": amount_micros, "source": source.value},
            [PAYABLE, source.path],
            lambda d: plans.cover_payable(d, amount_micros, source),
        )
        return await self.run(command, also)

    async def top_up(
        self, top_up_id: str, amount_micros: int, *, also: Also | None = None
    ) -> Outcome:
        """Book capital that the owner sent to Stripe (key `top-up:<id>`): it funds payouts.

        Returns:
            `asset`, `payable`.

        Raises:
            InsufficientFundsError: The owner's account has less.
        """
        require_amount(amount_micros)
        command = self.simple(
            f"top-up:{top_up_id}",
            "top_up",
            {"amount": amount_micros},
            [STRIPE, OWNER, PAYABLE],
            lambda d: plans.top_up(d, amount_micros),
        )
        return await self.run(command, also)

    async def fund_equity(
        self, funding_id: str, amount_micros: int, *, operator: str, also: Also | None = None
    ) -> Outcome:
        """Book capital that the owner paid in (key `equity:<funding_id>`); returns `equity`."""
        require_amount(amount_micros)
        command = self.simple(
            f"equity:{funding_id}",
            "fund_equity",
            {"amount": amount_micros, "operator": operator},
            [OWNER, EQUITY],
            lambda d: plans.fund_equity(d, amount_micros),
        )
        return await self.run(command, also)

    async def fund_budget(
        self,
        funding_id: str,
        budget: Budget,
        amount_micros: int,
        *,
        operators: tuple[str, str],
        also: Also | None = None,
    ) -> Outcome:
        """Give capital to a programme (key `budget:<funding_id>`); two people must want it.

        Returns:
            `budget`.

        Raises:
            ForbiddenError: Both operators are one.
            InsufficientFundsError: Equity has less.
        """
        require_amount(amount_micros)
        proposer, approver = operators
        if not proposer or not approver or proposer == approver:
            raise ForbiddenError("a budget needs two different operators")
        command = self.simple(
            f"budget:{funding_id}",
            "fund_budget",
            {
                "budget": budget.value,
                "amount": amount_micros,
                "proposer": proposer,
                "approver": approver,
            },
            [EQUITY, budget.path],
            lambda d: plans.fund_budget(d, budget, amount_micros),
        )
        return await self.run(command, also)

    async def stripe_position(self) -> StripePosition:
        """Return what the books say about Stripe."""
        row = await self.row(
            "SELECT max(dr - cr) FILTER (WHERE path = $1) AS asset, "
            "max(cr - dr) FILTER (WHERE path = $2) AS payable, "
            "max(dr - cr) FILTER (WHERE path = $3) AS disputed "
            "FROM ledger.account WHERE path IN ($1, $2, $3)",
            STRIPE,
            PAYABLE,
            DISPUTED,
        )
        return StripePosition(
            asset_micros=row["asset"],
            payable_micros=row["payable"],
            disputed_micros=row["disputed"],
        )

    async def note_stripe_balance(self, stripe_micros: int) -> int:
        """Keep what Stripe says it holds, beside the books; return Stripe's minus ours."""
        position = await self.stripe_position()
        await self.row(
            "INSERT INTO billing.stripe_balance VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            self.clock.now(),
            stripe_micros,
            position.balance_micros,
        )
        return stripe_micros - position.balance_micros

    async def budget(self, budget: Budget) -> int:
        """Return what a programme may still spend, in micro-USD."""
        return await self.free(budget.path)
